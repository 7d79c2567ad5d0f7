//! `hostler jobs export`: what is written, and what is left if it cannot be. A real host is used
//! where it can do what the test needs; otherwise a listener says what a host may say.

use super::jobs_commands::HOSTILE;
use crate::support::jobs::{cancel, ended, show, submit};
use crate::support::slow::{deed, setup};
use crate::support::{Host, Setup, eventually};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Runs `hostler jobs export` for the host at this address.
fn export(setup: &Setup, address: SocketAddr, args: &[&str]) -> (i32, String, String) {
    let address = address.to_string();
    setup.run(&[&["jobs", "export", "--http", &address], args].concat())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

/// A host with jobs that have succeeded, failed, and not ended: the newest last.
fn with_jobs() -> (Host, Vec<String>) {
    let host = setup(HOSTILE).start();
    let good = submit(&host, &deed("hostile", "ok"));
    ended(&host, &good, "succeeded");
    let parameters = json!({"do": "error", "kind": "failed", "at": "predict"});
    let bad = submit(&host, &json!({"model": "hostile", "data": ["a"], "parameters": parameters}));
    ended(&host, &bad, "failed");
    let running = submit(&host, &deed("hostile", "sleep"));
    crate::support::jobs::wait_for(&host, &running, "the job to run", |job| job["state"] == "running");
    (host, vec![good, bad, running])
}

#[test]
fn each_line_is_a_job_with_its_attempts_and_its_result_or_error() {
    let (host, ids) = with_jobs();
    let (code, out, err) = export(&host.setup, host.http, &[]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    let exported = lines(&out);
    assert_eq!(exported.len(), 3, "{out}");
    for (mut job, id) in exported.into_iter().zip(ids.iter().rev()) {
        let mut shown = show(&host, id);
        // The time that is left is a little less by now.
        job["expires_at"].take();
        shown["expires_at"].take();
        assert_eq!(job, shown);
        assert_eq!(job["history"].as_array().map(Vec::len), Some(1), "{job}");
    }
    let (code, out, _) = export(&host.setup, host.http, &["--state", "failed,timeout", "--model", "hostile"]);
    let exported = lines(&out);
    assert_eq!((code, exported.len()), (0, 1), "{out}");
    assert_eq!((&exported[0]["job_id"], &exported[0]["error"]["kind"]), (&json!(ids[1]), &json!("failed")));
    assert_eq!(export(&host.setup, host.http, &["--model", "other"]), (0, String::new(), String::new()));
    cancel(&host, &ids[2]);
}

#[test]
fn a_file_is_new_and_private_and_replaced_only_by_force() {
    use std::os::unix::fs::PermissionsExt;
    let (host, ids) = with_jobs();
    let path = host.path("jobs.jsonl");
    let (code, out, err) = export(&host.setup, host.http, &["--output", "jobs.jsonl"]);
    assert_eq!((code, &*out, &*err), (0, "jobs.jsonl: 3 jobs\n", ""));
    let written = std::fs::read_to_string(&path).expect("the file");
    assert_eq!(lines(&written).len(), 3);
    assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
    let (code, out, err) = export(&host.setup, host.http, &["--output", "jobs.jsonl"]);
    assert_eq!((code, &*out), (1, ""), "{err}");
    assert!(err.contains("jobs.jsonl exists; nothing was written") && err.contains("--force"), "{err}");
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), written);
    let (code, out, err) =
        export(&host.setup, host.http, &["--state", "failed", "-o", "jobs.jsonl", "--force"]);
    assert_eq!((code, &*out, &*err), (0, "jobs.jsonl: 1 job\n", ""));
    assert_eq!(lines(&std::fs::read_to_string(&path).expect("the file")).len(), 1);
    let (code, _, err) = export(&host.setup, host.http, &["-o", "none/jobs.jsonl"]);
    assert!(code == 1 && err.contains("none/jobs.jsonl") && err.contains("No such file"), "{err}");
    assert!(names(host.setup.dir.path()).iter().all(|name| !name.ends_with(".partial")));
    cancel(&host, &ids[2]);
}

