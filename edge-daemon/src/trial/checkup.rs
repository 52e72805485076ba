//! Checks the sources and destinations of a workflow from this daemon, and the transforms that others do (a program, a
//! database): each is built and asked whether it would work. Reads no record of a source, writes none, and leaves what runs alone.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Instant};

use bus_schema::{
    api::Failure,
    plan::{ComponentRole, PlanWorkflow},
    trial::{Checkup, Trouble, TroubleKind},
};
use connectors::{CustomCode, Refused};
use flow::{Build, BuildContext, ConfigError, Registry, check};
use tokio::{sync::Semaphore, task::JoinSet};
use workflow::Spec;

use super::invalid;

/// Checks at a time: each may hold a connection.
const AT_ONCE_MAX: usize = 8;
/// Values that the plane fills in for each daemon; in a text they stand open.
const OPEN: &str = "{{";

/// Where checks are made.
pub struct Checker<'a> {
    /// What this daemon can run.
    pub registry: &'a Registry,
    /// Its name.
    pub daemon: &'a str,
    /// Where relative paths in configs start.
    pub base_dir: &'a Path,
    /// Which code of the text's own may run.
    pub custom_code: &'a CustomCode,
}

/// One node, as much of it as a check needs.
struct Subject {
    node: String,
    role: ComponentRole,
    component: String,
    config: String,
}

/// A node's check, ready to go.
enum Ready {
    Source(Box<dyn flow::Source>),
    Sink(Box<dyn flow::Sink>),
    Transform(Box<dyn flow::Transform>),
}

