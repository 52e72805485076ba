//! Transform `host_facts`: adds columns that say on which host records were worked on. Reads the kernel's and the system's
//! files once, when it is built; looks at no record.

use std::{fs, path::Path, sync::Arc, thread};

use bus_schema::{
    data::{Batch, Column, Field, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

/// Adds what is known of the host that the transform runs on, each fact a column that begins with `prefix`: `host_name`,
/// `host_os` and so on. Where it is placed decides which host that is: before an edge that crosses to another daemon the one
/// that read the records, behind it the one that takes them. What cannot be found out is null. Facts are read when the
/// workflow starts. A column of the same name is replaced.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Which facts.
    #[serde(default = "usual")]
    facts: Vec<Fact>,
    /// What the names of the columns begin with.
    #[serde(default = "prefix")]
    prefix: String,
}

/// What can be known of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Fact {
    /// The daemon's name.
    Daemon,
    /// What the host calls itself.
    Name,
    /// The operating system, as it names itself: `Debian GNU/Linux 12 (bookworm)`.
    Os,
    /// The kernel's release.
    Kernel,
    /// What its processor is: `x86_64`, `aarch64`, `arm`.
    Arch,
    /// How many of its processors the daemon may use.
    Cpus,
    /// Its memory, in bytes.
    MemoryBytes,
    /// The number by which the installation is known (`/etc/machine-id`).
    MachineId,
}

fn usual() -> Vec<Fact> {
    vec![Fact::Daemon, Fact::Name, Fact::Os, Fact::Arch]
}

fn prefix() -> String {
    "host_".to_string()
}

/// The registry line.
pub(crate) const TRANSFORM: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "whence"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.whence]
type = "host_facts"
from = "readings"
facts = ["daemon", "name", "kernel"]

[destinations.out]
type = "stdout"
from = "whence"
"#;

fn descriptor() -> Descriptor {
    let summary = "Adds columns that say on which host records were worked on";
    describe::<Config>(ComponentRole::Transform, "host_facts", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.facts.is_empty() {
        return Err(ConfigError::at("facts", "name at least one"));
    }
    let add = |fact: &Fact| {
        let (name, ty) = fact.column();
        let field = Field::new(format!("{}{name}", config.prefix), ty);
        (field, fact.value(context, Path::new("/")))
    };
    Ok(Box::new(AddFacts {
        facts: config.facts.iter().map(add).collect(),
    }))
}

impl Fact {
    /// What its column is called, behind the prefix, and of which type it is.
    fn column(self) -> (&'static str, Type) {
        match self {
            Fact::Daemon => ("daemon", Type::Text),
            Fact::Name => ("name", Type::Text),
            Fact::Os => ("os", Type::Text),
            Fact::Kernel => ("kernel", Type::Text),
            Fact::Arch => ("arch", Type::Text),
            Fact::Cpus => ("cpus", Type::U64),
            Fact::MemoryBytes => ("memory_bytes", Type::U64),
            Fact::MachineId => ("machine_id", Type::Text),
        }
    }

    /// What it is on this host, whose files are below `root`.
    fn value(self, context: &BuildContext, root: &Path) -> Value {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let text = |text: Option<&str>| match text.map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => Value::Text(text.to_string()),
            None => Value::Null,
        };
        match self {
            Fact::Daemon => text(Some(&context.daemon)),
            Fact::Name => text(read("proc/sys/kernel/hostname").as_deref()),
            Fact::Os => {
                let about = read("etc/os-release").unwrap_or_default();
                let name = about.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
                text(name.map(|name| name.trim_matches('"')))
            }
            Fact::Kernel => text(read("proc/sys/kernel/osrelease").as_deref()),
            Fact::Arch => text(Some(std::env::consts::ARCH)),
            Fact::Cpus => thread::available_parallelism().map_or(Value::Null, |count| Value::U64(count.get() as u64)),
            Fact::MemoryBytes => {
                let about = read("proc/meminfo").unwrap_or_default();
                let total = about.lines().find_map(|line| line.strip_prefix("MemTotal:"));
                let kib = total.and_then(|total| total.trim().trim_end_matches(" kB").parse::<u64>().ok());
                kib.map_or(Value::Null, |kib| Value::U64(kib * 1024))
            }
            Fact::MachineId => text(read("etc/machine-id").as_deref()),
        }
    }
}

