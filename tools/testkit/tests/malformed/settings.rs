//! `config.toml`, `plane.toml` and `broker.toml`.

use std::fs;

use testkit::{free_port, temp_dir};

use crate::{Case, SOON, check, program, text};

/// What stands in the file, and what is said about it; `:2:` stands for the file and its line.
type Table<'a> = &'a [(&'a str, &'a [&'a str])];

const DAEMON: Table<'_> = &[
    (
        "name = 'gw'\n[bus]\naddreses = ['mqtt://a']",
        &[":3:", "unknown field `addreses`", "did you mean `addresses`?"],
    ),
    (
        "data_dri = '/x'",
        &[":1:", "unknown field `data_dri`", "did you mean `data_dir`?"],
    ),
    (
        "data_dir = 5",
        &[":1: data_dir: invalid type: integer `5`, expected a path"],
    ),
    (
        "[log]\nformat = 'text'\nlevel = 5",
        &[":3: log.level: invalid type: integer `5`, expected a string"],
    ),
    (
        "bus = 5",
        &[":1: bus: invalid type: integer `5`, expected a section of keys"],
    ),
    (
        "[bus]\naddresses = 'mqtt://a'",
        &[":2: bus.addresses: invalid type", "expected a list"],
    ),
    ("name = 'gw", &[":1:", "invalid literal string"]),
    ("name = 'a'\nname = 'b'", &[":2:", "duplicate key"]),
    ("\n\nthese are not settings", &[":3:"]),
    (
        "[bus]\naddresses = ['http://a']",
        &[":2: bus.addresses", "http", "mqtt", "nats"],
    ),
    (
        "[bus]\naddresses = ['127.0.0.1']",
        &[":2: bus.addresses", "has no scheme"],
    ),
    (
        "[bus]\nuser = 'x'",
        &[":2: bus.user and bus.password_file belong together: set both or neither"],
    ),
    (
        "[log]\nformat = 'jsn'",
        &[":2: log.format: unknown variant `jsn`", "did you mean `json`?"],
    ),
    ("[log]\nlevel = 'inof'", &[":2: log.level", "did you mean 'info'?"]),
    (
        "name = 'Big Gateway'",
        &[":1: name: 'Big Gateway'", "hint: use 1 to 32 of a-z"],
    ),
];

const PLANE: Table<'_> = &[
    (
        "http = '127.0.0.1:1'\n[bus]\naddreses = ['mqtt://a']",
        &[":3:", "unknown field `addreses`", "did you mean `addresses`?"],
    ),
    ("http = 5", &[":1: http: invalid type: integer `5`, expected a string"]),
    ("[bus", &[":1:", "unclosed table"]),
    ("http = '127.0.0.1:1'", &["bus.addresses: name at least one broker"]),
    (
        "http = 'localhost'\n[bus]\naddresses = ['mqtt://a']",
        &[":1: http: 'localhost' is not an address and a port"],
    ),
    (
        "[bus]\naddresses = ['ftp://a']",
        &[":2: bus.addresses", "ftp", "mqtt", "nats"],
    ),
    (
        "[bus]\naddresses = ['mqtt://a']\n[log]\nformat = 'jsn'",
        &[":4:", "did you mean `json`?"],
    ),
];

/// What is added to a broker.toml that is good.
const BROKER: Table<'_> = &[
    (
        "max_client = 5",
        &["unknown field `max_client`", "did you mean `max_clients`?"],
    ),
    ("max_clients = 'many'", &["max_clients", "invalid type"]),
    ("max_clients = 0", &["max_clients: 0 is not between 1 and"]),
    ("listen = 'localhost'", &["'localhost' is not an address and a port"]),
    ("listen", &["broker.toml:"]),
];

#[test]
fn of_a_daemon() {
    let dir = temp_dir("malformed-daemon");
    let file = dir.path().join("config.toml");
    let run = |command: &str| program("myceliald", &["--config", text(&file), command]);
    for (content, says) in DAEMON {
        fs::write(&file, content).unwrap();
        let says: Vec<String> = says
            .iter()
            .map(|part| part.replacen(":", &format!("{}:", file.display()), usize::from(part.starts_with(':'))))
            .collect();
        let says: Vec<&str> = says.iter().map(String::as_str).collect();
        check(vec![
            Case::new(content, run("check"), 2, &says),
            Case::new(content, run("start"), 2, &says),
        ]);
    }
    fs::write(&file, b"name = 'gw'\n[log]\nlevel = '\xff'").unwrap();
    let nowhere = dir.path().join("nowhere.toml");
    check(vec![
        Case::new(
            "bytes that are no text",
            run("check"),
            2,
            &["config.toml:3: the file is not UTF-8 text", "save it as UTF-8"],
        ),
        Case::new(
            "a file that is not there",
            program("myceliald", &["--config", text(&nowhere), "check"]),
            2,
            &[text(&nowhere), "cannot read the file: No such file"],
        ),
        Case::new(
            "a directory",
            program("myceliald", &["--config", text(dir.path()), "check"]),
            2,
            &[text(dir.path()), "cannot read the file: Is a directory"],
        ),
        Case::new(
            "an option that is not there",
            program("myceliald", &["start", "--dta-dir", "/x"]),
            2,
            &["unexpected argument '--dta-dir'", "--data-dir"],
        ),
    ]);
    fs::write(&file, "name = 'gw'\n").unwrap();
    assert_eq!(run("check").run(SOON).ok(), "the settings are good\n");
}