impl Checker<'_> {
    /// Checks what belongs to this daemon in a text: what names it, what names nobody, and what a selector may place here.
    pub async fn text(&self, text: &str) -> Result<Vec<Checkup>, Failure> {
        let spec =
            workflow::parse(text).map_err(|problems| invalid("the workflow has problems".to_string(), problems))?;
        let subjects = self.own(&spec);
        if subjects.is_empty() {
            let message = format!(
                "nothing of the workflow that could be tried is on daemon '{}'",
                self.daemon
            );
            return Err(invalid(message, Vec::new()));
        }
        Ok(self.all(spec.name(), subjects).await)
    }

    fn own(&self, spec: &Spec) -> Vec<Subject> {
        let here = self.here(spec);
        let subject = |node: &workflow::Node| Subject {
            node: node.id.clone(),
            role: node.role,
            component: node.component.clone(),
            config: serde_json::to_string(&node.config).unwrap_or_default(),
        };
        let nodes = spec.nodes().iter().filter(|node| !is_output(node.role, &node.id));
        nodes
            .filter(|node| here.contains(node.id.as_str()))
            .map(subject)
            .collect()
    }

    /// The nodes that are on this daemon, or may be. A transform that names no daemon is where one of its inputs is.
    fn here<'s>(&self, spec: &'s Spec) -> BTreeSet<&'s str> {
        let mut here = BTreeSet::new();
        loop {
            let known = here.len();
            for node in spec.nodes() {
                let is_here = match &node.daemon {
                    Some(daemon) => daemon == self.daemon || workflow::is_selector(daemon),
                    None if node.role != ComponentRole::Transform => true,
                    None => node.from.iter().any(|input| here.contains(input.as_str())),
                };
                if is_here {
                    here.insert(node.id.as_str());
                }
            }
            if here.len() == known {
                return here;
            }
        }
    }

    /// Checks what this daemon has of a workflow in its plan.
    pub async fn planned(&self, plan: &PlanWorkflow) -> Vec<Checkup> {
        let nodes = plan.nodes.iter().filter(|node| !is_output(node.role, &node.id));
        let subject = |node: &bus_schema::plan::PlanNode| Subject {
            node: node.id.clone(),
            role: node.role,
            component: node.component.clone(),
            config: node.config.clone(),
        };
        self.all(&plan.name, nodes.map(subject).collect()).await
    }

    async fn all(&self, workflow: &str, subjects: Vec<Subject>) -> Vec<Checkup> {
        let (turns, mut checks) = (Arc::new(Semaphore::new(AT_ONCE_MAX)), JoinSet::new());
        let mut checkups: Vec<Checkup> = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let Some(ready) = self.ready(workflow, &subject) else {
                continue;
            };
            let index = checkups.len();
            checkups.push(Checkup {
                node: subject.node,
                component: subject.component,
                took_ms: 0,
                found: String::new(),
                trouble: None,
            });
            let turns = Arc::clone(&turns);
            checks.spawn(async move {
                // Nobody closes it.
                let _turn = turns.acquire().await;
                let begun = Instant::now();
                let checked = match ready {
                    Err(trouble) => Err(trouble),
                    Ok(Ready::Source(mut source)) => check::check_source(&mut *source).await,
                    Ok(Ready::Sink(mut sink)) => check::check_sink(&mut *sink).await,
                    Ok(Ready::Transform(mut transform)) => match transform.outside() {
                        Some(outside) => check::check_outside(outside).await,
                        None => Ok("it needs nobody else".to_string()),
                    },
                };
                (index, checked, begun.elapsed())
            });
        }
        while let Some(done) = checks.join_next().await {
            let Ok((index, checked, took)) = done else { continue };
            let Some(checkup) = checkups.get_mut(index) else {
                continue;
            };
            checkup.took_ms = took.as_millis().try_into().unwrap_or(u32::MAX);
            match checked {
                Ok(found) => checkup.found = found,
                Err(trouble) => checkup.trouble = Some(trouble),
            }
        }
        for checkup in &mut checkups {
            if checkup.found.is_empty() && checkup.trouble.is_none() {
                let remedy = "please report this, with the daemon's log";
                checkup.trouble = Some(Trouble::new(TroubleKind::Other, "the check itself broke off", remedy));
            }
        }
        checkups
    }

    /// `None`: a transform that does its work by itself, of which there is nothing to reach.
    fn ready(&self, workflow: &str, subject: &Subject) -> Option<Result<Ready, Trouble>> {
        let Subject { component, role, .. } = subject;
        let is_open = subject.config.contains(OPEN);
        let open = || {
            Err(Trouble::new(
                TroubleKind::Config,
                "values that differ from daemon to daemon stand open in it",
                "apply the workflow, and check it by its name: the daemon's plan has them filled in",
            ))
        };
        if is_open && *role != ComponentRole::Transform {
            return Some(open());
        }
        if let Err(Refused { what, remedy }) = self.custom_code.admit(component, &subject.config) {
            return Some(Err(Trouble::new(TroubleKind::Config, what, remedy)));
        }
        let context = BuildContext {
            workflow: workflow.to_string(),
            node: subject.node.clone(),
            daemon: self.daemon.to_string(),
            base_dir: self.base_dir.to_path_buf(),
        };
        let misfit = |error: ConfigError| Trouble::new(TroubleKind::Config, error.to_string(), "correct the key");
        Some(match self.registry.find(*role, component) {
            Some(Build::Source(build)) => build(&subject.config, &context).map(Ready::Source).map_err(misfit),
            Some(Build::Sink(build)) => build(&subject.config, &context).map(Ready::Sink).map_err(misfit),
            Some(Build::Transform(build)) => match build(&subject.config, &context) {
                Ok(mut transform) => match transform.outside() {
                    None => return None,
                    Some(_) if is_open => open(),
                    Some(_) => Ok(Ready::Transform(transform)),
                },
                // What stands open need not fit yet.
                Err(_) if is_open => return None,
                Err(error) => Err(misfit(error)),
            },
            // Its file is the daemon's own: with keys that are right there is nothing else that could be wrong.
            Some(Build::Junction(build)) => match build(&subject.config, &context) {
                Err(error) if !is_open => Err(misfit(error)),
                _ => return None,
            },
            None => Err(Trouble::new(
                TroubleKind::Config,
                format!("daemon '{}' has no {role} '{component}'", self.daemon),
                "update myceliald, or see: myceliald components",
            )),
        })
    }
}

/// Whether a node stands for an output of another (`split.hot`), with no config of its own.
fn is_output(role: ComponentRole, node: &str) -> bool {
    role == ComponentRole::Transform && node.contains('.')
}

