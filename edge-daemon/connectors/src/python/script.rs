//! A piece of Python, and the process that runs it: how it is started, what it may take, what its answers are.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bus_schema::data::Type;
use flow::{BuildContext, ConfigError, Fault, Trouble, TroubleKind};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;

use crate::{
    custom_code::{is_sha256, sha256},
    exec::{
        child::Program,
        talk::{Patience, Talk},
    },
    file::source::types,
    reach,
    secret::SecretRef,
};

/// What the process runs.
const STUB: &str = include_str!("stub.py");
/// Reads the stub from its standard input and runs it: its text in the command would hide everything else there.
const BEGINNING: &str = "import os; source = os.fdopen(os.dup(0), 'rb'); \
                         exec(compile(source.read(int(source.readline())), 'mycelial', 'exec'))";
/// Longest code that stands in a workflow, in bytes. It travels in the daemon's plan, in which others stand too.
pub(crate) const CODE_BYTES_MAX: usize = 256 * 1024;
/// Longest code that stands in a file, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Least memory the process may be given, in MiB: Python itself takes ten.
const MEMORY_MIB_MIN: u64 = 32;
/// Most of it.
const MEMORY_MIB_MAX: u64 = 1024 * 1024;
/// How long the code may take until it has been loaded.
const LOAD_MAX: Duration = Duration::from_secs(60);
/// Longest answer, in bytes: about one record, and its twin in JSON's clothes.
pub(crate) const LINE_BYTES_MAX: usize = 2 * bus_schema::limits::RECORD_BYTES_MAX;

pub(crate) fn half_a_minute() -> u64 {
    30_000
}

pub(crate) fn memory_usual() -> u64 {
    128
}

/// Prints what is wrong with the code on its standard input, in a line.
const PARSER: &str = "import sys\ntry: compile(sys.stdin.read(), 'code', 'exec')\n\
                      except SyntaxError as wrong: print(f'line {wrong.lineno}: {wrong.msg}')";

