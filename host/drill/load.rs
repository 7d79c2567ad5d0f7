//! Load: connections that ask again and again, every answer looked at.

use super::client::{Client, ClientAnswer, Histogram, RequestError};
use super::host::ID_PREFIX;
use super::samples::Sample;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Faults of one kind that are told in words.
const FAULTS_SHOWN: usize = 3;

/// What many connections saw.
#[derive(Default)]
pub struct LoadCounts {
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub lost: u64,
    /// Answers with 200 that are not right.
    pub wrong: u64,
    /// Answers with 429 that do not say when to come back.
    pub unhinted: u64,
    /// The first of each kind of fault, in words.
    pub faults: BTreeMap<String, Vec<String>>,
    pub latencies: Histogram,
    /// Ids of requests whose connection ended without an answer, where the load runs to the host's end.
    pub unanswered: Vec<String>,
}

impl LoadCounts {
    pub fn answers(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Answers with these statuses.
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

/// A load that runs until it is stopped, or until the host is gone.
pub struct Load {
    stop: Arc<AtomicBool>,
    /// A request has ended, well or not.
    running: Arc<AtomicBool>,
    tasks: JoinSet<LoadCounts>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Until {
    Stopped,
    /// Each request has an id of its own, and a connection that is refused ends its part of the load.
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

    /// Waits until the first request has ended, well or not.
    pub async fn under_way(&self) {
        while !self.running.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn stop(self) -> LoadCounts {
        self.stop.store(true, Ordering::Relaxed);
        self.end().await
    }

    /// Waits until each connection has ended by itself.
    pub async fn end(mut self) -> LoadCounts {
        let mut all = LoadCounts::default();
        while let Some(tally) = self.tasks.join_next().await {
            match tally {
                Ok(tally) => all.merge(tally),
                Err(error) => {
                    all.lost += 1;
                    all.tell("load", format!("a connection of the load broke down: {error}"));
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
    let mut tally = LoadCounts::default();
    // Each connection begins with another sample.
    for (number, sample) in samples.iter().cycle().skip(index % samples.len().max(1)).enumerate() {
        // Each asks once in any case.
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
            Ok(answer) => tally.take(sample, &answer, started.elapsed()),
            Err(RequestError::Refused(_)) if until == Until::HostGone => break,
            Err(RequestError::Unanswered(_)) if until == Until::HostGone => tally.unanswered.push(id),
            Err(lost) => {
                tally.lost += 1;
                tally.tell("lost", format!("model \"{}\": {lost}", sample.model));
                // A host that is gone is not worth a busy loop.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    tally
}
