//! The servers under test. They listen on free ports of 127.0.0.1, are observed through /proc, and
//! are killed when dropped.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use super::http::Connection;
use xtask::command::{not_started, step};
use xtask::error::{Attempt, Error, Result};
use xtask::layout::Layout;
use xtask::onnxruntime;
use xtask::packages::see_packages;

/// Long enough to import Python packages or to compile a plugin on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Upper bound for the first line of a server's output.
const LINE_BYTES_MAX: u64 = 1 << 10;

pub struct Server {
    /// The HTTP port; 0 if the server has none.
    pub port: u16,
    /// The gRPC port; 0 if the server has none.
    pub grpc: u16,
    /// The port of the admin listener; 0 if the server has none.
    pub admin: u16,
    /// The path that returns 200 immediately if the server is healthy.
    pub health: &'static str,
    process: RefCell<Process>,
    /// Restarts the server on the same ports. `None` if a crash ends the benchmark.
    again: Option<Box<dyn Fn() -> Result<Child>>>,
    crashes: Cell<u32>,
}

struct Process {
    child: Child,
    /// Child processes that do part of its work.
    parts: Vec<u32>,
}

const HEALTH: &str = "/health";

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Process {
    fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // A server that crashed leaves child processes behind. Another process may have got one of
        // their ids since then, so the command line is checked.
        for id in &self.parts {
            if fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.contains(STUB)) {
                drop(Command::new("kill").args(["-KILL", &id.to_string()]).status());
            }
        }
    }
}

/// The program that runs an instance of a Python model for Triton.
const STUB: &str = "triton_python_backend_stub";

/// Starts Hostler and waits until it is ready. Its first line on stdout contains its ports.
pub fn hostler(
    layout: &Layout,
    manifest: &str,
    binary: &Path,
    library: &Path,
    logs: &Path,
) -> Result<Server> {
    hostler_named(layout, "hostler", manifest, [binary, library, logs])
}

/// Like [`hostler`], under a name that is also that of the log, so that several builds can run at
/// the same time.
pub fn hostler_named(
    layout: &Layout,
    name: &str,
    manifest: &str,
    [binary, library, logs]: [&Path; 3],
) -> Result<Server> {
    let mut command = bound_to_this_process(binary);
    command.current_dir(&layout.root).env(onnxruntime::VARIABLE, library);
    command.args([
        "serve",
        manifest,
        "--http",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
    ]);
    let log = logs.join(name).with_extension("log");
    let mut child = start(command.stdout(Stdio::piped()), &log)?;
    let stdout = child.stdout.take();
    let mut server = Server::new([0, 0], HEALTH, child);
    let line = listening_line(stdout);
    let ports = parse_port(&line, "http=").zip(parse_port(&line, "grpc="));
    (server.port, server.grpc) = ports.ok_or_else(|| not_hostler(name, binary, &line, &log))?;
    server.admin = parse_port(&line, "admin=").unwrap_or(0);
    server.wait_until_ready(name, &log)?;
    Ok(server)
}

/// Starts `bench/floor/grpc.rs`: the minimum cost of a gRPC server that is built like Hostler.
pub fn grpc_floor(binary: &Path, logs: &Path) -> Result<Server> {
    let mut command = bound_to_this_process(binary);
    let log = logs.join("grpc-floor.log");
    let mut child = start(command.arg("127.0.0.1:0").stdout(Stdio::piped()), &log)?;
    let stdout = child.stdout.take();
    let mut server = Server::new([0, 0], HEALTH, child);
    let line = listening_line(stdout);
    server.grpc = parse_port(&line, "grpc=").ok_or_else(|| did_not_start("grpc-floor", &log))?;
    Ok(server)
}

