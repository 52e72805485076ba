//! Calls whose answer does not need the loop's decision: what is in the store, and what others of it carry out.

use bus_schema::{
    api::{ApiCall, ApiResult, FailureKind, RevisionView},
    member::Role,
};

use super::{Parts, Service};
use crate::{
    api::failed,
    audit::Entry,
    disk::Closed,
    domain::{Change, sight::Sight},
    store::StoreError,
};

impl Service {
    async fn history(
        &self,
        name: String,
        answer: fn(Vec<RevisionView>) -> ApiResult,
    ) -> Result<Result<ApiResult, StoreError>, Closed> {
        let found = self.parts.disk.run(move |files| {
            let all = files.store.history(&name)?;
            Ok(match all.is_empty() {
                true => failed(
                    FailureKind::NotFound,
                    format!("there never was a workflow '{name}'"),
                    "see: mycelial workflow list",
                ),
                false => answer(all),
            })
        });
        found.await
    }

    /// Answers what is in the store alone, to whom has this sight; gives every other call back. What changes the store has `entry`
    /// written with it.
    pub(super) async fn stored(
        &mut self,
        call: ApiCall,
        sight: &Sight,
        entry: &mut Entry,
    ) -> Result<ApiResult, ApiCall> {
        let now_unix_ms = self.parts.clock.now().unix_ms;
        let none = |what: String, hint: &str| failed(FailureKind::NotFound, what, hint);
        let asked = match call {
            ApiCall::WorkflowRevisions(name) => {
                let lines = |all: Vec<RevisionView>| ApiResult::Revisions(all.into_iter().map(Into::into).collect());
                self.history(name, lines).await
            }
            ApiCall::WorkflowHistory(name) => self.history(name, ApiResult::History).await,
            ApiCall::WorkflowText { name, revision } => {
                let found = self.parts.disk.run(move |files| {
                    let text = files.store.text(&name, revision)?;
                    let missing = || {
                        let hint = format!("see: mycelial workflow revisions {name}");
                        none(format!("workflow '{name}' has no revision {revision}"), &hint)
                    };
                    Ok(text.map_or_else(missing, ApiResult::Text))
                });
                found.await
            }
            ApiCall::TokenList => {
                let found = self.parts.disk.run(move |files| files.store.tokens(now_unix_ms));
                found.await.map(|found| found.map(ApiResult::Tokens))
            }
            ApiCall::TokenLabels => {
                let found = self
                    .parts
                    .disk
                    .run(move |files| files.store.labelled_tokens(now_unix_ms));
                found.await.map(|found| found.map(ApiResult::TokenLabels))
            }
            ApiCall::TokenRevoke(token) => {
                let event = entry.event();
                let found = self.parts.disk.run(move |files| {
                    if files.store.token(&token)?.is_none() {
                        return Ok(none(
                            format!("there is no enrolment string {token}"),
                            "see: mycelial token list",
                        ));
                    }
                    let changes = [Change::TokenRevoked(token)].into_iter();
                    let changes: Vec<_> = changes.chain(event.map(Change::Audit)).collect();
                    files.store.commit(&changes)?;
                    Ok(ApiResult::Tokens(Vec::new()))
                });
                match found.await {
                    Ok(Ok(ApiResult::Tokens(_))) => {
                        entry.written();
                        self.tell(&Change::TokenRevoked(token));
                        let left = self.parts.disk.run(move |files| files.store.tokens(now_unix_ms)).await;
                        left.map(|left| left.map(ApiResult::Tokens))
                    }
                    refused => refused,
                }
            }
            ApiCall::Audit(call) => {
                let found = self.parts.disk.run(move |files| files.store.audit_page(&call)).await;
                found.map(|found| found.map(ApiResult::Audit))
            }
            ApiCall::OperatorRevoke(node) => {
                return Ok(self.revoke(node, Role::Operator, entry).await.unwrap_or_else(|Closed| {
                    failed(FailureKind::Internal, Closed.to_string(), "the plane is shutting down")
                }));
            }
            ApiCall::Pairing(call) => {
                return Ok(self.pairing(call, entry).await.unwrap_or_else(|Closed| {
                    failed(FailureKind::Internal, Closed.to_string(), "the plane is shutting down")
                }));
            }
            ApiCall::DaemonRevoke(node) => {
                return Ok(self.revoke(node, Role::Daemon, entry).await.unwrap_or_else(|Closed| {
                    failed(FailureKind::Internal, Closed.to_string(), "the plane is shutting down")
                }));
            }
            ApiCall::Observe(call) => {
                let Parts {
                    observer,
                    state,
                    disk,
                    clock,
                    ..
                } = &mut self.parts;
                let answered = observer.call(call, (state, sight), entry, disk, clock.now()).await;
                return Ok(answered.unwrap_or_else(|Closed| {
                    failed(FailureKind::Internal, Closed.to_string(), "the plane is shutting down")
                }));
            }
            call => return Err(call),
        };
        Ok(match asked {
            Ok(Ok(result)) => result,
            Ok(Err(cause)) => failed(
                FailureKind::Internal,
                cause.to_string(),
                "look at the plane's log and its disk",
            ),
            Err(Closed) => failed(FailureKind::Internal, Closed.to_string(), "the plane is shutting down"),
        })
    }
}
