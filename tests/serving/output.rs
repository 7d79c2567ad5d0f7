//! The host's output to stdout and stderr: nothing waits for it, and the host reports how much was
//! lost.

use crate::support::process::{Process, command, policy, redirected, small_pipe};
use crate::support::{Client, PATIENCE, Setup, eventually, plugin, slow};
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn setup() -> Setup {
    let manifest = "[plugins.hostile]\npath = \"hostile.wasm\"\nlog_kb = 16384\n[models.hostile]\nplugin = \"hostile\"\n";
    Setup::new(manifest).file("hostile.wasm", plugin("hostile"))
}

fn ask(http: SocketAddr, deed: &str, timeout_ms: u64) -> u16 {
    let parameters = json!({"do": deed, "at": "predict"});
    let body = json!({"model": "hostile", "data": ["a"], "parameters": parameters, "timeout_ms": timeout_ms});
    Client::new(http).post("/predict", body.to_string()).status
}

/// Returns the value of a metric without labels.
fn metric(admin: SocketAddr, name: &str) -> f64 {
    let text = Client::new(admin).get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().expect("a number")
}

/// Checks that logged requests, a reload and a metrics query are all answered.
fn serves(process: &Process) -> (SocketAddr, SocketAddr) {
    let (http, admin) = process.addresses();
    for _ in 0..20 {
        // The failure and its backtrace exceed the 4 KB that the pipe holds.
        assert_eq!(ask(http, "trap", 5000), 500);
        assert_eq!(ask(http, "ok", 5000), 200);
    }
    assert_eq!(Client::new(http).get("/health").status, 200);
    let reloaded = Client::new(admin).post("/admin/reload", "");
    assert_eq!(reloaded.json()["outcome"], "unchanged", "{}", reloaded.text());
    assert_eq!(policy(admin).expect("the policy")["generation"], 1);
    (http, admin)
}

/// Ends the process with SIGTERM. This takes no longer than the one second for the log, plus a
/// margin for a busy machine.
fn ends(mut process: Process) {
    process.signal("TERM");
    let (status, took) = process.wait();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Collects the lines of a stream.
fn gather(stream: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            sink.lock().unwrap().push(line);
        }
    });
    lines
}

fn wait_for_line(lines: &Mutex<Vec<String>>, part: &str) -> String {
    let find = || lines.lock().unwrap().iter().find(|line| line.contains(part)).cloned();
    eventually(&format!("a line with {part:?}"), find, || lines.lock().unwrap().join("\n"))
}

/// Starts a host with these as its stdout and stderr.
fn start(stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Process {
    let setup = setup();
    let mut command = command(&setup);
    command.stdout(stdout).stderr(stderr);
    Process::start(setup, &mut command)
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_says_later_what_was_lost() {
    let ((unread, out), (reader, log)) = (small_pipe(), small_pipe());
    let process = start(out, log);
    let (http, admin) = serves(&process);
    let lost = || metric(admin, "hostler_log_dropped_total");
    let until = Instant::now() + PATIENCE;
    while lost() == 0.0 {
        assert!(Instant::now() < until, "the log has no bound");
        ask(http, "log-flood", 1000);
    }
    serves(&process);
    assert_eq!(metric(admin, "hostler_access_log_dropped_total"), 0.0);
    let lines = gather(reader);
    let told = wait_for_line(&lines, "lines dropped");
    assert!(told.contains("stream=\"stderr\"") && told.contains("lines="), "{told}");
    drop(unread);
    ends(process);
}

#[test]
fn readers_that_stopped_do_not_hold_up_the_exit() {
    let ((_unread_out, out), (_unread_log, log)) = (small_pipe(), small_pipe());
    let process = start(out, log);
    let (http, _) = serves(&process);
    // Both pipes are full, and both writers block: a line of either has at least 80 bytes.
    for _ in 0..100 {
        ask(http, "trap", 5000);
    }
    ends(process);
}

#[test]
fn readers_that_have_left_stop_nothing() {
    let ((left_out, out), (left_log, log)) = (small_pipe(), small_pipe());
    drop((left_out, left_log));
    let process = start(out, log);
    let (_, admin) = serves(&process);
    let counted = || (metric(admin, "hostler_log_dropped_total") > 0.0).then_some(());
    eventually("lost lines to be counted", counted, String::new);
    ends(process);
}

#[test]
fn a_full_disk_stops_nothing() {
    let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
    let process = start(full(), full());
    let (_, admin) = serves(&process);
    for name in ["hostler_log_dropped_total", "hostler_access_log_dropped_total"] {
        eventually(name, || (metric(admin, name) > 0.0).then_some(()), String::new);
    }
    ends(process);
}

#[test]
fn a_file_that_reaches_its_limit_stops_nothing() {
    // Without a plugin: WebAssembly's memory is subject to the same limit.
    let setup = slow::setup("[models.loop]\npath = \"loop.onnx\"\n");
    let serve = command(&setup);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -f 8; exec \"$0\" \"$@\" >out"])
        .arg(serve.get_program())
        .args(serve.get_args());
    limited.current_dir(setup.path("")).stdin(Stdio::null()).stderr(Stdio::null());
    let process = Process::start(setup, &mut limited);
    let (http, admin) = process.addresses();
    let ask = || Client::new(http).post("/predict", slow::rounds(1).to_string()).status;
    let until = Instant::now() + PATIENCE;
    while metric(admin, "hostler_access_log_dropped_total") == 0.0 {
        assert!(Instant::now() < until, "the file has no limit");
        assert_eq!(ask(), 200);
    }
    assert_eq!(ask(), 200);
    ends(process);
}

