//! A host in an environment that a test controls: its descriptors, its session and its limits.

use super::{PATIENCE, Setup};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A process of the binary, killed when dropped.
pub struct Process {
    pub child: Child,
    pub setup: Setup,
}

/// Returns the command that runs `serve` on free ports. Its standard streams are null; callers
/// redirect those that they need.
pub fn command(setup: &Setup) -> Command {
    let mut command =
        setup.command(&["serve", "hostler.toml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Like `command`, through a shell with `words` after the command, such as `2>&-`.
pub fn redirected(setup: &Setup, words: &str) -> Command {
    let serve = command(setup);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec \"$0\" \"$@\" {words}")])
        .arg(serve.get_program())
        .args(serve.get_args());
    shell.current_dir(serve.get_current_dir().expect("a folder"));
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell
}

/// Starts the process in its own session, without a controlling terminal.
pub fn without_terminal(command: &mut Command) -> &mut Command {
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        })
    }
}

/// Starts the process in its own session, whose controlling terminal is `terminal`.
pub fn with_terminal(command: &mut Command, terminal: OwnedFd) -> &mut Command {
    without_terminal(command);
    // SAFETY: two system calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            // Under `nohup`, the host would inherit an ignored SIGHUP.
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            match libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        })
    }
}

/// Creates a pipe that holds 4 KB.
pub fn small_pipe() -> (File, OwnedFd) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    // SAFETY: the descriptor is that of the pipe.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert!(size >= 4096, "{}", std::io::Error::last_os_error());
    (File::from(OwnedFd::from(reader)), writer.into())
}

impl Process {
    pub fn start(setup: Setup, command: &mut Command) -> Self {
        Process { child: command.spawn().expect("the binary starts"), setup }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the addresses on which the process listens, found without its output: (public,
    /// admin).
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        super::eventually(
            "the listeners",
            || {
                let listeners = self.listeners();
                let admin = listeners.iter().find(|address| policy(**address).is_some())?;
                let public = listeners.iter().find(|address| *address != admin)?;
                Some((*public, *admin))
            },
            || format!("{:?}", self.listeners()),
        )
    }

    /// Returns the addresses of the process's listening sockets.
    pub fn listeners(&self) -> Vec<SocketAddr> {
        let proc = format!("/proc/{}", self.pid());
        let sockets: Vec<String> = std::fs::read_dir(format!("{proc}/fd"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let link = std::fs::read_link(entry.path()).ok()?;
                Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
            })
            .collect();
        let table = std::fs::read_to_string(format!("{proc}/net/tcp")).unwrap_or_default();
        let listener = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, "0A", ..] = fields[..] else { return None };
            let port = u16::from_str_radix(local.split_once(':')?.1, 16).ok()?;
            sockets.iter().any(|inode| fields.get(9) == Some(&inode.as_str())).then_some(port)
        };
        table.lines().filter_map(listener).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the process to end, and returns how long that took.
    pub fn wait(&mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return (status, started.elapsed());
            }
            assert!(started.elapsed() < PATIENCE, "the host does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns `/admin/policy` of this listener; `None` if it is another listener or does not answer
/// yet.
pub fn policy(address: SocketAddr) -> Option<Value> {
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /admin/policy HTTP/1.0\r\nhost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split_whitespace().nth(1).filter(|status| *status == "200")?;
    serde_json::from_str(body).ok()
}