/// For people, a node in one line or three.
pub fn shown(checkup: &Checkup) -> String {
    let Checkup {
        node, component, found, ..
    } = checkup;
    match &checkup.trouble {
        None => format!("ok    {node} ({component}): {found}\n"),
        Some(trouble) => format!(
            "FAIL  {node} ({component}): {}: {}\n        hint: {}\n",
            trouble.kind.name(),
            trouble.cause,
            trouble.remedy
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
name = "plant"
[sources.ticks]
type = "generator"
daemon = "gw"
fields = { n = { kind = "counter" } }
[sources.lines]
type = "file"
daemon = "gw"
path = "lines.csv"
format = "csv"
mode = "once"
[sources.far]
type = "generator"
daemon = "elsewhere"
[sources.open]
type = "file"
daemon = "site=berlin"
path = "{{ host.name }}.csv"
format = "csv"
[sources.own]
type = "exec"
daemon = "gw"
command = ["true"]
format = "lines"
[transforms.named]
type = "lookup"
from = "lines"
column = "line"
file = "halls.csv"
columns = { hall = "hall" }
[transforms.farther]
type = "lookup"
from = "far"
column = "line"
file = "halls.csv"
columns = { hall = "hall" }
[transforms.database]
type = "lookup"
from = "ticks"
column = "n"
columns = { hall = "hall" }
postgres = { url = "postgres://me@127.0.0.1:1/shop", table = "halls" }
[transforms.mine]
type = "python"
from = "ticks"
code = "def transform(record): return record"
[transforms.few]
type = "filter"
from = "ticks"
where = "n > 3"
[transforms.paired]
type = "join"
from = ["ticks", "lines"]
within_ms = 1000
[transforms.paired.inputs]
ticks = { key = ["n"], time = "at" }
lines = { key = ["line"], time = "at" }
[transforms.alone]
type = "join"
from = ["ticks", "own"]
within_ms = 1000
[transforms.alone.inputs]
ticks = { key = ["n"], time = "at" }
[transforms.opened]
type = "join"
from = ["ticks", "own"]
within_ms = 1000
[transforms.opened.inputs]
ticks = { key = ["n"], time = "{{ site }}" }
[destinations.out]
type = "sqlite"
daemon = "gw"
from = ["named", "farther", "database", "mine", "few", "own", "open", "paired", "alone", "opened"]
path = "none/out.db"
table = "out"
"#;

    #[tokio::test]
    async fn all_that_is_here_and_needs_others_is_checked() {
        let registry = Registry::new(connectors::components().into_iter().chain(transforms::components()));
        let dir = tempfile::tempdir().unwrap();
        let checker = Checker {
            registry: &registry,
            daemon: "gw",
            base_dir: dir.path(),
            custom_code: &CustomCode::default(),
        };
        let found: Vec<(String, Option<TroubleKind>)> = checker
            .text(TEXT)
            .await
            .unwrap()
            .into_iter()
            .map(|checkup| (checkup.node, checkup.trouble.map(|trouble| trouble.kind)))
            .collect();
        let wanted = [
            ("ticks", None),
            ("lines", Some(TroubleKind::Missing)),
            ("open", Some(TroubleKind::Config)),
            ("own", Some(TroubleKind::Config)),
            ("named", Some(TroubleKind::Missing)),
            ("database", Some(TroubleKind::Unreachable)),
            ("mine", Some(TroubleKind::Config)),
            ("alone", Some(TroubleKind::Config)),
            ("out", Some(TroubleKind::Path)),
        ];
        assert_eq!(found, wanted.map(|(node, kind)| (node.to_string(), kind)));
        assert!(
            std::fs::read_dir(dir.path()).unwrap().next().is_none(),
            "nothing is made"
        );

        let nowhere = Checker {
            daemon: "nobody",
            ..checker
        };
        let text = TEXT.replace("site=berlin", "gw");
        let failure = nowhere.text(&text).await.unwrap_err();
        assert!(failure.message.contains("'nobody'"), "{}", failure.message);
        assert!(nowhere.text("name = 5").await.is_err());
    }
}
