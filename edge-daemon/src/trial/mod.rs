//! Tries a workflow's text: its transforms run on given records, way by way, as the runner would lead them. Reads from no
//! source, writes to no destination, keeps nothing. Checks of what a text needs around it are in `checkup`.

pub mod checkup;
mod joined;
pub mod local;
pub mod rows;

use std::{collections::BTreeMap, path::Path};

use bus_schema::{
    api::{Failure, FailureKind, Problem},
    data::Batch,
    limits::PREVIEW_ROWS_MAX,
    plan::{ComponentRole, PlanWorkflow},
    trial::{Given, TrialCall, TrialResult, TrialStep, Verdict},
};
use connectors::{CustomCode, Refused};
use flow::{Build, BuildContext, Registry};
use workflow::{Node, Spec, Test};

/// Most steps of one trial: ways through a graph can be many more than its nodes.
const STEPS_MAX: usize = 1_000;

/// Where texts are tried.
pub struct Trial<'a> {
    /// What this daemon can run.
    pub registry: &'a Registry,
    /// Its name.
    pub daemon: &'a str,
    /// Where relative paths in configs start.
    pub base_dir: &'a Path,
    /// Which code of the text's own may run.
    pub custom_code: &'a CustomCode,
    /// Waits for what others do.
    pub runtime: tokio::runtime::Handle,
    /// What it runs.
    pub planned: &'a [PlanWorkflow],
}

/// What one node made of what came on one way.
struct Step {
    node: String,
    from: String,
    came: usize,
    batch: Batch,
    rejected: Vec<(usize, String)>,
}

/// What was done so far, and what waits for more.
type Trail<'t> = (&'t mut Vec<Step>, &'t mut joined::Waiting);

fn invalid(message: String, problems: Vec<Problem>) -> Failure {
    Failure {
        kind: FailureKind::Invalid,
        message,
        hint: String::new(),
        problems,
    }
}

