//! What is wrong in a manifest, where, and how to mend it.

use crate::error::{Error, Kind};
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One fault. Without a span it concerns the whole file.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub message: String,
    pub span: Option<Range<usize>>,
    pub hint: Option<String>,
}

impl Diagnostic {
    pub fn new(message: impl Into<String>) -> Self {
        Diagnostic { message: message.into(), span: None, hint: None }
    }

    pub fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert(hint.into());
        self
    }
}

/// All faults of one manifest, with its text to show them in.
#[derive(Clone)]
pub struct Diagnostics {
    pub path: PathBuf,
    pub text: String,
    pub faults: Vec<Diagnostic>,
}

impl Diagnostics {
    pub fn new(path: &Path, text: &str, faults: Vec<Diagnostic>) -> Self {
        Diagnostics { path: path.to_owned(), text: text.to_owned(), faults }
    }

    /// Line and column of a byte, both from 1. Columns count characters.
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(byte)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// One line for each fault: `hostler.toml:3:1: …`.
    pub fn lines(&self) -> Vec<String> {
        self.faults.iter().map(|fault| self.line(fault)).collect()
    }

    fn line(&self, fault: &Diagnostic) -> String {
        let mut line = self.path.display().to_string();
        if let Some(span) = &fault.span {
            let (row, column) = self.position(span.start);
            let _ = write!(line, ":{row}:{column}");
        }
        let _ = write!(line, ": {}", fault.message);
        if let Some(hint) = &fault.hint {
            let _ = write!(line, "; {hint}");
        }
        line
    }

    fn show(&self, fault: &Diagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", fault.message)?;
        let Some(span) = &fault.span else {
            writeln!(f, "  --> {}", self.path.display())?;
            return self.show_hint(fault, "", f);
        };
        let (row, column) = self.position(span.start);
        let source = self.text.lines().nth(row - 1).unwrap_or_default();
        let gutter = " ".repeat(row.to_string().len());
        let room = source.chars().count().saturating_sub(column - 1).max(1);
        let width =
            self.text.get(span.clone()).map_or(1, |text| text.chars().take_while(|&c| c != '\n').count());
        let marks = "^".repeat(width.clamp(1, room));
        writeln!(f, "{gutter}--> {}:{row}:{column}", self.path.display())?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{row} | {source}")?;
        writeln!(f, "{gutter} | {}{marks}", " ".repeat(column - 1))?;
        self.show_hint(fault, &gutter, f)
    }

    fn show_hint(&self, fault: &Diagnostic, gutter: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &fault.hint {
            Some(hint) => {
                let indent = format!("\n{gutter}         ");
                writeln!(f, "{gutter} = help: {}", hint.replace('\n', &indent))
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            self.show(fault, f)?;
        }
        Ok(())
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Error::new(Kind::InvalidInput, diagnostics.lines().join("\n"))
    }
}
