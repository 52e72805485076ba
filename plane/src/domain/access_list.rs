//! The broker's access list in another broker's language, for fleets that bring their own. Made from the same rules the
//! embedded broker applies; knows no passwords.

use std::fmt::Write;

use bus_schema::{
    access::{self, Rules, User},
    api::BrokerKind,
    id::{NodeId, TokenId},
    subject::{self, Dialect, Pattern},
};

use super::State;

/// The user under which candidates connect at a broker that cannot make up users: all tokens share it.
pub const ENROL_USER: &str = "enrol";

/// The user who hears what the plane says without sealing it, and nothing else: who is no member of the fleet.
pub const PANEL_USER: &str = "panel";

/// The account's name in nats-server's accounts block.
const ACCOUNT: &str = "MYCELIAL";

/// Who it is, its user name, and what it may do.
type Listed = (String, String, Rules);

/// Where nats-server itself delivers QoS 1 messages to clients of its MQTT listener: they need leave to hear it.
const NATS_MQTT: &str = "$MQTT.sub.>";

impl State {
    /// The access list of everybody on the roster; or of one member alone.
    pub fn access_list(&self, broker: BrokerKind, of: Option<&NodeId>) -> String {
        let mut users = self.users();
        if let Some(node) = of {
            users.retain(|(_, user, _)| user == node.as_str());
        }
        match broker {
            BrokerKind::Mosquitto => mosquitto(&users),
            BrokerKind::Nats => nats(&users, false),
            BrokerKind::NatsAccount => nats(&users, true),
        }
    }

    fn users(&self) -> Vec<Listed> {
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
        let topics = self.plain_topics.iter();
        let subjects = topics.filter_map(|topic| subject::app(&self.fleet, &self.plane, topic).ok());
        let subscribe: Vec<_> = subjects
            .filter_map(|subject| Pattern::parse(subject.as_str()).ok())
            .collect();
        if !subscribe.is_empty() {
            let publish = Vec::new();
            let label = "panels, which hear of alerts in the clear".to_string();
            users.push((label, PANEL_USER.to_string(), Rules { publish, subscribe }));
        }
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
}

fn mosquitto(users: &[Listed]) -> String {
    let mut text = String::from(
        "# acl_file for Eclipse Mosquitto (allow_anonymous false, password_file with these users).\n\
         # Made by mycelial-plane; make it again after every enrolment.\n",
    );
    for (label, user, rules) in users {
        let _ = write!(text, "\n# {label}\nuser {user}\n");
        for (verb, patterns) in [("write", &rules.publish), ("read", &rules.subscribe)] {
            for pattern in patterns {
                let _ = writeln!(text, "topic {verb} {}", pattern.render(Dialect::Mqtt));
            }
        }
    }
    text
}

/// `as_account`: within an account of its own, for a server that others use too.
fn nats(users: &[Listed], as_account: bool) -> String {
    let (block, indent) = if as_account {
        (format!("accounts {{\n  {ACCOUNT}: {{\n"), "    ")
    } else {
        ("authorization {\n".to_string(), "  ")
    };
    let mut text = format!(
        "# {} block for nats-server; put a password for each user in place of the $ variables.\n\
         # Made by mycelial-plane; make it again after every enrolment.\n\
         # A member that comes through nats-server's MQTT listener must also be allowed to subscribe to {NATS_MQTT}\n\
         {block}{indent}users = [\n",
        if as_account { "accounts" } else { "authorization" },
    );
    for (label, user, rules) in users {
        let list = |patterns: &[Pattern]| {
            let quoted: Vec<_> = patterns
                .iter()
                .map(|p| format!("\"{}\"", p.render(Dialect::Nats)))
                .collect();
            match quoted.is_empty() {
                // An empty list would allow everything.
                true => "{ deny: [\">\"] }".to_string(),
                false => format!("[{}]", quoted.join(", ")),
            }
        };
        let _ = write!(
            text,
            "{indent}  # {label}\n{indent}  {{ user: \"{user}\", password: $PASSWORD_{user}, permissions: {{\n\
             {indent}    publish: {}\n{indent}    subscribe: {}\n{indent}  }} }}\n",
            list(&rules.publish),
            list(&rules.subscribe),
        );
    }
    text.push_str(indent);
    text.push_str(if as_account { "]\n  }\n}\n" } else { "]\n}\n" });
    text
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
        let mosquitto = state.access_list(BrokerKind::Mosquitto, None);
        for line in [
            format!("user {gw}\ntopic write myc/v1/{fleet}/ctl/{gw}/#\n"),
            format!("topic read myc/v1/{fleet}/ctl/+/{gw}\n"),
            format!("topic read myc/v1/{fleet}/enrol/+/ask\n"),
            format!("user enrol\ntopic write myc/v1/{fleet}/enrol/+/ask\ntopic read myc/v1/{fleet}/enrol/+/answer\n"),
        ] {
            assert!(mosquitto.contains(&line), "{line} in\n{mosquitto}");
        }
        assert_eq!(mosquitto.matches("\nuser ").count(), 4);
        let nats = state.access_list(BrokerKind::Nats, None);
        for line in [
            format!("user: \"{plane}\""),
            format!("\"myc.v1.{fleet}.ctl.{gw}.>\""),
            format!("\"myc.v1.{fleet}.enrol.*.answer\""),
            NATS_MQTT.to_string(),
        ] {
            assert!(nats.contains(&line), "{line} in\n{nats}");
        }
        assert!(!nats.contains(PANEL_USER) && !mosquitto.contains(PANEL_USER));
        state.plain_topics = vec!["alerts.plant".into()];
        let panels = state.access_list(BrokerKind::Mosquitto, None);
        let line = format!("user {PANEL_USER}\ntopic read myc/v1/{fleet}/app/{plane}/alerts/plant\n");
        assert!(panels.ends_with(&line), "{panels}");
        let panels = state.access_list(BrokerKind::Nats, None);
        let permissions =
            format!("publish: {{ deny: [\">\"] }}\n      subscribe: [\"myc.v1.{fleet}.app.{plane}.alerts.plant\"]\n");
        assert!(panels.contains(&permissions), "{panels}");
        let account = state.access_list(BrokerKind::NatsAccount, None);
        assert!(
            account.contains("accounts {\n  MYCELIAL: {\n    users = [\n"),
            "{account}"
        );
        for broker in [BrokerKind::Mosquitto, BrokerKind::Nats, BrokerKind::NatsAccount] {
            let one = state.access_list(broker, Some(&gw));
            assert!(
                one.contains(gw.as_str()) && !one.contains("candidates") && !one.contains("anna"),
                "{one}"
            );
            assert_eq!(
                one.matches("\n# daemon 'gw'").count() + one.matches("  # daemon 'gw'").count(),
                1,
                "{one}"
            );
        }
    }
}
