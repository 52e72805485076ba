//! The bus, as members of a fleet use it. [`Bus`] moves bytes over NATS, MQTT or memory.

mod bus;

pub use bus::{
    AddressError, Bus, BusAddress, BusConfig, ConfigError, Counters, Credentials, Event, Protocol, PublishError, Secret,
    Status, Tls, TlsError, memory,
};
