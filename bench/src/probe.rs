//! Probes a server's health while the server is under load, as an orchestrator would.
//! Uses its own connection, and adds 100 cheap requests per second to the load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use super::http::Connection;

const INTERVAL: Duration = Duration::from_millis(10);

pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Health>,
}

pub struct Health {
    pub p99_us: f64,
    /// Probes that were not answered with 200.
    pub failed: u64,
}

impl Probe {
    pub fn start(port: u16, path: &'static str) -> Probe {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = spawn({
            let stop = stop.clone();
            move || probe(port, path, &stop)
        });
        Probe { stop, thread }
    }

    pub fn stop(self) -> Health {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("invariant: the probe does not panic")
    }
}

fn probe(port: u16, path: &str, stop: &AtomicBool) -> Health {
    let (mut times_us, mut failed, mut connection) = (Vec::new(), 0, None);
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        if connection.is_none() {
            connection = Connection::open(port).ok();
        }
        let status = connection
            .as_mut()
            .and_then(|open| open.request("GET", path, b"").ok())
            .map(|answer| answer.status);
        if status == Some(200) {
            times_us.push(start.elapsed().as_secs_f64() * 1e6);
        } else {
            (failed, connection) = (failed + 1, None);
        }
        sleep(INTERVAL.saturating_sub(start.elapsed()));
    }
    times_us.sort_by(f64::total_cmp);
    // The smallest value that at most 1 % of the values exceed.
    let p99_us =
        times_us.get((times_us.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN);
    Health { p99_us, failed }
}