/// What Python says to code; nothing when it can read it.
async fn parse(code: String) -> std::io::Result<String> {
    let mut child = tokio::process::Command::new("python3")
        .args(["-I", "-S", "-B", "-c", PARSER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let input = child.stdin.take();
    let given = async {
        if let Some(mut input) = input {
            input.write_all(code.as_bytes()).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    let (given, output) = tokio::join!(given, child.wait_with_output());
    given?;
    Ok(String::from_utf8_lossy(&output?.stdout).trim().to_string())
}

/// What stands in the config of every component that runs Python.
pub(crate) struct Settings {
    pub(crate) code: Option<String>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) sha256: Option<String>,
    pub(crate) env: BTreeMap<String, SecretRef>,
    pub(crate) memory_mib: u64,
    pub(crate) answer_ms_max: u64,
    pub(crate) types: BTreeMap<String, String>,
}

/// Code that can be run.
pub(crate) struct Script {
    code: Code,
    /// What the code's SHA-256 has to be, in hex.
    sha256: Option<String>,
    /// What the component is called in its workflow.
    node: String,
    function: &'static str,
    program: Program,
    memory_bytes: u64,
    pub(crate) patience: Patience,
    /// Types that columns were declared to have.
    pub(crate) types: Vec<(String, Type)>,
}

enum Code {
    Inline(String),
    File(PathBuf),
}

/// The first thing the stub is told.
#[derive(Serialize)]
struct Setup<'a> {
    parent: u32,
    memory_bytes: u64,
    function: &'a str,
    code: &'a str,
    /// Columns that hold JSON whatever stands in them.
    json: Vec<&'a str>,
}

impl Script {
    /// Checks what stands in a config. `function` is the one the code must have.
    pub(crate) fn new(settings: Settings, function: &'static str, context: &BuildContext) -> Result<Self, ConfigError> {
        let code = match (settings.code, settings.file) {
            (Some(code), None) if code.len() > CODE_BYTES_MAX => {
                let message = format!(
                    "has {} bytes, and code that travels with a workflow at most {CODE_BYTES_MAX}: put it into a file on \
                     the daemon (file)",
                    code.len()
                );
                return Err(ConfigError::at("code", message));
            }
            (Some(code), None) => Code::Inline(code),
            (None, Some(file)) => Code::File(context.base_dir.join(file)),
            _ => return Err(ConfigError::at("code", "give either the code or a file with it")),
        };
        let sha256 = settings.sha256.map(|text| text.to_ascii_lowercase());
        if sha256.as_ref().is_some_and(|text| !is_sha256(text)) {
            let message = "is no SHA-256: 64 of the characters 0-9 and a-f, as `sha256sum` prints them";
            return Err(ConfigError::at("sha256", message));
        }
        if let Code::Inline(code) = &code {
            compare(code, sha256.as_deref()).map_err(|cause| ConfigError::at("sha256", cause))?;
        }
        if !(MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(&settings.memory_mib) {
            let message = format!("between {MEMORY_MIB_MIN} and {MEMORY_MIB_MAX}");
            return Err(ConfigError::at("memory_mib", message));
        }
        if settings.answer_ms_max == 0 {
            return Err(ConfigError::at("answer_ms_max", "is 0: give the code time"));
        }
        let command = ["python3", "-I", "-S", "-B", "-c", BEGINNING];
        Ok(Self {
            code,
            sha256,
            node: context.node.clone(),
            function,
            program: Program::new(command.map(str::to_string).to_vec(), settings.env, None, context)?,
            memory_bytes: settings.memory_mib * 1024 * 1024,
            patience: Patience {
                answer_max: Duration::from_millis(settings.answer_ms_max),
                line_bytes_max: LINE_BYTES_MAX,
            },
            types: types(&settings.types)?,
        })
    }

    /// Whether Python is there and can read the code. Nothing of it is run.
    pub(crate) async fn check(&self) -> Result<String, Trouble> {
        self.program.check()?;
        let code = match &self.code {
            Code::Inline(code) => code.clone(),
            Code::File(path) => {
                if !reach::readable_file(path)? {
                    return Err(reach::missing(
                        format!("there is no file {}", path.display()),
                        "correct the path",
                    ));
                }
                self.read(path).map_err(|cause| {
                    Trouble::new(
                        TroubleKind::Path,
                        format!("{}: {cause}", path.display()),
                        "mend the file",
                    )
                })?
            }
        };
        let told = parse(code).await.map_err(|error| {
            Trouble::new(
                TroubleKind::Program,
                format!("python3: {error}"),
                "see whether python3 runs on this machine",
            )
        })?;
        match told.is_empty() {
            true => Ok("python3 can read the code; what it does shows when it runs".to_string()),
            false => Err(Trouble::new(TroubleKind::Program, told, "correct the code")),
        }
    }

    /// Starts the process and lets it load the code.
    pub(crate) async fn start(&self) -> Result<Talk, Fault> {
        let from_file;
        let code = match &self.code {
            Code::Inline(code) => code,
            Code::File(path) => {
                from_file = self
                    .read(path)
                    .map_err(|cause| Fault::retry(format!("cannot read the code in {}: {cause}", path.display())))?;
                &from_file
            }
        };
        let json = self.types.iter().filter(|(_, ty)| *ty == Type::Json);
        let setup = Setup {
            parent: std::process::id(),
            memory_bytes: self.memory_bytes,
            function: self.function,
            code,
            json: json.map(|(name, _)| name.as_str()).collect(),
        };
        let mut text = format!("{}\n{STUB}", STUB.len()).into_bytes();
        text.extend(serde_json::to_vec(&setup).unwrap_or_default());
        text.push(b'\n');
        let child = self.program.start(true, &[])?;
        let mut talk = Talk::new(child).ok_or_else(|| self.failed("it has no input"))?;
        let patience = Patience {
            answer_max: LOAD_MAX,
            ..self.patience
        };
        let mut broken = None;
        let mut hear = |line: &[u8]| match Answer::of(line)? {
            Answer::Done(_) => Ok(()),
            Answer::Broken(cause) => {
                broken = Some(cause);
                Ok(())
            }
            Answer::Fault(cause) => Err(cause),
            _ => Err("it is not ready".to_string()),
        };
        let loaded = talk.ask(&text, 1, patience, &mut hear).await;
        match (loaded, broken) {
            (Ok(()), None) => {
                tracing::info!(node = self.node, sha256 = sha256(code), "Python code runs");
                Ok(talk)
            }
            // A file may be replaced; what stands in the workflow stays as it is.
            (Ok(()), Some(cause)) if matches!(self.code, Code::Inline(_)) => {
                Err(Fault::stop(format!("the Python code: {cause}")))
            }
            (Ok(()), Some(cause)) | (Err(cause), _) => Err(self.failed(&cause)),
        }
    }

    /// The code in a file, if it is what it has to be.
    fn read(&self, path: &Path) -> Result<String, String> {
        let code = read(path)?;
        compare(&code, self.sha256.as_deref())?;
        Ok(code)
    }

    /// A failure of the process, worth trying again.
    pub(crate) fn failed(&self, cause: &str) -> Fault {
        match &self.code {
            Code::Inline(_) => Fault::retry(format!("the Python code: {cause}")),
            Code::File(path) => Fault::retry(format!("the Python code {}: {cause}", path.display())),
        }
    }
}

/// Whether code is what it was said to be.
fn compare(code: &str, said: Option<&str>) -> Result<(), String> {
    let found = sha256(code);
    match said {
        Some(said) if said != found => Err(format!(
            "the code has the SHA-256 {found}, and not {said}; if it is what you mean to run, say so in sha256, or leave that out"
        )),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut code = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut code);
    read.map_err(|error| error.to_string())?;
    if code.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(code)
}

/// A line of the stub. The sign it begins with says what it is, see there.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer<'a> {
    /// A record, or what else is a JSON object.
    Object(&'a str),
    /// No record comes of it.
    LeftOut,
    /// The record cannot go on: JSON that says why.
    Rejected(&'a str),
    /// Everything was done.
    Done(String),
    /// The process is of no use any more.
    Fault(String),
    /// The code cannot be run at all.
    Broken(String),
}

impl<'a> Answer<'a> {
    pub(crate) fn of(line: &'a [u8]) -> Result<Self, String> {
        let line = std::str::from_utf8(line).map_err(|_| "its answer is not UTF-8".to_string())?;
        let mut rest = line.chars();
        let sign = rest.next();
        let rest = rest.as_str();
        Ok(match sign {
            Some('{') => Answer::Object(line),
            Some('-') => Answer::LeftOut,
            Some('?') => Answer::Rejected(rest),
            Some('.') => Answer::Done(said(rest)),
            Some('!') => Answer::Fault(said(rest)),
            Some('#') => Answer::Broken(said(rest)),
            _ => return Err("its answer is none".to_string()),
        })
    }
}

/// A text of the stub. Half a character, which Python allows and nobody else, is shown as it was written.
pub(crate) fn said(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_else(|_| json.to_string())
}
