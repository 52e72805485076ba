//! The life of a plan: the plane changes its mind, offers what it has in any order and again, the daemon is away, dies between
//! storing and acting, comes back. In the end it runs the newest plan, and has not begun anything twice.

use std::collections::BTreeMap;

use bus_schema::{
    id::{FleetId, NodeId, WorkflowId},
    plan::{Pipe, Plan, PlanWorkflow, Root},
};
use converge::{Refused, difference, judge};

use crate::{
    dice::Dice,
    net::{Lane, Weather},
    setting::Mistake,
};

/// Offers until the plane is sure to have been heard.
const OFFERS_MAX: u64 = 200;

#[derive(Default)]
struct Daemon {
    /// Survives everything.
    cached: Option<Plan>,
    /// The rest dies with the process.
    lives: bool,
    plan: Option<Plan>,
    running: BTreeMap<WorkflowId, PlanWorkflow>,
    /// Starts of each workflow in this life, by its content.
    starts: BTreeMap<(WorkflowId, usize), u64>,
    /// The highest version this daemon ever acted on.
    acted: u64,
}

struct Story<'a> {
    fleet: FleetId,
    node: NodeId,
    daemon: Daemon,
    offers: Lane<Plan>,
    newest: Plan,
    dice: &'a mut Dice,
    mistake: Option<Mistake>,
    tells: bool,
}

/// Runs one.
pub fn run(dice: &mut Dice, mistake: Option<Mistake>, tells: bool) -> Result<(), String> {
    let (fleet, node) = (FleetId::from_hash(&[1; 32]), NodeId::from_hash(&[2; 32]));
    let newest = Plan {
        fleet,
        daemon: node,
        version: 0,
        workflows: Vec::new(),
    };
    let mut story = Story {
        fleet,
        node,
        daemon: Daemon::default(),
        offers: Lane::default(),
        newest,
        dice,
        mistake,
        tells,
    };
    story.live()?;
    story.settle()
}

fn workflow(name: u64, revision: u32, pipes: usize) -> PlanWorkflow {
    let name = ["a", "b", "c"][name as usize];
    let pipe = Pipe {
        root: Root::Source(0),
        steps: Vec::new(),
    };
    PlanWorkflow {
        id: WorkflowId::of_name(name),
        name: name.to_string(),
        revision,
        nodes: Vec::new(),
        pipes: vec![pipe; pipes],
    }
}

