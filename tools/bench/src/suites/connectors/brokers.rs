//! Brokers: mosquitto by rumqttc, NATS with JetStream by async-nats.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt as _;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use testkit::{Cmd, Mosquitto, Nats, bin, wait_until};
use tokio::runtime::Runtime;

use super::{Lines, Race, generator, into_file, json, out, push_json, row, timed, to_its_end, until_lines};

/// Messages on the way and not acknowledged.
const WINDOW: u16 = 100;
/// Bytes of a stream.
const STREAM_BYTES: &str = "{\"max_bytes\": 1000000000}";
/// Messages that are asked for at once.
const NATS_PULL: u64 = 256;
const SOON: Duration = Duration::from_secs(30);
/// What the daemon calls itself at the broker.
const OURS: &str = "mycelial-local-job-in";
const BARE: &str = "bare";

/// The servers.
pub(super) struct Servers {
    mosquitto: Mosquitto,
    nats: Nats,
    runtime: Runtime,
}

impl Servers {
    /// Starts them.
    pub(super) fn start() -> Self {
        let mosquitto = Mosquitto::builder()
            .line("max_queued_messages 0")
            .line("max_inflight_messages 1000")
            .quiet()
            .start();
        Self {
            mosquitto,
            nats: Nats::builder().jetstream().start(),
            runtime: super::runtime(),
        }
    }

