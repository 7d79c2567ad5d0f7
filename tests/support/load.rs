//! Load from many connections; every answer is checked.

use super::client::{Answer, Client};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The request that a connection repeats.
#[derive(Clone)]
pub struct Shot {
    pub path: String,
    pub body: Vec<u8>,
}

impl Shot {
    pub fn predict(model: &str, data: &serde_json::Value) -> Self {
        let body = serde_json::json!({"model": model, "data": data}).to_string().into_bytes();
        Shot { path: "/predict".into(), body }
    }
}

#[derive(Default, Debug)]
pub struct Outcome {
    pub answers: usize,
    /// What `judge` rejected, and broken connections.
    pub faults: Vec<String>,
    pub latencies: Vec<Duration>,
}

impl Outcome {
    /// Returns the latency that this share of the answers does not exceed.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }
}

/// Load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Outcome>>,
}

impl Load {
    /// Starts the load. `judge` returns what is wrong with an answer. With `every`, each connection
    /// sends at that interval on a fixed schedule, and latency counts from the scheduled time;
    /// without it, each connection sends its next request when it has its answer.
    pub fn start(
        address: SocketAddr,
        connections: usize,
        shot: Shot,
        every: Option<Duration>,
        judge: impl Fn(&Answer) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let judge = Arc::new(judge);
        let threads = (0..connections)
            .map(|index| {
                let (stop, shot, judge) = (Arc::clone(&stop), shot.clone(), Arc::clone(&judge));
                // Offsets are spread over the interval, so that connections do not send
                // simultaneously.
                let offset = every.map(|every| every * index as u32 / connections as u32);
                std::thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn(move || shoot(address, &shot, every, offset.unwrap_or_default(), &stop, &*judge))
                    .expect("a thread")
            })
            .collect();
        Load { stop, threads }
    }

    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for thread in self.threads {
            let outcome = thread.join().expect("a load thread does not panic");
            all.answers += outcome.answers;
            all.faults.extend(outcome.faults);
            all.latencies.extend(outcome.latencies);
        }
        all
    }
}

fn shoot(
    address: SocketAddr,
    shot: &Shot,
    every: Option<Duration>,
    offset: Duration,
    stop: &AtomicBool,
    judge: &dyn Fn(&Answer) -> Option<String>,
) -> Outcome {
    let mut client = Client::new(address);
    let mut outcome = Outcome::default();
    let mut scheduled = Instant::now() + offset;
    while !stop.load(Ordering::Relaxed) {
        let started = match every {
            Some(every) => {
                std::thread::sleep(scheduled.saturating_duration_since(Instant::now()));
                scheduled += every;
                scheduled.checked_sub(every).unwrap()
            }
            None => Instant::now(),
        };
        let headers = [("content-type", "application/json")];
        match client.try_request("POST", &shot.path, &headers, &shot.body) {
            Ok(answer) => {
                outcome.answers += 1;
                outcome.latencies.push(started.elapsed());
                outcome.faults.extend(judge(&answer));
            }
            Err(error) => outcome.faults.push(format!("connection: {error}")),
        }
    }
    outcome
}

/// Returns a judge that accepts answers with status 200 where this field of the result has one of
/// these values.
pub fn one_of(
    field: &'static str,
    allowed: [serde_json::Value; 2],
) -> impl Fn(&Answer) -> Option<String> + Send + Sync {
    move |answer| {
        let fault = || Some(format!("{} {}", answer.status, answer.text()));
        if answer.status != 200 {
            return fault();
        }
        let result = &answer.json()["result"][field];
        if allowed.contains(result) { None } else { fault() }
    }
}
