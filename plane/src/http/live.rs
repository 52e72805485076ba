//! The live picture as server-sent events, at most one a second. Ends with the page, with the plane, and when whoever looks is
//! logged out, removed, or may see something else than before.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse as _,
        sse::{Event, KeepAlive, Sse},
    },
};
use bus_schema::api::{ApiCall, ApiResult, FailureKind};
use futures_util::Stream;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{MissedTickBehavior, interval},
};

use super::{
    Web,
    ask::{Answer, Ask},
    problem::Refusal,
    table::{Endpoint, by, viewer},
};
use crate::{
    clock::unix_ms,
    live::Picture,
    permission::{Caller, Reach::Narrow},
    service::stopped,
};

/// Most pages that look at the same time.
const LOOKING_MAX: usize = 32;
static LOOKING: Semaphore = Semaphore::const_new(LOOKING_MAX);
/// How often it is looked whether somebody still may, and, for a scope, what there is to see.
const LOOK: Duration = Duration::from_secs(1);

/// Pictures on their way to one page: it gets the newest, not all.
struct Pictures(mpsc::Receiver<Event>);

impl Stream for Pictures {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|event| event.map(Ok))
    }
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/live",
            viewer(Narrow),
            "The picture of the fleet, at most once a second",
            by!(live),
        )
        .events(),
    ]
}

/// Somebody who looks.
struct Looker {
    web: Arc<Web>,
    caller: Caller,
    headers: HeaderMap,
    out: mpsc::Sender<Event>,
}

async fn live(ask: Ask) -> Answer {
    let Ok(place) = LOOKING.try_acquire() else {
        let message = format!("{LOOKING_MAX} pages are looking already");
        let (status, hint) = (StatusCode::SERVICE_UNAVAILABLE, "close some of them");
        return Err(Refusal::new(status, FailureKind::Internal, message, hint));
    };
    let (out, pictures) = mpsc::channel(1);
    let looker = Looker {
        caller: ask.caller()?.clone(),
        web: ask.web,
        headers: ask.headers,
        out,
    };
    tokio::spawn(async move {
        let _place = place;
        let mut stop = looker.web.stop.clone();
        tokio::select! {
            () = stopped(&mut stop) => {}
            () = looker.out.closed() => {}
            () = looker.gone() => {}
            () = looker.show() => {}
        }
    });
    Ok(Sse::new(Pictures(pictures))
        .keep_alive(KeepAlive::default())
        .into_response())
}

impl Looker {
    /// Waits until it is somebody else: logged out, removed, with another role or scope.
    async fn gone(&self) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.web.auth.identify(&self.headers, &self.caller.from).await {
                Ok(Some(now)) if now == self.caller => {}
                // The store does not answer: nobody knows.
                Err(_) => {}
                Ok(_) => return,
            }
        }
    }

    async fn show(&self) {
        match self.caller.scope {
            None => self.show_all().await,
            Some(_) => self.show_part().await,
        }
    }

    /// The picture that is made once for all.
    async fn show_all(&self) {
        let mut look = self.web.live.look();
        while look.changed().await.is_ok() {
            let picture = Arc::clone(&look.borrow_and_update());
            if !picture.is_empty() {
                self.send(&picture);
            }
        }
    }

    /// One of its own: what the service answers it.
    async fn show_part(&self) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Some(picture) = self.part().await
                && let Ok(json) = serde_json::to_string(&picture)
            {
                self.send(&json);
            }
        }
    }

    async fn part(&self) -> Option<Picture> {
        let ask = |call| self.web.service.call(&self.caller, call);
        let ApiResult::Info(info) = ask(ApiCall::Info).await else {
            return None;
        };
        let ApiResult::Daemons(daemons) = ask(ApiCall::DaemonList).await else {
            return None;
        };
        let ApiResult::Workflows(workflows) = ask(ApiCall::WorkflowList).await else {
            return None;
        };
        let ApiResult::Ledger(streams) = ask(ApiCall::Ledger).await else {
            return None;
        };
        Some(Picture {
            at_unix_ms: unix_ms(),
            info,
            daemons,
            workflows,
            streams,
        })
    }

    /// A page that is slow misses some.
    fn send(&self, picture: &str) {
        if let Ok(room) = self.out.try_reserve() {
            room.send(Event::default().data(picture));
        }
    }
}
