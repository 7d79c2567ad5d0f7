//! `hostler doctor`: looks for the tools of the languages, and prints what brings a missing one.

use super::language::Language;
use crate::error::Result;
use crate::output;
use std::process::Command;

/// A tool, and how to find it.
struct Tool {
    name: &'static str,
    /// Prints its version.
    command: &'static [&'static str],
    /// The lowest version that works: major and minor.
    least: Option<(u32, u32)>,
    mend: &'static str,
}

const PYTHON: &[Tool] = &[
    Tool {
        name: "python3",
        command: &["python3", "--version"],
        least: Some((3, 10)),
        mend: "apt-get install python3, or install Python from python.org",
    },
    Tool {
        name: "venv",
        command: &["python3", "-c", "import ensurepip, venv; print('is there')"],
        least: None,
        mend: "apt-get install python3-venv",
    },
];

const NODE: &[Tool] = &[
    Tool {
        name: "node",
        command: &["node", "--version"],
        least: Some((20, 6)),
        mend: "install Node 20 or newer, such as with nvm: `nvm install 20`",
    },
    Tool { name: "npm", command: &["npm", "--version"], least: None, mend: "apt-get install npm" },
];

const RUST: &[Tool] = &[
    Tool {
        name: "cargo",
        command: &["cargo", "--version"],
        least: Some((1, 87)),
        mend: "install Rust with rustup, from rustup.rs",
    },
    Tool {
        name: "wasm32-wasip2",
        command: &[
            "sh",
            "-c",
            "test -d \"$(rustc --print target-libdir --target wasm32-wasip2)\" && echo is there",
        ],
        least: None,
        mend: "rustup target add wasm32-wasip2",
    },
];

/// `hostler build` brings Go from PyPI, so the tools are those of Python.
const GO: &[Tool] = PYTHON;

impl Language {
    fn tools(self) -> &'static [Tool] {
        match self {
            Language::Rust => RUST,
            Language::Python => PYTHON,
            Language::JavaScript | Language::TypeScript => NODE,
            Language::Go => GO,
            // The compiler is a package of Python, which a project installs.
            Language::C => PYTHON,
        }
    }
}

/// `hostler doctor [LANGUAGE]`: returns whether nothing is missing that the language needs, or any
/// language if none is given.
pub fn doctor(language: Option<&str>) -> Result<bool> {
    let languages = match language {
        Some(language) => vec![Language::parse(language)?],
        None => vec![Language::Rust, Language::Python, Language::JavaScript, Language::Go, Language::C],
    };
    let mut is_complete = true;
    for language in languages {
        output::print(format_args!("{}:", language.as_str()));
        for tool in language.tools() {
            match tool.find() {
                Ok(found) => output::print(format_args!("  ok       {}: {found}", tool.name)),
                Err(why) => {
                    is_complete = false;
                    output::print(format_args!("  MISSING  {}: {why}; {}", tool.name, tool.mend));
                }
            }
        }
    }
    output::print("onnx:");
    match crate::executor::runtime::environment(None).map(drop) {
        Ok(()) => output::print("  ok       ONNX Runtime (only models in ONNX files need it)"),
        Err(error) => output::print(format_args!("  MISSING  {error} (only models in ONNX files need it)")),
    }
    Ok(is_complete)
}

impl Tool {
    /// Returns the version that is there, or why it does not do.
    fn find(&self) -> Result<String, String> {
        let [program, arguments @ ..] = self.command else { return Err("no command".to_owned()) };
        let output = Command::new(program).args(arguments).output();
        let output = output.map_err(|error| format!("cannot run `{program}`: {error}"))?;
        if !output.status.success() {
            return Err("it is not installed".to_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or_default().trim().to_owned();
        if let Some((major, minor)) = self.least {
            let found = numbers(&version);
            if found.is_some_and(|found| found < (major, minor)) {
                return Err(format!("{version} is too old, at least {major}.{minor} is needed"));
            }
        }
        Ok(version)
    }
}

/// Returns the first two numbers of a version, such as those of `v20.11.1` or `cargo 1.95.0`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let digits = version.find(|letter: char| letter.is_ascii_digit())?;
    let mut parts = version[digits..].split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_their_tools_print_them() {
        assert_eq!(numbers("v20.11.1"), Some((20, 11)));
        assert_eq!(numbers("cargo 1.95.0 (f2d3ce0bd 2026-03-21)"), Some((1, 95)));
        assert_eq!(numbers("Python 3.11.7"), Some((3, 11)));
        assert_eq!(numbers("unknown"), None);
    }

    #[test]
    fn a_tool_that_is_missing_or_old_is_said() {
        let tool = |command, least| Tool { name: "t", command, least, mend: "" };
        assert!(tool(&["no-such-program"], None).find().unwrap_err().contains("no-such-program"));
        assert!(tool(&["echo", "1.2.3"], Some((1, 3))).find().unwrap_err().contains("too old"));
        assert_eq!(tool(&["echo", "1.3.0"], Some((1, 3))).find().unwrap(), "1.3.0");
        assert!(tool(&["false"], None).find().unwrap_err().contains("not installed"));
    }
}