    /// The races of both directions.
    pub(super) fn races(&self, rows: u64) -> Result<Vec<Race<'_>>> {
        self.nats.create_stream("BENCH", "bench.in", STREAM_BYTES);
        self.nats.create_stream("OUT", "bench.out", STREAM_BYTES);
        self.runtime.block_on(self.nats_publish("bench.in", rows))?;
        Ok(vec![
            Race {
                name: "mqtt source",
                note: "rumqttc; QoS 1, what waits in a session at the broker",
                rows,
                ours: Box::new(move |dir| self.mqtt_read(dir, rows)),
                bare: Box::new(move |dir| {
                    self.runtime.block_on(self.mqtt_listen(BARE, None))?;
                    self.runtime.block_on(self.mqtt_publish("bench/in", rows))?;
                    timed(|| self.runtime.block_on(self.mqtt_listen(BARE, Some((&out(dir), rows)))))
                }),
            },
            Race {
                name: "mqtt destination",
                note: "rumqttc; QoS 1, a hundred on the way",
                rows,
                ours: Box::new(move |dir| {
                    let place = format!("url = \"{}\"\ntopic = \"bench/out\"\n", self.mosquitto.url());
                    to_its_end(
                        dir,
                        &format!(
                            "{}[destinations.out]\ntype = \"mqtt\"\nfrom = \"in\"\n{place}",
                            generator(rows)
                        ),
                    )
                }),
                bare: Box::new(move |_| timed(|| self.runtime.block_on(self.mqtt_publish("bench/out", rows)))),
            },
            Race {
                name: "nats source",
                note: "async-nats; JetStream, each message acknowledged",
                rows,
                ours: Box::new(move |dir| {
                    let name = dir.file_name().context("a directory")?.to_string_lossy().into_owned();
                    let consumer = format!("{name}-{}", std::process::id());
                    let place = format!(
                        "name = \"job\"\n\n[sources.in]\ntype = \"nats\"\nurl = \"{}\"\nstream = \"BENCH\"\nconsumer = \"{consumer}\"\n\
                         types = {{ id = \"i64\" }}\n",
                        self.nats.url()
                    );
                    let done = until_lines(dir, &format!("{place}{}", into_file(&out(dir))), &out(dir), rows);
                    self.runtime.block_on(self.forget(&consumer))?;
                    done
                }),
                bare: Box::new(move |dir| {
                    self.runtime.block_on(self.forget(BARE))?;
                    timed(|| self.runtime.block_on(self.nats_read(&out(dir), rows)))
                }),
            },
            Race {
                name: "nats destination",
                note: "async-nats; JetStream, two hundred on the way",
                rows,
                ours: Box::new(move |dir| {
                    let before = self.nats.stream_messages("OUT");
                    let place = format!("url = \"{}\"\nsubject = \"bench.out\"\n", self.nats.url());
                    let text = format!(
                        "{}[destinations.out]\ntype = \"nats\"\nfrom = \"in\"\n{place}",
                        generator(rows)
                    );
                    let seconds = to_its_end(dir, &text)?;
                    let found = self.nats.stream_messages("OUT") - before;
                    ensure!(found == rows, "{found} of {rows} messages");
                    Ok(seconds)
                }),
                bare: Box::new(move |_| timed(|| self.runtime.block_on(self.nats_publish("bench.out", rows)))),
            },
        ])
    }

    fn mqtt_client(&self, id: &str, clean: bool) -> (AsyncClient, rumqttc::EventLoop) {
        let mut options = MqttOptions::new(id, "127.0.0.1", self.mosquitto.port());
        options
            .set_clean_session(clean)
            .set_inflight(WINDOW)
            .set_max_packet_size(1 << 20, 1 << 20);
        AsyncClient::new(options, 10)
    }

    async fn mqtt_publish(&self, topic: &str, rows: u64) -> Result<()> {
        let (client, mut events) = self.mqtt_client("publisher", true);
        let topic = topic.to_string();
        let publishing = tokio::spawn(async move {
            for id in 1..=rows {
                client.publish(&topic, QoS::AtLeastOnce, false, json(&row(id))).await?;
            }
            // Kept until all are acknowledged.
            Ok::<_, anyhow::Error>(client)
        });
        let mut acknowledged = 0;
        while acknowledged < rows {
            if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
                acknowledged += 1;
            }
        }
        drop(publishing.await??);
        Ok(())
    }

    /// Subscribes with a session that stays, and takes so many messages.
    async fn mqtt_listen(&self, id: &str, wanted: Option<(&Path, u64)>) -> Result<()> {
        let (client, mut events) = self.mqtt_client(id, false);
        client.subscribe("bench/in", QoS::AtLeastOnce).await?;
        let mut lines = wanted.map(|(path, _)| Lines::create(path)).transpose()?;
        let rows = wanted.map_or(0, |(_, rows)| rows);
        let mut taken = 0;
        loop {
            match events.poll().await? {
                Event::Incoming(Packet::SubAck(_)) if rows == 0 => break,
                Event::Incoming(Packet::Publish(publish)) => {
                    if let Some(lines) = &mut lines {
                        push_json(lines, &publish.payload)?;
                    }
                    taken += 1;
                    if taken == rows {
                        break;
                    }
                }
                _ => {}
            }
        }
        // The last acknowledgements go out.
        client.disconnect().await?;
        while events.poll().await.is_ok() {}
        lines.map_or(Ok(()), Lines::finish)
    }

    /// The daemon subscribes, is stopped, and finds at its second start what came meanwhile.
    fn mqtt_read(&self, dir: &Path, rows: u64) -> Result<f64> {
        let source = format!(
            "name = \"job\"\n\n[sources.in]\ntype = \"mqtt\"\nurl = \"{}\"\ntopics = [\"bench/in\"]\ntypes = {{ id = \"i64\" }}\n",
            self.mosquitto.url()
        );
        let text = format!("{source}{}", into_file(&out(dir)));
        let job = dir.join("first.toml");
        std::fs::write(&job, &text)?;
        let before = self.mosquitto.log().matches(OURS).count();
        let mut daemon = Cmd::new(bin("myceliald")).arg("run").arg(&job).spawn();
        wait_until("the daemon to connect", SOON, || {
            (self.mosquitto.log().matches(OURS).count() > before).then_some(())
        });
        // Connected is not subscribed.
        std::thread::sleep(Duration::from_millis(300));
        daemon.term_and_wait(SOON);
        self.runtime.block_on(self.mqtt_publish("bench/in", rows))?;
        until_lines(dir, &text, &out(dir), rows)
    }

    async fn nats_client(&self) -> Result<async_nats::Client> {
        Ok(async_nats::connect(self.nats.url()).await?)
    }

    /// Publishes into a stream, which answers for each message.
    async fn nats_publish(&self, subject: &str, rows: u64) -> Result<()> {
        let client = self.nats_client().await?;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await?;
        let mut answered = 0;
        for id in 1..=rows {
            let (subject, reply) = (subject.to_string(), inbox.clone());
            client.publish_with_reply(subject, reply, json(&row(id)).into()).await?;
            while id - answered >= 2 * u64::from(WINDOW) {
                answers.next().await.context("no answer")?;
                answered += 1;
            }
        }
        while answered < rows {
            answers.next().await.context("no answer")?;
            answered += 1;
        }
        Ok(())
    }

    async fn nats_read(&self, out: &Path, rows: u64) -> Result<()> {
        let client = self.nats_client().await?;
        let config = serde_json::json!({
            "stream_name": "BENCH",
            "config": {"durable_name": BARE, "ack_policy": "explicit", "deliver_policy": "all", "max_ack_pending": -1},
        });
        let api = format!("$JS.API.CONSUMER.DURABLE.CREATE.BENCH.{BARE}");
        client.request(api, config.to_string().into()).await?;
        let inbox = client.new_inbox();
        let mut messages = client.subscribe(inbox.clone()).await?;
        let mut lines = Lines::create(out)?;
        for taken in 0..rows {
            if taken % NATS_PULL == 0 {
                let ask = serde_json::json!({"batch": NATS_PULL, "expires": 20_000_000_000_u64}).to_string();
                let api = format!("$JS.API.CONSUMER.MSG.NEXT.BENCH.{BARE}");
                client.publish_with_reply(api, inbox.clone(), ask.into()).await?;
            }
            let message = messages.next().await.context("the stream ends")?;
            push_json(&mut lines, &message.payload)?;
            client
                .publish(message.reply.context("nowhere to acknowledge")?, "+ACK".into())
                .await?;
        }
        client.flush().await?;
        lines.finish()
    }

    /// A consumer begins at the beginning again when it is made anew.
    async fn forget(&self, consumer: &str) -> Result<()> {
        let client = self.nats_client().await?;
        // It may not be there.
        client
            .request(format!("$JS.API.CONSUMER.DELETE.BENCH.{consumer}"), "".into())
            .await?;
        Ok(())
    }
}
