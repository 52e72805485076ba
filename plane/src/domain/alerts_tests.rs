//! Tests of the rules and of the machine behind each alert.

use proptest::prelude::*;

use super::*;
use crate::domain::history::Gauge;

struct Everywhere;

impl Scope for Everywhere {
    fn daemons_of(&self, workflow: &str) -> Vec<&str> {
        if workflow == "orders" { vec!["gw"] } else { vec!["hub"] }
    }

    fn chooses(&self, selector: &str, daemon: &str) -> bool {
        selector == format!("name:{daemon}")
    }

    fn knows(&self, selector: &str) -> bool {
        selector.starts_with("name:")
    }

    fn drift(&self, workflow: &str) -> Option<&str> {
        (workflow == "orders").then_some("column 'speed' is new")
    }
}

fn rule(when: AlertKind, over: u64, for_s: u64) -> AlertRule {
    AlertRule {
        name: "r".into(),
        when,
        over,
        for_s,
        ..built_in_rules().remove(0)
    }
}

fn is(subject: &str, all: &[(readings::Metric, u64)]) -> BTreeMap<String, Values> {
    let of = |(metric, value): &(readings::Metric, u64)| (metric.0, value * 1_000);
    BTreeMap::from([(subject.to_string(), all.iter().map(of).collect())])
}

#[test]
fn what_comes_with_the_plane_is_known_until_it_is_changed() {
    for rule in built_in_rules() {
        let changed = AlertRule {
            enabled: false,
            ..rule.clone()
        };
        assert!(is_built_in(&rule) && !is_built_in(&changed), "{rule:?}");
    }
}

#[test]
fn what_each_kind_calls_a_breach() {
    use AlertKind::{BufferFill, Cloned, DeadLetters, DiskFree, Drift, Errors, Failing, Lag, Offline, PlanStuck};
    use readings::{BUFFER, CLONED, DEAD, DISK_FREE, DRIFT, ERRORS, LAG, ONLINE, PLAN_BEHIND, TROUBLED};
    let mib = 1 << 20;
    for (kind, over, subject, values, is_so) in [
        (Offline, 0, "daemon:gw", &[(ONLINE, 0)][..], Some(true)),
        (Offline, 0, "daemon:gw", &[(ONLINE, 1)], Some(false)),
        (Offline, 0, "daemon:gw", &[], None),
        (Lag, 60, "stream:o/a->b", &[(LAG, 60_000)], Some(false)),
        (Lag, 60, "stream:o/a->b", &[(LAG, 61_000)], Some(true)),
        (Errors, 59, "workflow:o", &[(ERRORS, 1)], Some(true)),
        (Errors, 60, "workflow:o", &[(ERRORS, 1)], Some(false)),
        (
            BufferFill,
            80,
            "daemon:gw",
            &[(BUFFER, 81), (DISK_FREE, 19)],
            Some(true),
        ),
        (
            BufferFill,
            80,
            "daemon:gw",
            &[(BUFFER, 80), (DISK_FREE, 20)],
            Some(false),
        ),
        (BufferFill, 80, "daemon:gw", &[(BUFFER, 0), (DISK_FREE, 0)], Some(false)),
        (BufferFill, 80, "daemon:gw", &[(BUFFER, 80)], None),
        (DeadLetters, 0, "workflow:o", &[(DEAD, 1)], Some(true)),
        (DiskFree, 200, "daemon:gw", &[(DISK_FREE, 199 * mib)], Some(true)),
        (DiskFree, 200, "daemon:gw", &[(DISK_FREE, 200 * mib)], Some(false)),
        (Failing, 0, "workflow:o", &[(TROUBLED, 1)], Some(true)),
        (PlanStuck, 0, "daemon:gw", &[(PLAN_BEHIND, 1)], Some(true)),
        (Cloned, 0, "daemon:gw", &[(CLONED, 0)], Some(false)),
        (Drift, 60, "workflow:orders", &[(DRIFT, 60_999)], Some(true)),
        (Drift, 60, "workflow:orders", &[(DRIFT, 61_000)], Some(false)),
        (Drift, 60, "workflow:orders", &[(TROUBLED, 0)], None),
    ] {
        let found = judge(
            &rule(kind, over, 0),
            subject,
            &is(subject, values)[subject],
            &Everywhere,
        );
        assert_eq!(found.map(|(is_so, _)| is_so), is_so, "{kind:?} {values:?}");
    }
}

