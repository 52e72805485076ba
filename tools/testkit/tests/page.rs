//! The web page in a real browser, in front of a real fleet: starts broker and plane, and lets the journeys in `ui/tests`
//! walk through the page. The journey asks for what happens to the fleet meanwhile (`stop hub`, `rows 500`) over a local port,
//! one wish a connection. Judges nothing itself but the exit code of node.

#![cfg(target_os = "linux")]

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use testkit::{Cmd, Postgres, Proc, Signal, browser, find_program, free_port, shop, temp_dir, wait_until};

const SOON: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);
/// How long a wish may take to arrive once its connection is open.
const READ: Duration = Duration::from_secs(10);
/// Between two looks at the journey.
const POLL: Duration = Duration::from_millis(10);

/// The fleet behind the page.
struct World {
    dir: PathBuf,
    http: String,
    running: HashMap<String, Proc>,
    /// Started when first asked for.
    postgres: Option<Postgres>,
}

impl World {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn start(&mut self, name: &str) {
        let home = self.path(name);
        let mut process = match name {
            "plane" => Cmd::bin("mycelial-plane").args(["run", "--dir", &home, "--http", &self.http]),
            "broker" => Cmd::bin("mycelial-broker").args(["--config", &self.path("plane/broker.toml")]),
            _ => Cmd::bin("myceliald").args(["start", "--data-dir", &home]),
        }
        .name(name)
        .spawn();
        match name {
            "plane" => process.wait_for_log("the plane is running", SOON),
            "broker" => process.wait_for_log("listening on", SOON),
            // The page shows when a daemon is there.
            _ => {}
        }
        self.running.insert(name.to_string(), process);
    }

    fn process(&mut self, name: &str) -> Result<&mut Proc, String> {
        self.running.get_mut(name).ok_or(format!("{name} does not run"))
    }

    fn postgres(&self) -> Result<&Postgres, String> {
        self.postgres.as_ref().ok_or("no PostgreSQL runs".into())
    }

    /// What a daemon that waits for approval shows.
    fn code_of(&mut self, name: &str) -> Result<String, String> {
        let waits = self.process(name)?;
        let line = "this daemon's code is ";
        waits.wait_for_log(line, SOON);
        let log = waits.log();
        let after = log.rsplit(line).next().and_then(|rest| rest.split_whitespace().next());
        after.map(str::to_string).ok_or(format!("no code in: {log}"))
    }

    fn plane(&self, command: &str) -> String {
        let plane = self.path("plane");
        Cmd::bin("mycelial-plane")
            .args([command, "--dir", &plane])
            .run(SOON)
            .ok()
    }

    /// Does what the journey wishes.
    fn grant(&mut self, wish: &str) -> Result<String, String> {
        let words: Vec<&str> = wish.split_whitespace().collect();
        match words[..] {
            ["start", name] => self.start(name),
            ["stop", name] => {
                let ended = self.process(name)?.term_and_wait(STOP);
                if !ended.success() {
                    return Err(format!("{name} ended with {ended}"));
                }
            }
            // It is there and says nothing: from outside, packets that vanish look the same.
            ["freeze", name] => self.process(name)?.signal(Signal::Stop),
            ["thaw", name] => self.process(name)?.signal(Signal::Cont),
            ["kill", name] => drop(self.process(name)?.kill9()),
            // Exactly what the page says to type, but for our directory.
            ["type", "myceliald", "enrol", string, ref rest @ ..] => {
                let name = rest.first().ok_or("the daemon has no directory")?;
                let home = self.path(name);
                Cmd::bin("myceliald")
                    .args(["enrol", string, "--data-dir", &home])
                    .run(SOON)
                    .ok();
            }
            // The same for a daemon that waits until somebody approves it.
            ["type", "myceliald", "start", "--enrol", string, name] => {
                // One that was turned away ends when it hears so.
                if let Some(before) = self.running.get_mut(name) {
                    wait_until("the daemon to end", SOON, || before.exit_status());
                }
                let home = self.path(name);
                let waits = Cmd::bin("myceliald")
                    .args(["start", "--enrol", string, "--data-dir", &home])
                    .name(name)
                    .spawn();
                self.running.insert(name.to_string(), waits);
            }
            ["code", name] => return self.code_of(name),
            ["type", "mycelial-plane", ref arguments @ ..] => {
                let done = Cmd::bin("mycelial-plane").args(arguments).dir(&self.dir).run(SOON);
                return Ok(done.ok());
            }
            ["login"] => return Ok(self.plane("login")),
            ["rows", count] => {
                let count = count.parse().map_err(|error| format!("{count}: {error}"))?;
                let path = self.dir.join("shop.db");
                let added = shop::create(&path).and_then(|()| shop::add(&path, count));
                added.map_err(|error| error.to_string())?;
            }
            // A database that somebody else writes.
            ["sqlite", name, ..] => {
                let statements = wish.trim_start().trim_start_matches("sqlite").trim_start();
                let statements = statements.strip_prefix(name).unwrap_or_default();
                let written = rusqlite::Connection::open(self.dir.join(name)).and_then(|database| {
                    database.busy_timeout(SOON)?;
                    database.execute_batch(statements)
                });
                written.map_err(|error| error.to_string())?;
            }
            // Simulated daemons, as many as an enrolment string lets in.
            ["crowd", count, string] => {
                let crowd = Cmd::bin("fleet-sim")
                    .args(["--daemons", count, string])
                    .stdout_to(self.dir.join("crowd.jsonl"))
                    .spawn();
                self.running.insert("crowd".into(), crowd);
            }
            ["path", name] => return Ok(self.path(name)),
            ["postgres"] => {
                let postgres = self.postgres.get_or_insert_with(Postgres::start);
                return Ok(postgres.port().to_string());
            }
            ["postgres", "away"] => self.postgres()?.kill9(),
            ["postgres", "back"] => self.postgres()?.start(),
            ["sql", ..] => {
                let query = wish.trim_start().trim_start_matches("sql");
                let answer = self.postgres()?.try_query_in("postgres", query.trim());
                return match answer.code() {
                    // psql ends a row with a control character here.
                    Some(0) => Ok(answer.stdout.trim_end_matches(char::is_control).to_string()),
                    _ => Err(answer.to_string()),
                };
            }
            _ => return Err(format!("nobody can do that: {wish}")),
        }
        Ok(String::new())
    }
}