struct AddFacts {
    facts: Vec<(Field, Value)>,
}

impl Transform for AddFacts {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let stop = |error: &dyn std::fmt::Display| Fault::stop(error.to_string());
        let mut schema = (**batch.schema()).clone();
        let mut columns = batch.columns().to_vec();
        for (field, value) in &self.facts {
            let mut column = Column::new(&field.ty);
            for _ in 0..batch.rows() {
                column.push(value.as_cell(), &field.ty).map_err(|error| stop(&error))?;
            }
            match schema.index_of(&field.name) {
                Some(at) => (schema.fields[at], columns[at]) = (field.clone(), column),
                None => {
                    schema.fields.push(field.clone());
                    columns.push(column);
                }
            }
        }
        let batch = batch
            .with_columns(Arc::new(schema), columns)
            .map_err(|error| stop(&error))?;
        Ok(Transformed {
            batch,
            rejected: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Cell, Op, Origin, Schema};

    use super::*;

    fn context() -> BuildContext {
        BuildContext {
            daemon: "gateway".into(),
            ..BuildContext::default()
        }
    }

    #[test]
    fn facts_become_columns() {
        let fields = vec![Field::new("n", Type::I64), Field::new("host_name", Type::I64)];
        let schema = Schema {
            collection: "t".into(),
            fields,
        };
        let mut rows = BatchBuilder::new(schema.into());
        for n in 0..2 {
            rows.push(Op::Insert, &[Cell::I64(n), Cell::I64(n)]).unwrap();
        }
        let config = r#"{"facts": ["name", "daemon", "arch", "cpus"]}"#;
        let mut transform = build(config, &context()).unwrap();
        let out = transform.apply(rows.finish(Origin::default())).unwrap().batch;
        let names: Vec<&str> = out.schema().fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["n", "host_name", "host_daemon", "host_arch", "host_cpus"]);
        let told = Fact::Name.value(&context(), Path::new("/"));
        assert!(matches!(&told, Value::Text(name) if !name.is_empty()), "{told:?}");
        for row in 0..2 {
            assert_eq!(out.cell(row, 1), told.as_cell());
            assert_eq!(out.cell(row, 2), Cell::Text("gateway"));
            assert_eq!(out.cell(row, 3), Cell::Text(std::env::consts::ARCH));
            assert!(matches!(out.cell(row, 4), Cell::U64(1..)));
        }
    }

    #[test]
    fn what_a_host_says_is_read_and_what_it_does_not_say_is_null() {
        let dir = tempfile::tempdir().unwrap();
        let all = [Fact::Name, Fact::Os, Fact::Kernel, Fact::MemoryBytes, Fact::MachineId];
        for fact in all {
            assert_eq!(fact.value(&context(), dir.path()), Value::Null, "{fact:?}");
        }
        fs::create_dir_all(dir.path().join("proc/sys/kernel")).unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        for (path, text) in [
            ("proc/sys/kernel/hostname", "press-7\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-18-arm64\n"),
            ("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n"),
            ("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            ("etc/machine-id", "0123456789abcdef\n"),
        ] {
            fs::write(dir.path().join(path), text).unwrap();
        }
        let text = |text: &str| Value::Text(text.into());
        let wanted = [
            text("press-7"),
            text("Debian GNU/Linux 12"),
            text("6.1.0-18-arm64"),
            Value::U64(1_024_000),
            text("0123456789abcdef"),
        ];
        assert_eq!(all.map(|fact| fact.value(&context(), dir.path())), wanted);
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"facts": []}"#, "facts: name at least one"),
            (r#"{"facts": ["moon"]}"#, "moon"),
            (r#"{"fact": ["name"]}"#, "fact"),
        ] {
            let error = build(config, &context()).err().unwrap().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
