//! Many clients and one broker that comes back: they return one after the other. The clock is tokio's own and jumps from
//! one event to the next, so a busy machine changes nothing. The last test does it with a real broker.

#![allow(clippy::unwrap_used, reason = "a test may only fail")]

mod suite;

use std::time::Duration;

use bus_link::{Event, memory::Hub};
use suite::{Client, Road, roads};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const CLIENTS: usize = 50;
/// Whoever comes back within this time of another is part of the same rush.
const RUSH: Duration = Duration::from_millis(100);

async fn crowd(road: &Road) -> Vec<Client> {
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let mut client = road.start(&format!("client-{n}"), &[]);
        client.up().await;
        clients.push(client);
    }
    clients
}

/// Takes every client's events from now until it has lost the broker and come up again; when that was, in order.
async fn returns(clients: &mut Vec<Client>, outage: impl Future<Output = ()>) -> Vec<Instant> {
    let mut waiting = JoinSet::new();
    for mut client in clients.drain(..) {
        waiting.spawn(async move {
            let mut is_down = false;
            loop {
                match client.events.recv().await {
                    Some(Event::Up { .. }) if is_down => return (Instant::now(), client),
                    Some(Event::Down { .. }) => is_down = true,
                    Some(_) => {}
                    None => panic!("a bus has ended"),
                }
            }
        });
    }
    outage.await;
    let mut times = Vec::new();
    while let Some(done) = waiting.join_next().await {
        let (time, client) = done.unwrap();
        times.push(time);
        clients.push(client);
    }
    times.sort();
    times
}

/// Most clients within one [`RUSH`].
fn rush(times: &[Instant]) -> usize {
    let within = |start: &Instant| {
        times
            .iter()
            .filter(|time| *time >= start && **time < *start + RUSH)
            .count()
    };
    times.iter().map(within).max().unwrap_or(0)
}

/// A broker that is gone for a moment, for a while, for long, and twice in a row: never do more than a third of them
/// return in the same tenth of a second, and the last one is back soon.
#[tokio::test(start_paused = true)]
async fn clients_return_one_after_the_other() {
    let road = Road::memory("storm");
    let hub = Hub::named("storm");
    let mut clients = crowd(&road).await;
    for (good, outage, last) in [
        (60, 0, 3),
        (60, 1, 10),
        (60, 30, 40),
        (60, 600, 40),
        // Before the connection counts as a good one.
        (1, 0, 40),
        (1, 5, 40),
    ] {
        sleep(Duration::from_secs(good)).await;
        let mut back = Instant::now();
        let outage_and_return = async {
            hub.stop();
            sleep(Duration::from_secs(outage)).await;
            back = Instant::now();
            hub.start();
        };
        let times = returns(&mut clients, outage_and_return).await;
        let (rush, latest) = (rush(&times), times[CLIENTS - 1] - back);
        println!("away for {outage} s: {rush} of {CLIENTS} in {RUSH:?}, the last after {latest:?}");
        // By chance more than this would come together about once in a million runs.
        assert!(rush <= CLIENTS / 3, "away for {outage} s: {rush} at once");
        assert!(latest <= Duration::from_secs(last), "away for {outage} s: {latest:?}");
    }
}

/// All of them come back to a real broker, and are heard there.
#[tokio::test]
async fn everybody_returns_to_a_restarted_broker() {
    let road = roads::mosquitto();
    let mut clients = crowd(&road).await;
    let restart = road.on_broker(|broker| {
        broker.stop();
        broker.start();
    });
    returns(&mut clients, restart).await;
    for client in &mut clients {
        client.drain().await;
    }
}