/// Starts FastAPI on uvicorn and waits until it is ready: one process with the fastest event loop
/// and parser, without an access log.
pub fn fastapi(
    layout: &Layout,
    packages: &Path,
    logs: &Path,
    app: &str,
    variables: &[(&str, &str)],
) -> Result<Server> {
    let port = free_port()?;
    let mut command = bound_to_this_process(Path::new("python3"));
    see_packages(&mut command, packages);
    command.current_dir(&layout.root).envs(variables.iter().copied());
    command.args(["-m", "uvicorn", "--app-dir", "bench/data", &format!("{app}:app")]);
    command.args(["--host", "127.0.0.1"]);
    command.args(["--port", &port.to_string(), "--loop", "uvloop", "--http", "httptools"]);
    command.args(["--no-access-log", "--log-level", "warning"]);
    let log = logs.join("fastapi.log");
    let child = start(command.stdout(Stdio::null()), &log)?;
    let server = Server::new([port, 0], HEALTH, child);
    server.wait_until_ready("fastapi", &log)?;
    Ok(server)
}

/// Starts Triton with the models in a folder and waits until it is ready. Its Python backend has
/// one process for each instance of a model.
pub fn triton(program: &Path, models: &Path, logs: &Path) -> Result<Server> {
    let (port, grpc) = (free_port()?, free_port()?);
    let (program, models, log) = (program.to_owned(), models.display().to_string(), logs.join("triton.log"));
    let again = move || {
        let mut command = bound_to_this_process(&program);
        command.arg(format!("--model-repository={models}"));
        command.args(["--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--allow-metrics=false"]);
        command.args([format!("--http-port={port}"), format!("--grpc-port={grpc}")]);
        start(command.stdout(Stdio::null()), &log)
    };
    let mut server = Server::new([port, grpc], "/v2/health/ready", again()?);
    server.wait_until_ready("triton", &logs.join("triton.log"))?;
    server.find_parts();
    server.again = Some(Box::new(again));
    Ok(server)
}

/// Returns the processes that any thread of a process has started.
fn children(id: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map_while(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}

impl Server {
    fn new([port, grpc]: [u16; 2], health: &'static str, child: Child) -> Self {
        let process = RefCell::new(Process { child, parts: Vec::new() });
        Server { port, grpc, admin: 0, health, process, again: None, crashes: Cell::new(0) }
    }

    fn find_parts(&self) {
        let mut process = self.process.borrow_mut();
        process.parts = children(process.child.id());
    }

    /// Restarts the server if it has crashed and has a restart function. Returns whether it did.
    pub fn revive(&self, logs: &Path) -> Result<bool> {
        let Some(again) = &self.again else { return Ok(false) };
        if matches!(self.process.borrow_mut().child.try_wait(), Ok(None)) {
            return Ok(false);
        }
        self.crashes.set(self.crashes.get() + 1);
        // Kills the child processes that the crashed server left.
        self.process.borrow_mut().end();
        self.process.replace(Process { child: again()?, parts: Vec::new() });
        self.wait_until_ready("triton", &logs.join("triton.log"))?;
        self.find_parts();
        Ok(true)
    }

    /// Ends the server without a warning.
    pub fn kill(&self) {
        self.process.borrow_mut().end();
    }

    /// Returns how often the server has crashed.
    pub fn crashes(&self) -> u32 {
        self.crashes.get()
    }

    /// Blocks until the server is healthy. Fails if its process ends or [`START_LIMIT`] passes.
    fn wait_until_ready(&self, name: &str, log: &Path) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < START_LIMIT {
            let answer = Connection::open(self.port)
                .and_then(|mut connection| connection.request("GET", self.health, b""));
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if !matches!(self.process.borrow_mut().child.try_wait(), Ok(None)) {
                break;
            }
            sleep(Duration::from_millis(50));
        }
        Err(did_not_start(name, log))
    }

    /// Returns the user and system time of all its processes, including threads that have ended.
    pub fn cpu(&self) -> Result<Duration> {
        self.all(|id| {
            let text = proc_file(id, "stat")?;
            parse_cpu(&text).ok_or_else(|| Error::new(format!("cannot parse /proc/{id}/stat: {text:?}"), ""))
        })
    }

    pub fn rss_mb(&self) -> Result<f64> {
        self.all(|id| {
            let text = proc_file(id, "status")?;
            let kb = text
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
            // A process that has ended has no line `VmRSS`.
            kb.map(|kb| kb / 1024.0)
                .ok_or_else(|| Error::new(format!("the server on port {} has ended", self.port), ""))
        })
    }

    /// Returns the sum of `one` over the server's processes.
    fn all<T: std::iter::Sum>(&self, one: impl Fn(u32) -> Result<T>) -> Result<T> {
        let process = self.process.borrow();
        std::iter::once(process.child.id()).chain(process.parts.iter().copied()).map(one).sum()
    }
}

