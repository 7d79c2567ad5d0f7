//! The results of a drill, as a table for people or as JSON for programs.

use super::client::Histogram;
use super::host::Usage;
use super::load::LoadCounts;
use super::samples::Source;
use crate::error::Error;
use crate::output::one_line;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// A p99 of more than this many times that of the steady load gets a remark.
const P99_TIMES: u32 = 10;

#[derive(Serialize)]
pub struct Report {
    pub manifest: String,
    pub passed: bool,
    pub connections: usize,
    pub seconds: f64,
    pub models: Vec<Source>,
    pub exercises: Vec<Row>,
    /// The host's process after the first exercise, and after the last one before the stop.
    pub process_before: Usage,
    pub process_after: Usage,
}

#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    Fail,
    Skipped,
}

/// One exercise, or one part of it.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    /// What was done, and how often.
    pub done: String,
    pub verdict: Verdict,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests without an answer, or with an unexpected status.
    pub failed: u64,
    /// Answers with a wrong result.
    pub wrong: u64,
    /// Answers with status 429.
    pub refused: u64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub worst_ms: Option<f64>,
    /// Why the exercise failed.
    pub faults: Vec<String>,
    pub remarks: Vec<String>,
}

impl Row {
    pub fn new(name: impl Into<String>, done: impl Into<String>) -> Self {
        Row {
            name: name.into(),
            done: done.into(),
            verdict: Verdict::Pass,
            requests: 0,
            failed: 0,
            wrong: 0,
            refused: 0,
            p50_ms: None,
            p99_ms: None,
            worst_ms: None,
            faults: Vec::new(),
            remarks: Vec::new(),
        }
    }

    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        let mut row = Row::new(name, "");
        row.verdict = Verdict::Skipped;
        row.remarks.push(why.into());
        row
    }

    pub fn fault(&mut self, fault: impl Into<String>) {
        self.verdict = Verdict::Fail;
        self.faults.push(fault.into());
    }

    pub fn broke(&mut self, error: &Error) {
        self.fault(error.message());
    }

    /// Adds the results of a load. Status 429 is a failure unless it is expected.
    pub fn take(&mut self, counts: &LoadCounts, refusals_expected: bool) {
        self.requests = counts.answers();
        self.refused = counts.with_status(|status| status == 429);
        let good = |status| status == 200 || (status == 429 && refusals_expected);
        self.failed = counts.with_status(|status| !good(status)) + counts.lost;
        self.wrong = counts.wrong;
        self.times(&counts.latencies);
        if self.failed > 0 {
            self.fault(format!("{} requests failed", self.failed));
        }
        if self.refused > 0 && !refusals_expected {
            self.fault("429 although every connection has its place in the queue");
        }
        if counts.wrong > 0 {
            self.fault(format!("{} answers are wrong", counts.wrong));
        }
        if counts.unhinted > 0 {
            self.fault(format!("{} answers with 429 have no Retry-After", counts.unhinted));
        }
        if self.requests == 0 {
            self.fault("no request was answered");
        }
        self.faults.extend(counts.faults.values().flatten().cloned());
    }

    pub fn times(&mut self, latencies: &Histogram) {
        self.p50_ms = latencies.percentile(0.5).map(in_ms);
        self.p99_ms = latencies.percentile(0.99).map(in_ms);
        self.worst_ms = self.p50_ms.map(|_| in_ms(latencies.worst));
    }

    /// Adds a remark if p99 is far above that of the steady load. Latencies never fail an exercise.
    pub fn compare(&mut self, steady_p99_ms: Option<f64>) {
        if let (Some(p99), Some(steady)) = (self.p99_ms, steady_p99_ms)
            && p99 > steady * f64::from(P99_TIMES)
        {
            self.remarks.push(format!("p99 is {:.0} times that of steady", p99 / steady.max(0.001)));
        }
    }
}

fn in_ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

impl Report {
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("invariant: a report has string keys")
    }

    pub fn table(&self) -> String {
        const HEAD: [&str; 10] = [
            "exercise", "done", "requests", "failed", "wrong", "429", "p50 ms", "p99 ms", "worst ms",
            "verdict",
        ];
        let cells: Vec<[String; 10]> = self.exercises.iter().map(Row::cells).collect();
        let mut widths = HEAD.map(str::len);
        for row in &cells {
            widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
        }
        let line = |cells: [&str; 10]| {
            let padded = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
                // Text is aligned to the left, numbers to the right.
                0 | 1 | 9 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let mut text = line(HEAD) + "\n";
        for (row, cells) in self.exercises.iter().zip(&cells) {
            let _ = writeln!(text, "{}", line(cells.each_ref().map(String::as_str)));
            for note in row.faults.iter().chain(&row.remarks) {
                let _ = writeln!(text, "    {}", one_line(note));
            }
        }
        text.push('\n');
        for source in &self.models {
            let _ = match &source.no_sample {
                Some(why) => writeln!(text, "model \"{}\": {}", source.model, one_line(why)),
                None => writeln!(
                    text,
                    "model \"{}\": samples from its {}: {}",
                    source.model, source.from, source.samples
                ),
            };
        }
        let (before, after) = (&self.process_before, &self.process_after);
        let _ = writeln!(
            text,
            "the host had {} MB, {} threads, {} files open after the first exercise; {} MB, {} threads, {} \
             files after the last",
            before.memory_mb, before.threads, before.files, after.memory_mb, after.threads, after.files
        );
        let failed = self.exercises.iter().filter(|row| row.verdict == Verdict::Fail);
        let failed: Vec<&str> = failed.map(|row| &*row.name).collect();
        let _ = match failed.as_slice() {
            [] => writeln!(text, "{}: passed", self.manifest),
            failed => writeln!(text, "{}: failed: {}", self.manifest, failed.join(", ")),
        };
        text
    }
}

impl Row {
    fn cells(&self) -> [String; 10] {
        let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        let count = |value: u64| match self.verdict {
            Verdict::Skipped => "-".to_owned(),
            _ => value.to_string(),
        };
        let verdict = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::Skipped => "skipped",
        };
        [
            self.name.clone(),
            self.done.clone(),
            count(self.requests),
            count(self.failed),
            count(self.wrong),
            count(self.refused),
            ms(self.p50_ms),
            ms(self.p99_ms),
            ms(self.worst_ms),
            verdict.to_owned(),
        ]
    }
}
