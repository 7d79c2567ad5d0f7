//! `hostler jobs show`

use super::arguments::Show;
use super::pages::encoded;
use super::times::{moment, now, short};
use crate::cli::client::{HostAnswer, HostClient};
use crate::error::Result;
use crate::output;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::time::{Duration, Instant};

/// The most characters of a result that are shown; `--json` prints all of them.
const RESULT_CHARS_MAX: usize = 400;

/// How long one request waits for the end of a job.
const WAIT_ONCE: Duration = Duration::from_secs(30);

pub async fn run(show: Show) -> Result<bool> {
    let Show { id, wait, json, host } = show;
    let mut client = host.client()?;
    let answer = match wait {
        None => client.get(&format!("/jobs/{}", encoded(&id))).await?,
        Some(seconds) => wait_for(&mut client, &id, Duration::from_secs(seconds)).await?,
    };
    let job: Job = client.decode(&answer)?;
    if json {
        output::print_json(String::from_utf8_lossy(&answer.body));
    } else {
        output::print_text(job.text());
    }
    let is_late = wait.is_some() && !job.has_ended();
    if is_late {
        let seconds = wait.unwrap_or_default();
        output::report(format_args!("the job has not ended within {seconds} s: it is {}", job.state));
    }
    Ok(!is_late)
}

async fn wait_for(client: &mut HostClient, id: &str, time: Duration) -> Result<HostAnswer> {
    let until = Instant::now() + time;
    loop {
        let wait = until.saturating_duration_since(Instant::now()).min(WAIT_ONCE);
        let path = format!("/jobs/{}?wait_ms={}", encoded(id), wait.as_millis());
        let answer = client.get_within(&path, wait).await?;
        let job: Job = client.decode(&answer)?;
        if job.has_ended() || Instant::now() >= until {
            return Ok(answer);
        }
    }
}

/// A job as the host shows it, as far as people read it.
#[derive(Deserialize)]
struct Job {
    job_id: String,
    state: String,
    model: String,
    version: String,
    created_at: f64,
    started_at: Option<f64>,
    ended_at: Option<f64>,
    expires_at: Option<f64>,
    #[serde(default)]
    history: Vec<Attempt>,
    max_attempts: Option<u64>,
    #[serde(default)]
    interruptions: u64,
    retry_of: Option<String>,
    #[serde(default)]
    refusals: u64,
    last_refusal: Option<String>,
    error: Option<Fault>,
    #[serde(default)]
    steps: Vec<Step>,
    webhook: Option<Webhook>,
    result_content_type: Option<String>,
    result_bytes: Option<u64>,
    #[serde(default, deserialize_with = "any")]
    result: Option<Box<RawValue>>,
}

/// Reads a key with any value, which may be null.
fn any<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(value).map(Some)
}

#[derive(Deserialize)]
struct Attempt {
    attempt: u64,
    started_at: f64,
    ended_at: Option<f64>,
    outcome: Option<String>,
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Webhook {
    url: String,
    state: String,
    #[serde(default)]
    attempts: u64,
    last_error: Option<String>,
}

/// A step of a pipeline.
#[derive(Deserialize)]
struct Step {
    step: String,
    state: String,
    #[serde(default)]
    runs: u64,
    #[serde(default)]
    reused: u64,
    #[serde(default)]
    time_ms: f64,
    #[serde(default)]
    queue_ms: f64,
}

#[derive(Deserialize)]
struct Fault {
    kind: String,
    message: String,
    step: Option<String>,
    plugin: Option<String>,
}

impl Job {
    fn has_ended(&self) -> bool {
        self.ended_at.is_some()
    }

