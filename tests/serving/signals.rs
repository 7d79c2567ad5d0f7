//! Signals in every state of the process: starting, serving, building and stopping.

use crate::support::host::{Lines, follow};
use crate::support::process::{Process, command, policy, with_terminal, without_terminal};
use crate::support::slow::{ENDLESS, rounds, setup};
use crate::support::{Client, Setup, eventually, replace};
use serde_json::json;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

fn wait_for_line(lines: &Lines, parts: &[&str]) {
    let text = || lines.lock().unwrap().join("\n");
    let find = || {
        let lines = lines.lock().unwrap();
        lines.iter().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    };
    eventually(&format!("a line with {parts:?}"), find, text);
}

const QUIET: &str = "[models.loop]\npath = \"loop.onnx\"\n";

/// Returns a manifest that never finishes loading, because the check of its model does not end.
fn endless() -> String {
    format!(
        "[server]\nmax_timeout_ms = 600000\n{QUIET}timeout_ms = 600000\nchecks = [{{ file = \"endless.json\" }}]\n"
    )
}

fn with_check(manifest: &str) -> Setup {
    let sample = json!({"data": rounds(ENDLESS)["data"], "expect": {}});
    setup(manifest).text("endless.json", &sample.to_string())
}

/// Starts a host in its own session, and returns it with its log.
fn start(setup: Setup) -> (Process, Lines) {
    let mut command = command(&setup);
    without_terminal(&mut command).stderr(Stdio::piped());
    let mut process = Process::start(setup, &mut command);
    let log = follow(process.child.stderr.take().expect("piped"));
    (process, log)
}

fn ends(mut process: Process, code: i32, within: Duration, log: &Lines) {
    let (status, took) = process.wait();
    let log = log.lock().unwrap().join("\n");
    assert_eq!(status.code(), Some(code), "{status}\n{log}");
    assert!(took < within, "{took:?}\n{log}");
}

#[test]
fn a_start_that_waits_ends_at_the_first_signal() {
    for signal in ["TERM", "INT"] {
        let (process, log) = start(with_check(&endless()));
        // The model is loaded, and its check runs.
        wait_for_line(&log, &["ONNX Runtime loaded"]);
        process.signal(signal);
        ends(process, 0, Duration::from_secs(5), &log);
        wait_for_line(&log, &["stopped before it served", &format!("SIG{signal}")]);
    }
}

#[test]
fn a_build_under_way_does_not_hold_up_the_end() {
    let (process, log) = start(with_check(QUIET));
    let (http, _) = process.addresses();
    replace(&process.setup.path("hostler.toml"), endless().as_bytes());
    let loading = || {
        // The check is a call of the model, so it runs on a worker of the new executor.
        let threads = std::fs::read_dir(format!("/proc/{}/task", process.pid())).ok()?;
        let busy = threads.flatten().any(|task| computes(&task.path()));
        busy.then_some(())
    };
    eventually("the check of the reload to run", loading, || log.lock().unwrap().join("\n"));
    assert_eq!(Client::new(http).get("/health").status, 200);
    process.signal("TERM");
    ends(process, 0, Duration::from_secs(10), &log);
}

/// Returns whether a worker of an ONNX executor has used a second of CPU time.
fn computes(task: &std::path::Path) -> bool {
    let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
    let ticks =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(11)?.parse::<u64>().ok());
    ticks.is_some_and(|ticks| ticks >= 100)
}

#[test]
fn a_service_reloads_on_sighup_and_serves_on() {
    let setup = setup(&format!("[reload]\nmode = \"manual\"\n{QUIET}"));
    let (process, log) = start(setup);
    let (http, admin) = process.addresses();
    let manifest = format!("[reload]\nmode = \"manual\"\n{QUIET}timeout_ms = 5000\n");
    replace(&process.setup.path("hostler.toml"), manifest.as_bytes());
    process.signal("HUP");
    // The record of the reload follows the policy.
    let live = || {
        policy(admin).filter(|policy| policy["generation"] == 2 && policy["last_reload"]["generation"] == 2)
    };
    let record = eventually("generation 2", live, || log.lock().unwrap().join("\n"))["last_reload"].clone();
    assert_eq!((&record["outcome"], &record["trigger"]), (&json!("applied"), &json!({"admin": "SIGHUP"})));
    assert_eq!(Client::new(http).post("/predict", rounds(1).to_string()).status, 200);
    process.signal("TERM");
    ends(process, 0, Duration::from_secs(10), &log);
}

