//! What goes wrong, and when: a pure function of the seed. Breaks nothing itself.

use std::time::Duration;

use crate::{Dice, Illness, Way};

/// Kills come this far apart, in milliseconds.
const KILLS_APART_MS: (u64, u64) = (1_500, 3_500);
/// So do other faults.
const FAULTS_APART_MS: (u64, u64) = (1_000, 4_000);

/// How far a clock jumps.
const FIVE_YEARS_S: i64 = 5 * 365 * 24 * 3_600;

/// Who can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Victim {
    /// The producing daemon.
    Gateway,
    /// The consuming daemon.
    Hub,
    /// The plane.
    Plane,
    /// The broker.
    Broker,
    /// The PostgreSQL that is one of the destinations.
    Database,
}

impl Victim {
    /// All of them, in the order of reports.
    pub const ALL: [Victim; 5] = [
        Victim::Gateway,
        Victim::Hub,
        Victim::Plane,
        Victim::Broker,
        Victim::Database,
    ];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Victim::Gateway => "gateway",
            Victim::Hub => "hub",
            Victim::Plane => "plane",
            Victim::Broker => "broker",
            Victim::Database => "database",
        }
    }
}

/// Whose road to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Road {
    /// The producer's.
    Gateway,
    /// The consumer's.
    Hub,
}

/// One thing that goes wrong, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// kill -9, and started again after a while.
    Kill(Victim, Duration),
    /// The broker is killed, and what it had stored is gone when it returns.
    Wipe(Duration),
    /// Stands still, and goes on.
    Freeze(Victim, Duration),
    /// Every connection ends and no new one is made.
    Cut(Road, Duration),
    /// Connections stay, and nothing passes.
    Stall(Road, Duration),
    /// Nothing passes in one direction.
    OneWay(Road, Way, Duration),
    /// Every connection ends.
    Drop(Road),
    /// What the road is like from now on.
    Weather(Road, Weather),
    /// The disk of a daemon suffers.
    Disk(Victim, Illness, Duration),
    /// What the wall clock of a daemon shows from now on.
    Clock(Victim, Skew),
}

/// How wrong a wall clock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// Not at all.
    Right,
    /// It counts from the beginning of 1970.
    Since1970,
    /// By so many seconds, into the past when negative.
    By(i64),
}

/// What a road is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// How late everything is, each way.
    pub delay: Duration,
    /// And up to how much later still.
    pub jitter: Duration,
    /// Connections lost per million chunks.
    pub losses_per_million: u64,
    /// Bytes a second, each way.
    pub bytes_per_s: Option<u64>,
}

/// An endless series of faults, each with the time since the start.
pub struct Schedule {
    kills: Dice,
    faults: Dice,
    next_kill: Duration,
    next_fault: Duration,
}

impl Schedule {
    /// The series of this seed.
    #[must_use]
    pub fn new(dice: &mut Dice) -> Self {
        let (mut kills, mut faults) = (dice.split(), dice.split());
        Self {
            next_kill: kills.millis(KILLS_APART_MS.0, KILLS_APART_MS.1),
            next_fault: faults.millis(FAULTS_APART_MS.0, FAULTS_APART_MS.1),
            kills,
            faults,
        }
    }
}

impl Iterator for Schedule {
    type Item = (Duration, Act);

    fn next(&mut self) -> Option<(Duration, Act)> {
        if self.next_kill <= self.next_fault {
            let at = self.next_kill;
            self.next_kill += self.kills.millis(KILLS_APART_MS.0, KILLS_APART_MS.1);
            Some((at, kill(&mut self.kills)))
        } else {
            let at = self.next_fault;
            self.next_fault += self.faults.millis(FAULTS_APART_MS.0, FAULTS_APART_MS.1);
            Some((at, fault(&mut self.faults)))
        }
    }
}

fn kill(dice: &mut Dice) -> Act {
    match dice.roll(100) {
        0..32 => Act::Kill(Victim::Gateway, dice.millis(0, 1_500)),
        32..64 => Act::Kill(Victim::Hub, dice.millis(0, 1_500)),
        64..76 => Act::Kill(Victim::Plane, dice.millis(0, 4_000)),
        76..86 => Act::Kill(Victim::Broker, dice.millis(0, 2_500)),
        86..92 => Act::Wipe(dice.millis(0, 2_500)),
        _ => Act::Kill(Victim::Database, dice.millis(0, 1_500)),
    }
}

