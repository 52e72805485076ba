//! An MQTT client that does what a `Bus` never does: keeps its session, and leaves retained messages behind.

use std::time::Duration;

use bus_link::Credentials;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::time::timeout;

use super::{Door, Road, SOON};

/// It lives only while something is asked of it. Dropped, it hangs up without a word.
pub struct Stranger {
    client: AsyncClient,
    events: EventLoop,
}

impl Stranger {
    /// Comes in as `client`, with its id and its login, for a session that stays.
    pub fn on_mqtt(road: &Road, client: &str) -> Self {
        let Some(Door::Mqtt(broker)) = road.door else {
            panic!("this broker does not speak MQTT");
        };
        let (id, credentials) = road.login(client);
        let mut options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
        options.set_clean_session(false).set_keep_alive(Duration::from_secs(60));
        if let Credentials::UserPassword { user, password } = credentials {
            options.set_credentials(user, password.expose());
        }
        let (client, events) = AsyncClient::new(options, 16);
        Self { client, events }
    }

    pub async fn subscribe(&mut self, filter: &str) {
        self.client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
        self.until(|packet| matches!(packet, Packet::SubAck(_))).await;
    }

    pub async fn retain(&mut self, topic: &str, payload: &[u8]) {
        self.client.try_publish(topic, QoS::AtLeastOnce, true, payload).unwrap();
        self.until(|packet| matches!(packet, Packet::PubAck(_))).await;
    }

    async fn until(&mut self, wanted: impl Fn(&Packet) -> bool) {
        let found = async {
            loop {
                if let Event::Incoming(packet) = self.events.poll().await.unwrap()
                    && wanted(&packet)
                {
                    return;
                }
            }
        };
        timeout(SOON, found).await.expect("the broker answers a stranger");
    }
}
