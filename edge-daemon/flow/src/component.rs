//! Components as data: the registry of what a daemon can run, and how a config becomes a running part.

use std::path::PathBuf;

use bus_schema::plan::{ComponentRole, Descriptor};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{junction::Junction, sink::Sink, source::Source, transform::Transform};

/// A config is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", if key.is_empty() { String::new() } else { format!("{key}: ") })]
pub struct ConfigError {
    /// Which key, as a dotted path; empty for the whole.
    pub key: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl ConfigError {
    /// A mistake at a key.
    pub fn at(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

/// What a component may know when it is built.
#[derive(Debug, Clone, Default)]
pub struct BuildContext {
    /// The workflow's name.
    pub workflow: String,
    /// The node's name in the workflow.
    pub node: String,
    /// The daemon's name.
    pub daemon: String,
    /// Where relative paths in configs start.
    pub base_dir: PathBuf,
}

/// Makes a `T` from a config (JSON text).
pub type Builder<T> = fn(&str, &BuildContext) -> Result<Box<T>, ConfigError>;

/// Makes a running part.
#[derive(Clone, Copy)]
pub enum Build {
    /// A source.
    Source(Builder<dyn Source>),
    /// A transform.
    Transform(Builder<dyn Transform>),
    /// A sink.
    Sink(Builder<dyn Sink>),
    /// A transform that takes the records of several ways together.
    Junction(Builder<dyn Junction>),
}

/// One line of the registry.
#[derive(Clone, Copy)]
pub struct Component {
    /// Makes its descriptor.
    pub descriptor: fn() -> Descriptor,
    /// Makes it run.
    pub build: Build,
}

/// Everything a daemon can run. Keeps no descriptors: their schemas would take more memory than a workflow that runs.
#[derive(Default)]
pub struct Registry {
    known: Vec<Known>,
}

/// What is always needed of a component.
struct Known {
    role: ComponentRole,
    name: String,
    durable: bool,
    component: Component,
}

impl Registry {
    /// Collects components.
    pub fn new(components: impl IntoIterator<Item = Component>) -> Self {
        let known = |component: Component| {
            let Descriptor {
                role, name, durable, ..
            } = (component.descriptor)();
            Known {
                role,
                name,
                durable,
                component,
            }
        };
        Self {
            known: components.into_iter().map(known).collect(),
        }
    }

    /// The catalog, made anew.
    pub fn descriptors(&self) -> impl Iterator<Item = Descriptor> {
        self.known.iter().map(|known| (known.component.descriptor)())
    }

    /// The names of all components.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|known| known.name.as_str())
    }

    fn known(&self, role: ComponentRole, name: &str) -> Option<&Known> {
        self.known.iter().find(|known| known.role == role && known.name == name)
    }

    /// The component of this role and name.
    pub fn find(&self, role: ComponentRole, name: &str) -> Option<Build> {
        self.known(role, name).map(|known| known.component.build)
    }

    /// Whether what begins a pipe can read again from a position: a source of this name, or else a junction.
    pub fn is_durable(&self, name: &str) -> bool {
        match self.known(ComponentRole::Source, name) {
            Some(source) => source.durable,
            None => matches!(self.find(ComponentRole::Transform, name), Some(Build::Junction(_))),
        }
    }
}

/// A descriptor whose schema comes from the config struct's types and doc comments.
pub fn describe<C: JsonSchema>(role: ComponentRole, name: &str, summary: &str, example: &str) -> Descriptor {
    let schema = schemars::schema_for!(C);
    Descriptor {
        role,
        name: name.to_string(),
        summary: summary.to_string(),
        schema: serde_json::to_string(&schema).unwrap_or_default(),
        example: example.to_string(),
        inputs_max: if role == ComponentRole::Transform { 1 } else { 0 },
        durable: false,
    }
}

/// Reads a config strictly. A mistake names the key.
pub fn parse_config<C: DeserializeOwned>(json: &str) -> Result<C, ConfigError> {
    let deserializer = &mut serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let message = error.inner().to_string();
        // serde_json appends " at line 1 column 8" of a JSON text the user never wrote.
        let message = message.split(" at line ").next().unwrap_or_default().to_string();
        ConfigError::at(if path == "." { String::new() } else { path }, message)
    })
}
