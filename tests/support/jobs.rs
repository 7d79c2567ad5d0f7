//! Jobs as a client uses them: submit, watch, cancel, and the invariants of every job.

use super::{Answer, Host, PATIENCE, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const FINAL: [&str; 4] = ["succeeded", "failed", "cancelled", "timeout"];

/// Returns a request for the model `hostile` that sleeps for `ms` milliseconds.
pub fn sleep(ms: u64) -> Value {
    let parameters = json!({"do": "sleep", "ms": ms, "at": "predict"});
    json!({"model": "hostile", "data": ["a"], "parameters": parameters})
}

/// Adds the budgets of a job to `body`.
pub fn job(mut body: Value, budgets: &Value) -> Value {
    for (key, value) in budgets.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

/// Submits a job and returns its id.
pub fn submit(host: &Host, body: &Value) -> String {
    let answer = host.post("/predict/async", body.to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let (body, location) = (answer.json(), answer.header("location").expect("a location").to_owned());
    assert_eq!(body["url"], location, "{body}");
    let id = body["job_id"].as_str().expect("an id").to_owned();
    assert_eq!(location, format!("/jobs/{id}"));
    id
}

pub fn show(host: &Host, id: &str) -> Value {
    let answer = host.get(&format!("/jobs/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

pub fn cancel(host: &Host, id: &str) -> Answer {
    host.post(&format!("/jobs/{id}/cancel"), "")
}

/// Waits until a job satisfies `wanted`.
pub fn wait_for(host: &Host, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let ask = || Some(show(host, id)).filter(|job| wanted(job));
    eventually(what, ask, || format!("{}\n{}", show(host, id), host.log()))
}

/// Waits by long poll until a job has ended in `state`.
pub fn ended(host: &Host, id: &str, state: &str) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = host.get(&format!("/jobs/{id}?wait_ms=5000"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let job = answer.json();
        if FINAL.contains(&job["state"].as_str().expect("a state")) {
            assert_eq!(job["state"], state, "{job}\n{}", host.log());
            return job;
        }
        assert!(Instant::now() < until, "the job never ends: {job}\n{}", host.log());
    }
}

/// Waits until no attempt of an ended job holds a worker.
pub fn released(host: &Host, id: &str) -> Value {
    wait_for(host, id, "the end of all attempts", |job| {
        attempts(job).iter().all(|attempt| attempt["ended_at"].is_number())
    })
}

pub fn attempts(job: &Value) -> Vec<Value> {
    job["history"].as_array().expect("a history").clone()
}

pub fn outcomes(job: &Value) -> Vec<String> {
    attempts(job).iter().map(|attempt| attempt["outcome"].as_str().unwrap_or("none").to_owned()).collect()
}

/// Checks that each attempt started after the previous one had really ended.
pub fn expect_no_overlap(job: &Value) {
    let attempts = attempts(job);
    for pair in attempts.windows(2) {
        let (end, start) = (pair[0]["ended_at"].as_f64(), pair[1]["started_at"].as_f64());
        assert!(end.expect("an end") <= start.expect("a start"), "{job}");
    }
}

/// Returns the largest number of attempts of all jobs that ran at the same time.
pub fn at_once(jobs: &[Value]) -> usize {
    let mut moments: Vec<(f64, i32)> = jobs
        .iter()
        .flat_map(attempts)
        .flat_map(|attempt| {
            [
                (attempt["started_at"].as_f64().expect("a start"), 1),
                (attempt["ended_at"].as_f64().expect("an end"), -1),
            ]
        })
        .collect();
    // At equal times, an end sorts before a start.
    moments.sort_by(|one, other| one.partial_cmp(other).expect("numbers"));
    let mut running = 0;
    moments.iter().map(|(_, step)| (running += step, running).1).max().unwrap_or(0) as usize
}

/// Returns how many jobs in this state the host reports.
pub fn kept(host: &Host, state: &str) -> f64 {
    host.metric(&format!("hostler_jobs{{state=\"{state}\"}}"))
}

pub fn millis(value: u64) -> Duration {
    Duration::from_millis(value)
}
