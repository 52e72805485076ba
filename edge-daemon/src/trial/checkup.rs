//! Checks the sources and destinations of a workflow from this daemon: each is built and asked whether it would work. Reads no
//! record, writes none, and leaves what runs alone.

use std::{path::Path, sync::Arc, time::Instant};

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
}

impl Checker<'_> {
    /// Checks what belongs to this daemon in a text: what names it, what names nobody, and what a selector may place here.
    pub async fn text(&self, text: &str) -> Result<Vec<Checkup>, Failure> {
        let spec =
            workflow::parse(text).map_err(|problems| invalid("the workflow has problems".to_string(), problems))?;
        let subjects = self.own(&spec);
        if subjects.is_empty() {
            let message = format!(
                "no source and no destination of the workflow is on daemon '{}'",
                self.daemon
            );
            return Err(invalid(message, Vec::new()));
        }
        Ok(self.all(spec.name(), subjects).await)
    }

    fn own(&self, spec: &Spec) -> Vec<Subject> {
        let is_here = |node: &&workflow::Node| match &node.daemon {
            Some(daemon) => daemon == self.daemon || workflow::is_selector(daemon),
            None => true,
        };
        let ends = spec.nodes().iter().filter(|node| node.role != ComponentRole::Transform);
        let subject = |node: &workflow::Node| Subject {
            node: node.id.clone(),
            role: node.role,
            component: node.component.clone(),
            config: serde_json::to_string(&node.config).unwrap_or_default(),
        };
        ends.filter(is_here).map(subject).collect()
    }

    /// Checks what this daemon has of a workflow in its plan.
    pub async fn planned(&self, plan: &PlanWorkflow) -> Vec<Checkup> {
        let ends = plan.nodes.iter().filter(|node| node.role != ComponentRole::Transform);
        let subject = |node: &bus_schema::plan::PlanNode| Subject {
            node: node.id.clone(),
            role: node.role,
            component: node.component.clone(),
            config: node.config.clone(),
        };
        self.all(&plan.name, ends.map(subject).collect()).await
    }

    async fn all(&self, workflow: &str, subjects: Vec<Subject>) -> Vec<Checkup> {
        let (turns, mut checks) = (Arc::new(Semaphore::new(AT_ONCE_MAX)), JoinSet::new());
        let mut checkups: Vec<Checkup> = Vec::with_capacity(subjects.len());
        for (index, subject) in subjects.into_iter().enumerate() {
            let ready = self.ready(workflow, &subject);
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

    fn ready(&self, workflow: &str, subject: &Subject) -> Result<Ready, Trouble> {
        let Subject { component, role, .. } = subject;
        if subject.config.contains(OPEN) {
            return Err(Trouble::new(
                TroubleKind::Config,
                "values that differ from daemon to daemon stand open in it",
                "apply the workflow, and check it by its name: the daemon's plan has them filled in",
            ));
        }
        if let Err(Refused { what, remedy }) = self.custom_code.admit(component, &subject.config) {
            return Err(Trouble::new(TroubleKind::Config, what, remedy));
        }
        let context = BuildContext {
            workflow: workflow.to_string(),
            node: subject.node.clone(),
            daemon: self.daemon.to_string(),
            base_dir: self.base_dir.to_path_buf(),
        };
        let misfit = |error: ConfigError| Trouble::new(TroubleKind::Config, error.to_string(), "correct the key");
        match self.registry.find(*role, component) {
            Some(Build::Source(build)) => build(&subject.config, &context).map(Ready::Source).map_err(misfit),
            Some(Build::Sink(build)) => build(&subject.config, &context).map(Ready::Sink).map_err(misfit),
            _ => Err(Trouble::new(
                TroubleKind::Config,
                format!("daemon '{}' has no {role} '{component}'", self.daemon),
                "update myceliald, or see: myceliald components",
            )),
        }
    }
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
[destinations.out]
type = "sqlite"
daemon = "gw"
from = ["ticks", "lines", "far", "own", "open"]
path = "none/out.db"
table = "out"
"#;

    #[tokio::test]
    async fn each_end_that_is_here_is_checked() {
        let registry = Registry::new(connectors::components());
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
