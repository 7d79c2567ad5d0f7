//! Runs the steps of a build, and moves the result to its place.

use super::settings::{BuildStep, Settings};
use super::sources;
use crate::error::{Error, Result};
use crate::output;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The folder for what a build leaves behind. Templates keep it out of version control.
pub(super) const FOLDER: &str = "build";

/// Remembers the inputs of steps that have succeeded.
const RECORD: &str = "build/steps.json";

/// How long the output of a step is read after its program has ended. Something that it has
/// started may keep the output open.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);

/// Longer lines of a step's output are cut into several.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// The first bytes of every component; a core module has another version.
pub(super) const COMPONENT_HEAD: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// Digests of the inputs of steps, by the command of the step.
type Record = BTreeMap<String, String>;

/// Where the output of the steps goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepOutput {
    /// To the terminal, as it is.
    Terminal,
    /// Line by line to standard output, which a host that serves writes itself.
    Lines,
}

/// Builds the project in a folder, and returns the path of the component.
pub(super) fn build(folder: &Path, settings: &Settings, output: StepOutput) -> Result<PathBuf> {
    let started = Instant::now();
    let mut record: Record = std::fs::read(folder.join(RECORD))
        .ok()
        .and_then(|content| serde_json::from_slice(&content).ok())
        .unwrap_or_default();
    // Not every tool creates the folder that it writes into.
    if let Some(parent) = settings.output.as_deref().and_then(Path::parent) {
        let parent = folder.join(parent);
        std::fs::create_dir_all(&parent)
            .map_err(|error| Error::unavailable(format!("cannot create {}: {error}", parent.display())))?;
    }
    for (index, step) in settings.build.iter().enumerate() {
        let key = format!("{index}\0{}", step.run.join("\0"));
        let digest = sources::digest(folder, &step.inputs)
            .map_err(|error| error.context(format!("step {} of the build", index + 1)))?;
        if is_done(folder, step, record.get(&key), &digest) {
            continue;
        }
        run(folder, &settings.component, step, index, output)?;
        record.insert(key, digest);
        keep(folder, &record);
    }
    let component = install(folder, settings)?;
    let bytes = std::fs::metadata(&component).map_or(0, |metadata| metadata.len());
    output::print(format_args!(
        "built {} ({} KB) in {:.1} s",
        settings.component.display(),
        bytes.div_ceil(1024),
        started.elapsed().as_secs_f64()
    ));
    Ok(component)
}

/// Returns whether a step has nothing to do.
fn is_done(folder: &Path, step: &BuildStep, recorded: Option<&String>, digest: &str) -> bool {
    let is_there = step.creates.as_ref().map(|path| folder.join(path).exists());
    match (is_there, step.inputs.is_empty()) {
        (Some(is_there), true) => is_there,
        (Some(false), false) => false,
        (_, false) => recorded.is_some_and(|recorded| recorded == digest),
        (None, true) => false,
    }
}

fn run(folder: &Path, component: &Path, step: &BuildStep, index: usize, output: StepOutput) -> Result<()> {
    let shown = step.run.join(" ");
    let number = index + 1;
    let of = component.display();
    let program = &step.run[0];
    let own = own_program(program)?;
    // A program of the project, such as one in a virtual environment, is relative to the project.
    let path = folder.join(program);
    let is_path = program.contains('/');
    let mut command = match own {
        Some(own) => Command::new(own),
        None if is_path => Command::new(path),
        None => Command::new(program),
    };
    command.args(&step.run[1..]).current_dir(folder);
    let status = match output {
        StepOutput::Terminal => command.status(),
        StepOutput::Lines => status_with_lines(&mut command),
    };
    let status = status.map_err(|error| {
        let mend = match error.kind() {
            std::io::ErrorKind::NotFound if program == OWN_PROGRAM => {
                "the program was replaced since it started; start it again"
            }
            std::io::ErrorKind::NotFound => "`hostler doctor` says what the language's tools lack",
            _ => "correct the step in plugin.toml",
        };
        Error::failed(format!("cannot run step {number} of the build of {of}, `{shown}`: {error}; {mend}"))
    })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "step {number} of the build of {of}, `{shown}`, failed: {status}; its output is above"
    )))
}

/// The program of a step that stands for this program, wherever it is installed.
const OWN_PROGRAM: &str = "{hostler}";

fn own_program(program: &str) -> Result<Option<PathBuf>> {
    if program != OWN_PROGRAM {
        return Ok(None);
    }
    let found = std::env::current_exe();
    found
        .map(Some)
        .map_err(|error| Error::failed(format!("cannot find the program that runs, {OWN_PROGRAM}: {error}")))
}

/// Runs a command to its end, and prints what it writes line by line.
fn status_with_lines(command: &mut Command) -> std::io::Result<ExitStatus> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (ended, ends) = std::sync::mpsc::channel::<()>();
    for from in
        [stdout.map(|end| Box::new(end) as Box<dyn Read + Send>), stderr.map(|end| Box::new(end) as _)]
    {
        let ended = ended.clone();
        std::thread::Builder::new().name("build-output".into()).spawn(move || {
            if let Some(from) = from {
                print_lines(from);
            }
            drop(ended);
        })?;
    }
    drop(ended);
    let status = child.wait();
    let _ = ends.recv_timeout(OUTPUT_TIMEOUT);
    status
}

/// Prints lines until the writer is gone. Text that is not UTF-8 is shown as far as it is.
fn print_lines(from: impl Read) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        match from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => output::print(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

/// Remembers what was done. If that fails, the steps run again.
fn keep(folder: &Path, record: &Record) {
    let path = folder.join(RECORD);
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        std::fs::write(&path, serde_json::to_vec_pretty(record).expect("invariant: texts are JSON"))
    });
    if let Err(error) = written {
        output::report(format_args!(
            "cannot write {}: {error}; the next build repeats its steps",
            path.display()
        ));
    }
}

/// Moves what the last step has written to the path of the component.
fn install(folder: &Path, settings: &Settings) -> Result<PathBuf> {
    let component = folder.join(&settings.component);
    let written = settings.output.as_ref().map_or_else(|| component.clone(), |output| folder.join(output));
    let shown = written.display();
    let content = std::fs::read(&written).map_err(|error| {
        Error::failed(format!(
            "cannot read {shown}, which the build must write: {error}; correct `output` or the last step in plugin.toml"
        ))
    })?;
    if !content.starts_with(&COMPONENT_HEAD) {
        return Err(Error::invalid(format!(
            "{shown} is not a WebAssembly component, so no host can load it; a core module becomes one with \
             `hostler component`, and Rust builds one for the target wasm32-wasip2"
        )));
    }
    if written == component || std::fs::read(&component).is_ok_and(|known| known == content) {
        return Ok(component);
    }
    let failed =
        |error: std::io::Error| Error::unavailable(format!("cannot write {}: {error}", component.display()));
    if let Some(parent) = component.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    replace_file(&component, &content).map_err(failed)?;
    Ok(component)
}

/// Replaces a file in one step, so that a host that watches it reads the old or the new content.
/// If that fails, the old content stays.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let new = path.with_file_name(format!(".{name}.new"));
    let replaced = std::fs::write(&new, content).and_then(|()| std::fs::rename(&new, path));
    if replaced.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    replaced
}