#[test]
fn closed_descriptors_are_not_taken_by_files_and_sockets() {
    for words in ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"] {
        let setup = setup();
        let mut command = redirected(&setup, words);
        let process = Process::start(setup, &mut command);
        serves(&process);
        for descriptor in 0..3 {
            let link =
                std::fs::read_link(format!("/proc/{}/fd/{descriptor}", process.pid())).expect("it is open");
            let link = link.display().to_string();
            assert!(link == "/dev/null" || link.starts_with("pipe:"), "{words}: {descriptor} is {link}");
        }
        ends(process);
    }
}

#[test]
fn every_line_is_whole_where_the_readers_end_does_not_block() {
    let (mut reader, log) = small_pipe();
    // SAFETY: the descriptor is that of the pipe.
    unsafe { libc::fcntl(log.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let setup = setup();
    let mut command = command(&setup);
    command.stderr(log);
    let process = Process::start(setup, &mut command);
    drop(command);
    let (http, admin) = process.addresses();
    for _ in 0..40 {
        assert_eq!(ask(http, "forge", 5000), 200);
    }
    process.signal("TERM");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("the log");
    let lines: Vec<&str> = text.lines().collect();
    assert!(text.ends_with('\n') && lines.last().is_some_and(|line| line.contains("drained")), "{text}");
    // The plugin writes it three times: to its log, to stdout and to stderr.
    assert_eq!(text.matches("honest").count(), 120, "{text}");
    let _ = admin;
    ends_by_itself(process);
}

fn ends_by_itself(mut process: Process) {
    let (status, _) = process.wait();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn what_native_code_writes_comes_to_the_log_and_never_to_the_access_log() {
    let (out, log) = (std::io::pipe().expect("a pipe"), std::io::pipe().expect("a pipe"));
    let mut process = start(out.1, log.1);
    let (out, log) = (gather(out.0), gather(log.0));
    let (http, _) = process.addresses();
    for descriptor in [1, 2] {
        let path = format!("/proc/{}/fd/{descriptor}", process.pid());
        let mut native = File::options().write(true).open(path).expect("the descriptor");
        writeln!(native, "native words on {descriptor}").expect("it can be written");
        wait_for_line(&log, &format!("native words on {descriptor}"));
    }
    assert_eq!(ask(http, "ok", 5000), 200);
    wait_for_line(&out, "\"status\":200");
    assert!(!out.lock().unwrap().join("\n").contains("native"), "{out:?}");

    // The last output of a process that aborts is not lost.
    let path = format!("/proc/{}/fd/2", process.pid());
    let mut native = File::options().write(true).open(path).expect("the descriptor");
    writeln!(native, "last words").expect("it can be written");
    process.signal("ABRT");
    let (status, _) = process.wait();
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    wait_for_line(&log, "last words");
}

#[test]
fn a_command_whose_reader_has_left_says_nothing_of_it() {
    let setup = setup();
    let run = |stdout: Stdio| {
        let output = setup.command(&["check", "hostler.toml"]).stdout(stdout).stderr(Stdio::piped()).output();
        let output = output.expect("the binary runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (code, log) = run(writer.into());
    assert_eq!((code, log.contains("panicked")), (Some(0), false), "{log}");
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let (code, log) = run(full.into());
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("cannot write to stdout: ") && !log.contains("panicked"), "{log}");
    let output = setup
        .command(&["check", "nowhere.toml"])
        .stderr(File::options().write(true).open("/dev/full").unwrap())
        .status();
    assert_eq!(output.expect("the binary runs").code(), Some(1));
}

#[test]
fn a_start_that_fails_says_all_of_its_reason() {
    // About as much as is shown of a manifest's faults, and several times what the pipe holds.
    let deep = "far-away/".repeat(50);
    let table = |index| format!("[models.m{index}]\npath = \"{deep}gone{index}.onnx\"\n");
    let setup = Setup::new(&(0..18).map(table).collect::<String>());
    let (mut reader, log) = small_pipe();
    let mut command = command(&setup);
    command.stderr(log);
    let mut process = Process::start(setup, &mut command);
    drop(command);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("the log");
    let (status, _) = process.wait();
    assert_eq!(status.code(), Some(1), "{status}");
    for index in 0..18 {
        assert!(text.contains(&format!("gone{index}.onnx")), "{text}");
    }
}