#[test]
fn a_disk_that_takes_no_more_leaves_no_file() {
    let host = setup(HOSTILE).start();
    let body = json!({"model": "hostile", "items": vec![json!({"data": ["a"]}); 40]}).to_string();
    assert_eq!(host.post("/predict/async/batch", body).status, 202);
    // Files may have 8 blocks, of which there are two in a kilobyte.
    let small = Setup::new("").ulimit("-f 8");
    let (code, out, err) = export(&small, host.http, &["-o", "jobs.jsonl"]);
    assert_eq!((code, &*out), (1, ""), "{err}");
    assert!(
        err.contains("cannot write jobs.jsonl: File too large") && err.contains("nothing of it was kept"),
        "{err}"
    );
    assert_eq!(names(small.dir.path()), ["hostler.toml"]);
}

#[test]
fn a_reader_that_leaves_ends_the_export_quietly() {
    let host = setup(HOSTILE).start();
    let body = json!({"model": "hostile", "items": vec![json!({"data": ["a"]}); 500]}).to_string();
    assert_eq!(host.post("/predict/async/batch", body).status, 202);
    let mut child = host
        .setup
        .command(&["jobs", "export", "--http", &host.http.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut first = String::new();
    BufReader::with_capacity(64, child.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    assert_eq!(lines(&first).len(), 1);
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

/// What a listener answers with on a path: status, content type and body. `None` is silence.
type Answers = fn(&str) -> Option<(u16, &'static str, Vec<u8>)>;

/// Serves connections like a host that answers in a certain way. Returns its address, and the paths
/// of requests.
fn host_that(answers: Answers) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, paths) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || serve(stream, answers, &sender));
        }
    });
    (address, paths)
}

