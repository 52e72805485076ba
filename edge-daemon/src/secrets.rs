//! The daemon's own secrets: operators set them over the bus, a file keeps them sealed, components fetch them by name.
//! Nothing here gives a value to anybody but a component. Blocks.
//!
//! The file can be read by whoever has the daemon's keys, which lie beside it: it keeps secrets out of workflows, plans,
//! backups of single files and the plane, not from somebody who owns the whole disk.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_link::home::{Home, HomeError};
use bus_schema::{
    api::{Failure, FailureKind},
    limits::{SECRET_BYTES_MAX, SECRETS_MAX},
    member::is_name,
    plan::PlanWorkflow,
    secret::{SecretCall, SecretResult, SecretText, SecretView},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::assemble::unix_ms;

/// The file in the member's directory.
const FILE: &str = "secrets";

#[derive(Serialize, Deserialize)]
struct Entry {
    value: SecretText,
    set_unix_ms: i64,
}

/// By name.
type Entries = BTreeMap<String, Entry>;

/// The store.
pub struct Secrets {
    home: Arc<Home>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Secrets {
    /// In this member's directory.
    pub fn new(home: Arc<Home>) -> Self {
        Self {
            home,
            changing: Mutex::default(),
        }
    }

    /// The secret of this name, if it has been set. Read from the disk each time: what is not in memory cannot leak from it.
    pub fn fetch(&self, name: &str) -> Result<Option<SecretText>, HomeError> {
        Ok(self.load()?.remove(name).map(|entry| entry.value))
    }

    /// Does what an operator asks. `planned` is what this daemon shall run.
    pub fn answer(&self, call: SecretCall, planned: &[PlanWorkflow]) -> SecretResult {
        let answered = match call {
            SecretCall::Set { name, value } => self.set(name, value, planned),
            SecretCall::Remove { name } => self.remove(&name, planned),
            SecretCall::List => self.load().map(|entries| list(&entries, planned)),
        };
        answered.unwrap_or_else(|error| {
            let hint = "see the daemon's log and its disk";
            failed(
                FailureKind::Internal,
                format!("the secrets cannot be reached: {error}"),
                hint,
            )
        })
    }

    fn set(&self, name: String, value: SecretText, planned: &[PlanWorkflow]) -> Result<SecretResult, HomeError> {
        if let Some(wrong) = mistake(&name, &value) {
            return Ok(failed(FailureKind::Invalid, wrong, ""));
        }
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = self.load()?;
        if entries.len() >= SECRETS_MAX && !entries.contains_key(&name) {
            let message = format!("this daemon keeps {SECRETS_MAX} secrets already");
            return Ok(failed(FailureKind::Conflict, message, "remove one that nobody uses"));
        }
        let used_by = users(&name, planned);
        let set_unix_ms = unix_ms();
        entries.insert(name, Entry { value, set_unix_ms });
        self.save(&entries)?;
        Ok(SecretResult::Done { used_by })
    }

    fn remove(&self, name: &str, planned: &[PlanWorkflow]) -> Result<SecretResult, HomeError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = self.load()?;
        if entries.remove(name).is_none() {
            let message = format!("this daemon has no secret '{name}'");
            return Ok(failed(FailureKind::NotFound, message, "mycelial secret list"));
        }
        self.save(&entries)?;
        Ok(SecretResult::Done {
            used_by: users(name, planned),
        })
    }

    fn load(&self) -> Result<Entries, HomeError> {
        let Some(bytes) = self.home.load_sealed(FILE)? else {
            return Ok(Entries::default());
        };
        // Taken for empty, it would be written over.
        bus_schema::decode(&bytes).ok_or_else(|| HomeError::Damaged {
            path: self.home.dir().join(FILE).display().to_string(),
            cause: "another version of myceliald wrote it",
        })
    }

    /// Seals them anew, for the keys that this member has now.
    pub fn reseal(&self) -> Result<(), HomeError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.home.load_sealed(FILE)? {
            Some(bytes) => self.home.store_sealed(FILE, &bytes),
            None => Ok(()),
        }
    }

    fn save(&self, entries: &Entries) -> Result<(), HomeError> {
        self.home
            .store_sealed(FILE, &zeroize::Zeroizing::new(bus_schema::encode(entries)))
    }
}