impl Story<'_> {
    fn say(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("     plan  {}", what());
        }
    }

    fn live(&mut self) -> Result<(), String> {
        for _ in 0..self.dice.between(10, 60) {
            match self.dice.below(10) {
                0..2 => self.change(),
                2..5 => self.offers.push(self.newest.clone()),
                5 => {
                    let keeps = self.dice.once_in(2);
                    self.offers.reconnect(keeps);
                }
                6 => self.die("killed"),
                7 => self.somebody_elses(),
                _ => self.turn(Weather { loses: 6, doubles: 4 })?,
            }
        }
        Ok(())
    }

    /// While the daemon is away the plane may change its mind often.
    fn change(&mut self) {
        self.newest.version += 1;
        let count = self.dice.below(4);
        self.newest.workflows = (0..count.min(3))
            .map(|name| workflow(name, self.newest.version as u32, self.dice.below(2) as usize))
            .collect();
        self.say(|| format!("version {} wants {count} workflows", self.newest.version));
    }

    fn somebody_elses(&mut self) {
        let mut other = self.newest.clone();
        other.version += 100;
        other.daemon = NodeId::from_hash(&[9; 32]);
        self.offers.push(other);
    }

    fn die(&mut self, how: &str) {
        if self.daemon.lives {
            self.say(|| format!("the daemon dies: {how}"));
        }
        self.daemon = Daemon {
            cached: self.daemon.cached.take(),
            acted: self.daemon.acted,
            ..Daemon::default()
        };
    }

    fn turn(&mut self, weather: Weather) -> Result<(), String> {
        if !self.daemon.lives {
            self.daemon.lives = true;
            let cached = self.daemon.cached.clone();
            if let Some(plan) = cached.filter(|plan| judge(plan, &self.fleet, &self.node, 0).is_ok()) {
                self.say(|| format!("the daemon starts with version {}", plan.version));
                self.act(plan)?;
            }
            return Ok(());
        }
        if let Some(offered) = self.offers.pop(weather, self.dice) {
            self.offered(offered)?;
        }
        Ok(())
    }

    fn offered(&mut self, plan: Plan) -> Result<(), String> {
        let current = self.daemon.plan.as_ref().map_or(0, |plan| plan.version);
        let judged = judge(&plan, &self.fleet, &self.node, current);
        let any = self.mistake == Some(Mistake::AnyPlan) && plan.daemon == self.node;
        if let (Err(refused), false) = (judged, any) {
            self.say(|| format!("version {} is refused: {refused}", plan.version));
            if refused == Refused::Misaddressed && plan.daemon == self.node {
                return Err("a plan for this daemon was taken for another's".to_string());
            }
            return Ok(());
        }
        if self.mistake == Some(Mistake::PlanActedFirst) {
            self.act(plan.clone())?;
            if self.dice.once_in(8) {
                self.die("between acting and storing");
                return Ok(());
            }
        }
        // Stored whole or not at all.
        if self.dice.once_in(12) {
            self.die("before it has stored a plan");
            return Ok(());
        }
        self.daemon.cached = Some(plan.clone());
        if self.dice.once_in(12) {
            self.die("between storing and acting");
            return Ok(());
        }
        self.act(plan)
    }

    fn act(&mut self, plan: Plan) -> Result<(), String> {
        if plan.daemon != self.node {
            return Err("it runs another daemon's plan".to_string());
        }
        if plan.version < self.daemon.acted {
            return Err(format!(
                "it goes back from version {} to {}",
                self.daemon.acted, plan.version
            ));
        }
        self.daemon.acted = plan.version;
        let difference = difference(self.daemon.running.values(), &plan.workflows);
        for id in &difference.stop {
            if self.daemon.running.remove(id).is_none() {
                return Err("it stops what does not run".to_string());
            }
        }
        for workflow in &plan.workflows {
            let key = (workflow.id, workflow.pipes.len());
            if difference.start.contains(&workflow.id) {
                if self.daemon.running.insert(workflow.id, workflow.clone()).is_some() {
                    return Err(format!("it starts {} while it runs", workflow.name));
                }
                *self.daemon.starts.entry(key).or_default() += 1;
            } else if let Some(running) = self.daemon.running.get_mut(&workflow.id) {
                running.revision = workflow.revision;
            }
        }
        self.daemon.plan = Some(plan);
        Ok(())
    }

    /// Five changes while the daemon is away; then nothing fails any more.
    fn settle(&mut self) -> Result<(), String> {
        self.offers.reconnect(false);
        for _ in 0..5 {
            self.change();
        }
        let started_before: u64 = self.daemon.starts.values().sum();
        let was_alive = self.daemon.lives;
        for _ in 0..OFFERS_MAX {
            self.offers.push(self.newest.clone());
            self.turn(Weather::default())?;
        }
        let wanted: Vec<&PlanWorkflow> = self.newest.workflows.iter().collect();
        let running: Vec<&PlanWorkflow> = self.daemon.running.values().collect();
        let mut sorted = wanted.clone();
        sorted.sort_by_key(|workflow| workflow.id);
        if running != sorted {
            return Err(format!("it should run {sorted:?} and runs {running:?}"));
        }
        let started: u64 = self.daemon.starts.values().sum::<u64>()
            - if was_alive {
                started_before.min(self.daemon.starts.values().sum())
            } else {
                0
            };
        if was_alive && started > wanted.len() as u64 {
            return Err(format!("it started {started} workflows to run {}", wanted.len()));
        }
        Ok(())
    }
}
