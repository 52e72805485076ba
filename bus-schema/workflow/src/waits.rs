//! Sources that let their sender wait until its records are durable, directly before destinations that gather for longer: each
//! sender would be sent away, and come with the same records again. Says where that has to happen. Knows no stream: behind one
//! nobody waits.
//!
//! Both say so in their schemas. `"x-waits": {"answer_ms": "/answer_ms_max", "default": 30000, "bytes": "/body_bytes_max",
//! "default_bytes": 4194304}`: how long a sender waits at most, and how much may be waited for at once, at least the default.
//! `"x-gathers": {"age_s": "/max_age_s", "default": 300, "bytes": "/max_bytes", "default_bytes": 16000000, "when": {"format":
//! "parquet"}}`: after how long, or with how much, what is gathered becomes durable; with `when` only where the config says this.
//! Figures stand in the config where the pointers lead, or are the default.

use bus_schema::{
    api::Problem,
    plan::{Action, PlanNode, Root},
};
use serde_json::{Map, Value};

use crate::{
    compile::Compiled,
    fleet::{Daemon, Fleet},
    spec::Spec,
    words::clip,
};

/// The words in the schemas.
const WAITS: &str = "x-waits";
const GATHERS: &str = "x-gathers";

/// What cannot work of a workflow that is cut.
pub(crate) fn check(spec: &Spec, fleet: &Fleet, compiled: &Compiled) -> Vec<Problem> {
    let mut problems = Vec::new();
    for part in &compiled.parts {
        let Some(site) = fleet.site(&part.daemon) else { continue };
        let node = |index: u16| part.workflow.nodes.get(usize::from(index));
        for pipe in &part.workflow.pipes {
            let Root::Source(source) = pipe.root else { continue };
            for step in &pipe.steps {
                if let Action::Sink(sink) = step.action
                    && let (Some(source), Some(sink)) = (node(source), node(sink))
                {
                    problems.extend(misfit(spec, site.daemon, source, sink));
                }
            }
        }
    }
    problems
}

fn misfit(spec: &Spec, daemon: &Daemon, source: &PlanNode, sink: &PlanNode) -> Option<Problem> {
    let (waits, asked) = (mark(daemon, source, WAITS)?, config(source)?);
    let (gathers, given) = (mark(daemon, sink, GATHERS)?, config(sink)?);
    let when = gathers.get("when").and_then(Value::as_object);
    if when.is_some_and(|when| when.iter().any(|(key, value)| given.get(key) != Some(value))) {
        return None;
    }
    let answer_ms = figure(&waits, "answer_ms", "default", &asked)?;
    let age_s = figure(&gathers, "age_s", "default", &given)?;
    // With so little it may be full of what senders wait for.
    let at_once = figure(&waits, "bytes", "default_bytes", &asked)?.max(waits.get("default_bytes")?.as_u64()?);
    let full = figure(&gathers, "bytes", "default_bytes", &given)?;
    if age_s.saturating_mul(1000) < answer_ms || full <= at_once {
        return None;
    }
    let (from, to) = (clip(&source.id), clip(&sink.id));
    let message = format!(
        "'{from}' answers when its records are safe, after {answer_ms} ms at most, and '{to}' gathers them for {age_s} s: every \
         sender would be sent away, and send the same again"
    );
    let hint = format!("add to '{to}': spool = {{}}, so that its buffer keeps them and '{from}' answers at once");
    Some(spec.problem(&spec.node(&sink.id)?.place(), message, hint))
}

/// What a component says of itself under a word of its schema.
fn mark(daemon: &Daemon, node: &PlanNode, word: &str) -> Option<Map<String, Value>> {
    let descriptor = daemon.find(node.role, &node.component)?;
    // Nearly none has one, and schemas are long.
    if !descriptor.schema.contains(word) {
        return None;
    }
    let schema: Value = serde_json::from_str(&descriptor.schema).ok()?;
    schema.get(word)?.as_object().cloned()
}

fn config(node: &PlanNode) -> Option<Value> {
    serde_json::from_str(&node.config).ok()
}

fn figure(mark: &Map<String, Value>, pointer: &str, default: &str, config: &Value) -> Option<u64> {
    let said = config.pointer(mark.get(pointer)?.as_str()?).and_then(Value::as_u64);
    said.or_else(|| mark.get(default)?.as_u64())
}
