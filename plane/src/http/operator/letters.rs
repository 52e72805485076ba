//! Dead letters of a daemon: which there are, what is in one, and what shall become of them.

use bus_schema::{
    data::Field,
    letter::{LetterCall, LetterPage, LetterPlace, LetterResult, LetterSelect, LetterStage},
    limits::LETTER_PART_BYTES,
    member::is_name,
    shown::{Letter, LetterBox, Records},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Daemon, PATIENCE, daemon, noted, something_else};
use crate::{
    http::{
        ask::{Answer, Ask, json},
        problem::Refusal,
        table::{Endpoint, by, operator},
    },
    permission::Reach::Narrow,
};

/// Bytes of what never became a record that are shown.
const RAW_BYTES_MAX: usize = 4 * 1024;
/// Most letters that are named in one call.
const IDS_MAX: usize = 1_000;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/operator/letters",
            operator(Narrow),
            "A daemon's dead letters, without their records",
            by!(list),
        )
        .query::<ListWish>()
        .answers::<Letters>(),
        Endpoint::get(
            "/operator/letters/{daemon}/{workflow}/{id}",
            operator(Narrow),
            "A dead letter with its record",
            by!(show),
        )
        .answers::<LetterShown>(),
        Endpoint::patch(
            "/operator/letters/{daemon}/{workflow}/{id}",
            operator(Narrow),
            "Gives the record of a dead letter other values; the rest of it stays",
            by!(mend),
        )
        .takes::<Values>()
        .answers::<Done>(),
        Endpoint::post(
            "/operator/letters/replay",
            operator(Narrow),
            "Tries dead letters again",
            by!(replay),
        )
        .takes::<Which>()
        .answers::<Done>(),
        Endpoint::post(
            "/operator/letters/discard",
            operator(Narrow),
            "Forgets dead letters for good",
            by!(discard),
        )
        .takes::<Which>()
        .answers::<Done>(),
    ]
}

/// Which letters.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct ListWish {
    /// Of this daemon.
    daemon: String,
    /// Of this workflow; of all when it is left out.
    #[serde(default)]
    workflow: String,
    /// That died at this node; at any when it is left out.
    #[serde(default)]
    node: String,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of letters.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Letters {
    /// By workflow and number.
    items: Vec<Letter>,
    /// Ask for the page after this with it; null when this is the last.
    next: Option<String>,
    /// With the first page: the workflows that have or had some.
    boxes: Vec<LetterBox>,
}

async fn ask_daemon(daemon: &Daemon<'_>, call: &LetterCall) -> Result<LetterResult, Refusal> {
    match daemon.ask("answer about dead letters", call, PATIENCE).await? {
        LetterResult::Failed(failure) => Err(failure.into()),
        result => Ok(result),
    }
}

async fn list(ask: Ask) -> Answer {
    let ListWish {
        daemon: name,
        workflow,
        node,
        cursor,
    } = ask.query()?;
    let after = cursor.map(|cursor| {
        let place = cursor.split_once('/').and_then(|(workflow, id)| {
            let (workflow, id) = (workflow.to_string(), id.parse().ok()?);
            Some(LetterPlace { workflow, id })
        });
        place.ok_or_else(|| Refusal::invalid("cursor: this is none", "take `next` of the page before"))
    });
    let select = LetterSelect {
        workflow,
        node,
        ids: Vec::new(),
    };
    let daemon = daemon(&ask, &name, "mycelial dlq list").await?;
    let after = after.transpose()?;
    let LetterResult::Page(LetterPage { letters, boxes, next }) =
        ask_daemon(&daemon, &LetterCall::List { select, after }).await?
    else {
        return Err(something_else(&daemon.name));
    };
    let name = &daemon.name;
    json(Letters {
        items: letters.into_iter().map(|letter| Letter::new(name, letter)).collect(),
        next: next.map(|place| format!("{}/{}", place.workflow, place.id)),
        boxes: boxes.into_iter().map(|view| LetterBox::new(name, view)).collect(),
    })
}

/// A letter and what is in it.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct LetterShown {
    /// What is known about it.
    letter: Letter,
    /// Its record, one; none when it never became one, or is too long to be shown.
    record: Option<Records>,
    /// The columns of the record.
    columns: Vec<Column>,
    /// What the source could not read, as text: its beginning. Null when it is a record.
    raw: Option<String>,
    /// It is too long to be shown whole; the command line writes it to a file.
    is_cut: bool,
}

/// A column.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Column {
    /// Its name.
    name: String,
    /// Its type, by the name that `cast` takes.
    #[serde(rename = "type")]
    kind: String,
    /// It is part of the key.
    key: bool,
    /// Its value is not shown.
    is_hidden: bool,
}

/// A letter named by the path.
fn place(ask: &Ask) -> Result<LetterPlace, Refusal> {
    let workflow = ask.param("workflow");
    let id = ask.param("id").parse().ok().filter(|_| is_name(&workflow));
    let id = id.ok_or_else(|| Refusal::not_found("there is no such dead letter", "see: GET /operator/letters"))?;
    Ok(LetterPlace { workflow, id })
}

