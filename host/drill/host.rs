//! The host under drill: a child process of this program, and what it reports about itself.

use super::client::{Client, ClientAnswer, RequestError};
use super::copy::Copy;
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use bytes::Bytes;
use serde_json::Value;
use std::collections::{HashSet, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a change may take to go live. A reload compiles at low priority beside the load, so a
/// Python plugin may take minutes.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(900);

/// How often the host is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Log lines that are kept, to be shown if the host ends.
const LOG_LINES: usize = 20;

type Shared<T> = Arc<Mutex<T>>;

/// A running host. Killed when dropped.
pub struct Host {
    child: Child,
    pub http: SocketAddr,
    admin: Client,
    log: Shared<VecDeque<String>>,
    /// Ids in the access log that begin with `ID_PREFIX`.
    answered: Shared<HashSet<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// Requests with this prefix in their id are remembered when they appear in the access log.
pub const ID_PREFIX: &str = "drill-stop-";

/// The policy at one moment.
#[derive(Clone, Debug)]
pub struct Mark {
    pub generation: u64,
    pub digest: String,
    at: f64,
}

#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Usage {
    pub memory_mb: u64,
    pub threads: usize,
    pub files: usize,
}

impl Host {
    /// Starts a host on the copy and waits until it serves. The error contains the log of a host
    /// that ended.
    pub async fn start(copy: &Copy) -> Result<Self> {
        let binary = std::env::current_exe()
            .map_err(|error| Error::failed(format!("cannot find the hostler executable: {error}")))?;
        let mut command = Command::new(binary);
        command.arg("serve").arg(copy.manifest_path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if std::env::var_os("HOSTLER_LOG").is_none() {
            command.env("HOSTLER_LOG", "warn,ort=error");
        }
        // Ctrl-C is for the drill, which then ends its host.
        command.process_group(0);
        // SAFETY: one system call, which is safe between fork and exec.
        unsafe { command.pre_exec(end_with_parent) };
        let mut child = command
            .spawn()
            .map_err(|error| Error::failed(format!("cannot start the host of the drill: {error}")))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (log, answered) = (Shared::default(), Shared::default());
        let (announce, announced) = oneshot::channel();
        let readers = vec![
            follow(stderr.expect("invariant: piped"), keep_last(Arc::clone(&log))),
            follow(stdout.expect("invariant: piped"), note_answered(announce, Arc::clone(&answered))),
        ];
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut host = Host { child, http: nowhere, admin: Client::new(nowhere), log, answered, readers };
        let first = announced.await.unwrap_or_default();
        let address = |key: &str| -> Option<SocketAddr> {
            first.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok())
        };
        match (address("http="), address("admin=")) {
            (Some(http), Some(admin)) => {
                host.http = http;
                host.admin = Client::new(admin);
                Ok(host)
            }
            _ => {
                host.end();
                // Each line is one that the host has written.
                Err(Error::failed(copy.with_original_paths(&host.log())).laid_out())
            }
        }
    }

    /// Returns the last lines of the host's log.
    fn log(&self) -> String {
        let log = self.log.lock_unpoisoned();
        log.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// Kills the host, and waits until all of its output is read.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    /// Returns the exit status if the host has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let sent = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        if let Some(Err(error)) = sent {
            tracing::warn!(%error, "cannot send SIGTERM to the host of the drill");
        }
    }

    /// Waits until the host ends by itself, and reads the rest of its access log. Returns `None`
    /// after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                self.end();
                return Some(status);
            }
            if Instant::now() > until {
                return None;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns true if the access log contains this request.
    pub fn has_answered(&self, id: &str) -> bool {
        self.answered.lock_unpoisoned().contains(id)
    }

    pub async fn policy(&mut self) -> Result<Value> {
        let answer = self.admin_request("/admin/policy", None).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|error| Error::failed(format!("/admin/policy is not JSON: {error}")))
    }

    pub async fn rollback(&mut self) -> Result<(u16, Value)> {
        let answer = self.admin_request("/admin/policy/rollback", Some(Bytes::new())).await?;
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
    }

    /// Returns the value of a metric, by its name and labels as they are printed; 0 if it does not
    /// exist.
    pub async fn metric(&mut self, sample: &str) -> Result<f64> {
        let answer = self.admin_request("/metrics", None).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0.0))
    }

    async fn admin_request(&mut self, path: &str, post: Option<Bytes>) -> Result<ClientAnswer> {
        let answer = match post {
            Some(body) => self.admin.post(path, "drill", body).await,
            None => self.admin.get(path).await,
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(lost) => Err(self.connection_error(&lost).await),
        }
    }

    /// Returns why the host does not answer.
    async fn connection_error(&mut self, lost: &RequestError) -> Error {
        // A process that has closed its sockets is about to end.
        match self.wait(Duration::from_secs(1)).await {
            Some(status) => Error::failed(format!("the host ended with {status}\n{}", self.log())),
            None => Error::failed(format!("the host does not answer: {lost}")),
        }
    }

    pub async fn mark(&mut self) -> Result<Mark> {
        let policy = self.policy().await?;
        Ok(Mark {
            generation: policy["generation"].as_u64().unwrap_or_default(),
            digest: policy["digest"].as_str().unwrap_or_default().to_owned(),
            at: policy["last_reload"]["at"].as_f64().unwrap_or_default(),
        })
    }

    /// Waits until the policy with this digest is live and not stale. Fails if a newer reload was
    /// rejected.
    pub async fn live_with(&mut self, digest: &str, before: &Mark) -> Result<()> {
        let live = |policy: &Value| {
            if policy["digest"] == digest && policy["stale"] == false {
                return Some(Ok(()));
            }
            let record = &policy["last_reload"];
            let refused = matches!(record["outcome"].as_str(), Some("rejected" | "refused"));
            let newer = record["at"].as_f64() > Some(before.at);
            (refused && newer)
                .then(|| Err(Error::failed(format!("a valid change was {}", outcome_of(record)))))
        };
        self.wait_for("a change of the files to go live", live).await?
    }

    /// Waits until a reload of the current files was refused. Returns its outcome and errors.
    pub async fn refused_after(&mut self, before: &Mark) -> Result<String> {
        let refused = |policy: &Value| {
            let record = &policy["last_reload"];
            if policy["generation"].as_u64() > Some(before.generation) {
                return Some(Err(Error::failed("it went live")));
            }
            let outcome = record["outcome"].as_str().unwrap_or_default();
            if policy["stale"] != true || record["at"].as_f64() <= Some(before.at) {
                return None;
            }
            let explained = record["errors"].as_array().is_some_and(|errors| !errors.is_empty());
            Some(match (outcome, explained) {
                ("rejected" | "refused" | "pending", true) => Ok(outcome_of(record)),
                _ => Err(Error::failed(format!("it was {outcome}, and /admin/policy does not say why"))),
            })
        };
        self.wait_for("damaged files to be refused", refused).await?
    }

    /// Waits until the policy is no longer stale.
    pub async fn repaired(&mut self) -> Result<()> {
        let repaired = |policy: &Value| (policy["stale"] == false).then_some(());
        self.wait_for("repaired files to go live", repaired).await
    }

    /// Polls the policy until `wanted` returns a value.
    pub async fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let until = Instant::now() + CHANGE_TIMEOUT;
        loop {
            let policy = self.policy().await?;
            if let Some(found) = wanted(&policy) {
                return Ok(found);
            }
            if Instant::now() > until {
                let (limit, record) = (CHANGE_TIMEOUT.as_secs(), &policy["last_reload"]);
                let message = format!("timed out after {limit} s waiting for {what}; last reload: {record}");
                return Err(Error::deadline(message));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the resources that the process uses now.
    pub fn usage(&self) -> Usage {
        let proc = std::path::PathBuf::from(format!("/proc/{}", self.child.id()));
        let count = |name: &str| std::fs::read_dir(proc.join(name)).map_or(0, Iterator::count);
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb: u64 = rss.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        Usage { memory_mb: kb >> 10, threads: count("task"), files: count("fd") }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

/// Formats a reload record as `rejected: why`.
fn outcome_of(record: &Value) -> String {
    let errors: Vec<&str> =
        record["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!("{}: {}", record["outcome"].as_str().unwrap_or("without outcome"), errors.join("; "))
}

/// Makes the kernel end the host if the drill is killed and cannot.
fn end_with_parent() -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

fn follow(
    stream: impl Read + Send + 'static,
    mut each: impl FnMut(String) + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        // Reads to the end in any case: a full pipe would block the host.
        let lines = BufReader::new(stream).split(b'\n').map_while(std::io::Result::ok);
        lines.for_each(|line| each(String::from_utf8_lossy(&line).into_owned()));
    })
}

fn keep_last(log: Shared<VecDeque<String>>) -> impl FnMut(String) {
    move |line| {
        let mut log = log.lock_unpoisoned();
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}

/// The first line announces the addresses; later lines may be of answered requests.
fn note_answered(announce: oneshot::Sender<String>, answered: Shared<HashSet<String>>) -> impl FnMut(String) {
    let mut announce = Some(announce);
    move |line| {
        if let Some(announce) = announce.take() {
            let _ = announce.send(line);
            return;
        }
        let id = line.split_once("\"id\":\"").and_then(|(_, rest)| rest.split('"').next());
        if let Some(id) = id.filter(|id| id.starts_with(ID_PREFIX)) {
            answered.lock_unpoisoned().insert(id.to_owned());
        }
    }
}
