//! The broker's access list in another broker's language, for fleets that bring their own. Made from the same rules the
//! embedded broker applies; knows no passwords.

use std::fmt::Write;

use bus_schema::{
    access::{self, Rules, User},
    api::BrokerKind,
    id::TokenId,
    subject::{Dialect, Pattern},
};

use super::State;

/// The user under which candidates connect at a broker that cannot make up users: all tokens share it.
pub const ENROL_USER: &str = "enrol";

/// Where nats-server itself delivers QoS 1 messages to clients of its MQTT listener: they need leave to hear it.
const NATS_MQTT: &str = "$MQTT.sub.>";

impl State {
    /// The access list of everybody on the roster.
    pub fn access_list(&self, broker: BrokerKind) -> String {
        match broker {
            BrokerKind::Mosquitto => self.mosquitto(),
            BrokerKind::Nats => self.nats(),
        }
    }

    fn users(&self) -> Vec<(String, String, Rules)> {
        let mut users: Vec<_> = [bus_schema::member::Role::Plane, bus_schema::member::Role::Daemon]
            .into_iter()
            .chain([bus_schema::member::Role::Operator])
            .flat_map(|role| self.members.of_role(role))
            .map(|member| {
                let user = User::Node(member.certificate.node);
                let label = format!("{} '{}'", member.certificate.role, member.certificate.name);
                (label, user.name(), access::rules(&self.fleet, &self.plane, &user))
            })
            .collect();
        users.push(("candidates".to_string(), ENROL_USER.to_string(), self.candidates()));
        users
    }

    /// The rules of a candidate, for any token.
    fn candidates(&self) -> Rules {
        let token = TokenId::from_hash(&[0; 32]);
        let any = |pattern: &Pattern| Pattern::parse(&pattern.as_str().replace(token.as_str(), "*")).ok();
        let Rules { publish, subscribe } = access::rules(&self.fleet, &self.plane, &User::Candidate(token));
        Rules {
            publish: publish.iter().filter_map(any).collect(),
            subscribe: subscribe.iter().filter_map(any).collect(),
        }
    }

    fn mosquitto(&self) -> String {
        let mut text = String::from(
            "# acl_file for Eclipse Mosquitto (allow_anonymous false, password_file with these users).\n\
             # Made by mycelial-plane; make it again after every enrolment.\n",
        );
        for (label, user, rules) in self.users() {
            let _ = write!(text, "\n# {label}\nuser {user}\n");
            for (verb, patterns) in [("write", &rules.publish), ("read", &rules.subscribe)] {
                for pattern in patterns {
                    let _ = writeln!(text, "topic {verb} {}", pattern.render(Dialect::Mqtt));
                }
            }
        }
        text
    }

    fn nats(&self) -> String {
        let mut text = format!(
            "# authorization block for nats-server; put a password for each user in place of the $ variables.\n\
             # Made by mycelial-plane; make it again after every enrolment.\n\
             # A member that comes through nats-server's MQTT listener must also be allowed to subscribe to {NATS_MQTT}\n\
             authorization {{\n  users = [\n",
        );
        for (label, user, rules) in self.users() {
            let list = |patterns: &[Pattern]| {
                let quoted: Vec<_> = patterns
                    .iter()
                    .map(|p| format!("\"{}\"", p.render(Dialect::Nats)))
                    .collect();
                quoted.join(", ")
            };
            let _ = write!(
                text,
                "    # {label}\n    {{ user: \"{user}\", password: $PASSWORD_{user}, permissions: {{\n      publish: [{}]\n      \
                 subscribe: [{}]\n    }} }}\n",
                list(&rules.publish),
                list(&rules.subscribe),
            );
        }
        text.push_str("  ]\n}\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        member::{Role, Signed},
        message::HostFacts,
    };

    use super::*;
    use crate::domain::{
        members::Member,
        testing::{certificate, fleet, identity, node},
    };

    #[test]
    fn both_brokers_get_every_rule() {
        let mut state = State::new(fleet(), node(100));
        for (n, name, role) in [
            (100, "plane", Role::Plane),
            (1, "gw", Role::Daemon),
            (2, "anna", Role::Operator),
        ] {
            let certificate = certificate(n, name, role);
            let signed = Signed::new(&certificate, &identity(0));
            state.members.insert(Member {
                certificate,
                signed,
                host: HostFacts::default(),
                enrolled_unix_ms: 0,
            });
        }
        let (fleet, gw, plane) = (fleet(), node(1), node(100));
        let mosquitto = state.access_list(BrokerKind::Mosquitto);
        for line in [
            format!("user {gw}\ntopic write myc/v1/{fleet}/ctl/{gw}/#\n"),
            format!("topic read myc/v1/{fleet}/ctl/+/{gw}\n"),
            format!("topic read myc/v1/{fleet}/enrol/+/ask\n"),
            format!("user enrol\ntopic write myc/v1/{fleet}/enrol/+/ask\ntopic read myc/v1/{fleet}/enrol/+/answer\n"),
        ] {
            assert!(mosquitto.contains(&line), "{line} in\n{mosquitto}");
        }
        assert_eq!(mosquitto.matches("\nuser ").count(), 4);
        let nats = state.access_list(BrokerKind::Nats);
        for line in [
            format!("user: \"{plane}\""),
            format!("\"myc.v1.{fleet}.ctl.{gw}.>\""),
            format!("\"myc.v1.{fleet}.enrol.*.answer\""),
            NATS_MQTT.to_string(),
        ] {
            assert!(nats.contains(&line), "{line} in\n{nats}");
        }
    }
}
