//! Enrolment strings, members' directories, and who may use which.

use std::{fs, thread, time::Duration};

use testkit::temp_dir;

use crate::{
    Case, SOON, check, program, text,
    world::{World, plane},
};

#[test]
fn strings() {
    let mut world = World::start("malformed-enrol");
    let dir = world.path("new");
    let daemon = |string: &str| {
        program(
            "myceliald",
            &["enrol", string, "--wait", "10", "--data-dir", text(&dir)],
        )
    };
    let home = world.path("new-operator");
    let operator = |string: &str| program("mycelial", &["--home", text(&home), "--timeout", "10", "init", string]);
    let good = world.plane_token("daemon", &[]);
    let for_operator = world.plane_token("operator", &[]);
    let changed = {
        let mut bytes = good.clone().into_bytes();
        bytes[40] = if bytes[40] == b'a' { b'b' } else { b'a' };
        String::from_utf8(bytes).unwrap()
    };
    let cut = &good[..good.len() - 7];
    let mistyped = ["was cut off or mistyped", "mycelial token create"];
    let prefix = ["an enrolment string starts with 'myc1'", "mycelial token create"];
    let mut cases = Vec::new();
    for (what, string, says) in [
        ("garbage", "hello", prefix),
        ("an empty string", "", prefix),
        ("only the beginning", "myc1", mistyped),
        ("a string cut off", cut, mistyped),
        ("a character changed", &changed, mistyped),
    ] {
        cases.push(Case::new(what, daemon(string), 2, &says));
        cases.push(Case::new(what, operator(string), 2, &says));
        let started = program("myceliald", &["start", "--enrol", string, "--data-dir", text(&dir)]);
        cases.push(Case::new(what, started, 2, &says));
    }
    cases.push(Case::new(
        "an operator's string for a daemon",
        daemon(&for_operator),
        2,
        &["this string enrols an operator, not a daemon", "mycelial token create"],
    ));
    cases.push(Case::new(
        "a daemon's string for an operator",
        operator(&good),
        2,
        &["this string enrols a daemon, not an operator", "myceliald enrol"],
    ));
    cases.push(Case::new(
        "a name that is none",
        program(
            "myceliald",
            &["enrol", &good, "--name", "Big Gateway", "--data-dir", text(&dir)],
        ),
        2,
        &["'Big Gateway' cannot be a daemon's name", "a-z"],
    ));
    let short = ["--ttl", "1"];
    let expired = [
        world.plane_token("daemon", &short),
        world.plane_token("operator", &short),
    ];
    thread::sleep(Duration::from_millis(1_500));
    let says = ["the plane refused", "expired", "mycelial token create"];
    cases.push(Case::new("an expired string", daemon(&expired[0]), 3, &says));
    cases.push(Case::new("an expired string", operator(&expired[1]), 3, &says));
    // Used once by somebody else.
    let member = world.path("member");
    program(
        "myceliald",
        &["enrol", &good, "--name", "first", "--data-dir", text(&member)],
    )
    .run(SOON)
    .ok();
    program(
        "mycelial",
        &[
            "--home",
            text(&world.path("other-operator")),
            "init",
            &for_operator,
            "--name",
            "other",
        ],
    )
    .run(SOON)
    .ok();
    let says = ["the plane refused", "used", "mycelial token create"];
    cases.push(Case::new("a used string", daemon(&good), 3, &says));
    cases.push(Case::new("a used string", operator(&for_operator), 3, &says));
    let taken = world.plane_token("daemon", &[]);
    cases.push(Case::new(
        "a name that is taken",
        program(
            "myceliald",
            &["enrol", &taken, "--name", "first", "--data-dir", text(&dir)],
        ),
        3,
        &[
            "the plane refused",
            "the name 'first' is taken by another daemon",
            "choose another",
        ],
    ));
    cases.push(Case::new(
        "a member already",
        program("myceliald", &["enrol", &taken, "--data-dir", text(&member)]),
        3,
        &["is a member of fleet", "choose another --data-dir"],
    ));
    cases.push(Case::new(
        "an operator already",
        program(
            "mycelial",
            &["--home", text(&world.path("operator")), "init", &for_operator],
        ),
        2,
        &["holds an operator of fleet", "choose another --home"],
    ));
    check(cases);

    // Another fleet at the same broker, whose plane does not run.
    let other = world.path("other-plane");
    program(
        "mycelial-plane",
        &["init", "--dir", text(&other), "--bus", &world.broker.url()],
    )
    .run(SOON)
    .ok();
    let foreign = program("mycelial-plane", &["token", "--dir", text(&other), "--role", "daemon"])
        .run(SOON)
        .ok();
    let foreign = foreign.trim();
    check(vec![
        Case::new(
            "a string of another fleet",
            program("myceliald", &["start", "--enrol", foreign, "--data-dir", text(&member)]),
            3,
            &[
                "the enrolment string is of fleet",
                "this daemon is a member of fleet",
                "another --data-dir",
            ],
        ),
        Case::new(
            "a plane that does not answer",
            daemon(foreign),
            3,
            &[
                "no answer from the plane in 10 s",
                "connected to",
                "is mycelial-plane running",
            ],
        ),
    ]);
    // Nothing at all at the end of the road.
    assert!(world.plane.term_and_wait(SOON).success());
    let string = world.plane_token("daemon", &[]);
    let for_operator = world.plane_token("operator", &[]);
    world.broker.kill9();
    check(vec![
        Case::new(
            "no broker",
            daemon(&string),
            3,
            &["no answer from the plane in 10 s", "refused"],
        ),
        Case::new(
            "no broker",
            operator(&for_operator),
            7,
            &["no answer from the plane in 10 s", "refused"],
        ),
        Case::new(
            "no broker for an operator",
            world.operator(&["--timeout", "2", "daemon", "list"]),
            7,
            &["cannot reach the bus at mqtt://", "mycelial doctor"],
        ),
    ]);
    // After all that, a good string still works.
    world.broker.start();
    world.plane = plane(world.dir.path());
    program(
        "myceliald",
        &["enrol", &string, "--name", "last", "--data-dir", text(&dir)],
    )
    .run(SOON)
    .ok();
}

