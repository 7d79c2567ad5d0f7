//! Load: connections that send requests continuously and check every answer.

use super::client::{Client, ClientAnswer, Histogram, RequestError};
use super::host::ID_PREFIX;
use super::samples::Sample;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many faults of one kind are reported.
const FAULTS_SHOWN: usize = 3;

/// The results of all connections.
#[derive(Default)]
pub struct LoadCounts {
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub lost: u64,
    /// Answers with status 200 and a wrong result.
    pub wrong: u64,
    /// Answers with status 429 and no `Retry-After`.
    pub unhinted: u64,
    /// The first faults of each kind.
    pub faults: BTreeMap<String, Vec<String>>,
    pub latencies: Histogram,
    /// Ids of requests whose connection ended without an answer, if the load runs until the host
    /// ends.
    pub unanswered: Vec<String>,
}

impl LoadCounts {
    pub fn answers(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Counts the answers whose status matches.
    pub fn with_status(&self, wanted: impl Fn(u16) -> bool) -> u64 {
        self.statuses.iter().filter(|(status, _)| wanted(**status)).map(|(_, count)| count).sum()
    }

    fn take(&mut self, sample: &Sample, answer: &ClientAnswer, latency: Duration) {
        *self.statuses.entry(answer.status).or_default() += 1;
        self.latencies.add(latency);
        match answer.status {
            200 => {
                if let Some(wrong) = sample.judge(&answer.body) {
                    self.wrong += 1;
                    self.tell("wrong", wrong);
                }
            }
            429 => self.unhinted += u64::from(!answer.retry_after),
            status => {
                let text: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
                self.tell(&status.to_string(), format!("model \"{}\": {status} {text}", sample.model));
            }
        }
    }

    fn tell(&mut self, kind: &str, fault: String) {
        let faults = self.faults.entry(kind.to_owned()).or_default();
        if faults.len() < FAULTS_SHOWN {
            faults.push(fault);
        }
    }

    fn merge(&mut self, other: LoadCounts) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.unhinted += other.unhinted;
        self.latencies.merge(&other.latencies);
        self.unanswered.extend(other.unanswered);
        for (kind, faults) in other.faults {
            faults.into_iter().for_each(|fault| self.tell(&kind, fault));
        }
    }
}

/// A load that runs until it is stopped, or until the host ends.
pub struct Load {
    stop: Arc<AtomicBool>,
    /// The first request has ended, successfully or not.
    running: Arc<AtomicBool>,
    tasks: JoinSet<LoadCounts>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Until {
    Stopped,
    /// Each request has a unique id, and a refused connection ends its part of the load.
    HostGone,
}

impl Load {
    pub fn start(http: SocketAddr, samples: &Arc<Vec<Sample>>, connections: usize, until: Until) -> Self {
        let (stop, running) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for index in 0..connections {
            let (samples, stop, running) = (Arc::clone(samples), Arc::clone(&stop), Arc::clone(&running));
            tasks.spawn(async move { send(http, &samples, index, until, &stop, &running).await });
        }
        Load { stop, running, tasks }
    }

    /// Waits until the first request has ended, successfully or not.
    pub async fn under_way(&self) {
        while !self.running.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn stop(self) -> LoadCounts {
        self.stop.store(true, Ordering::Relaxed);
        self.end().await
    }

    /// Waits until all connections have ended.
    pub async fn end(mut self) -> LoadCounts {
        let mut all = LoadCounts::default();
        while let Some(counts) = self.tasks.join_next().await {
            match counts {
                Ok(counts) => all.merge(counts),
                Err(error) => {
                    all.lost += 1;
                    all.tell("load", format!("a connection of the load failed: {error}"));
                }
            }
        }
        all
    }
}

async fn send(
    http: SocketAddr,
    samples: &[Sample],
    index: usize,
    until: Until,
    stop: &AtomicBool,
    running: &AtomicBool,
) -> LoadCounts {
    let mut client = Client::new(http);
    let mut counts = LoadCounts::default();
    // Each connection begins with another sample.
    for (number, sample) in samples.iter().cycle().skip(index % samples.len().max(1)).enumerate() {
        // Each connection sends at least one request.
        if number > 0 && stop.load(Ordering::Relaxed) {
            break;
        }
        let id = match until {
            Until::Stopped => "drill".to_owned(),
            Until::HostGone => format!("{ID_PREFIX}{index}-{number}"),
        };
        let started = Instant::now();
        let answer = client.post("/predict", &id, sample.body.clone()).await;
        running.store(true, Ordering::Relaxed);
        match answer {
            Ok(answer) => counts.take(sample, &answer, started.elapsed()),
            Err(RequestError::Refused(_)) if until == Until::HostGone => break,
            Err(RequestError::Unanswered(_)) if until == Until::HostGone => counts.unanswered.push(id),
            Err(lost) => {
                counts.lost += 1;
                counts.tell("lost", format!("model \"{}\": {lost}", sample.model));
                // Avoids a busy loop while the host does not answer.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    counts
}