#[test]
fn whom_a_rule_concerns() {
    for (kind, select, workflow, subject, yes) in [
        (AlertKind::Offline, "", "", "daemon:gw", true),
        (AlertKind::Offline, "", "", "workflow:orders", false),
        (AlertKind::Offline, "name:hub", "", "daemon:gw", false),
        (AlertKind::Offline, "", "orders", "daemon:gw", true),
        (AlertKind::Offline, "", "orders", "daemon:hub", false),
        (AlertKind::Lag, "name:gw", "", "stream:orders/a->b", true),
        (AlertKind::Lag, "name:gw", "", "stream:other/a->b", false),
        (AlertKind::Lag, "", "orders", "stream:other/a->b", false),
        (AlertKind::Failing, "", "orders", "workflow:orders", true),
    ] {
        let rule = AlertRule {
            select: select.into(),
            workflow: workflow.into(),
            ..rule(kind, 1, 0)
        };
        assert_eq!(
            concerns(&rule, subject, &Everywhere),
            yes,
            "{kind:?} {select} {workflow} {subject}"
        );
    }
}

#[test]
fn an_alert_from_begin_to_end() {
    let rules = [rule(AlertKind::Offline, 0, 20)];
    let mut alerts = Alerts::default();
    let id = id_of("r", "daemon:gw");
    let mut now = 0;
    // (online, told, state afterwards)
    for (online, told, state) in [
        (1, None, None),
        (0, None, Some(AlertState::Pending)),
        (1, None, None),
        (0, None, Some(AlertState::Pending)),
        (0, None, Some(AlertState::Pending)),
        (0, Some(AlertState::Firing), Some(AlertState::Firing)),
        (0, None, Some(AlertState::Firing)),
        (1, None, Some(AlertState::Firing)),
        (0, None, Some(AlertState::Firing)),
        (1, None, Some(AlertState::Firing)),
        (1, None, Some(AlertState::Firing)),
        (1, Some(AlertState::Resolved), None),
    ] {
        now += 10_000;
        // Over a restart at every step.
        alerts = bus_schema::decode(&bus_schema::encode(&alerts)).unwrap();
        let values = is("daemon:gw", &[(readings::ONLINE, online)]);
        let notices = alerts.step(&rules, &values, &Everywhere, 10_000, now);
        let states: Vec<_> = notices.iter().map(|notice| notice.alert.state).collect();
        assert_eq!(states, told.into_iter().collect::<Vec<_>>(), "at {now}");
        assert_eq!(alerts.views(now).first().map(|view| view.state), state, "at {now}");
    }
    assert!(!alerts.contains(&id));
    // Its daemon is gone altogether, or its rule.
    for (rules, values) in [
        (&rules[..], BTreeMap::new()),
        (&[][..], is("daemon:gw", &[(readings::ONLINE, 0)])),
    ] {
        let mut alerts = Alerts::default();
        for _ in 0..3 {
            alerts.step(
                &[rule(AlertKind::Offline, 0, 20)],
                &is("daemon:gw", &[(readings::ONLINE, 0)]),
                &Everywhere,
                10_000,
                0,
            );
        }
        let notices = alerts.step(rules, &values, &Everywhere, 10_000, 0);
        assert_eq!(
            notices.first().map(|notice| notice.alert.state),
            Some(AlertState::Resolved)
        );
    }
}

#[test]
fn a_silence_ends_by_itself_and_the_alert_is_told_then() {
    let rules = [rule(AlertKind::Offline, 0, 0)];
    let (id, down) = (id_of("r", "daemon:gw"), is("daemon:gw", &[(readings::ONLINE, 0)]));
    let mut alerts = Alerts::default();
    assert!(alerts.silence(&id, 60, " ", 0).is_err());
    assert!(alerts.silence(&id, SILENCE_S_MAX + 1, "x", 0).is_err());
    alerts.silence(&id, 60, "moving house", 0).unwrap();
    assert_eq!(alerts.step(&rules, &down, &Everywhere, 10_000, 1_000), []);
    assert_eq!(alerts.views(1_000)[0].silence_reason, "moving house");
    assert_eq!(alerts.step(&rules, &down, &Everywhere, 10_000, 59_999), []);
    assert_eq!(alerts.step(&rules, &down, &Everywhere, 10_000, 60_000).len(), 1);
    assert!(alerts.silence(&id, 0, "", 60_000).is_err(), "it is over already");
}