#[test]
fn of_a_plane() {
    let dir = temp_dir("malformed-plane");
    let file = dir.path().join("plane.toml");
    let run = || {
        program(
            "mycelial-plane",
            &["run", "--dir", text(dir.path()), "--http", "127.0.0.1:0"],
        )
    };
    for (content, says) in PLANE {
        fs::write(&file, content).unwrap();
        let mut says = says.to_vec();
        says.push("plane.toml");
        check(vec![Case::new(content, run(), 2, &says)]);
    }
    fs::write(&file, b"\xfe\xff").unwrap();
    let nowhere = dir.path().join("nowhere");
    check(vec![
        Case::new(
            "bytes that are no text",
            run(),
            2,
            &["plane.toml:1: the file is not UTF-8 text"],
        ),
        Case::new(
            "no plane to log in at",
            program("mycelial-plane", &["login", "--dir", text(&nowhere)]),
            2,
            &["holds no plane", "make one with: mycelial-plane run --dir"],
        ),
        Case::new(
            "an address without a scheme",
            program(
                "mycelial-plane",
                &["init", "--dir", text(&nowhere), "--bus", "localhost:4222"],
            ),
            2,
            &["--bus: 'localhost:4222' has no scheme"],
        ),
        Case::new(
            "a name that is none",
            program("mycelial-plane", &["token", "--dir", text(&nowhere), "--role", "king"]),
            2,
            &["invalid value 'king'", "daemon, operator"],
        ),
    ]);
    assert!(!nowhere.exists(), "a mistake makes nothing");
}

#[test]
fn a_port_that_is_taken() {
    let dir = temp_dir("malformed-port");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap().to_string();
    let plane = dir.path().join("plane");
    let url = format!("mqtt://{http}");
    program("mycelial-plane", &["init", "--dir", text(&plane), "--embedded", &url])
        .run(SOON)
        .ok();
    let config = plane.join("broker.toml");
    check(vec![
        Case::new(
            "the plane's web page",
            program("mycelial-plane", &["run", "--dir", text(&plane), "--http", &http]),
            2,
            &[&http, "in use", "choose another port", "--http"],
        ),
        Case::new(
            "the broker",
            program("mycelial-broker", &["--config", text(&config)]),
            2,
            &[&http, "the port is taken", "choose another port in `listen`"],
        ),
    ]);
}

#[test]
fn of_a_broker() {
    let dir = temp_dir("malformed-broker");
    let url = format!("mqtt://127.0.0.1:{}", free_port());
    program(
        "mycelial-plane",
        &["init", "--dir", text(dir.path()), "--embedded", &url],
    )
    .run(SOON)
    .ok();
    let file = dir.path().join("broker.toml");
    let good = fs::read_to_string(&file).unwrap();
    let run = || program("mycelial-broker", &["--config", text(&file)]);
    for (line, says) in BROKER {
        let key = line.split([' ', '=']).next().unwrap();
        let others: Vec<&str> = good
            .lines()
            .filter(|line| !line.starts_with(&format!("{key} ")))
            .collect();
        fs::write(&file, format!("{line}\n{}\n", others.join("\n"))).unwrap();
        let mut says = says.to_vec();
        says.push("broker.toml:1: ");
        check(vec![Case::new(line, run(), 2, &says)]);
    }
    fs::write(&file, &good).unwrap();
    let secret = dir.path().join("broker.secret");
    let kept = fs::read(&secret).unwrap();
    fs::write(&secret, "hello").unwrap();
    check(vec![Case::new(
        "no secret",
        run(),
        2,
        &["broker.secret", "this is not a broker's secret", "mycelial-plane init"],
    )]);
    fs::remove_file(&secret).unwrap();
    let nowhere = dir.path().join("nowhere.toml");
    check(vec![
        Case::new(
            "a secret that is not there",
            run(),
            2,
            &["broker.secret", "cannot read the broker's secret"],
        ),
        Case::new(
            "a file that is not there",
            program("mycelial-broker", &["--config", text(&nowhere)]),
            2,
            &[
                "nowhere.toml: cannot read the configuration",
                "hint: `mycelial-plane init` writes one",
            ],
        ),
    ]);
    fs::write(&secret, kept).unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    check(vec![Case::new(
        "a secret for all to read",
        run(),
        2,
        &["others can read", "chmod 600"],
    )]);
}
