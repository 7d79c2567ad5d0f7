//! A running host: requests to it, its log, and its resource usage.

use super::{Answer, Client, PATIENCE, Setup, Usage, eventually};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub type Lines = Arc<Mutex<Vec<String>>>;

/// A running host, killed when dropped.
pub struct Host {
    child: Child,
    pub http: SocketAddr,
    pub grpc: Option<SocketAddr>,
    pub admin: SocketAddr,
    log: Lines,
    out: Lines,
    pub setup: Setup,
}

impl Host {
    /// Starts `command`, which serves `setup`. Fails with the output if the process ends before it
    /// serves.
    pub(super) fn spawn(mut command: Command, setup: Setup) -> Result<Self, String> {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (log, reader) = read(child.stderr.take().expect("piped"));
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("stdout can be read");
        let out = follow(stdout);
        let address = |key: &str| -> Option<SocketAddr> {
            first.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok())
        };
        match (address("http="), address("admin=")) {
            (Some(http), Some(admin)) => {
                Ok(Host { child, http, grpc: address("grpc="), admin, log, out, setup })
            }
            _ => {
                let _ = child.wait();
                // Waits until all of the output is read.
                let _ = reader.join();
                Err(first + &log.lock().unwrap().join("\n"))
            }
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.setup.path(name)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Opens a client with its own connection to the public listener.
    pub fn client(&self) -> Client {
        Client::new(self.http)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.client().post(path, body)
    }

    /// Sends `POST /predict` with `{"model", "data"}`.
    pub fn predict(&self, model: &str, data: Value) -> Answer {
        self.post("/predict", serde_json::json!({"model": model, "data": data}).to_string())
    }

    pub fn admin_get(&self, path: &str) -> Answer {
        Client::new(self.admin).get(path)
    }

    pub fn admin_post(&self, path: &str) -> Answer {
        Client::new(self.admin).post(path, "")
    }

    /// Sends a request without a body to the admin listener.
    pub fn admin_request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        Client::new(self.admin).request(method, path, headers, b"")
    }

    /// Returns `/admin/policy`.
    pub fn policy(&self) -> Value {
        self.admin_get("/admin/policy").json()
    }

    pub fn generation(&self) -> u64 {
        self.policy()["generation"].as_u64().expect("a generation")
    }

    /// Returns the value of a metric, by its name and labels as they are printed; 0 if it does not
    /// exist.
    pub fn metric(&self, sample: &str) -> f64 {
        let text = self.admin_get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until `/admin/policy` satisfies `wanted`.
    pub fn wait_for_policy(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || Some(self.policy()).filter(|policy| wanted(policy)), || self.log())
    }

    /// Returns the state of an executor from `/admin/policy`: workers, busy, overdue, inflight,
    /// queue_length, …
    pub fn executor(&self, name: &str) -> Value {
        self.policy()["executors"][name].clone()
    }

    /// Waits until `/admin/policy` shows this value for an executor.
    pub fn wait_for_executor(&self, executor: &str, key: &str, value: u64) {
        self.wait_for_policy(&format!("{executor}: {key} = {value}"), |policy| {
            policy["executors"][executor][key] == value
        });
    }

    /// Waits until an executor has nothing running and nothing queued.
    pub fn wait_for_idle(&self, executor: &str) {
        self.wait_for_executor(executor, "inflight", 0);
    }

    /// Waits until the last reload has this outcome.
    pub fn wait_for_outcome(&self, outcome: &str) -> Value {
        self.wait_for_policy(&format!("the outcome {outcome}"), |policy| {
            policy["last_reload"]["outcome"] == outcome
        })
    }

    /// Waits until this generation is live and its reload has ended: the swap happens a moment
    /// before `last_reload` records it.
    pub fn wait_for_generation(&self, generation: u64) -> Value {
        self.wait_for_policy(&format!("generation {generation}"), |policy| {
            let reached = |seen: &Value| seen.as_u64() >= Some(generation);
            reached(&policy["generation"]) && reached(&policy["last_reload"]["generation"])
        })
    }

    /// Returns everything logged to stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until a log line contains all of `parts`.
    pub fn wait_for_log(&self, parts: &[&str]) -> String {
        let find = || {
            let lines = self.log.lock().unwrap();
            lines.iter().find(|line| parts.iter().all(|part| line.contains(part))).cloned()
        };
        eventually(&format!("a log line with {parts:?}"), find, || self.log())
    }

    /// Returns everything on stdout after the first line, which announces the listeners: the access
    /// log.
    pub fn stdout(&self) -> Vec<String> {
        self.out.lock().unwrap().clone()
    }

    /// Waits for the access log line of this request.
    pub fn access_log(&self, id: &str) -> Value {
        let wanted = format!("\"id\":\"{id}\"");
        let find = || {
            let lines = self.out.lock().unwrap();
            let line = lines.iter().find(|line| line.contains(&wanted))?;
            Some(serde_json::from_str(line).expect("access log lines are JSON"))
        };
        eventually(&format!("an access log line of {id}"), find, || self.stdout().join("\n"))
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(Instant::now() < until, "the host does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns threads, open files and resident memory (kB), for leak checks.
    pub fn usage(&self) -> Usage {
        // The connection of the last request may not be closed yet.
        let mut usage = Usage::of(self.pid());
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(20));
            let before = std::mem::replace(&mut usage, Usage::of(self.pid()));
            if (before.threads, before.files) == (usage.threads, usage.files) {
                break;
            }
        }
        usage
    }

    /// Returns by how many kB `work` raises the peak memory of the process, and the result of
    /// `work`.
    pub fn peak_growth_kb<T>(&self, work: impl FnOnce() -> T) -> (u64, T) {
        let kb = |name: &str| -> u64 {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process");
            let value = status.lines().find_map(|line| line.strip_prefix(name)).expect("a value");
            value.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        let (resident, peak) = (kb("VmRSS:"), kb("VmHWM:"));
        let outcome = work();
        let later = kb("VmHWM:");
        // The peak during the start of the host may have been higher.
        (if later > peak { later - resident } else { 0 }, outcome)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects the lines of a stream as they arrive.
pub fn follow(stream: impl std::io::Read + Send + 'static) -> Lines {
    read(stream).0
}

/// Like `follow`, and also returns the thread that reads until the end of the stream.
fn read(stream: impl std::io::Read + Send + 'static) -> (Lines, std::thread::JoinHandle<()>) {
    let lines = Lines::default();
    let sink = Arc::clone(&lines);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            sink.lock().unwrap().push(line);
        }
    });
    (lines, reader)
}
