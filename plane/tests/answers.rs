//! Requests whose answers are lost on the way: whoever asked hears the answer all the same, and what was done is done once.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::time::Duration;

use bus_link::{
    memory::{Faults, Hub},
    session::SessionEvent,
};
use bus_schema::{
    api::{ApiCall, ApiResult},
    member::Role,
};
use common::{Member, Plane};

/// The next request, if one comes in time.
async fn question(member: &mut Member, within: Duration) -> Option<bus_link::session::Incoming> {
    let asked = async {
        loop {
            match member.event().await {
                SessionEvent::Message(incoming) if incoming.wants_reply() => return incoming,
                _ => {}
            }
        }
    };
    tokio::time::timeout(within, asked).await.ok()
}

#[tokio::test]
async fn an_answer_that_is_lost_is_given_again() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.announce(&operator).await;
    let ApiResult::Roster(put) = operator.call(ApiCall::Roster).await else {
        panic!("a roster")
    };
    operator.session.secure().update(put.roster, put.group).unwrap();
    let gw_node = *gw.session.secure().node();
    let hub = Hub::named(plane.bus.strip_prefix("memory://").unwrap());
    let lose = |drop_per_mille| {
        hub.set_faults(Faults {
            drop_per_mille,
            ..Faults::default()
        });
    };
    // (bytes of the answer, whether it has to be made again)
    for (bytes, is_made_again) in [(20, false), (15_000, false), (300_000, true)] {
        let answer = || ApiResult::Text("x".repeat(bytes));
        let answering = async {
            let first = question(&mut gw, Duration::from_secs(5)).await.expect("the question");
            lose(1000);
            gw.session.reply(&first, &answer()).await.unwrap();
            // Time for all of it to be lost.
            tokio::time::sleep(Duration::from_millis(300)).await;
            lose(0);
            let again = question(&mut gw, Duration::from_millis(2_500)).await;
            assert_eq!(again.is_some(), is_made_again, "an answer of {bytes} bytes");
            if let Some(again) = again {
                gw.session.reply(&again, &answer()).await.unwrap();
            }
        };
        let asked = operator
            .session
            .request::<_, ApiResult>(&gw_node, &ApiCall::Info, Duration::from_secs(8));
        let (answered, ()) = tokio::join!(asked, answering);
        let heard = match &answered {
            Ok(ApiResult::Text(text)) => text.len(),
            other => panic!("{bytes}: {other:?}"),
        };
        assert_eq!(heard, bytes);
    }
}

/// A fifth of all messages is lost for a while. Whoever asks once is answered, and nothing is carried out twice.
#[tokio::test]
async fn a_bus_that_loses_answers_costs_nothing_but_time() {
    const CALLS: usize = 20;
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let hub = Hub::named(plane.bus.strip_prefix("memory://").unwrap());
    let tokens = async || match operator.call(ApiCall::TokenList).await {
        ApiResult::Tokens(tokens) => tokens.len(),
        other => panic!("{other:?}"),
    };
    let before = tokens().await;
    hub.set_faults(Faults {
        seed: 7,
        drop_per_mille: 200,
        ..Faults::default()
    });
    let make = async || {
        let call = ApiCall::TokenCreate {
            role: Role::Daemon,
            name: None,
            uses: 1,
            ttl_s: 600,
        };
        let (plane, deadline) = (&operator.membership.plane, Duration::from_secs(6));
        let asked = operator.session.request::<_, ApiResult>(plane, &call, deadline).await;
        matches!(asked, Ok(ApiResult::Token(_)))
    };
    let answered = futures_util::future::join_all((0..CALLS).map(|_| make())).await;
    hub.set_faults(Faults::default());
    let (answered, made) = (answered.into_iter().filter(|one| *one).count(), tokens().await - before);
    // Each is sent four times: one of sixty is not answered, and may have been carried out all the same.
    assert!(answered + 3 >= CALLS, "{answered} of {CALLS} were answered");
    assert!((answered..=CALLS).contains(&made), "{CALLS} calls made {made} strings");
}