impl Trial<'_> {
    /// Does what an operator asks.
    pub fn answer(&self, call: &TrialCall) -> TrialResult {
        let answered = match call {
            TrialCall::Test { text } => self.test(text).map(TrialResult::Verdicts),
            TrialCall::Preview { text, given } => self.preview(text, given).map(TrialResult::Steps),
            TrialCall::Check { text } => self
                .runtime
                .block_on(self.checker().text(text))
                .map(TrialResult::Checkups),
            TrialCall::CheckPlanned { workflow } => match self.planned.iter().find(|plan| plan.name == *workflow) {
                Some(plan) => Ok(TrialResult::Checkups(
                    self.runtime.block_on(self.checker().planned(plan)),
                )),
                None => Err(Failure {
                    kind: FailureKind::NotFound,
                    ..invalid(
                        format!("daemon '{}' runs no workflow '{workflow}'", self.daemon),
                        Vec::new(),
                    )
                }),
            },
        };
        answered.unwrap_or_else(TrialResult::Failed)
    }

    fn checker(&self) -> checkup::Checker<'_> {
        checkup::Checker {
            registry: self.registry,
            daemon: self.daemon,
            base_dir: self.base_dir,
            custom_code: self.custom_code,
        }
    }

    /// How the tests of a text end.
    pub fn test(&self, text: &str) -> Result<Vec<Verdict>, Failure> {
        let spec = self.spec(text)?;
        if spec.tests().is_empty() {
            let message = "the workflow keeps no tests".to_string();
            return Err(Failure {
                hint: "write for example: [tests.first] with given.db = [{ id = 1 }] and expect.out = [{ id = 1 }]"
                    .to_string(),
                ..invalid(message, Vec::new())
            });
        }
        let verdict = |test: &Test| {
            let differs = match self.one(&spec, test) {
                Ok(differs) => differs,
                Err(failure) => vec![failure.message],
            };
            Verdict {
                test: test.name.clone(),
                differs,
            }
        };
        Ok(spec.tests().iter().map(verdict).collect())
    }

    fn one(&self, spec: &Spec, test: &Test) -> Result<Vec<String>, Failure> {
        let mut given = Vec::new();
        for (source, records) in &test.given {
            let batch = rows::batch(source, records, &test.types).map_err(|wrong| invalid(wrong, Vec::new()))?;
            given.push((source.clone(), batch));
        }
        let steps = self.run(spec, given)?;
        let mut differs = Vec::new();
        for (node, expected) in &test.expect {
            let found = steps.iter().filter(|step| step.node == *node);
            let found: Vec<Batch> = found.map(|step| step.batch.clone()).collect();
            differs.extend(rows::differs(expected, &found).map(|wrong| format!("{node}: {wrong}")));
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for step in &steps {
            let found = step.rejected.iter().map(|(_, reason)| reason.as_str());
            reasons.entry(&step.node).or_default().extend(found);
        }
        for (node, expected) in &test.reject {
            let found = reasons.remove(node.as_str()).unwrap_or_default();
            let is_as_expected = found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(found, part)| found.contains(part.as_str()));
            if !is_as_expected {
                differs.push(format!(
                    "{node}: records with these reasons are expected to be rejected: {expected:?}, and these were: {found:?}"
                ));
            }
        }
        for (node, found) in reasons.iter().filter(|(_, found)| !found.is_empty()) {
            differs.push(format!(
                "{node}: rejects {} that are not expected to be: {found:?}",
                found.len()
            ));
        }
        Ok(differs)
    }

    fn preview(&self, text: &str, given: &[Given]) -> Result<Vec<TrialStep>, Failure> {
        let spec = self.spec(text)?;
        let mut batches = Vec::new();
        for Given { source, lines, types } in given {
            let is_source = spec.node(source).is_some_and(|node| node.role == ComponentRole::Source);
            if !is_source {
                return Err(invalid(format!("the workflow has no source '{source}'"), Vec::new()));
            }
            let records = rows::of_lines(source, lines).map_err(|wrong| invalid(wrong, Vec::new()))?;
            let batch = rows::batch(source, &records, types).map_err(|wrong| invalid(wrong, Vec::new()))?;
            batches.push((source.clone(), batch));
        }
        let count: usize = batches.iter().map(|(_, batch)| batch.rows()).sum();
        if count > PREVIEW_ROWS_MAX {
            let message = format!("{count} records are given; a preview takes at most {PREVIEW_ROWS_MAX}");
            return Err(invalid(message, Vec::new()));
        }
        let steps = self.run(&spec, batches)?;
        let told = |step: Step| TrialStep {
            node: step.node,
            from: step.from,
            came: u32::try_from(step.came).unwrap_or(u32::MAX),
            batch: step.batch.encode(),
            rejected: step
                .rejected
                .into_iter()
                .map(|(row, reason)| (u32::try_from(row).unwrap_or(u32::MAX), reason))
                .collect(),
        };
        Ok(steps.into_iter().map(told).collect())
    }

    fn spec(&self, text: &str) -> Result<Spec, Failure> {
        workflow::parse(text).map_err(|problems| invalid("the workflow has problems".to_string(), problems))
    }

    /// Leads records through the graph from each source, one after the other.
    fn run(&self, spec: &Spec, given: Vec<(String, Batch)>) -> Result<Vec<Step>, Failure> {
        let (mut steps, mut waiting) = (Vec::new(), joined::Waiting::new());
        for (source, batch) in given {
            self.lead(spec, &source, &batch, (&mut steps, &mut waiting))?;
        }
        while let Some((node, came)) = joined::next(spec, &mut waiting) {
            self.join(spec, &node, &came, (&mut steps, &mut waiting))?;
        }
        Ok(steps)
    }

    /// What becomes of records that leave a node. Each way has transforms of its own, as in a pipe.
    fn lead(&self, spec: &Spec, from: &str, batch: &Batch, (steps, waiting): Trail<'_>) -> Result<(), Failure> {
        let readers = spec
            .nodes()
            .iter()
            .filter(|node| node.from.iter().any(|name| name == from));
        for node in readers {
            if steps.len() >= STEPS_MAX {
                let message = format!("the records go more than {STEPS_MAX} ways: try a part of the workflow");
                return Err(invalid(message, Vec::new()));
            }
            if matches!(self.registry.find(node.role, &node.component), Some(Build::Junction(_))) {
                let came = waiting.entry(node.id.clone()).or_default();
                came.push((from.to_string(), batch.clone()));
                continue;
            }
            let done = match node.role {
                ComponentRole::Transform => self.apply(spec, node, batch)?,
                _ => vec![batch.clone().into()],
            };
            let mut came = batch.rows();
            for flow::Transformed { batch, rejected } in done {
                let step = Step {
                    node: node.id.clone(),
                    from: from.to_string(),
                    came: std::mem::take(&mut came),
                    batch: batch.clone(),
                    rejected,
                };
                steps.push(step);
                self.lead(spec, &node.id, &batch, (&mut *steps, &mut *waiting))?;
            }
        }
        Ok(())
    }

    /// What becomes of all that came to a node that joins its inputs.
    fn join(
        &self,
        spec: &Spec,
        id: &str,
        came: &[(String, Batch)],
        (steps, waiting): Trail<'_>,
    ) -> Result<(), Failure> {
        let Some(node) = spec.node(id) else { return Ok(()) };
        let Some(Build::Junction(build)) = self.registry.find(node.role, &node.component) else {
            return Ok(());
        };
        let problem = |key: &str, message: String| {
            let problem = spec.config_problem(node, key, message);
            invalid("the workflow has a problem".to_string(), vec![problem])
        };
        let config = serde_json::to_string(&node.config).unwrap_or_default();
        let junction = build(&config, &self.context(spec, node)).map_err(|error| problem(&error.key, error.message))?;
        let joined = self.runtime.block_on(joined::join(junction, &node.from, came));
        let (batches, mut rejected) = joined.map_err(|fault| problem("", fault.to_string()))?;
        let mut came: usize = came.iter().map(|(_, batch)| batch.rows()).sum();
        for batch in batches {
            let step = Step {
                node: node.id.clone(),
                from: node.from.join(", "),
                came: std::mem::take(&mut came),
                batch: batch.clone(),
                rejected: std::mem::take(&mut rejected),
            };
            steps.push(step);
            self.lead(spec, &node.id, &batch, (&mut *steps, &mut *waiting))?;
        }
        Ok(())
    }

    fn context(&self, spec: &Spec, node: &Node) -> BuildContext {
        BuildContext {
            workflow: spec.name().to_string(),
            node: node.id.clone(),
            daemon: self.daemon.to_string(),
            base_dir: self.base_dir.to_path_buf(),
        }
    }

    /// What a transform makes of a batch, in as many pieces as it takes.
    fn apply(&self, spec: &Spec, node: &Node, batch: &Batch) -> Result<Vec<flow::Transformed>, Failure> {
        let problem = |key: &str, message: String| {
            let problem = spec.config_problem(node, key, message);
            invalid("the workflow has a problem".to_string(), vec![problem])
        };
        let Some(Build::Transform(build)) = self.registry.find(node.role, &node.component) else {
            let message = format!("'{}' is no transform of daemon '{}'", node.component, self.daemon);
            return Err(problem("type", message));
        };
        let config = serde_json::to_string(&node.config).unwrap_or_default();
        if let Err(Refused { what, remedy }) = self.custom_code.admit(&node.component, &config) {
            return Err(problem("type", format!("{what}; to allow it: {remedy}")));
        }
        let context = self.context(spec, node);
        let mut transform = build(&config, &context).map_err(|error| problem(&error.key, error.message))?;
        let wrong = |fault: flow::Fault| problem("", fault.to_string());
        if transform.remembers() {
            transform.restore(None, flow::STATES_BYTES_MAX).map_err(wrong)?;
        }
        if let Some(outside) = transform.outside() {
            let done = self.runtime.block_on(outside.apply(batch.clone()));
            return done.map(|done| vec![done]).map_err(wrong);
        }
        let (mut pieces, mut begun_at) = (Vec::new(), 0);
        loop {
            // The given records are all there are: what is held back for more comes out.
            let rest: Vec<usize> = (begun_at..batch.rows()).collect();
            let mut done = transform.finish(batch.take(&rest)).map_err(wrong)?;
            done.rejected.iter_mut().for_each(|(row, _)| *row += begun_at);
            pieces.push(done);
            match transform.left() {
                0 => return Ok(pieces),
                left => begun_at = batch.rows().saturating_sub(left).max(begun_at + 1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
name = "plant"
[sources.readings]
type = "generator"
daemon = "gw"
[transforms.hot]
type = "filter"
from = "readings"
where = "celsius * 1 > 30"
[transforms.fahrenheit]
type = "derive"
from = "hot"
columns = { fahrenheit = "celsius * 1.8 + 32" }
[destinations.out]
type = "stdout"
daemon = "gw"
from = "fahrenheit"
"#;

    fn trial(text: &str, do_it: impl FnOnce(&Trial<'_>, &str)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let registry = Registry::new(transforms::components());
        let trial = Trial {
            registry: &registry,
            daemon: "gw",
            base_dir: Path::new("/"),
            custom_code: &CustomCode::default(),
            runtime: runtime.handle().clone(),
            planned: &[],
        };
        do_it(&trial, text);
    }

    fn verdicts(tests: &str) -> String {
        let mut shown = String::new();
        trial(&format!("{TEXT}{tests}"), |trial, text| {
            shown = match trial.test(text) {
                Err(failure) => format!("{} {:?}", failure.message, failure.problems),
                Ok(verdicts) => verdicts
                    .iter()
                    .map(|verdict| format!("{}: {}\n", verdict.test, verdict.differs.join("; ")))
                    .collect(),
            };
        });
        shown
    }

    #[test]
    fn tests_are_kept_or_differ() {
        for (tests, wanted) in [
            ("", "the workflow keeps no tests"),
            (
                "[tests.hot]\ngiven.readings = [{ celsius = 31.0 }, { celsius = 3.0 }]\n\
                 expect.hot = [{ celsius = 31.0 }]\nexpect.out = [{ celsius = 31, fahrenheit = 87.8 }]",
                "hot: \n",
            ),
            (
                "[tests.cold]\ngiven.readings = [{ celsius = 3.0 }]\nexpect.out = [{ celsius = 3.0 }]",
                "cold: out: 1 records are expected, 0 came",
            ),
            (
                "[tests.text]\ngiven.readings = [{ celsius = \"hot\" }]\nexpect.out = []",
                "text: hot: rejects 1 that are not expected to be",
            ),
            (
                "[tests.text]\ngiven.readings = [{ celsius = \"hot\" }]\nreject.hot = [\"celsius\"]\nexpect.out = []",
                "text: \n",
            ),
            (
                "[tests.x]\ngiven.reading = []\nexpect.out = []",
                "did you mean 'readings'?",
            ),
            (
                "[tests.x]\ngiven.readings = []\nexpect.outt = []",
                "did you mean 'out'?",
            ),
            (
                "[tests.x]\ngiven.readings = 5\nexpect.out = []",
                "records are a list of tables",
            ),
            ("[tests.x]\ngiven.readings = []", "the test expects nothing"),
            (
                "[tests.x]\nwhen = 1\ngiven.readings = []\nexpect.out = []",
                "unknown key 'when'",
            ),
        ] {
            let found = verdicts(tests);
            assert!(found.contains(wanted), "{tests}:\n{found}");
        }
    }

    #[test]
    fn what_comes_in_pieces_is_all_there() {
        let text = TEXT
            .replace("type = \"filter\"", "type = \"flatten\"")
            .replace("where = \"celsius * 1 > 30\"", "columns = [\"v\"]");
        let record = |row: usize| {
            let keys: Vec<String> = (0..40).map(|key| format!("\"k{row}_{key}\": 1")).collect();
            format!("{{\"celsius\": 1.0, \"v\": {{{}}}}}\n", keys.join(", "))
        };
        let given = vec![Given {
            source: "readings".to_string(),
            lines: (0..30).map(record).collect(),
            types: Vec::new(),
        }];
        trial(&text, |trial, text| {
            let text = text.to_string();
            let TrialResult::Steps(steps) = trial.answer(&TrialCall::Preview { text, given }) else {
                panic!("no steps")
            };
            let of = |node: &str| {
                let steps = steps.iter().filter(|step| step.node == node);
                let rows = steps.map(|step| {
                    (
                        step.came,
                        Batch::decode(&step.batch).unwrap().rows(),
                        step.rejected.len(),
                    )
                });
                rows.fold((0, 0, 0), |sum, rows| (sum.0 + rows.0, sum.1 + rows.1, sum.2 + rows.2))
            };
            assert!(steps.iter().filter(|step| step.node == "hot").count() > 1);
            for node in ["hot", "fahrenheit", "out"] {
                assert_eq!((of(node).1, of(node).2), (30, 0), "{node}");
            }
        });
    }

    #[test]
    fn a_preview_shows_every_step() {
        let given_lines = |source: &str, lines: &str| {
            vec![Given {
                source: source.to_string(),
                lines: lines.to_string(),
                types: Vec::new(),
            }]
        };
        let given = |source: &str| {
            given_lines(
                source,
                "{\"celsius\": 31.0}\n{\"celsius\": 3.0}\n\n{\"celsius\": null}\n",
            )
        };
        trial(TEXT, |trial, text| {
            let preview = |given| {
                let text = text.to_string();
                trial.answer(&TrialCall::Preview { text, given })
            };
            let TrialResult::Steps(steps) = preview(given("readings")) else {
                panic!("no steps")
            };
            let shown: Vec<String> = steps
                .iter()
                .map(|step| {
                    let out = Batch::decode(&step.batch).unwrap();
                    format!(
                        "{}->{} {} {} {}",
                        step.from,
                        step.node,
                        step.came,
                        out.rows(),
                        step.rejected.len()
                    )
                })
                .collect();
            assert_eq!(
                shown,
                ["readings->hot 3 1 1", "hot->fahrenheit 1 1 0", "fahrenheit->out 1 1 0"]
            );
            let many = "{\"celsius\": 1}\n".repeat(PREVIEW_ROWS_MAX + 1);
            for (given, said) in [
                (given("hot"), "no source 'hot'"),
                (given_lines("readings", "{\"celsius\": 1}\n5\n"), "line 2"),
                (given_lines("readings", &many), "at most 100"),
            ] {
                let TrialResult::Failed(failure) = preview(given) else {
                    panic!("{said}")
                };
                assert!(failure.message.contains(said), "{}", failure.message);
            }
        });
        let broken = TEXT.replace("celsius * 1 > 30", "celsius >");
        trial(&broken, |trial, text| {
            let call = TrialCall::Preview {
                text: text.to_string(),
                given: given("readings"),
            };
            let TrialResult::Failed(failure) = trial.answer(&call) else {
                panic!("it cannot run")
            };
            assert_eq!(failure.problems[0].place, "transforms.hot.where");
            assert!(failure.problems[0].line > 0);
        });
    }
}
