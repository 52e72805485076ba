//! The live picture as server-sent events, at most one a second. Ends with the page, or with the plane.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    http::StatusCode,
    response::{
        IntoResponse as _,
        sse::{Event, KeepAlive, Sse},
    },
};
use bus_schema::api::FailureKind;
use futures_util::Stream;
use tokio::sync::{Semaphore, mpsc};

use super::{
    ask::{Answer, Ask},
    problem::Refusal,
    table::{Endpoint, by, viewer},
};
use crate::{permission::Reach::Whole, service::stopped};

/// Most pages that look at the same time.
const LOOKING_MAX: usize = 32;
static LOOKING: Semaphore = Semaphore::const_new(LOOKING_MAX);

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
            viewer(Whole),
            "The picture of the fleet, at most once a second",
            by!(live),
        )
        .events(),
    ]
}

async fn live(ask: Ask) -> Answer {
    let web = ask.web;
    let Ok(place) = LOOKING.try_acquire() else {
        let message = format!("{LOOKING_MAX} pages are looking already");
        let (status, hint) = (StatusCode::SERVICE_UNAVAILABLE, "close some of them");
        return Err(Refusal::new(status, FailureKind::Internal, message, hint));
    };
    let (out, pictures) = mpsc::channel(1);
    let (mut look, mut stop) = (web.live.look(), web.stop.clone());
    tokio::spawn(async move {
        let _place = place;
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = out.closed() => return,
                changed = look.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            let picture = Arc::clone(&look.borrow_and_update());
            // A page that is slow misses some.
            if !picture.is_empty()
                && let Ok(room) = out.try_reserve()
            {
                room.send(Event::default().data(picture));
            }
        }
    });
    Ok(Sse::new(Pictures(pictures))
        .keep_alive(KeepAlive::default())
        .into_response())
}
