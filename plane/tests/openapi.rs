//! The checked-in description of the API is what the code says, and nothing in it breaks those who use it.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::path::Path;

use plane::http::openapi::{API_VERSION, breaking, document};
use serde_json::{Value, json};

fn major(version: &str) -> u32 {
    version
        .split('.')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// `UPDATE=1` writes it anew, unless that would break somebody.
#[test]
fn it_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let now = document();
    let text = format!("{}\n", serde_json::to_string_pretty(&now).unwrap());
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    if let Ok(before) = serde_json::from_str::<Value>(&checked_in)
        && major(API_VERSION) <= major(before["info"]["version"].as_str().unwrap_or_default())
    {
        let broken = breaking(&before, &now);
        assert!(
            broken.is_empty(),
            "this breaks those who use the API; keep it as it was, or raise API_VERSION (what was never merged can be taken \
             back first: git checkout main -- plane/openapi.json):\n{}",
            broken.join("\n")
        );
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    } else {
        assert!(
            checked_in == text,
            "plane/openapi.json is not what the code says; make it anew: UPDATE=1 cargo nextest run -p plane -E 'binary(openapi)'"
        );
    }
}

#[test]
fn what_breaks_somebody() {
    let whole = |answer: Value, body: Value, parameters: Value| {
        json!({ "paths": { "/a": { "put": {
            "parameters": parameters,
            "requestBody": { "content": { "application/json": { "schema": body } } },
            "responses": { "200": { "content": { "application/json": { "schema": answer } } } },
        } } } })
    };
    let object = |properties: Value, required: Value| json!({ "type": "object", "properties": properties, "required": required });
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer" });
    let one = object(json!({ "x": text }), json!(["x"]));
    let two = object(json!({ "x": text, "y": text }), json!(["x"]));
    let base = whole(one.clone(), one.clone(), json!([]));
    for (new, expected) in [
        (
            whole(two.clone(), two.clone(), json!([{ "name": "q", "required": false }])),
            "",
        ),
        (
            whole(
                one.clone(),
                object(json!({ "x": { "type": ["string", "null"] } }), json!([])),
                json!([]),
            ),
            "",
        ),
        (
            whole(one.clone(), object(json!({ "x": number }), json!(["x"])), json!([])),
            "body.x was",
        ),
        (json!({ "paths": {} }), "PUT /a is gone"),
        (
            whole(object(json!({}), json!([])), one.clone(), json!([])),
            "answer.x is gone",
        ),
        (
            whole(object(json!({ "x": text }), json!([])), one.clone(), json!([])),
            "answer.x may be missing",
        ),
        (
            whole(object(json!({ "x": number }), json!(["x"])), one.clone(), json!([])),
            "answer.x was \"string\"",
        ),
        (
            whole(one.clone(), object(json!({}), json!([])), json!([])),
            "body.x cannot be sent",
        ),
        (
            whole(
                one.clone(),
                object(json!({ "x": text, "y": text }), json!(["x", "y"])),
                json!([]),
            ),
            "body.y is needed now",
        ),
        (
            whole(one.clone(), one.clone(), json!([{ "name": "q", "required": true }])),
            "needs \"q\" now",
        ),
    ] {
        let found = breaking(&base, &new).join("; ");
        assert!(
            found.contains(expected) && found.is_empty() == expected.is_empty(),
            "{expected}: {found}"
        );
    }
    assert!(breaking(&base, &base).is_empty());
}