fn proc_file(id: u32, name: &str) -> Result<String> {
    let path = format!("/proc/{id}/{name}");
    fs::read_to_string(&path).attempting(|| format!("read {path}"))
}

/// Returns the sum of fields 14 and 15, which are in hundredths of a second. Fields are counted
/// after the process name, which may contain spaces and parentheses.
fn parse_cpu(stat: &str) -> Option<Duration> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
}

/// Returns a command whose process the kernel kills when this process ends, for whatever reason.
/// `setpriv` replaces itself with the program.
fn bound_to_this_process(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn start(command: &mut Command, log: &Path) -> Result<Child> {
    step(&format!("start {}", log.file_stem().unwrap_or_default().to_string_lossy()));
    let stderr = File::create(log).attempting(|| format!("create {}", log.display()))?;
    command.stdin(Stdio::null()).stderr(stderr);
    command.spawn().map_err(|cause| not_started(command, &cause, "install setpriv (Debian: util-linux)"))
}

/// Returns the first line, `listening http=127.0.0.1:PORT grpc=...`. The line is empty if the
/// server ended without it or did not write it within [`START_LIMIT`]. The rest of the output is
/// read and dropped, so that the pipe never fills.
fn listening_line(stdout: Option<ChildStdout>) -> String {
    let stdout = stdout.expect("invariant: stdout is piped");
    let (sender, receiver) = mpsc::channel();
    spawn(move || {
        let (mut stdout, mut line) = (BufReader::new(stdout), Vec::new());
        drop(stdout.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line));
        drop(sender.send(String::from_utf8_lossy(&line).into_owned()));
        std::io::copy(&mut stdout, &mut std::io::sink())
    });
    receiver.recv_timeout(START_LIMIT).unwrap_or_default()
}

/// Returns the error for a program that cannot be measured: it ended, or it printed nothing or
/// something unexpected.
fn not_hostler(name: &str, binary: &Path, line: &str, log: &Path) -> Error {
    if line.is_empty() {
        return did_not_start(&format!("{name} ({})", binary.display()), log);
    }
    Error::new(
        format!(
            "{name} ({}) is not a hostler with HTTP and gRPC: it printed {:?}",
            binary.display(),
            line.trim_end()
        ),
        "expected `listening http=ADDRESS grpc=ADDRESS ...` as the first line of its output",
    )
}

fn parse_port(line: &str, interface: &str) -> Option<u16> {
    let address =
        line.strip_prefix("listening ")?.split_whitespace().find_map(|word| word.strip_prefix(interface))?;
    address.rsplit(':').next()?.parse().ok()
}

fn did_not_start(name: &str, log: &Path) -> Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(15)..].join("\n");
    Error::new(
        format!("{name} did not start or was not ready in time"),
        format!("end of its log {}:\n{tail}", PathBuf::from(log).display()),
    )
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(listener.attempting(|| "find a free port on 127.0.0.1".to_owned())?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_counted_behind_a_hostile_process_name() {
        let stat = "12 (a) b ( c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_cpu("12 (a"), None);
    }

    #[test]
    fn port_is_found_in_the_contract_line_only() {
        let line = "listening http=127.0.0.1:8123 grpc=127.0.0.1:8 admin=127.0.0.1:9\n";
        assert_eq!(parse_port(line, "http="), Some(8123));
        assert_eq!(parse_port(line, "grpc="), Some(8));
        assert_eq!(parse_port("error: no such file\n", "http="), None);
    }
}