#[test]
fn rules_that_cannot_be() {
    let good = rule(AlertKind::Lag, 1, 1);
    let channels = ["ops".to_string()];
    let with = |change: fn(&mut AlertRule)| {
        let mut rule = good.clone();
        change(&mut rule);
        vec![rule]
    };
    for (rules, part) in [
        (with(|_| ()), None),
        (with(|rule| rule.name = "No name".into()), Some("cannot be a name")),
        (vec![good.clone(), good.clone()], Some("two rules 'r'")),
        (with(|rule| rule.for_s = 1 << 30), Some("longer than 7 days")),
        (
            with(|rule| (rule.when, rule.over) = (AlertKind::BufferFill, 100)),
            Some("percentage"),
        ),
        (with(|rule| rule.select = "bad".into()), Some("select: bad one")),
        (with(|rule| rule.notify = vec!["ops".into()]), None),
        (
            with(|rule| rule.notify = vec!["boss".into()]),
            Some("no channel 'boss'; plane.toml names: ops"),
        ),
        (vec![good.clone(); RULES_MAX + 1], Some("at most 200 rules")),
    ] {
        let selects = |text: &str| if text == "bad" { Err("bad one".into()) } else { Ok(()) };
        let found = mistake(&rules, &channels, selects);
        assert_eq!(found.is_some(), part.is_some(), "{found:?}");
        assert!(found.unwrap_or_default().contains(part.unwrap_or_default()));
    }
    let own = [AlertRule {
        enabled: false,
        ..built_in_rules().remove(0)
    }];
    let all = all_rules(&own);
    assert_eq!(all.len(), built_in_rules().len());
    assert_eq!(all.iter().filter(|rule| !rule.enabled).count(), 1);
    assert_eq!(mistake(&built_in_rules(), &[], |_| Ok(())), None);
}

#[test]
fn a_preview_says_when_it_would_have_fired() {
    let states = [1, 0, 0, 0, 1, 1, 1, 0, 0];
    let history = states
        .iter()
        .zip(0i64..)
        .map(|(online, minute)| (minute * 60_000, is("daemon:gw", &[(readings::ONLINE, *online)])))
        .collect();
    let fired = preview(&rule(AlertKind::Offline, 0, 60), &history, &Everywhere, 60);
    let times: Vec<_> = fired
        .iter()
        .map(|fired| (fired.from_unix_ms, fired.to_unix_ms))
        .collect();
    assert_eq!(times, [(120_000, Some(240_000)), (480_000, None)]);
}

proptest! {
    #[test]
    fn told_and_over_take_turns_and_only_when_it_held(
        for_s in 0u64..60,
        story in proptest::collection::vec((any::<bool>(), 1_000u64..20_000, proptest::option::of(0u64..90)), 1..200)
    ) {
        let rules = [rule(AlertKind::Offline, 0, for_s)];
        let id = id_of("r", "daemon:gw");
        let (mut alerts, mut now, mut told, mut so_for) = (Alerts::default(), 0i64, false, None::<u64>);
        let mut silent_until = 0;
        for (down, step_ms, silence) in story {
            now += step_ms as i64;
            so_for = match (down, so_for) { (false, _) => None, (true, None) => Some(0), (true, Some(ms)) => Some(ms + step_ms) };
            if let Some(for_s) = silence.filter(|for_s| *for_s > 0) {
                alerts.silence(&id, for_s, "x", now).unwrap();
                silent_until = now + for_s as i64 * 1_000;
            }
            let values = is("daemon:gw", &[(readings::ONLINE, u64::from(!down))]);
            let was_firing = alerts.views(now).first().is_some_and(|view| view.state == AlertState::Firing);
            for notice in alerts.step(&rules, &values, &Everywhere, step_ms, now) {
                match notice.alert.state {
                    AlertState::Firing => {
                        prop_assert!(!told);
                        prop_assert!(was_firing || so_for.is_some_and(|ms| ms >= for_s * 1_000));
                        prop_assert!(now >= silent_until);
                        told = true;
                    }
                    _ => {
                        prop_assert!(told && !down);
                        told = false;
                    }
                }
            }
        }
    }
}

#[test]
fn gauges_count_at_their_worst() {
    let amount = Amount::Gauge(Gauge::of(5));
    let reading = |metric, amount| Reading {
        subject: "daemon:gw".into(),
        metric,
        amount,
    };
    let all = values(
        &[
            reading(readings::MEMORY, amount),
            reading(readings::CPU, Amount::Growth(70)),
        ],
        10,
    );
    assert_eq!(all["daemon:gw"], Values::from([("memory", 5_000), ("cpu", 7_000)]));
}

