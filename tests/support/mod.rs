//! Starts a real host on free ports, in a folder of its own, and speaks to it as a client would.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod certificates;
pub mod client;
pub mod control;
pub mod custom;
pub mod exposition;
pub mod gather;
pub mod grpc;
pub mod jobs;
pub mod load;
pub mod onnx;
pub mod process;
pub mod slow;
pub mod store;
pub mod streaming;
pub mod triton;
pub mod versions;

pub use client::{Answer, Client};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Nothing that a test waits for takes longer, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A plugin that `cargo xtask plugin` (or `test`) has built.
pub fn plugin(name: &str) -> PathBuf {
    let path = root().join("plugins/bin").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `cargo xtask plugin {name}`", path.display());
    path
}

/// A plugin engine in this process. Its components are compiled by the binary: a test has no command for that.
pub fn engine(instances: u32) -> Arc<hostler::plugin::Engine> {
    let compiler = Some(env!("CARGO_BIN_EXE_hostler").into());
    let config = hostler::config::EngineConfig { instances, compiler, ..Default::default() };
    hostler::plugin::Engine::new(config).expect("a plugin engine")
}

/// A file of an example.
pub fn example(path: &str) -> PathBuf {
    root().join("examples").join(path)
}

/// A small ONNX model of `tests/models`.
pub fn model(name: &str) -> PathBuf {
    let path = root().join("tests/models").join(format!("{name}.onnx"));
    assert!(path.is_file(), "{} is missing: see tests/models/make.py", path.display());
    path
}

/// A folder with a manifest and its files, and the command line to serve it.
pub struct Setup {
    pub dir: Dir,
    args: Vec<String>,
    env: Vec<(String, String)>,
    ulimit: Option<String>,
    http: &'static str,
}

/// Where a setup lives.
pub enum Dir {
    /// Removed with the setup.
    Own(tempfile::TempDir),
    Other(PathBuf),
}

impl Dir {
    pub fn path(&self) -> &Path {
        match self {
            Dir::Own(dir) => dir.path(),
            Dir::Other(path) => path,
        }
    }
}

impl Setup {
    /// What another setup has left in its folder.
    pub fn at(path: &Path) -> Self {
        Setup::in_folder(Dir::Other(path.to_owned()))
    }

    /// `[server]` need not be written. Put files beside the manifest with `file` and `text`.
    pub fn new(manifest: &str) -> Self {
        let dir = Dir::Own(tempfile::tempdir().expect("a temporary folder"));
        Setup::in_folder(dir).text("hostler.toml", manifest)
    }

    fn in_folder(dir: Dir) -> Self {
        Setup { dir, args: Vec::new(), env: Vec::new(), ulimit: None, http: "127.0.0.1:0" }
    }

    /// The address of the public listener, instead of a free port of the loopback.
    pub fn listen(mut self, http: &'static str) -> Self {
        self.http = http;
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Copies a file into the folder.
    pub fn file(self, name: &str, from: impl AsRef<Path>) -> Self {
        replace(&self.path(name), &std::fs::read(from).expect("the file to copy"));
        self
    }

    pub fn text(self, name: &str, content: &str) -> Self {
        replace(&self.path(name), content.as_bytes());
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With a gRPC listener on a free port.
    pub fn grpc(self) -> Self {
        self.arg("--grpc").arg("127.0.0.1:0")
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// The process may have no more files and connections open than this.
    pub fn open_files_max(self, limit: u32) -> Self {
        self.ulimit(&format!("-n {limit}"))
    }

    /// The process is started behind `ulimit` with these arguments.
    pub fn ulimit(mut self, args: &str) -> Self {
        self.ulimit = Some(args.into());
        self
    }

    /// Runs a command of the binary to its end: `check`, `diff`, …; gives exit code, stdout and stderr.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.command(args).output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_hostler");
        let mut command = match &self.ulimit {
            None => Command::new(binary),
            Some(args) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit {args} && exec \"$0\" \"$@\""), binary]);
                shell
            }
        };
        command.args(args).current_dir(self.dir.path()).envs(self.env.iter().cloned());
        command
    }

    /// Starts the host; panics with its log if it does not come up.
    pub fn start(self) -> Host {
        self.try_start().unwrap_or_else(|log| panic!("the host did not start:\n{log}"))
    }

    /// Starts the host, or gives what it said before it ended.
    pub fn try_start(self) -> Result<Host, String> {
        let mut command = self.command(&["serve", "hostler.toml", "--http", self.http]);
        command.args(["--admin", "127.0.0.1:0"]).args(&self.args);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = follow(child.stderr.take().expect("piped"));
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("stdout can be read");
        let out = follow(stdout);
        let address = |key: &str| -> Option<SocketAddr> {
            first.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok())
        };
        match (address("http="), address("admin=")) {
            (Some(http), Some(admin)) => {
                Ok(Host { child, http, grpc: address("grpc="), admin, log, out, setup: self })
            }
            _ => {
                let _ = child.wait();
                let until = Instant::now() + Duration::from_secs(1);
                while log.lock().unwrap().is_empty() && Instant::now() < until {
                    std::thread::yield_now();
                }
                Err(first + &log.lock().unwrap().join("\n"))
            }
        }
    }
}