/// Types a command of an operator.
fn operate(home: &str, arguments: &[&str]) -> Result<String, String> {
    let done = Cmd::bin("mycelial").args(["--home", home]).args(arguments).run(SOON);
    if done.code() == Some(0) {
        Ok(done.stdout)
    } else {
        Err(done.to_string())
    }
}

/// Hears one wish and grants it. Operators' commands run beside everything else: some go on for a while.
fn serve(world: &mut World, connection: TcpStream) -> std::io::Result<()> {
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(READ))?;
    let mut wish = String::new();
    BufReader::new(&connection).read_line(&mut wish)?;
    match wish
        .strip_prefix("type mycelial ")
        .or_else(|| wish.strip_prefix("cli "))
    {
        Some(command) => {
            let (home, command) = (world.path("operator"), command.to_string());
            thread::spawn(move || {
                let arguments: Vec<&str> = command.split_whitespace().collect();
                answer(&connection, operate(&home, &arguments))
            });
            Ok(())
        }
        None => answer(&connection, world.grant(&wish)),
    }
}

/// A line `ok` or `failed`, then what there is to say.
fn answer(mut connection: &TcpStream, result: Result<String, String>) -> std::io::Result<()> {
    let (verdict, text) = match result {
        Ok(text) => ("ok", text),
        Err(text) => ("failed", text),
    };
    write!(connection, "{verdict}\n{}", text.trim_end())
}

#[test]
fn a_journey_through_the_page() {
    walk("tests/journey.mjs", |_| {});
}

#[test]
fn a_journey_through_the_editor() {
    walk("tests/editor.mjs", |_| {});
}

#[test]
fn a_journey_among_records() {
    walk("tests/records.mjs", with_operator);
}

#[test]
fn a_journey_from_the_first_run_to_a_rollback() {
    walk("tests/whole.mjs", with_operator);
}

#[test]
fn a_journey_by_keyboard_alone() {
    walk("tests/keys.mjs", with_operator);
}

/// The plane holds an operator's keys, so that the page shows records.
fn with_operator(world: &World) {
    let path = world.path("plane/plane.toml");
    let settings = fs::read_to_string(&path).expect("init wrote it");
    fs::write(path, settings + "\n[web]\noperator = true\n").expect("a file can be written");
}

#[test]
fn a_thousand_daemons_and_two_hundred_nodes_stay_smooth() {
    walk("tests/smooth.mjs", |world| {
        let path = world.path("plane/broker.toml");
        let settings = fs::read_to_string(&path).expect("init wrote it");
        fs::write(path, format!("max_clients = 4_000\n{settings}")).expect("a file can be written");
    });
}

/// Lets a script walk through the page of a fleet of its own. `prepare` changes its settings before anything runs.
fn walk(script: &str, prepare: impl FnOnce(&World)) {
    browser::fetch();
    let temporary = temp_dir("page");
    let mut world = World {
        dir: temporary.path().to_path_buf(),
        // Always the same: the journey's page waits there while the plane is away.
        http: format!("127.0.0.1:{}", free_port()),
        running: HashMap::new(),
        postgres: None,
    };
    Cmd::bin("mycelial-plane")
        .args(["init", "--dir", &world.path("plane"), "--http", &world.http])
        .args(["--embedded", &format!("mqtt://127.0.0.1:{}", free_port())])
        .run(SOON)
        .ok();
    prepare(&world);
    world.start("broker");
    world.start("plane");
    let plane = world.process("plane").expect("it was started");
    let link = wait_until("the link the plane prints at its first start", SOON, || {
        let log = plane.log();
        let mut words = log.split_whitespace();
        words.find(|word| word.contains("/#/login/")).map(str::to_string)
    });

    let wishes = TcpListener::bind("127.0.0.1:0").expect("a port");
    let control = wishes.local_addr().expect("an address").to_string();
    wishes.set_nonblocking(true).expect("a socket like any other");
    let mut journey = Cmd::new(find_program("node", "nodejs"))
        .args(["--test", "--test-reporter=spec", script])
        .dir(browser::ui())
        .env("MYCELIAL_PAGE_LINK", link)
        .env("MYCELIAL_PAGE_CONTROL", control)
        .spawn();
    let ended = loop {
        // The exit is looked at first: all wishes have been made by then.
        let ended = journey.exit_status();
        match wishes.accept() {
            Ok((connection, _)) => serve(&mut world, connection).expect("the journey waits for its answer"),
            Err(_) if ended.is_some() => break ended,
            Err(_) => thread::sleep(POLL),
        }
    };
    let log = journey.log();
    assert!(
        ended.is_some_and(|status| status.success()),
        "the journey ended early:\n{log}"
    );
    println!("{log}");
}