async fn show(ask: Ask) -> Answer {
    let (place, name) = (place(&ask)?, ask.param("daemon"));
    let what = format!("{name}/{}/{}", place.workflow, place.id);
    let shown = async {
        let daemon = daemon(&ask, &name, "mycelial dlq show DAEMON/WORKFLOW/NUMBER").await?;
        let call = LetterCall::Show {
            letter: place,
            offset: 0,
        };
        let LetterResult::Letter { letter, bytes } = ask_daemon(&daemon, &call).await? else {
            return Err(something_else(&daemon.name));
        };
        let redact = &daemon.operator.redact;
        let is_cut = letter.record_bytes > bytes.len().min(LETTER_PART_BYTES) as u64;
        let is_record = letter.stage != LetterStage::Source;
        let decoded = (is_record && !is_cut).then(|| Records::decode(&bytes).ok()).flatten();
        let column = |field: &Field| Column {
            name: field.name.clone(),
            kind: field.ty.to_string(),
            key: field.key,
            is_hidden: redact.hides(&field.name),
        };
        let fields = decoded.as_ref().map(|records| &records.batch().schema().fields);
        let raw = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(RAW_BYTES_MAX)]).into_owned();
        json(LetterShown {
            columns: fields.into_iter().flatten().map(column).collect(),
            // Of a record that is cut, the bytes are no text.
            raw: (!is_record).then(|| raw(&bytes)),
            is_cut: is_cut || (!is_record && bytes.len() > RAW_BYTES_MAX),
            letter: Letter::new(&daemon.name, letter),
            record: decoded.map(|records| records.hiding(|column| redact.hides(column))),
        })
    };
    noted(&ask, "look at a dead letter", &what, shown).await
}

/// Other values, and what then.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Values {
    /// By column. A value that was not shown stays unless it is named here.
    values: Map<String, Value>,
    /// Try it again at once.
    #[serde(default)]
    replay: bool,
}

async fn mend(ask: Ask) -> Answer {
    let (place, name, Values { values, replay }) = (place(&ask)?, ask.param("daemon"), ask.body()?);
    let columns: Vec<&str> = values.keys().map(String::as_str).collect();
    let then = if replay { ", and try it again" } else { "" };
    let what = format!("{name}/{}/{}: {}{then}", place.workflow, place.id, columns.join(", "));
    let done = async {
        let daemon = daemon(
            &ask,
            &name,
            "mycelial dlq edit DAEMON/WORKFLOW/NUMBER --set COLUMN=VALUE",
        )
        .await?;
        let select = LetterSelect {
            workflow: place.workflow.clone(),
            ids: vec![place.id],
            ..LetterSelect::default()
        };
        let call = LetterCall::Mend {
            letter: place,
            values: Value::Object(values).to_string(),
        };
        let mended = changed(&daemon, &call).await?;
        json(match replay {
            true => changed(&daemon, &LetterCall::Replay(select)).await?,
            false => mended,
        })
    };
    noted(&ask, "change a dead letter", &what, done).await
}

async fn changed(daemon: &Daemon<'_>, call: &LetterCall) -> Result<Done, Refusal> {
    match ask_daemon(daemon, call).await? {
        LetterResult::Done {
            letters,
            doubtful,
            notes,
        } => Ok(Done {
            letters,
            doubtful,
            notes,
        }),
        _ => Err(something_else(&daemon.name)),
    }
}

/// Which letters of a daemon.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Which {
    /// Of which daemon.
    daemon: String,
    /// Of which workflow.
    workflow: String,
    /// These; all of the workflow when it is empty, but those in doubt.
    ids: Vec<u64>,
    /// Only those that died at this node.
    #[serde(default)]
    node: String,
}

/// What was done.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Done {
    /// To so many letters.
    letters: u64,
    /// So many were left alone because they are in doubt.
    doubtful: u64,
    /// What else there is to say.
    notes: Vec<String>,
}

async fn change(ask: &Ask, action: &str, instead: &str, call: fn(LetterSelect) -> LetterCall) -> Answer {
    let Which {
        daemon: name,
        workflow,
        ids,
        node,
    } = ask.body()?;
    if ids.len() > IDS_MAX {
        let message = format!("ids: {IDS_MAX} letters can be named at a time, not {}", ids.len());
        return Err(Refusal::invalid(message, "leave them out to mean all of the workflow"));
    }
    if !is_name(&workflow) {
        return Err(Refusal::invalid("workflow: this is no name of one", ""));
    }
    let count = match ids.len() {
        0 => "all".to_string(),
        count => count.to_string(),
    };
    let what = format!("{count} of {workflow} on {name}");
    let done = async {
        let daemon = daemon(ask, &name, instead).await?;
        json(changed(&daemon, &call(LetterSelect { workflow, node, ids })).await?)
    };
    noted(ask, action, &what, done).await
}

async fn replay(ask: Ask) -> Answer {
    let instead = "mycelial dlq replay DAEMON/WORKFLOW/NUMBER";
    change(&ask, "replay dead letters", instead, LetterCall::Replay).await
}

async fn discard(ask: Ask) -> Answer {
    let instead = "mycelial dlq purge DAEMON/WORKFLOW/NUMBER";
    change(&ask, "purge dead letters", instead, LetterCall::Purge).await
}
