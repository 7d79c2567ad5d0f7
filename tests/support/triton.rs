//! A real Triton with models of `tests/triton`, on free ports; a test can kill and restart it.

use super::client::Client;
use super::{PATIENCE, eventually, example, root};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

pub struct Triton {
    program: PathBuf,
    repository: tempfile::TempDir,
    models: Vec<String>,
    args: Vec<String>,
    http: u16,
    grpc: u16,
    child: Option<Child>,
}

impl Triton {
    /// Serves these models. Returns `None`, after printing why, if this machine cannot run Triton;
    /// in CI that is a failure.
    pub fn start(models: &[&str]) -> Option<Self> {
        Self::start_with(models, &[])
    }

    /// Like `start`, with additional command-line arguments.
    pub fn start_with(models: &[&str], args: &[String]) -> Option<Self> {
        let program = program()?;
        let repository = tempfile::tempdir().expect("a temporary folder");
        for model in models {
            assemble(&repository.path().join("models"), model);
        }
        let models = models.iter().map(ToString::to_string).collect();
        // Both ports are reserved at once, so that they differ.
        let held = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
        let [http, grpc] = held.each_ref().map(|held| held.local_addr().expect("an address").port());
        drop(held);
        let args = args.to_vec();
        let mut triton = Triton { program, repository, models, args, http, grpc, child: None };
        triton.restart();
        Some(triton)
    }

    /// Returns the gRPC address, as a manifest names it.
    pub fn url(&self) -> String {
        format!("127.0.0.1:{}", self.grpc)
    }

    /// Returns a manifest table with an executor for this Triton.
    pub fn executor(&self, keys: &str) -> String {
        format!("[executors.remote]\nkind = \"triton\"\nurl = \"{}\"\n{keys}\n", self.url())
    }

    /// Starts it on the same ports and waits until all models are ready.
    pub fn restart(&mut self) {
        self.begin();
        let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
        eventually("Triton's readiness", || self.is_ready().then_some(()), log);
    }

    /// Starts it without waiting.
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::File::create(self.log()).expect("a log file");
        // It is killed when the thread that started it ends, however that happens.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
        command.arg(format!("--model-repository={}", self.repository.path().join("models").display()));
        command.args(["--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--allow-metrics=false"]);
        command.args([format!("--http-port={}", self.http), format!("--grpc-port={}", self.grpc)]);
        command.arg(format!("--backend-config=python,shm-region-prefix-name={}", self.memory()));
        command.arg("--model-control-mode=explicit").args(&self.args);
        command.args(self.models.iter().map(|model| format!("--load-model={model}")));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(command.spawn().expect("Triton starts"));
    }

    /// Restarts it if it has crashed, or crashes within a second. Returns whether it did.
    pub fn restart_if_crashed(&mut self) -> bool {
        let until = Instant::now() + std::time::Duration::from_secs(1);
        let mut has_ended = || self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        while !has_ended() {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self.kill();
        self.restart();
        true
    }

    pub fn is_ready(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.http));
        let answer = Client::new(address).try_request("GET", "/v2/health/ready", &[], b"");
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// Kills it and all its processes, as a crash would.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let stubs = children(child.id());
        let _ = child.kill();
        let _ = child.wait();
        // Its stubs notice that Triton is gone, and end.
        let until = Instant::now() + PATIENCE;
        for stub in stubs {
            while is_stub(&stub) && Instant::now() < until {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            if is_stub(&stub) {
                let _ = Command::new("kill").args(["-KILL", &stub]).status();
            }
        }
        // Processes that are killed do not remove their shared memory.
        for region in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if region.file_name().to_string_lossy().starts_with(&self.memory()) {
                let _ = std::fs::remove_file(region.path());
            }
        }
    }

    /// Waits until its log, which its models can write to, contains this text.
    pub fn wait_for_log(&self, text: &str) {
        let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
        eventually(text, || log().contains(text).then_some(()), log);
    }

    /// Returns the prefix of its shared memory names.
    fn memory(&self) -> String {
        format!("hostler_test_{}_{}_", std::process::id(), self.grpc)
    }

    /// Simulates a machine that hangs: none of its threads runs when this returns.
    pub fn hang(&self) {
        self.signal("STOP");
        let threads = format!("/proc/{}/task", self.id());
        let stopped = |thread: std::fs::DirEntry| {
            // A thread that has ended meanwhile does not run either.
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        let all = || std::fs::read_dir(&threads).expect("it runs").flatten().all(stopped).then_some(());
        eventually("a Triton that hangs", all, String::new);
    }

    /// Lets it continue after `hang`.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill runs").success());
    }

    fn log(&self) -> PathBuf {
        self.repository.path().join("triton.log")
    }
}

impl Drop for Triton {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the program that `cargo xtask triton` made.
fn program() -> Option<PathBuf> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(program) = set("HOSTLER_TRITON") {
        return Some(program.into());
    }
    let reason = set("HOSTLER_TRITON_MISSING").unwrap_or_else(|| {
        "set HOSTLER_TRITON to what `cargo xtask triton` prints, or test by `cargo xtask test`".into()
    });
    assert!(set("CI").as_deref() != Some("true"), "there is no Triton: {reason}");
    eprintln!("skipped: there is no Triton: {reason}");
    None
}

/// Copies a model into a folder with the layout that Triton expects.
fn assemble(models: &Path, name: &str) {
    let from = root().join("tests/triton");
    let to = models.join(name);
    std::fs::create_dir_all(to.join("1")).expect("the model's folder");
    let copy = |from: &Path, to: &Path| {
        std::fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    };
    copy(&from.join(name).join("config.pbtxt"), &to.join("config.pbtxt"));
    let own = from.join(name).join("model.py");
    if own.is_file() {
        copy(&own, &to.join("1/model.py"));
    } else {
        copy(&from.join("onnx_model.py"), &to.join("1/model.py"));
        copy(&example(&format!("{name}/model.onnx")), &to.join("1/model.onnx"));
    }
}

/// Returns the processes that any of its threads started.
fn children(id: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Returns whether the process is still a stub: process ids are reused.
fn is_stub(id: &str) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
    line.contains("triton_python_backend_stub")
}