#[test]
fn a_rollout_that_stands_too_long_is_stuck() {
    let rules = [rule(AlertKind::RolloutStuck, 900, 0)];
    let mut alerts = Alerts::default();
    let mut said = |ms| {
        let values = of_rollouts([("orders".to_string(), ms)]).collect();
        alerts.step(&rules, &values, &Everywhere, 10_000, 0)
    };
    assert_eq!(said(900_000), []);
    let notices = said(901_000);
    assert_eq!(notices.len(), 1);
    let alert = &notices[0].alert;
    assert_eq!(alert.subject, "rollout:orders");
    assert!(
        alert.summary.contains("'orders' has stood at the same place for 901 s"),
        "{}",
        alert.summary
    );
}

#[test]
fn nothing_is_over_because_nobody_knows_whom_a_rule_is_about() {
    let mut rule = AlertRule {
        select: "name:gw".into(),
        ..rule(AlertKind::Offline, 0, 0)
    };
    let (mut alerts, offline) = (Alerts::default(), is("daemon:gw", &[(readings::ONLINE, 0)]));
    assert_eq!(
        alerts
            .step(std::slice::from_ref(&rule), &offline, &Everywhere, 10_000, 0)
            .len(),
        1
    );
    rule.select = "group:gone".into();
    for step in 1..20 {
        let notices = alerts.step(
            std::slice::from_ref(&rule),
            &offline,
            &Everywhere,
            10_000,
            step * 10_000,
        );
        assert!(notices.is_empty(), "{notices:?}");
    }
    assert_eq!(alerts.views(0)[0].state, AlertState::Firing);
    rule.select = "name:gw".into();
    let online = is("daemon:gw", &[(readings::ONLINE, 1)]);
    let over =
        (20..24).flat_map(|step| alerts.step(std::slice::from_ref(&rule), &online, &Everywhere, 10_000, step * 10_000));
    assert_eq!(
        over.map(|notice| notice.alert.state).collect::<Vec<_>>(),
        [AlertState::Resolved]
    );
}

#[test]
fn sizes_have_the_unit_that_is_easiest_to_read() {
    for (free, over, said) in [
        (
            30_916 << 20,
            40_960,
            "daemon 'gw' has 30.2 GiB of disk left, under 40.0 GiB",
        ),
        (
            100 << 20,
            200,
            "daemon 'gw' has 100.0 MiB of disk left, under 200.0 MiB",
        ),
    ] {
        let values = is("daemon:gw", &[(readings::DISK_FREE, free)]);
        let rule = rule(AlertKind::DiskFree, over, 0);
        let found = judge(&rule, "daemon:gw", &values["daemon:gw"], &Everywhere);
        assert_eq!(found, Some((true, said.to_string())));
    }
}

#[test]
fn drift_fires_while_it_was_seen_lately_and_says_which_column() {
    let mut alerts = Alerts::default();
    let rules = [rule(AlertKind::Drift, 60, 0)];
    let mut step = |ago_ms: Option<u64>, heard: &[&str]| {
        let mut values = is("workflow:orders", &[(readings::TROUBLED, 0)]);
        if let Some(ago_ms) = ago_ms {
            values = is("workflow:orders", &[(readings::DRIFT, ago_ms)]);
        }
        without_drift(&mut values, heard.iter().copied());
        let notices = alerts.step(&rules, &values, &Everywhere, 10_000, 0);
        let told = notices
            .into_iter()
            .map(|notice| (notice.alert.state, notice.alert.summary));
        told.collect::<Vec<_>>()
    };
    assert_eq!(step(None, &["orders"]), [], "none");
    let said = "columns of workflow 'orders' are not as agreed: column 'speed' is new";
    assert_eq!(step(Some(5_000), &["orders"]), [(AlertState::Firing, said.to_string())]);
    assert_eq!(step(Some(60_000), &["orders"]), []);
    for _ in 0..9 {
        assert_eq!(step(None, &[]), [], "a plane that was not told yet has nothing to say");
    }
    assert_eq!(step(Some(61_000), &["orders"]), []);
    assert_eq!(step(None, &["orders"]), []);
    assert_eq!(step(None, &["orders"]), [(AlertState::Resolved, said.to_string())]);
    let wrong = |over| mistake(&[rule(AlertKind::Drift, over, 0)], &[], |_| Ok(()));
    assert_eq!(
        [0, 1, 86_400, 86_401].map(|over| wrong(over).is_some()),
        [true, false, false, true]
    );
}
