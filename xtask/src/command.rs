//! Runs other programs: one line says what is done, and a failure names the program and the mend.
//! Does not decide what to run.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// One line on stderr per step; stdout stays free for results.
pub fn step(line: &str) {
    eprintln!("xtask: {line}");
}

/// Runs to the end with the terminal's own output.
pub fn run(command: &mut Command, mend: &str) -> Result<()> {
    let status = command.status().map_err(|cause| not_started(command, &cause, mend))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!("`{}`: {status}", shown(command)), mend))
}

/// Runs to the end and returns stdout; stderr is shown only in the error.
pub fn output(command: &mut Command, mend: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|cause| not_started(command, &cause, mend))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("`{}`: {}\n{}", shown(command), output.status, stderr.trim_end()), mend))
}

/// For a command that could not even start: most often the program is not installed.
pub fn not_started(command: &Command, cause: &std::io::Error, mend: &str) -> Error {
    Error::new(format!("`{}`: cannot start: {cause}", shown(command)), mend)
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