/// What keeps a secret from being kept.
fn mistake(name: &str, value: &SecretText) -> Option<String> {
    let bytes = value.expose().len();
    if !is_name(name) {
        return Some(format!(
            "'{}' cannot name a secret: use 1 to 32 of a-z, 0-9, '_' and '-'",
            name.escape_debug()
        ));
    }
    match bytes {
        0 => Some("the secret is empty".to_string()),
        bytes if bytes > SECRET_BYTES_MAX => Some(format!(
            "the secret has {bytes} bytes; a daemon keeps at most {SECRET_BYTES_MAX}: put a larger one into a file there"
        )),
        _ => None,
    }
}

fn failed(kind: FailureKind, message: String, hint: &str) -> SecretResult {
    SecretResult::Failed(Failure {
        kind,
        message,
        hint: hint.to_string(),
        problems: Vec::new(),
    })
}

/// What is set and what is wanted, by name.
fn list(entries: &Entries, planned: &[PlanWorkflow]) -> SecretResult {
    let mut views: BTreeMap<&str, SecretView> = BTreeMap::new();
    let view = |name: &str, set_unix_ms| SecretView {
        name: name.to_string(),
        set_unix_ms,
        used_by: Vec::new(),
    };
    for (name, entry) in entries {
        views.insert(name, view(name, Some(entry.set_unix_ms)));
    }
    let wanted: Vec<(String, &str)> = planned
        .iter()
        .flat_map(|workflow| wanted(workflow).into_iter().map(|name| (name, workflow.name.as_str())))
        .collect();
    for (name, workflow) in &wanted {
        let entry = views.entry(name).or_insert_with(|| view(name, None));
        entry.used_by.push(workflow.to_string());
    }
    SecretResult::Names(views.into_values().collect())
}

/// The workflows that name a secret.
fn users(name: &str, planned: &[PlanWorkflow]) -> Vec<String> {
    let using = planned
        .iter()
        .filter(|workflow| wanted(workflow).iter().any(|wanted| wanted == name));
    using.map(|workflow| workflow.name.clone()).collect()
}

/// The secrets that a workflow's configs name, each once: objects with the one key `secret`.
fn wanted(workflow: &PlanWorkflow) -> Vec<String> {
    let mut names = Vec::new();
    for node in &workflow.nodes {
        if let Ok(config) = serde_json::from_str(&node.config) {
            collect(&config, &mut names);
        }
    }
    names.sort();
    names.dedup();
    names
}