#[test]
fn a_terminal_that_hangs_up_drains_the_host() {
    let setup = setup(QUIET);
    let (terminal, end) = terminal();
    let mut command = command(&setup);
    // The terminal belongs to the session as long as a process has it open.
    command.stdin(end.try_clone().expect("another one"));
    with_terminal(&mut command, end).stderr(Stdio::piped());
    let mut process = Process::start(setup, &mut command);
    let log = follow(process.child.stderr.take().expect("piped"));
    drop(command);
    process.addresses();
    drop(terminal);
    ends(process, 0, Duration::from_secs(10), &log);
    wait_for_line(&log, &["draining", "SIGHUP"]);
    wait_for_line(&log, &["drained"]);
}

/// Opens both ends of a terminal. Closing the first one hangs up.
fn terminal() -> (OwnedFd, OwnedFd) {
    // Close-on-exec from the start: a host that another test starts concurrently would otherwise
    // keep the terminal open.
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: each call uses the descriptor that the previous one returned, and the buffer has
    // space for the name and its terminator.
    unsafe {
        let terminal = libc::posix_openpt(flags);
        assert!(terminal >= 0, "{}", std::io::Error::last_os_error());
        let terminal = OwnedFd::from_raw_fd(terminal);
        let mut name = [0; 128];
        let fd = terminal.as_raw_fd();
        let is_named = libc::grantpt(fd) == 0
            && libc::unlockpt(fd) == 0
            && libc::ptsname_r(fd, name.as_mut_ptr(), name.len()) == 0;
        assert!(is_named, "{}", std::io::Error::last_os_error());
        let end = libc::open(name.as_ptr(), flags);
        assert!(end >= 0, "{}", std::io::Error::last_os_error());
        (terminal, OwnedFd::from_raw_fd(end))
    }
}

#[test]
fn signals_without_a_meaning_do_not_end_the_host() {
    let (process, log) = start(setup(QUIET));
    let (http, _) = process.addresses();
    for signal in ["USR1", "USR2", "PIPE"] {
        process.signal(signal);
    }
    wait_for_line(&log, &["signal ignored", "SIGUSR1"]);
    wait_for_line(&log, &["signal ignored", "SIGUSR2"]);
    assert_eq!(Client::new(http).get("/health").status, 200);
    process.signal("TERM");
    ends(process, 0, Duration::from_secs(10), &log);
}

#[test]
fn a_second_signal_ends_what_is_stuck() {
    let manifest = format!("[server]\ndrain_delay_ms = 20000\ndrain_timeout_ms = 20000\n{QUIET}");
    let setup = setup(&manifest);
    let mut command = command(&setup);
    // The log is full from the start.
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    without_terminal(&mut command).stderr(full);
    let mut process = Process::start(setup, &mut command);
    let (http, _) = process.addresses();
    process.signal("TERM");
    let draining = || (Client::new(http).get("/ready").status == 503).then_some(());
    eventually("the drain", draining, String::new);
    process.signal("TERM");
    let (status, took) = process.wait();
    assert_eq!(status.code(), Some(1), "{status}");
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn the_first_process_of_a_container_ends_at_a_signal() {
    // As in a container: the kernel delivers to process 1 only signals that it handles.
    let unshare = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
    let allowed =
        std::process::Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no process namespaces here");
        return;
    }
    for (setup, event, last) in [
        (with_check(&endless()), "ONNX Runtime loaded", "stopped before it served"),
        (setup(QUIET), "listening http=", "drained"),
    ] {
        let inner = command(&setup);
        let mut outer = std::process::Command::new("unshare");
        outer.args(unshare).arg(inner.get_program()).args(inner.get_args()).current_dir(setup.path(""));
        without_terminal(&mut outer).stderr(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(setup, &mut outer);
        let log = follow(process.child.stderr.take().expect("piped"));
        let out = follow(process.child.stdout.take().expect("piped"));
        let first = if last == "drained" { &out } else { &log };
        wait_for_line(first, &[event]);
        // `unshare` waits for its only child, and passes on its exit code.
        let pid = process.pid();
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its child");
        let child = children.split_whitespace().next().expect("a child").to_owned();
        let sent = std::process::Command::new("kill").args(["-TERM", &child]).status();
        assert!(sent.expect("kill runs").success());
        let (status, took) = process.wait();
        assert_eq!(status.code(), Some(0), "{}", log.lock().unwrap().join("\n"));
        assert!(took < Duration::from_secs(10), "{took:?}");
        wait_for_line(&log, &[last]);
    }
}
