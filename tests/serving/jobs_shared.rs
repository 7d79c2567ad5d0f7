//! Two hosts over one store, as a store on a server has them: every job runs once, on one of them,
//! and both know how it ended.

use crate::support::in_process::{InProcess, sleep};
use crate::support::{PATIENCE, eventually};
use hostler::jobs::{Job, JobStore, MemoryStore, Settled, State};
use std::sync::Arc;

struct Pair {
    store: Arc<MemoryStore>,
    hosts: [InProcess; 2],
}

impl Pair {
    fn new(keys: &str) -> Self {
        let store = Arc::new(MemoryStore::default());
        let host = || InProcess::new(keys, Arc::clone(&store) as Arc<dyn JobStore>);
        Pair { hosts: [host(), host()], store }
    }

    /// Waits for the end of a job at one of the hosts.
    fn ended(&self, host: usize, id: &str) -> Job {
        let host = &self.hosts[host];
        host.runtime.block_on(host.jobs.wait(id, PATIENCE)).expect("the job exists")
    }

    /// Returns how many attempts each host has made.
    fn attempts(&self) -> [u64; 2] {
        let made = |host: &InProcess| host.metrics.jobs.attempts.with_label_values(&["succeeded"]).get();
        [made(&self.hosts[0]), made(&self.hosts[1])]
    }
}

#[test]
fn each_job_runs_once_and_both_hosts_know_its_end() {
    let pair = Pair::new("concurrency = 2");
    let ids: Vec<Arc<str>> =
        (0..40).map(|number| pair.hosts[number % 2].submit(sleep(20), None).expect("room")).collect();
    for (number, id) in ids.iter().enumerate() {
        // Half of them are waited for where they were not submitted.
        let job = pair.ended(number / 2 % 2, id);
        assert_eq!((job.status.state, job.fence), (State::Succeeded, 1), "{job:?}");
        assert_eq!(job.status.attempts.len(), 1, "{job:?}");
    }
    let attempts = pair.attempts();
    assert_eq!(attempts.iter().sum::<u64>(), 40, "{attempts:?}");
    assert!(attempts.iter().all(|made| *made > 0), "both have run some: {attempts:?}");
}

#[test]
fn a_job_can_be_cancelled_where_it_does_not_run() {
    let pair = Pair::new("concurrency = 1");
    let ids = [(); 2].map(|()| pair.hosts[0].submit(sleep(600_000), None).expect("room"));
    // Each host has one slot, so each runs one of them.
    let running = || pair.store.usage().jobs[State::Running as usize];
    eventually("both jobs to run", || (running() == 2).then_some(()), || format!("{}", running()));
    for id in &ids {
        let [first, second] = &pair.hosts;
        let settled = first.runtime.block_on(first.jobs.cancel(id)).expect("the job exists");
        assert!(matches!(settled, Settled::Now(_)), "it was running");
        let seen = second.runtime.block_on(second.jobs.get(id)).expect("the job exists");
        assert_eq!(seen.status.state, State::Cancelled);
        let again = second.runtime.block_on(second.jobs.cancel(id)).expect("the job exists");
        assert!(matches!(again, Settled::Refused(State::Cancelled)));
    }
    // A host learns it from the store when it renews its claim, and its slot is free then.
    for host in [0, 1] {
        let id = pair.hosts[host].submit(Vec::new(), None).expect("room");
        assert_eq!(pair.ended(host, &id).status.state, State::Succeeded);
    }
    for host in &pair.hosts {
        host.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, host.jobs.drain(PATIENCE)).await.expect("nothing runs");
        });
    }
}