fn collect(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(keys) => {
            if let (1, Some(Value::String(name))) = (keys.len(), keys.get("secret")) {
                names.push(name.clone());
            }
            keys.values().for_each(|value| collect(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        id::WorkflowId,
        plan::{ComponentRole, PlanNode},
    };

    use super::*;

    fn workflow(name: &str, config: &str) -> PlanWorkflow {
        PlanWorkflow {
            id: WorkflowId::of_name(name),
            name: name.to_string(),
            revision: 1,
            nodes: vec![PlanNode {
                id: "db".to_string(),
                role: ComponentRole::Destination,
                component: "postgres".to_string(),
                config: config.to_string(),
            }],
            pipes: Vec::new(),
        }
    }

    fn set(secrets: &Secrets, name: &str, value: &str, planned: &[PlanWorkflow]) -> SecretResult {
        let value = SecretText::new(value.to_string());
        let name = name.to_string();
        secrets.answer(SecretCall::Set { name, value }, planned)
    }

    #[test]
    fn what_another_version_wrote_is_not_written_over() {
        let dir = testkit::temp_dir("secrets-version");
        let home = Arc::new(Home::open(dir.path()).unwrap());
        home.store_sealed(FILE, b"\xff\xff of tomorrow").unwrap();
        let secrets = Secrets::new(Arc::clone(&home));
        let SecretResult::Failed(failure) = set(&secrets, "pg", "word", &[]) else {
            panic!("it was written over")
        };
        assert!(failure.message.contains("another version of myceliald"), "{failure:?}");
        assert!(secrets.fetch("pg").is_err());
        assert_eq!(&home.load_sealed(FILE).unwrap().unwrap()[..], b"\xff\xff of tomorrow");
    }

    #[test]
    fn kept_sealed_and_named_by_workflows() {
        let dir = testkit::temp_dir("secrets");
        let planned = [
            workflow(
                "orders",
                r#"{"password": {"secret": "pg"}, "tls": {"key": {"secret": "tls"}}}"#,
            ),
            workflow(
                "logs",
                r#"{"headers": [{"value": {"secret": "pg"}}], "secret": "no reference"}"#,
            ),
        ];
        {
            let secrets = Secrets::new(Arc::new(Home::open(dir.path()).unwrap()));
            assert!(secrets.fetch("pg").unwrap().is_none());
            let used_by = vec!["orders".to_string(), "logs".to_string()];
            assert_eq!(set(&secrets, "pg", "hunter2", &planned), SecretResult::Done { used_by });
            assert_eq!(
                set(&secrets, "spare", "x", &planned),
                SecretResult::Done { used_by: Vec::new() }
            );
        }
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
            assert!(!bytes.windows(7).any(|part| part == b"hunter2"));
        }
        let secrets = Secrets::new(Arc::new(Home::open(dir.path()).unwrap()));
        assert_eq!(secrets.fetch("pg").unwrap().unwrap().expose(), "hunter2");
        let SecretResult::Names(views) = secrets.answer(SecretCall::List, &planned) else {
            panic!("no names")
        };
        let shown: Vec<String> = views
            .iter()
            .map(|view| {
                format!(
                    "{} {} {}",
                    view.name,
                    view.set_unix_ms.is_some(),
                    view.used_by.join("+")
                )
            })
            .collect();
        assert_eq!(shown, ["pg true orders+logs", "spare true ", "tls false orders"]);
        assert!(!format!("{views:?}").contains("hunter2"));
        let remove = |name: &str| secrets.answer(SecretCall::Remove { name: name.to_string() }, &[]);
        assert_eq!(remove("pg"), SecretResult::Done { used_by: Vec::new() });
        assert!(matches!(remove("pg"), SecretResult::Failed(failure) if failure.kind == FailureKind::NotFound));
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let dir = testkit::temp_dir("secrets");
        let secrets = Secrets::new(Arc::new(Home::open(dir.path()).unwrap()));
        let long = "x".repeat(SECRET_BYTES_MAX + 1);
        for (name, value, said) in [
            ("PG", "x", "'PG' cannot name a secret"),
            ("../pg", "x", "cannot name"),
            ("pg", "", "empty"),
            ("pg", &long, "at most 16384"),
        ] {
            let SecretResult::Failed(failure) = set(&secrets, name, value, &[]) else {
                panic!("{name} was kept")
            };
            assert!(failure.message.contains(said), "{}", failure.message);
        }
        for n in 0..SECRETS_MAX {
            assert!(matches!(
                set(&secrets, &format!("s{n}"), "x", &[]),
                SecretResult::Done { .. }
            ));
        }
        assert!(
            matches!(set(&secrets, "more", "x", &[]), SecretResult::Failed(failure) if failure.kind == FailureKind::Conflict)
        );
        assert!(matches!(set(&secrets, "s7", "y", &[]), SecretResult::Done { .. }));
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_the_secrets_are_asked_for_again() {
        let dir = testkit::temp_dir("secrets");
        let secrets = Secrets::new(Arc::new(Home::open(dir.path()).unwrap()));
        let _done = set(&secrets, "pg", "hunter2", &[]);
        let damage = |name: &str| std::fs::write(dir.path().join(name), b"rubbish").unwrap();
        damage(FILE);
        assert!(secrets.fetch("pg").unwrap().is_some(), "its copy is used");
        let copies: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(FILE) && !name.contains("bad"))
            .collect();
        assert_eq!(copies.len(), 2, "{copies:?}");
        copies.iter().for_each(|name| damage(name));
        assert!(secrets.fetch("pg").unwrap().is_none());
        let _done = set(&secrets, "pg", "again", &[]);
        assert_eq!(secrets.fetch("pg").unwrap().unwrap().expose(), "again");
    }
}