fn serve(stream: TcpStream, answers: Answers, paths: &Sender<String>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let _ = paths.send(path.clone());
        let Some((status, content_type, body)) = answers(&path) else { continue };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        if stream.get_mut().write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

const JSON: &str = "application/json";

fn listed(path: &str, ids: &[&str]) -> Option<(u16, &'static str, Vec<u8>)> {
    let jobs: Vec<Value> = ids.iter().map(|id| json!({"job_id": id, "state": "succeeded"})).collect();
    let page = json!({"jobs": jobs, "next": null});
    path.starts_with("/jobs?").then(|| (200, JSON, page.to_string().into_bytes()))
}

fn error(status: u16, kind: &str, message: &str) -> Option<(u16, &'static str, Vec<u8>)> {
    let body = json!({"error": {"kind": kind, "message": message}});
    Some((status, JSON, body.to_string().into_bytes()))
}

#[test]
fn what_is_no_json_or_gone_or_unreadable_is_said_for_its_job() {
    let (address, _) = host_that(|path| {
        let text = |text: &str| Some((200, JSON, text.as_bytes().to_vec()));
        match path {
            "/jobs/bytes" | "/jobs/late" => text("{\"job_id\":\"bytes\",\"state\":\"succeeded\"}"),
            "/jobs/bytes/result" => Some((200, "image/png", b"\x89PNG".to_vec())),
            "/jobs/lines" => text(
                "{\"job_id\":\"lines\",\n\"state\":\"succeeded\",\"result\":[1,\r\n10000000000000000000001]}\n",
            ),
            "/jobs/gone" | "/jobs/late/result" => error(404, "not_found", "no job; it may have expired"),
            "/jobs/broken" => error(500, "failed", "the stored data are damaged"),
            _ => listed(path, &["bytes", "lines", "gone", "late", "broken"]),
        }
    });
    let setup = Setup::new("");
    let (code, out, err) = export(&setup, address, &[]);
    assert_eq!(code, 1, "one job could not be read: {err}");
    let exported = lines(&out);
    assert_eq!(exported.len(), 3, "{out}");
    assert_eq!(exported[0]["result_base64"], "iVBORw==");
    assert_eq!(exported[0]["result_content_type"], "image/png");
    assert!(out.contains("[1,  10000000000000000000001]"), "numbers stay as they are: {out}");
    let broken = json!({"job_id": "broken", "state": "succeeded", "export_error": {"kind": "failed", "message": "the stored data are damaged"}});
    assert_eq!(exported[2], broken);
    assert!(err.contains("2 jobs expired or got deleted during the export"), "{err}");
    assert!(err.contains("the host could not read 1 job:"), "{err}");
}

#[test]
fn a_host_that_fails_or_lies_leaves_no_file() {
    let cases: [(Answers, &str); 5] = [
        (
            |path| match path {
                "/jobs/a" => error(503, "unavailable", "the job store is unavailable: the disk is full"),
                _ => listed(path, &["a"]),
            },
            "cannot export job \"a\": the job store is unavailable: the disk is full",
        ),
        (
            |_| Some((200, JSON, b"{\"jobs\":[],\"next\":\"7\"}".to_vec())),
            "repeats a page of the list of jobs without end",
        ),
        (|_| Some((200, "text/html", b"<html>".to_vec())), "is not the public address of a Hostler"),
        (
            |_| Some((200, JSON, b"{\"jobs\":[{\"state\":\"\\u001b[2J\"}],\"next\":null}".to_vec())),
            "an entry has no id",
        ),
        (
            |path| match path {
                "/jobs/a" => Some((200, JSON, b"[]".to_vec())),
                _ => listed(path, &["a"]),
            },
            "is not the public address of a Hostler",
        ),
    ];
    for (answers, part) in cases {
        let (address, _) = host_that(answers);
        let setup = Setup::new("");
        let (code, out, err) = export(&setup, address, &["-o", "jobs.jsonl"]);
        assert_eq!((code, &*out), (1, ""), "{err}");
        assert!(err.contains(part) && !err.contains('\u{1b}'), "{err}\nlacks {part}");
        assert_eq!(names(setup.dir.path()), ["hostler.toml"], "{part}");
    }
}

#[test]
fn a_signal_ends_the_export_without_a_file() {
    let (address, paths) = host_that(|path| listed(path, &["silent"]));
    let setup = Setup::new("");
    let child = setup
        .command(&["jobs", "export", "-o", "jobs.jsonl", "--http", &address.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let asked = || paths.try_recv().ok().filter(|path| path == "/jobs/silent");
    eventually("the request for a job", asked, String::new);
    assert_eq!(names(setup.dir.path()).len(), 2, "the file is being written");
    let sent = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    let output = child.wait_with_output().expect("the command ends");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("SIGTERM") && err.contains("jobs.jsonl was not written"), "{err}");
    assert_eq!(names(setup.dir.path()), ["hostler.toml"]);
}

#[test]
fn a_purge_goes_on_until_the_host_is_done_and_says_how_far_it_came() {
    let (address, paths) = host_that(|path| {
        let purged = |jobs: u64, next: Value| {
            Some((
                200,
                JSON,
                json!({"purged": jobs, "dry_run": false, "next": next}).to_string().into_bytes(),
            ))
        };
        match path {
            "/admin/jobs/purge?all=true" => purged(500, json!("7")),
            "/admin/jobs/purge?all=true&after=7" => purged(0, json!("3")),
            "/admin/jobs/purge?all=true&after=3" => purged(2, Value::Null),
            "/admin/jobs/purge?state=failed" => purged(500, json!("7")),
            "/admin/jobs/purge?state=timeout" => purged(500, json!("8")),
            "/admin/jobs/purge?state=timeout&after=8" => purged(0, json!("8")),
            _ => error(503, "unavailable", "the job store is unavailable: the disk is full"),
        }
    });
    let setup = Setup::new("");
    let purge =
        |args: &[&str]| setup.run(&[&["jobs", "purge", "--admin", &address.to_string()], args].concat());
    assert_eq!(purge(&["--all"]), (0, "502 jobs were deleted\n".to_owned(), String::new()));
    assert_eq!(paths.try_iter().count(), 3);
    for (state, part) in [
        (
            "failed",
            "cannot purge all of the jobs; 500 are done: the job store is unavailable: the disk is full",
        ),
        ("timeout", "500 are done: "),
        ("cancelled", "cannot purge the jobs: the job store is unavailable"),
    ] {
        let (code, out, err) = purge(&["--state", state]);
        assert_eq!((code, &*out), (1, ""), "{err}");
        assert!(err.contains(part), "{err}\nlacks {part}");
    }
}
