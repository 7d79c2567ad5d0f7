//! Faults of a manifest: what is wrong, where, and how to fix it.

use super::secret;
use crate::error::{Error, Kind};
use crate::output::one_line;
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The most characters of a line that are shown.
const LINE_SHOWN: usize = 100;

/// One fault. Without a span, it concerns the whole file.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub message: String,
    pub span: Option<Range<usize>>,
    pub hint: Option<String>,
    /// Whether it may pass by itself, because the cause is a shortage and not the file.
    pub transient: bool,
}

impl Diagnostic {
    pub fn new(message: impl Into<String>) -> Self {
        Diagnostic { message: message.into(), span: None, hint: None, transient: false }
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
    /// The number of further faults.
    pub more: usize,
    /// The byte at which each line begins.
    lines: Box<[usize]>,
    /// The places of values that must not be shown.
    hidden: Box<[Range<usize>]>,
}

impl Diagnostics {
    pub fn new(path: &Path, text: &str, faults: Vec<Diagnostic>) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Diagnostics {
            path: path.to_owned(),
            text: text.to_owned(),
            faults,
            more: 0,
            lines,
            hidden: secret::spans(text).into(),
        }
    }

    /// Sets the number of further faults.
    pub fn and_more(mut self, more: usize) -> Self {
        self.more = more;
        self
    }

    /// Returns line and column of a byte, both starting at 1. Columns count characters.
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let byte = self.text.floor_char_boundary(byte);
        // The first line begins at 0, so at least one line begins at or before any byte.
        let row = self.lines.partition_point(|start| *start <= byte);
        let line_start = self.lines[row - 1];
        (row, self.text[line_start..byte].chars().count() + 1)
    }

    /// Returns one line for each fault: `hostler.toml:3:1: …`.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.faults.iter().map(|fault| self.line(fault));
        lines.chain(self.more_line()).collect()
    }

    fn more_line(&self) -> Option<String> {
        (self.more > 0).then(|| format!("{}: and {} more faults", self.shown_path(), self.more))
    }

    fn shown_path(&self) -> String {
        one_line(&self.path.display().to_string()).into_owned()
    }

    fn line(&self, fault: &Diagnostic) -> String {
        let mut line = self.shown_path();
        if let Some(span) = &fault.span {
            let (row, column) = self.position(span.start);
            let _ = write!(line, ":{row}:{column}");
        }
        let _ = write!(line, ": {}", one_line(&fault.message));
        if let Some(hint) = &fault.hint {
            let _ = write!(line, "; {hint}");
        }
        line
    }

    fn show(&self, fault: &Diagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", one_line(&fault.message))?;
        let Some(span) = &fault.span else {
            writeln!(f, "  --> {}", self.shown_path())?;
            return self.show_hint(fault, "", f);
        };
        let (row, column) = self.position(span.start);
        let (line, place) = self.source(span.start);
        // A line can be as long as the file, so only a part of it is shown, from a little before
        // the fault.
        let skipped = (place - 1).saturating_sub(if line.len() > LINE_SHOWN { 40 } else { usize::MAX });
        let source: String = line.chars().skip(skipped).take(LINE_SHOWN).collect();
        let shown_column = place - skipped;
        let gutter = " ".repeat(row.to_string().len());
        let width_max = source.chars().count().saturating_sub(shown_column - 1).max(1);
        let width = self
            .text
            .get(span.clone())
            .map_or(1, |text| text.chars().take(width_max).take_while(|&c| c != '\n').count());
        let marks = "^".repeat(width.clamp(1, width_max));
        writeln!(f, "{gutter}--> {}:{row}:{column}", self.shown_path())?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{row} | {source}")?;
        writeln!(f, "{gutter} | {}{marks}", " ".repeat(shown_column - 1))?;
        self.show_hint(fault, &gutter, f)
    }

    /// Returns the line with this byte, without values that must not be shown, and the byte's
    /// column in it.
    fn source(&self, byte: usize) -> (String, usize) {
        let (row, mut column) = self.position(byte);
        let start = self.lines[row - 1];
        let end = start + self.text[start..].lines().next().unwrap_or_default().len();
        let (mut shown, mut at) = (String::new(), start);
        let first = self.hidden.partition_point(|span| span.end <= start);
        for hidden in self.hidden[first..].iter().take_while(|span| span.start < end) {
            shown += &self.text[at..hidden.start.max(at)];
            if byte >= hidden.start {
                column = shown.chars().count() + 1;
            }
            shown += secret::HIDDEN;
            at = hidden.end.min(end);
            if byte >= hidden.end {
                let between = self.text.get(at..byte).map_or(0, |text| text.chars().count());
                column = shown.chars().count() + between + 1;
            }
        }
        shown += &self.text[at..end];
        (shown, column)
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
        if let Some(line) = self.more_line() {
            writeln!(f, "\n{line}")?;
        }
        Ok(())
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Error::new(Kind::InvalidInput, diagnostics.lines().join("\n")).laid_out()
    }
}
