//! The audit over HTTP: searched and verified, and what the web API itself writes into it.

use bus_schema::{
    api::{ApiCall, ApiResult, Failure, FailureKind},
    audit::{AUDIT_PAGE_MAX, AuditCall, AuditEntry, AuditEvent, AuditOutcome, AuditWish},
};
use serde::{Deserialize, Serialize};
use tracing::error;

use super::{
    Web,
    ask::{Answer, Ask, Page, json, unexpected},
    problem::Refusal,
    table::{Endpoint, Verb, admin, by},
};
use crate::{clock::unix_ms, permission::Caller, store::audit::Checked};

/// Most items of a page of entries.
const ENTRIES_MAX: u16 = AUDIT_PAGE_MAX;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/audit", admin(), "Who did what, the newest first", by!(list))
            .query::<EntriesWish>()
            .answers::<Page<AuditEntry>>(),
        Endpoint::get(
            "/audit/verify",
            admin(),
            "Whether the chain of the audit holds",
            by!(verify),
        )
        .answers::<Verified>(),
    ]
}

/// Which entries.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct EntriesWish {
    /// Only those in which this occurs.
    #[serde(default)]
    search: String,
    /// Only of this user, member or token.
    #[serde(default)]
    by: String,
    /// Only since then, milliseconds since 1970.
    #[serde(default)]
    since: i64,
    /// Most items, 1 to 200.
    limit: Option<u16>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// What came of checking the chain.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Verified {
    /// Whether it holds.
    holds: bool,
    /// The first entry there is; those before were cut off because there were too many.
    first: u64,
    /// The last entry; 0 when it does not hold.
    last: u64,
    /// The last entry's hash: as long as the audit holds one that was seen before, nothing up to it was changed.
    hash: String,
    /// What is wrong; empty when it holds.
    fault: String,
}

async fn list(ask: Ask) -> Answer {
    let EntriesWish {
        search,
        by,
        since,
        limit,
        cursor,
    } = ask.query()?;
    let limit = match limit {
        None => 100,
        Some(limit @ 1..=ENTRIES_MAX) => limit,
        Some(limit) => {
            let message = format!("limit: 1 to {ENTRIES_MAX} items fit on a page, not {limit}");
            return Err(Refusal::invalid(message, ""));
        }
    };
    let before = match cursor.map(|cursor| cursor.parse::<u64>()) {
        None => 0,
        Some(Ok(before)) if before > 0 => before,
        Some(_) => {
            return Err(Refusal::invalid(
                "cursor: this is none",
                "take `next` of the page before",
            ));
        }
    };
    let wish = AuditWish {
        by,
        since_unix_ms: since,
        search,
    };
    let call = AuditCall::Search {
        before,
        most: limit,
        wish,
    };
    let ApiResult::Audit(page) = ask.call(ApiCall::Audit(call)).await? else {
        return Err(unexpected());
    };
    let is_full = page.entries.len() == usize::from(limit);
    let last = page.entries.last().map(|entry| entry.number);
    let next = last
        .filter(|number| is_full && *number > 1)
        .map(|number| number.to_string());
    json(Page {
        items: page.entries,
        next,
    })
}

async fn verify(ask: Ask) -> Answer {
    let disk = &ask.web.auth.disk;
    let found = disk.run(|files| files.store.audit_cut()).await;
    let cut = found.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
    let (first, mut from) = (cut.number + 1, cut);
    // Piece by piece: others need the disk too.
    loop {
        let checked = disk.run(move |files| files.store.audit_check(from)).await;
        let verified = match checked.map_err(Refusal::internal)?.map_err(Refusal::internal)? {
            Checked::Further(further) => {
                from = further;
                continue;
            }
            Checked::Whole(head) => Verified {
                holds: true,
                first,
                last: head.number,
                hash: head.hash,
                fault: String::new(),
            },
            Checked::Broken(fault) => Verified {
                holds: false,
                first,
                last: 0,
                hash: String::new(),
                fault: fault.to_string(),
            },
        };
        return json(verified);
    }
}

async fn write(web: &Web, event: AuditEvent) {
    let written = web.auth.disk.run(move |files| files.store.audit(&[event])).await;
    if let Ok(Err(cause)) = written {
        error!(%cause, "cannot write into the audit");
    }
}

/// Somebody known wanted to change what it may not.
pub(super) async fn refused(web: &Web, known: Option<&Caller>, verb: Verb, path: &str, refusal: &Refusal) {
    let Some(caller) = known.filter(|_| verb != Verb::Get) else {
        return;
    };
    let event = AuditEvent::new(
        unix_ms(),
        &caller.name,
        &caller.from,
        "ask the web API",
        &format!("{} {path}", verb.word()),
    );
    if web.auth.may_note_refusal(event.at_unix_ms) {
        write(web, event.but(AuditOutcome::Refused, &refusal.failure.message)).await;
    }
}

fn outcome(failure: &Failure) -> AuditOutcome {
    match failure.kind {
        FailureKind::Forbidden => AuditOutcome::Refused,
        _ => AuditOutcome::Failed,
    }
}

impl Ask {
    /// Writes down what was done here and changed nothing in the store, with what came of it.
    pub(super) async fn noted<T>(&self, action: &str, what: &str, done: Result<T, Refusal>) -> Result<T, Refusal> {
        let who = self.known.as_ref().map_or("", |caller| caller.name.as_str());
        self.noted_of(who, action, what, done).await
    }

    /// The same for somebody who is not logged in, or not yet.
    pub(super) async fn noted_of<T>(
        &self,
        who: &str,
        action: &str,
        what: &str,
        done: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let event = AuditEvent::new(unix_ms(), who, &self.from, action, what);
        if done.is_ok() {
            write(&self.web, event).await;
            return done;
        }
        self.failed(event, done).await
    }

    /// The entry about what is to be done here; the store writes it with the change: see [`Store::noted`].
    pub(super) fn event(&self, action: &str, what: &str) -> AuditEvent {
        let who = self.known.as_ref().map_or("", |caller| caller.name.as_str());
        AuditEvent::new(unix_ms(), who, &self.from, action, what)
    }

    /// Writes down what came to nothing. What came to something has its entry.
    pub(super) async fn failed<T>(&self, event: AuditEvent, done: Result<T, Refusal>) -> Result<T, Refusal> {
        if let Err(refusal) = &done
            && self.web.auth.may_note_refusal(event.at_unix_ms)
        {
            let event = event.but(outcome(&refusal.failure), &refusal.failure.message);
            write(&self.web, event).await;
        }
        done
    }
}