fn fault(dice: &mut Dice) -> Act {
    let road = *dice.pick(&[Road::Gateway, Road::Hub]);
    let daemon = *dice.pick(&[Victim::Gateway, Victim::Hub]);
    match dice.roll(13) {
        0 => Act::Freeze(Victim::Gateway, dice.millis(50, 1_000)),
        1 => Act::Freeze(Victim::Hub, dice.millis(50, 1_000)),
        2 => Act::Freeze(*dice.pick(&[Victim::Broker, Victim::Database]), dice.millis(50, 2_000)),
        3 => Act::Cut(road, dice.millis(50, 3_000)),
        4 => Act::Stall(road, dice.millis(50, 2_000)),
        5 => Act::OneWay(road, *dice.pick(&[Way::Up, Way::Down]), dice.millis(50, 2_000)),
        6 => Act::Drop(road),
        7 => Act::Weather(road, Weather::default()),
        8 | 9 => Act::Disk(daemon, illness(dice), dice.millis(50, 2_000)),
        10 => Act::Clock(daemon, skew(dice)),
        _ => Act::Weather(road, weather(dice)),
    }
}

fn illness(dice: &mut Dice) -> Illness {
    match dice.roll(4) {
        0 => Illness::Full,
        1 => Illness::ReadOnly,
        2 => Illness::NoSync,
        _ => Illness::Slow(dice.millis(20, 500)),
    }
}

fn skew(dice: &mut Dice) -> Skew {
    match dice.roll(4) {
        0 => Skew::Right,
        1 => Skew::Since1970,
        2 => Skew::By(FIVE_YEARS_S),
        _ => Skew::By(-FIVE_YEARS_S),
    }
}

/// Bad, and yet something gets through between two kills: a soak that delivers nothing finds nothing.
fn weather(dice: &mut Dice) -> Weather {
    let mut weather = Weather::default();
    if dice.roll(2) == 0 {
        weather.delay = dice.millis(1, 150);
        weather.jitter = dice.millis(0, 150);
    }
    if dice.roll(3) == 0 {
        weather.losses_per_million = dice.between(100, 1_000);
    }
    if dice.roll(3) == 0 {
        weather.bytes_per_s = Some(dice.between(100_000, 1_000_000));
    }
    weather
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats() {
        let series = |seed| Schedule::new(&mut Dice::new(seed)).take(200).collect::<Vec<_>>();
        assert_eq!(series(1), series(1));
        assert_ne!(series(1), series(2));
    }

    #[test]
    fn everything_happens_in_order_and_often_enough() {
        let series: Vec<_> = Schedule::new(&mut Dice::new(5)).take(2_000).collect();
        assert!(series.is_sorted_by_key(|(at, _)| *at));
        let is_kill = |act: &Act| matches!(act, Act::Kill(..) | Act::Wipe(_));
        let kills = series.iter().filter(|(_, act)| is_kill(act)).count();
        let (last, _) = series.last().unwrap();
        let apart = last.as_secs_f64() / kills as f64;
        assert!((2.0..3.0).contains(&apart), "a kill every {apart} s");
        for victim in Victim::ALL {
            assert!(
                series
                    .iter()
                    .any(|(_, act)| matches!(act, Act::Kill(who, _) if *who == victim))
            );
        }
        for seen in [
            series.iter().any(|(_, act)| matches!(act, Act::Wipe(_))),
            series.iter().any(|(_, act)| matches!(act, Act::Freeze(..))),
            series.iter().any(|(_, act)| matches!(act, Act::Cut(..))),
            series.iter().any(|(_, act)| matches!(act, Act::Stall(..))),
            series.iter().any(|(_, act)| matches!(act, Act::OneWay(..))),
            series.iter().any(|(_, act)| matches!(act, Act::Drop(_))),
            series
                .iter()
                .any(|(_, act)| matches!(act, Act::Disk(_, Illness::NoSync, _))),
            series
                .iter()
                .any(|(_, act)| matches!(act, Act::Disk(_, Illness::Full, _))),
            series.iter().any(|(_, act)| matches!(act, Act::Clock(_, Skew::By(_)))),
            series
                .iter()
                .any(|(_, act)| matches!(act, Act::Weather(_, weather) if weather.bytes_per_s.is_some())),
            series
                .iter()
                .any(|(_, act)| matches!(act, Act::Weather(_, weather) if weather.losses_per_million > 0)),
        ] {
            assert!(seen);
        }
    }
}
