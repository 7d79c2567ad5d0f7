//! `hostler jobs list`

use super::arguments::List;
use super::pages::{Pages, Query};
use super::times::{moment, now, short};
use crate::error::Result;
use crate::output;
use serde::Deserialize;
use serde_json::Value;

/// The widest that the column of models becomes.
const MODEL_WIDTH_MAX: usize = 40;

pub async fn run(list: List) -> Result<bool> {
    let List { which, limit, all, json, host } = list;
    let mut client = host.client()?;
    let mut pages = Pages::new(Query::of(&which), if all { u64::MAX } else { limit });
    let mut table = Table::default();
    while let Some(jobs) = pages.next(&mut client).await? {
        for job in &jobs {
            if json {
                output::print_json(job);
            }
        }
        if !json {
            table.print(&jobs);
        }
        // The reader has closed the pipe, or the disk is full.
        if output::has_failed() {
            return Ok(true);
        }
    }
    if !json && table.rows == 0 {
        output::print("no jobs");
    }
    if pages.has_more() {
        output::report(format_args!("there may be more than {limit} jobs; --limit N or --all lists them"));
    }
    Ok(true)
}

/// An entry of a list, as far as a table shows it.
#[derive(Deserialize)]
#[serde(default)]
struct Entry {
    job_id: String,
    state: String,
    model: String,
    version: String,
    attempts: u64,
    created_at: f64,
    started_at: Option<f64>,
    ended_at: Option<f64>,
}

impl Default for Entry {
    fn default() -> Self {
        let unknown = || "?".to_owned();
        Entry {
            job_id: unknown(),
            state: unknown(),
            model: unknown(),
            version: unknown(),
            attempts: 0,
            created_at: 0.0,
            started_at: None,
            ended_at: None,
        }
    }
}

/// A table that grows page by page. The first page decides how wide its columns are.
#[derive(Default)]
struct Table {
    rows: usize,
    model_width: usize,
}

impl Table {
    fn print(&mut self, jobs: &[Value]) {
        let now = now();
        // What is not an entry is shown as one that is not known.
        let entries = jobs.iter().map(|job| Entry::deserialize(job).unwrap_or_default());
        let rows: Vec<[String; 7]> = entries.map(|entry| row(&entry, now)).collect();
        if rows.is_empty() {
            return;
        }
        let mut text = String::new();
        if self.rows == 0 {
            let widths = rows.iter().map(|row| row[2].chars().count());
            self.model_width = widths.max().unwrap_or(0).clamp(5, MODEL_WIDTH_MAX);
            let head = ["ID", "STATE", "MODEL", "CREATED", "AGE", "TOOK", "ATTEMPTS"];
            text += &self.line(&head.map(str::to_owned));
        }
        rows.iter().for_each(|row| text += &self.line(row));
        self.rows += rows.len();
        output::print_text(text);
    }

    fn line(&self, [id, state, model, created, age, took, attempts]: &[String; 7]) -> String {
        let width = self.model_width;
        let line = format!(
            "{id:<32}  {state:<9}  {model:<width$}  {created:<20}  {age:>7}  {took:>7}  {attempts:>8}"
        );
        output::one_line(&line).into_owned() + "\n"
    }
}

fn row(entry: &Entry, now: f64) -> [String; 7] {
    let took = entry.started_at.map(|started| short(entry.ended_at.unwrap_or(now) - started));
    [
        entry.job_id.clone(),
        entry.state.clone(),
        format!("{}:{}", entry.model, entry.version),
        moment(entry.created_at),
        short(now - entry.created_at),
        took.unwrap_or_else(|| "-".to_owned()),
        entry.attempts.to_string(),
    ]
}