    /// Returns lines whose parts cannot end them.
    fn text(&self) -> String {
        let now = now();
        let ago = |at: f64| format!("{} ({} ago)", moment(at), short(now - at));
        let mut lines = vec![
            ("job", self.job_id.clone()),
            ("state", self.state.clone()),
            ("model", format!("{}:{}", self.model, self.version)),
            ("created", ago(self.created_at)),
        ];
        lines.extend(self.started_at.map(|at| ("started", ago(at))));
        lines.extend(self.ended_at.map(|at| {
            let took = self.started_at.map(|started| format!(", {} after the start", short(at - started)));
            ("ended", format!("{}{}", ago(at), took.unwrap_or_default()))
        }));
        lines.extend(
            self.expires_at.map(|at| ("expires", format!("{} (in {})", moment(at), short(at - now)))),
        );
        lines.extend(self.retry_of.as_ref().map(|id| ("retry of", id.clone())));
        let allowed = self.max_attempts.map(|most| format!(" of {most}")).unwrap_or_default();
        let interrupted = match self.interruptions {
            0 => String::new(),
            times => format!(", {times} interrupted by ends of the host"),
        };
        lines.push(("attempts", format!("{}{allowed}{interrupted}", self.history.len())));
        lines.extend(self.history.iter().map(|attempt| ("", attempt.text())));
        if self.refusals > 0 {
            let why = self.last_refusal.as_deref().unwrap_or_default();
            lines.push(("refusals", format!("{}, the latest: {why}", self.refusals)));
        }
        let labels = std::iter::once("steps").chain(std::iter::repeat(""));
        lines.extend(labels.zip(self.steps.iter().map(Step::text)));
        lines.extend(self.error.as_ref().map(|error| ("error", error.text())));
        lines.extend(self.webhook.as_ref().map(|webhook| ("webhook", webhook.text())));
        if let (Some(content_type), Some(bytes)) = (&self.result_content_type, self.result_bytes) {
            let text = format!("{bytes} bytes of {content_type}: GET /jobs/{}/result", self.job_id);
            lines.push(("result", text));
        }
        lines.extend(self.result.as_ref().map(|result| ("result", cut(result.get()))));
        let line = |(label, text): (&str, String)| {
            format!("{label:<9} {}", output::one_line(&text)).trim_end().to_owned() + "\n"
        };
        lines.into_iter().map(line).collect()
    }
}

impl Attempt {
    fn text(&self) -> String {
        let took = self.ended_at.map(|ended| format!(" after {}", short(ended - self.started_at)));
        let outcome = self.outcome.as_deref().unwrap_or("running");
        let error = self.error.as_ref().map(|error| format!(": {}", error.text()));
        format!(
            "{}  {}  {outcome}{}{}",
            self.attempt,
            moment(self.started_at),
            took.unwrap_or_default(),
            error.unwrap_or_default()
        )
    }
}

impl Webhook {
    fn text(&self) -> String {
        let Webhook { url, state, attempts, last_error } = self;
        let error = last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        format!("{url}  {state} after {attempts} attempts{error}")
    }
}

impl Step {
    fn text(&self) -> String {
        let Step { step, state, runs, reused, time_ms, queue_ms } = self;
        let mut text = format!("{step}  {state}");
        if *runs > 0 {
            let times = if *runs == 1 { String::new() } else { format!("{runs} runs, ") };
            text += &format!("  {times}{time_ms:.1} ms after {queue_ms:.1} ms in the queue");
        }
        if *reused > 0 {
            text += "  kept from an earlier attempt";
        }
        text
    }
}

impl Fault {
    fn text(&self) -> String {
        let place = |what: &str, name: &Option<String>| {
            name.as_ref().map(|name| format!(" ({what} {name})")).unwrap_or_default()
        };
        format!(
            "{}: {}{}{}",
            self.kind,
            self.message,
            place("step", &self.step),
            place("plugin", &self.plugin)
        )
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(RESULT_CHARS_MAX) {
        Some((end, _)) => format!("{}… ({} bytes; --json prints all)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_that_a_host_sends_ends_a_line_or_controls_a_terminal() {
        let job = json!({
            "job_id": "7\n", "state": "failed\u{1b}[2J", "model": "m\r", "version": "1", "created_at": 1e300,
            "started_at": -5.0, "ended_at": 3.0, "expires_at": null, "retry_of": "a\u{202e}b",
            "history": [{"attempt": 1, "started_at": 0.0, "ended_at": null, "outcome": "x\ny", "error": null}],
            "error": {"kind": "failed", "message": "line\nline", "step": "s", "plugin": "p"},
            "webhook": {"url": "http://r\n", "state": "pending", "attempts": 2, "last_error": "x\ny"},
            "steps": [
                {"step": "p.a\n", "state": "succeeded", "runs": 1, "reused": 0, "time_ms": 1.25, "queue_ms": 0.0},
                {"step": "p.b", "state": "running\u{1b}", "runs": 0, "reused": 2},
            ],
            "result": "x".repeat(1000),
        });
        let job: Job = serde_json::from_str(&job.to_string()).unwrap();
        let text = job.text();
        assert_eq!(text.lines().count(), 14, "{text}");
        assert!(text.chars().all(|one| one == '\n' || !one.is_control()), "{text:?}");
        for part in
            ["state     failed\\u{1b}[2J\n", "failed: line\\nline (step s) (plugin p)\n", "… (1002 bytes"]
        {
            assert!(text.contains(part), "{text}\nlacks {part}");
        }
    }
}