#[test]
fn directories() {
    let mut world = World::start("malformed-home");
    let mut gateway = world.daemon("gateway");
    let (member, operator) = (world.path("gateway"), world.path("operator"));
    let (file, nowhere, empty) = (world.path("file"), world.path("nowhere"), temp_dir("malformed-empty"));
    fs::write(&file, "").unwrap();
    let inside = file.join("dir");
    let daemon = |dir: &std::path::Path| program("myceliald", &["start", "--data-dir", text(dir)]);
    let cli = |dir: &std::path::Path| program("mycelial", &["--home", text(dir), "daemon", "list"]);
    let no_operator = ["holds no operator yet", "mycelial init myc1", "--home DIR"];
    check(vec![
        Case::new(
            "not enrolled",
            daemon(empty.path()),
            3,
            &[
                "holds no member of a fleet yet",
                "myceliald enrol",
                "mycelial token create",
            ],
        ),
        Case::new(
            "a second daemon",
            daemon(&member),
            1,
            &["in use by another process", "choose another data directory"],
        ),
        Case::new(
            "a file instead of a directory",
            daemon(&file),
            1,
            &["cannot create", text(&file)],
        ),
        Case::new(
            "a directory below a file",
            daemon(&inside),
            1,
            &["cannot create", "Not a directory"],
        ),
        Case::new(
            "a directory nobody can write to",
            daemon("/proc/mycelial".as_ref()),
            1,
            &["cannot create /proc/mycelial"],
        ),
        Case::new(
            "an operator's directory",
            daemon(&operator),
            2,
            &["belongs to the fleet's operator", "another --data-dir"],
        ),
        Case::new("no operator", cli(&nowhere), 2, &no_operator),
        Case::new("no operator in a directory", cli(empty.path()), 2, &no_operator),
        Case::new(
            "no operator for the doctor",
            program("mycelial", &["--home", text(&nowhere), "doctor"]),
            2,
            &no_operator,
        ),
        Case::new(
            "no operator by default",
            program("mycelial", &["daemon", "list"]).env("HOME", text(empty.path())),
            2,
            &no_operator,
        ),
        Case::new(
            "a daemon's directory in use",
            cli(&member),
            1,
            &["in use by another process"],
        ),
        Case::new("a file instead of a home", cli(&file), 1, &["cannot", text(&file)]),
        Case::new(
            "nowhere to look",
            program("mycelial", &["daemon", "list"])
                .env_remove("HOME")
                .env_remove("APPDATA"),
            2,
            &["no home directory", "--home DIR"],
        ),
    ]);
    assert!(!nowhere.exists(), "a mistyped --home is not made");
    assert!(gateway.term_and_wait(SOON).success());
    let plane_dir = world.path("plane");
    assert!(world.plane.term_and_wait(SOON).success());
    check(vec![
        Case::new(
            "a daemon's directory",
            cli(&member),
            2,
            &["belongs to the daemon 'gateway'", "another --home"],
        ),
        Case::new(
            "the plane's directory",
            cli(&plane_dir),
            2,
            &["belongs to the plane", "another --home"],
        ),
        Case::new(
            "the plane's directory",
            daemon(&plane_dir),
            2,
            &["belongs to the fleet's plane", "another --data-dir"],
        ),
    ]);

    // Damage, file by file. Of what cannot be made again there is a copy: both have to be damaged.
    for (name, code, says) in [
        ("keys", 1, ["keys is damaged", "restore it from a backup"]),
        ("membership", 1, ["membership is damaged", "restore it from a backup"]),
    ] {
        let (path, copy) = (member.join(name), member.join(format!("{name}.copy")));
        let kept = fs::read(&path).unwrap();
        for (what, bytes) in [
            ("garbage", b"garbage".repeat(20)),
            ("nothing", Vec::new()),
            ("half", kept[..kept.len() / 2].to_vec()),
        ] {
            fs::write(&path, &bytes).unwrap();
            fs::write(&copy, bytes).unwrap();
            check(vec![Case::new(
                &format!("{name}: {what}"),
                daemon(&member),
                code,
                &says,
            )]);
        }
        fs::write(&path, &kept).unwrap();
        fs::write(&copy, kept).unwrap();
    }
    // What can be made again does not stop a daemon.
    world.plane = plane(world.dir.path());
    for name in ["epoch", "seen", "plan"] {
        fs::write(member.join(name), "garbage").unwrap();
    }
    let mut gateway = daemon(&member).spawn();
    gateway.wait_for_log("connected", SOON);
    gateway.wait_for_log("the cached plan is lost; the plane will send it again", SOON);
    testkit::wait_until("the daemon to be heard of again", SOON, || {
        world.cli(&["daemon", "list"]).ok().contains("online").then_some(())
    });
    assert!(gateway.term_and_wait(SOON).success());
}
