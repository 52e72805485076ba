//! The API's description in OpenAPI 3.1, out of the table. Only for tests: the description is checked in as
//! `plane/openapi.json`, and no program that users run carries the schemas it is made from.

use std::collections::BTreeSet;

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    problem::ProblemDetails,
    table::{BASE, Endpoint, Reply, Shape, endpoints},
};
use crate::permission::{Need, Reach};

/// The API's version. What breaks its users raises the first number.
pub const API_VERSION: &str = "1.1";

fn shape(shape: Shape, generator: &mut SchemaGenerator) -> Value {
    Value::from((shape.schema)(generator))
}

fn parameters(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Vec<Value> {
    let in_path = endpoint
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut all: Vec<Value> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if endpoint.is_conditional {
        for (name, about) in [
            (
                "If-Match",
                "The ETag of what this shall replace, or * for whatever is there. 428 without one of the two",
            ),
            ("If-None-Match", "* when there shall be nothing yet"),
        ] {
            let schema = json!({ "type": "string" });
            all.push(
                json!({ "name": name, "in": "header", "required": false, "schema": schema, "description": about }),
            );
        }
    }
    if let Some(query) = endpoint.query {
        // A query is the properties of a struct, one by one.
        let mut resolved = shape(query, generator);
        while let Some(name) = resolved["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            resolved = generator.definitions()[name].clone();
        }
        let required: BTreeSet<&str> = resolved["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, schema) in resolved["properties"].as_object().into_iter().flatten() {
            let mut schema = schema.clone();
            let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let required = required.contains(name.as_str());
            // What may be left out cannot be null: a query knows no null.
            if let Some(kinds) = schema.get_mut("type").filter(|kinds| kinds.is_array()) {
                let first = kinds[0].clone();
                *kinds = first;
            }
            let mut one = json!({ "name": name, "in": "query", "required": required, "schema": schema });
            if let Some(about) = about {
                one["description"] = about;
            }
            all.push(one);
        }
    }
    all
}

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let problem = "#/components/responses/Problem";
    let good = match endpoint.reply {
        Reply::Nothing => ("204", json!({ "description": "Done." })),
        Reply::Elsewhere => ("303", json!({ "description": "Go on at `location`, with a browser." })),
        Reply::Json(body) => {
            let schema = shape(body, generator);
            (
                "200",
                json!({ "description": "Done.", "content": { "application/json": { "schema": schema } } }),
            )
        }
        Reply::Events => {
            let content = json!({ "text/event-stream": { "schema": { "type": "string" } } });
            (
                "200",
                json!({ "description": "Events, until either side ends.", "content": content }),
            )
        }
    };
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": endpoint.summary,
        "x-permission": endpoint.need.word(),
    });
    if let Need::Rank(_, reach) = endpoint.need {
        operation["x-scope"] = match reach {
            Reach::Free => "free",
            Reach::Narrow => "narrowed",
            Reach::Whole => "whole fleet only",
        }
        .into();
    } else {
        operation["security"] = json!([]);
    }
    let parameters = parameters(endpoint, generator);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = endpoint.body {
        let schema = shape(body, generator);
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation["responses"] = json!({ good.0: good.1, "default": { "$ref": problem } });
    operation
}

fn operation_id(endpoint: &Endpoint) -> String {
    let words = endpoint.path.split(['/', '-']).filter(|part| !part.is_empty());
    let words = words.map(|part| part.trim_matches(['{', '}']));
    let mut id = endpoint.verb.word().to_lowercase();
    for word in words {
        id.push('_');
        id.push_str(word);
    }
    id
}

/// The document.
pub fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths = Map::new();
    for endpoint in &endpoints() {
        let operation = operation(endpoint, &mut generator);
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.verb.word().to_lowercase()] = operation;
    }
    let problem = Value::from(generator.subschema_for::<ProblemDetails<'_>>());
    let mut schemas: Map<String, Value> = generator.take_definitions(true);
    for schema in schemas.values_mut() {
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("$schema");
        }
    }
    schemas.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Mycelial plane",
            "version": API_VERSION,
            "description": "What the web page and scripts may ask of the plane. Made from the code: never edited by hand.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": BASE }],
        "security": [{ "session": [] }, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Problem": {
                    "description": "It did not work (RFC 9457).",
                    "content": { "application/problem+json": { "schema": problem } },
                },
            },
            "securitySchemes": {
                "session": { "type": "apiKey", "in": "cookie", "name": "mycelial-FLEET" },
                "token": { "type": "http", "scheme": "bearer" },
            },
        },
    })
}

