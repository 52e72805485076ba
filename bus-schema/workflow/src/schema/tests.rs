//! Configs as components declare them, texts as users write them, and what the users are told.

use std::collections::BTreeMap;

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;

use super::*;

/// Everything a component's config may hold.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct Config {
    /// Where the file is. Relative to the daemon's directory.
    path: String,
    #[serde(default)]
    port: u16,
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 500))]
    rows: u32,
    offset: Option<i64>,
    #[serde(default)]
    ratio: f64,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    columns: Vec<Column>,
    #[serde(default)]
    #[schemars(length(min = 1, max = 3))]
    tags: Vec<String>,
    format: Option<Format>,
    #[serde(default)]
    level: Level,
    password: Option<Secret>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    start: Option<Start>,
    #[schemars(length(min = 1))]
    title: Option<String>,
    pair: Option<(String, u8)>,
}

fn ten() -> u32 {
    10
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct Column {
    /// The column's name.
    name: String,
    #[serde(default)]
    key: bool,
}

/// Words, each with its own meaning.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
enum Format {
    /// One JSON value a line.
    JsonLines,
    /// Comma-separated.
    Csv,
}

/// Plain words.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
enum Level {
    #[default]
    Info,
    Warn,
}

/// Text, or one of two tables.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum Secret {
    Plain(String),
    Env(FromEnv),
    File(FromFile),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct FromEnv {
    env: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct FromFile {
    file: String,
}

/// Told apart by a key.
#[derive(Deserialize, JsonSchema)]
#[serde(tag = "at", rename_all = "snake_case", deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
enum Start {
    Beginning,
    Line { line: u64 },
}

/// Told apart by their only key.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "only its schema is used")]
enum Auth {
    None,
    Token(String),
    Basic { user: String },
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct Other {
    auth: Option<Auth>,
    #[serde(flatten)]
    column: Column,
    own: u8,
}

fn table(toml: &str) -> Map<String, Value> {
    match toml::from_str(toml).unwrap() {
        Value::Object(table) => table,
        _ => unreachable!("a TOML text is a table"),
    }
}

fn told(schema: &Value, toml: &str) -> Vec<String> {
    let place = Place::root().key("x");
    let findings = check(schema, &table(toml), &place, &["type", "daemon"]).unwrap();
    let one = |found: Finding| {
        let hint = if found.hint.is_empty() {
            String::new()
        } else {
            format!(" | {}", found.hint)
        };
        format!("{}: {}{hint}", found.place, found.message)
    };
    findings.into_iter().map(one).collect()
}

#[test]
fn configs_are_checked_in_words_of_their_writers() {
    let schema = schema_for!(Config).to_value();
    for (toml, expected) in [
        ("path = 'a'", &[][..]),
        ("", &["x: 'path' is missing | add it: text. Where the file is"]),
        (
            "path = 'a'\nprot = 5",
            &["x.prot: unknown key 'prot' | did you mean 'port'?"],
        ),
        (
            "path = 'a'\ndeamon = 'hub'",
            &["x.deamon: unknown key 'deamon' | did you mean 'daemon'?"],
        ),
        ("path = ['a']", &["x.path: 'path' must be text, not a list"]),
        (
            "path = true",
            &["x.path: 'path' must be text, not true | put it in quotes"],
        ),
        ("path = 'a'\nport = 65535", &[]),
        (
            "path = 'a'\nport = 65536",
            &["x.port: 'port' must be between 0 and 65535, not 65536"],
        ),
        (
            "path = 'a'\nport = -1",
            &["x.port: 'port' must be between 0 and 65535, not -1"],
        ),
        (
            "path = 'a'\nport = '80'",
            &["x.port: 'port' must be a whole number, not text | remove the quotes"],
        ),
        (
            "path = 'a'\nport = 80.0",
            &["x.port: 'port' must be a whole number, not the number 80.0 | remove the decimal point"],
        ),
        (
            "path = 'a'\nport = 80.5",
            &["x.port: 'port' must be a whole number, not the number 80.5"],
        ),
        (
            "path = 'a'\nrows = 0",
            &["x.rows: 'rows' must be between 1 and 500, not 0"],
        ),
        ("path = 'a'\noffset = -9223372036854775808", &[]),
        (
            "path = 'a'\noffset = 'x'",
            &["x.offset: 'offset' must be a whole number, not text"],
        ),
        ("path = 'a'\nratio = 1", &[]),
        ("path = 'a'\nratio = 1.5", &[]),
        (
            "path = 'a'\nratio = '1.5'",
            &["x.ratio: 'ratio' must be a number, not text | remove the quotes"],
        ),
        (
            "path = 'a'\nfollow = 'true'",
            &["x.follow: 'follow' must be true or false, not text | remove the quotes"],
        ),
        (
            "path = 'a'\nfollow = 1",
            &["x.follow: 'follow' must be true or false, not the number 1"],
        ),
        ("path = 'a'\ncolumns = [{ name = 'a', key = true }]", &[]),
        (
            "path = 'a'\ncolumns = 'a'",
            &["x.columns: 'columns' must be a list, not text | put it in square brackets"],
        ),
        (
            "path = 'a'\ncolumns = [{ name = 'a' }, { nme = 'b' }, 5]",
            &[
                "x.columns[1].nme: unknown key 'nme' | did you mean 'name'?",
                "x.columns[1]: 'name' is missing | add it: text. The column's name",
                "x.columns[2]: 'columns[2]' must be a table with 'name', not the number 5",
            ],
        ),
        ("path = 'a'\ntags = []", &["x.tags: 'tags' must not be empty"]),
        (
            "path = 'a'\ntags = ['a', 'b', 'c', 'd']",
            &["x.tags: 'tags' must have at most 3 items, not 4"],
        ),
        ("path = 'a'\ntitle = ''", &["x.title: 'title' must not be empty"]),
        ("path = 'a'\nformat = 'csv'", &[]),
        (
            "path = 'a'\nformat = 'cvs'",
            &["x.format: 'format' must be 'json_lines' or 'csv', not 'cvs' | did you mean 'csv'?"],
        ),
        (
            "path = 'a'\nformat = 5",
            &["x.format: 'format' must be 'json_lines' or 'csv', not the number 5"],
        ),
        (
            "path = 'a'\nlevel = 'debug'",
            &["x.level: 'level' must be 'info' or 'warn', not 'debug'"],
        ),
        ("path = 'a'\npassword = 'secret'", &[]),
        ("path = 'a'\npassword = { env = 'PW' }", &[]),
        ("path = 'a'\npassword = { file = 'pw' }", &[]),
        (
            "path = 'a'\npassword = { file = 5 }",
            &["x.password.file: 'file' must be text, not the number 5 | put it in quotes"],
        ),
        (
            "path = 'a'\npassword = { evn = 'PW' }",
            &["x.password.evn: unknown key 'evn' | did you mean 'env'?"],
        ),
        (
            "path = 'a'\npassword = { vault = 'PW' }",
            &["x.password.vault: unknown key 'vault' | write one of 'env' or 'file'"],
        ),
        (
            "path = 'a'\npassword = {}",
            &["x.password: 'password' is an empty table | write one of 'env' or 'file'"],
        ),
        (
            "path = 'a'\npassword = 5",
            &["x.password: 'password' must be text, a table with 'env' or a table with 'file', not the number 5"],
        ),
        ("path = 'a'\nheaders = { a = 'b', 'c-d' = 'e' }", &[]),
        (
            "path = 'a'\nheaders = { 'c d' = 5 }",
            &["x.headers.\"c d\": 'c d' must be text, not the number 5 | put it in quotes"],
        ),
        ("path = 'a'\nstart = { at = 'beginning' }", &[]),
        ("path = 'a'\nstart = { at = 'line', line = 5 }", &[]),
        (
            "path = 'a'\nstart = { at = 'line' }",
            &["x.start: 'line' is missing | add it: a whole number"],
        ),
        (
            "path = 'a'\nstart = { at = 'begining' }",
            &["x.start.at: 'at' must be 'beginning' or 'line', not 'begining' | did you mean 'beginning'?"],
        ),
        (
            "path = 'a'\nstart = { line = 5 }",
            &["x.start: 'at' is missing | it must be 'beginning' or 'line'"],
        ),
        (
            "path = 'a'\nstart = 'now'",
            &["x.start: 'start' must be a table with 'at' or a table with 'at' and 'line', not text"],
        ),
        ("path = 'a'\npair = ['a', 1]", &[]),
        (
            "path = 'a'\npair = ['a', 'b']",
            &["x.pair[1]: 'pair[1]' must be a whole number, not text"],
        ),
        (
            "path = 'a'\npair = ['a']",
            &["x.pair: 'pair' must have at least 2 items, not 1"],
        ),
    ] {
        assert_eq!(told(&schema, toml), expected, "{toml}");
    }
}

#[test]
fn enums_with_contents_and_flattened_tables() {
    let schema = schema_for!(Other).to_value();
    for (toml, expected) in [
        ("own = 1\nname = 'a'", &[][..]),
        ("own = 1\nname = 'a'\nauth = 'none'", &[]),
        ("own = 1\nname = 'a'\nauth = { token = 'x' }", &[]),
        ("own = 1\nname = 'a'\nauth = { basic = { user = 'x' } }", &[]),
        (
            "own = 1\nname = 'a'\nauth = { basic = { usr = 'x' } }",
            &["x.auth.basic: 'user' is missing | add it: text"],
        ),
        (
            "own = 1\nname = 'a'\nauth = { tokn = 'x' }",
            &["x.auth.tokn: unknown key 'tokn' | did you mean 'token'?"],
        ),
        (
            "own = 1\nname = 'a'\nauth = 'none '",
            &["x.auth: 'auth' must be 'none', not 'none ' | did you mean 'none'?"],
        ),
        (
            "own = 1\nname = 'a'\nowm = 2",
            &["x.owm: unknown key 'owm' | did you mean 'own'?"],
        ),
        ("own = 1", &["x: 'name' is missing | add it: text. The column's name"]),
    ] {
        assert_eq!(told(&schema, toml), expected, "{toml}\n{schema}");
    }
}

#[test]
fn schemas_cannot_hang_or_break_the_checker() {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let round = parse(r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}}"##);
    let wide = parse(
        r##"{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"},{"type":"array"}]}}}"##,
    );
    for schema in [&round, &wide] {
        assert_eq!(check(schema, &table("a = 1"), &Place::root(), &[]), Err(TooComplex));
    }
    let nowhere = parse(r##"{"$ref":"#/$defs/missing"}"##);
    assert_eq!(check(&nowhere, &table("a = 1"), &Place::root(), &[]), Ok(Vec::new()));
    for odd in [
        "true",
        "{}",
        "5",
        "[]",
        r#"{"type":5,"properties":[],"required":{},"enum":3,"anyOf":1}"#,
    ] {
        assert_eq!(
            check(&parse(odd), &table("a = 1"), &Place::root(), &[]),
            Ok(Vec::new()),
            "{odd}"
        );
    }
    assert_eq!(
        check(&parse("false"), &table(""), &Place::root().key("x"), &[])
            .unwrap()
            .len(),
        1
    );
}
