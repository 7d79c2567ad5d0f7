//! Runs other programs. Each step prints one line, and a failure names the program and the fix.
//! Does not decide which programs run.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use crate::error::{Error, Result};

/// The steps so far, each with the time at which it began.
static STEPS: Mutex<Vec<(String, Instant)>> = Mutex::new(Vec::new());

/// Prints one line about a step to stderr; stdout stays free for results.
pub fn step(line: &str) {
    eprintln!("xtask: {line}");
    STEPS.lock().expect("invariant: no panic under the lock").push((line.to_owned(), Instant::now()));
}

/// Returns a table of the steps that took a second or longer, and their sum.
pub fn times() -> String {
    let steps = STEPS.lock().expect("invariant: no panic under the lock");
    let ends = steps.iter().skip(1).map(|(_, began)| *began).chain([Instant::now()]);
    let mut table = String::from("| step | seconds |\n|---|---:|\n");
    let mut sum = 0.0;
    for ((line, began), end) in steps.iter().zip(ends) {
        let seconds = end.saturating_duration_since(*began).as_secs_f64();
        sum += seconds;
        if seconds >= 1.0 {
            let _ = writeln!(table, "| {line} | {seconds:.0} |");
        }
    }
    let _ = write!(table, "| all | {sum:.0} |");
    table
}

/// Runs a command to its end, with the terminal's input and output. `fix` is what the error
/// advises.
pub fn run(command: &mut Command, fix: &str) -> Result<()> {
    let status = command.status().map_err(|cause| not_started(command, &cause, fix))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!("`{}` failed: {status}", shown(command)), fix))
}

/// Runs a command to its end, without input, and returns its stdout. Its stderr is shown only in
/// the error.
pub fn output(command: &mut Command, fix: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|cause| not_started(command, &cause, fix))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("`{}` failed: {}\n{}", shown(command), output.status, stderr.trim_end()), fix))
}

/// Returns the error for a command that did not start. Most often, the program is not installed.
pub fn not_started(command: &Command, cause: &std::io::Error, fix: &str) -> Error {
    Error::new(format!("cannot start `{}`: {cause}", shown(command)), fix)
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