/// What of `old` would not work any more with `new`, for those who use the API: what was answered is gone or is something
/// else, what was not needed is needed, what could be sent cannot.
pub fn breaking(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (path, verbs) in old["paths"].as_object().into_iter().flatten() {
        for (verb, before) in verbs.as_object().into_iter().flatten() {
            let place = format!("{} {path}", verb.to_uppercase());
            let after = &new["paths"][path.as_str()][verb.as_str()];
            if after.is_null() {
                found.push(format!("{place} is gone"));
                continue;
            }
            let (old, new) = (Side { document: old }, Side { document: new });
            for kind in ["200", "204"] {
                let (was, is) = (&before["responses"][kind], &after["responses"][kind]);
                if !was.is_null() && is.is_null() {
                    found.push(format!("{place} answers no {kind} any more"));
                }
                let json = |side: &Value| side["content"]["application/json"]["schema"].clone();
                answered(
                    &format!("{place} answer"),
                    (&old, json(was)),
                    (&new, json(is)),
                    &mut found,
                    0,
                );
            }
            let json = |side: &Value| side["requestBody"]["content"]["application/json"]["schema"].clone();
            taken(
                &format!("{place} body"),
                (&old, json(before)),
                (&new, json(after)),
                &mut found,
                0,
            );
            queried(&place, before, after, &mut found);
        }
    }
    found
}

struct Side<'a> {
    document: &'a Value,
}

impl Side<'_> {
    fn resolved(&self, schema: Value) -> Value {
        match schema["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
            Some(path) => self.document.pointer(path).cloned().unwrap_or_default(),
            None => schema,
        }
    }
}

/// How deep schemas are compared: they may contain themselves.
const DEPTH_MAX: usize = 8;

fn names(schema: &Value, key: &str) -> BTreeSet<String> {
    let list = schema[key].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_string).collect()
}

fn types(schema: &Value) -> BTreeSet<String> {
    match &schema["type"] {
        Value::String(one) => [one.clone()].into(),
        _ => names(schema, "type"),
    }
}

/// What is answered keeps every property it always had, of the same type.
fn answered(place: &str, old: (&Side<'_>, Value), new: (&Side<'_>, Value), found: &mut Vec<String>, depth: usize) {
    if depth > DEPTH_MAX || old.1.is_null() {
        return;
    }
    let (was, is) = (old.0.resolved(old.1), new.0.resolved(new.1));
    if was["type"] != is["type"] {
        found.push(format!("{place} was {}, is {}", was["type"], is["type"]));
        return;
    }
    let required = names(&is, "required");
    for name in names(&was, "required").difference(&required) {
        found.push(format!("{place}.{name} may be missing"));
    }
    for (name, schema) in was["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        match is["properties"].get(name) {
            None => found.push(format!("{place} is gone")),
            Some(after) => answered(
                &place,
                (old.0, schema.clone()),
                (new.0, after.clone()),
                found,
                depth + 1,
            ),
        }
    }
    if was["items"].is_object() {
        let (was, is) = (was["items"].clone(), is["items"].clone());
        answered(&format!("{place}[]"), (old.0, was), (new.0, is), found, depth + 1);
    }
}

/// What can be sent can still be sent, and nothing more is needed.
fn taken(place: &str, old: (&Side<'_>, Value), new: (&Side<'_>, Value), found: &mut Vec<String>, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    if old.1.is_null() {
        if !new.1.is_null() {
            found.push(format!("{place} is needed now"));
        }
        return;
    }
    let (was, is) = (old.0.resolved(old.1), new.0.resolved(new.1));
    // More may be sent than before, such as null; not less.
    if !types(&was).is_subset(&types(&is)) {
        found.push(format!("{place} was {}, is {}", was["type"], is["type"]));
        return;
    }
    for name in names(&is, "required").difference(&names(&was, "required")) {
        found.push(format!("{place}.{name} is needed now"));
    }
    for value in names(&was, "enum").difference(&names(&is, "enum")) {
        found.push(format!("{place} takes no \"{value}\" any more"));
    }
    for (name, schema) in was["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        match is["properties"].get(name) {
            None => found.push(format!("{place} cannot be sent any more")),
            Some(after) => taken(
                &place,
                (old.0, schema.clone()),
                (new.0, after.clone()),
                found,
                depth + 1,
            ),
        }
    }
}

fn queried(place: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    let parameters = |side: &Value| side["parameters"].as_array().cloned().unwrap_or_default();
    let (was, is) = (parameters(before), parameters(after));
    for old in &was {
        if !is.iter().any(|new| new["name"] == old["name"]) {
            found.push(format!("{place} takes no {} any more", old["name"]));
        }
    }
    for new in is.iter().filter(|new| new["required"] == true) {
        let before = was.iter().find(|old| old["name"] == new["name"]);
        if before.is_none_or(|old| old["required"] != true) {
            found.push(format!("{place} needs {} now", new["name"]));
        }
    }
}