/// Writes a file beside its place and renames it there, as a careful tool does.
pub fn replace(path: &Path, content: &[u8]) {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).expect("the folder");
    }
    let beside = path.with_extension("being-written");
    std::fs::write(&beside, content).expect("the file can be written");
    std::fs::rename(&beside, path).expect("the file can be renamed");
}

type Lines = Arc<Mutex<Vec<String>>>;

fn follow(stream: impl std::io::Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let sink = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            sink.lock().unwrap().push(line);
        }
    });
    lines
}

/// A running host. Killed when dropped.
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
    pub fn path(&self, name: &str) -> PathBuf {
        self.setup.path(name)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection of its own to the public listener.
    pub fn client(&self) -> Client {
        Client::new(self.http)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.client().post(path, body)
    }

    /// `POST /predict` with `{"model", "data"}`.
    pub fn predict(&self, model: &str, data: Value) -> Answer {
        self.post("/predict", serde_json::json!({"model": model, "data": data}).to_string())
    }

    pub fn admin_get(&self, path: &str) -> Answer {
        Client::new(self.admin).get(path)
    }

    pub fn admin_post(&self, path: &str) -> Answer {
        Client::new(self.admin).post(path, "")
    }

    /// `/admin/policy`
    pub fn policy(&self) -> Value {
        self.admin_get("/admin/policy").json()
    }

    pub fn generation(&self) -> u64 {
        self.policy()["generation"].as_u64().expect("a generation")
    }

    /// The value of a metric, by its name and labels as they are printed; 0 if it is not there.
    pub fn metric(&self, sample: &str) -> f64 {
        let text = self.admin_get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until `/admin/policy` shows what `wanted` looks for.
    pub fn wait_for_policy(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || Some(self.policy()).filter(|policy| wanted(policy)), || self.log())
    }

    /// What `/admin/policy` says of an executor: workers, busy, overdue, inflight, queue_length, …
    pub fn executor(&self, name: &str) -> Value {
        self.policy()["executors"][name].clone()
    }

    /// Waits until an executor has nothing running and nothing queued.
    pub fn wait_for_idle(&self, executor: &str) {
        self.wait_for_policy(&format!("{executor} being idle"), |policy| {
            policy["executors"][executor]["inflight"] == 0
        });
    }

    /// Waits until the last reload has this outcome and is a later one than `generation` and `at` say.
    pub fn wait_for_outcome(&self, outcome: &str) -> Value {
        self.wait_for_policy(&format!("the outcome {outcome}"), |policy| {
            policy["last_reload"]["outcome"] == outcome
        })
    }

    pub fn wait_for_generation(&self, generation: u64) -> Value {
        self.wait_for_policy(&format!("generation {generation}"), |policy| {
            policy["generation"].as_u64() >= Some(generation)
        })
    }

    /// Everything logged to stderr so far.
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

    /// Everything on stdout after the first line: the announcement and the access log.
    pub fn stdout(&self) -> Vec<String> {
        self.out.lock().unwrap().clone()
    }

    /// Waits for an access log line about this request id.
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

    /// Threads, open files and resident memory (kB), for leak checks.
    pub fn usage(&self) -> Usage {
        // The connection that was asked last may not be closed yet.
        let mut usage = self.usage_now();
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(20));
            let before = std::mem::replace(&mut usage, self.usage_now());
            if (before.threads, before.files) == (usage.threads, usage.files) {
                break;
            }
        }
        usage
    }

    /// What `work` has the process take in memory at its peak, in kB, and what it gives.
    pub fn peak_growth_kb<T>(&self, work: impl FnOnce() -> T) -> (u64, T) {
        let kb = |name: &str| -> u64 {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process");
            let value = status.lines().find_map(|line| line.strip_prefix(name)).expect("a value");
            value.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        let (resident, peak) = (kb("VmRSS:"), kb("VmHWM:"));
        let outcome = work();
        let later = kb("VmHWM:");
        // The start of the host may have had a higher peak.
        (if later > peak { later - resident } else { 0 }, outcome)
    }

    fn usage_now(&self) -> Usage {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let count = |name: &str| std::fs::read_dir(proc.join(name)).map_or(0, Iterator::count);
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss_kb = rss.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        Usage { threads: count("task"), files: count("fd"), rss_kb }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub threads: usize,
    pub files: usize,
    pub rss_kb: u64,
}

impl Usage {
    /// What the memory has grown by in all of these later looks. The allocator gives pages back when it likes, so a
    /// host that leaks nothing moves by some MB; what leaks is there each time.
    pub fn growth_kb(&self, later: &[Usage]) -> u64 {
        later.iter().map(|look| look.rss_kb.saturating_sub(self.rss_kb)).min().unwrap_or(0)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same component with another digest: a custom section at its end.
pub fn never_seen(component: &[u8], number: u8) -> Vec<u8> {
    // The process id, so that no cache of an earlier run knows it.
    let id = std::process::id().to_le_bytes();
    [component, &[0, 7, 1, b'n', number], &id[..]].concat()
}

/// The file with every `from` replaced by `to`, which is as long.
pub fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut patched = bytes.to_vec();
    let mut hits = 0;
    for start in 0..=bytes.len() - from.len() {
        if &bytes[start..start + from.len()] == from {
            patched[start..start + to.len()].copy_from_slice(to);
            hits += 1;
        }
    }
    assert!(hits > 0, "nothing to patch");
    patched
}

/// Asks until there is an answer; panics with `context` when patience is at its end.
pub fn eventually<T>(what: &str, ask: impl Fn() -> Option<T>, context: impl Fn() -> String) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited in vain for {what}\n{}", context());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The bank-churn example: its manifest with a plugin table of the caller's, and a record that it takes.
pub mod churn {
    use super::*;

    /// `extra` goes into `[plugins.churn]`.
    pub fn setup(extra: &str) -> Setup {
        let manifest = format!(
            "[models.bankchurn]\npath = \"model.onnx\"\ntransformer = \"churn\"\n\n[models.bankchurn-raw]\n\
             path = \"model.onnx\"\n\n[plugins.churn]\npath = \"churn.wasm\"\n{extra}\n\n[plugins.churn.assets]\n\
             scaling = \"scaling.json\"\n"
        );
        Setup::new(&manifest)
            .file("model.onnx", example("bankchurn/model.onnx"))
            .file("scaling.json", example("bankchurn/scaling.json"))
            .file("churn.wasm", plugin("churn"))
    }

    /// The plugin, but it says `LOW` where it says `low`.
    pub fn loud() -> Vec<u8> {
        patched(&std::fs::read(plugin("churn")).expect("the plugin"), b"low", b"LOW")
    }

    /// A record that is of low risk.
    pub fn low_risk() -> Value {
        let rows = rows();
        rows.into_iter().find(|(_, probability)| *probability < 0.05).expect("a loyal customer").0
    }

    /// The rows with scikit-learn's own probabilities.
    pub fn rows() -> Vec<(Value, f64)> {
        let text = std::fs::read_to_string(example("bankchurn/rows.jsonl")).expect("the rows");
        let row = |line: &str| {
            let row: Value = serde_json::from_str(line).expect("a row");
            (row["record"].clone(), row["probability"].as_f64().expect("a probability"))
        };
        text.lines().map(row).collect()
    }
}
