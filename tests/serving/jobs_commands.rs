//! `hostler jobs` against a running host: list, show, cancel, retry, purge, reset, and what each of
//! them says when it cannot.

use crate::support::jobs::{cancel, ended, kept, show, submit, wait_for};
use crate::support::slow::{deed, setup};
use crate::support::{Client, Host, Setup, eventually, is_deceptive, model, plugin};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

pub const HOSTILE: &str =
    "[plugins.hostile]\npath = \"hostile.wasm\"\n[models.hostile]\nplugin = \"hostile\"\n";

const DURABLE: &str = "[stores.main]\nkind = \"redb\"\ndir = \"kept\"\n[jobs]\nstore = \"main\"\n";

/// Runs `hostler jobs` for this host. Returns exit code, stdout and stderr.
fn jobs(host: &Host, args: &[&str]) -> (i32, String, String) {
    let address = match args[0] {
        "purge" | "reset" => ["--admin".to_owned(), host.admin.to_string()],
        _ => ["--http".to_owned(), host.http.to_string()],
    };
    let args: Vec<&str> =
        ["jobs"].iter().chain(args).copied().chain(address.iter().map(String::as_str)).collect();
    let (code, out, err) = host.setup.run(&args);
    assert!(!out.chars().chain(err.chars()).any(|one| is_deceptive(one) && one != '\n'), "{out:?}{err:?}");
    (code, out, err)
}

fn succeeds(host: &Host, args: &[&str]) -> String {
    let (code, out, err) = jobs(host, args);
    assert_eq!((code, &*err), (0, ""), "{args:?}: {out}");
    out
}

/// Checks for exit code 1 and all of `parts` on stderr. Returns stdout.
fn fails(host: &Host, args: &[&str], parts: &[&str]) -> String {
    let (code, out, err) = jobs(host, args);
    assert_eq!(code, 1, "{args:?}: {out}{err}");
    for part in parts {
        assert!(err.contains(part), "{args:?}: {err}\nlacks {part}");
    }
    out
}

fn failing() -> Value {
    let parameters = json!({"do": "error", "kind": "failed", "at": "predict"});
    json!({"model": "hostile", "data": ["a"], "parameters": parameters})
}

#[test]
fn a_list_has_a_line_for_each_job_that_fits() {
    let host = setup(HOSTILE).start();
    assert_eq!(succeeds(&host, &["list"]), "no jobs\n");
    let good = submit(&host, &deed("hostile", "ok"));
    ended(&host, &good, "succeeded");
    let bad = submit(&host, &failing());
    ended(&host, &bad, "failed");
    let running = submit(&host, &deed("hostile", "sleep"));
    wait_for(&host, &running, "the job to run", |job| job["state"] == "running");
    let all = succeeds(&host, &["list"]);
    let rows: Vec<Vec<&str>> = all.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "STATE", "MODEL", "CREATED", "AGE", "TOOK", "ATTEMPTS"], "{all}");
    let shown: Vec<_> = rows[1..].iter().map(|row| (row[0], row[1], row[2], row[row.len() - 1])).collect();
    assert_eq!(
        shown,
        [
            (&*running, "running", "hostile:1", "1"),
            (&*bad, "failed", "hostile:1", "1"),
            (&*good, "succeeded", "hostile:1", "1")
        ],
        "newest first: {all}"
    );
    let ids = |args: &[&str]| -> Vec<String> {
        let lines = succeeds(&host, &[&["list", "--json"], args].concat());
        let entries =
            lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON on each line"));
        entries.map(|entry| entry["job_id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&["--state", "failed,succeeded"]), [&*bad, &*good]);
    assert_eq!(ids(&["--model", "hostile", "--version", "1", "--state", "running"]), [&*running]);
    assert!(ids(&["--model", "hostile", "--version", "2"]).is_empty());
    let created = show(&host, &bad)["created_at"].to_string();
    assert_eq!(ids(&["--created-after", &created]), [&*running, &*bad]);
    assert_eq!(ids(&["--created-before", &created]), [&*good]);
    let (code, out, err) = jobs(&host, &["list", "--limit", "2"]);
    assert_eq!((code, out.lines().count()), (0, 3), "{out}");
    assert!(err.contains("there may be more than 2 jobs"), "{err}");
    fails(&host, &["list", "--state", "faild"], &["no state \"faild\"", "did you mean \"failed\"?"]);
    fails(&host, &["list", "--created-after", "now"], &["created_after is \"now\"", "2026-11-30T16:25:42Z"]);
    cancel(&host, &running);
}

/// Walks many pages while jobs are added and deleted.
#[test]
fn a_list_of_all_jobs_has_each_one_once_while_others_come() {
    let manifest = "[jobs]\ncapacity = 100000\nresult_ttl_s = 3600\n[models.plus]\npath = \"plus.onnx\"\n";
    let host = Setup::new(manifest).file("plus.onnx", model("plus1")).start();
    let batch = |client: &mut Client, count: usize| -> Vec<String> {
        let body = json!({"model": "plus", "items": vec![json!({"data": [1]}); count]}).to_string();
        let answer = client.post("/predict/async/batch", body).json();
        let ids = answer["jobs"].as_array().expect("jobs").iter();
        ids.map(|job| job["job_id"].as_str().expect("an id").to_owned()).collect()
    };
    let mut client = host.client();
    let earlier: BTreeSet<String> = (0..4).flat_map(|_| batch(&mut client, 900)).collect();
    let is_listed = AtomicBool::new(false);
    let (listed, later) = std::thread::scope(|scope| {
        let submitter = scope.spawn(|| {
            let (mut client, mut later) = (host.client(), Vec::new());
            while !is_listed.load(Ordering::SeqCst) {
                later.extend(batch(&mut client, 50));
            }
            later
        });
        let listed = succeeds(&host, &["list", "--all", "--json"]);
        is_listed.store(true, Ordering::SeqCst);
        (listed, submitter.join().expect("the submitter ends"))
    });
    let mut times = BTreeMap::<String, usize>::new();
    for line in listed.lines() {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        *times.entry(entry["job_id"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "no job is there twice");
    assert!(earlier.iter().all(|id| times.contains_key(id)), "{} of {}", times.len(), earlier.len());
    let known: BTreeSet<String> = earlier.into_iter().chain(later).collect();
    assert!(times.keys().all(|id| known.contains(id)));
}

#[test]
fn a_job_is_shown_with_its_attempts_and_its_end() {
    let host = setup(HOSTILE).start();
    let good = submit(&host, &deed("hostile", "ok"));
    let text = succeeds(&host, &["show", &good, "--wait", "30"]);
    for part in [
        &*format!("job       {good}\n"),
        "state     succeeded\n",
        "model     hostile:1\n",
        "attempts  1 of 1\n",
    ] {
        assert!(text.contains(part), "{text}\nlacks {part}");
    }
    assert!(text.contains("\nresult    {"), "{text}");
    let json = succeeds(&host, &["show", &good, "--json"]);
    let mut shown: Value = serde_json::from_str(&json).expect("JSON");
    let mut direct = show(&host, &good);
    // The time that is left is a little less by now.
    assert!(shown["expires_at"].take().is_number() && direct["expires_at"].take().is_number());
    assert_eq!(shown, direct);
    let bad = submit(&host, &failing());
    ended(&host, &bad, "failed");
    let text = succeeds(&host, &["show", &bad]);
    assert!(text.contains("state     failed\n") && text.contains("\nerror     failed: "), "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("          1  20") && line.contains("  failed after ")),
        "{text}"
    );
    let running = submit(&host, &deed("hostile", "sleep"));
    wait_for(&host, &running, "the job to run", |job| job["state"] == "running");
    let text = fails(&host, &["show", &running, "--wait", "0"], &["has not ended within 0 s: it is running"]);
    assert!(text.contains("state     running\n"), "{text}");
    cancel(&host, &running);
    for id in ["0123456789abcdef0123456789abcdef", "a/../b", "ü?x=1"] {
        assert_eq!(fails(&host, &["show", id], &["no job \""]), "");
    }
}

#[test]
fn jobs_are_cancelled_and_retried_one_by_one() {
    let host = Setup::new(&format!("{DURABLE}{HOSTILE}")).file("hostile.wasm", plugin("hostile")).start();
    let good = submit(&host, &deed("hostile", "ok"));
    ended(&host, &good, "succeeded");
    let first = submit(&host, &deed("hostile", "sleep"));
    let second = submit(&host, &deed("hostile", "sleep"));
    let args = ["cancel", &first, &good, "unknown", &second];
    let out = fails(
        &host,
        &args,
        &[
            &format!("cannot cancel job \"{good}\": the job is succeeded: it has ended already"),
            "cannot cancel job \"unknown\": no job \"unknown\"",
        ],
    );
    assert_eq!(
        out,
        format!("{first}: cancelled\n{second}: cancelled\n"),
        "the others are cancelled all the same"
    );
    for id in [&first, &second] {
        assert_eq!(show(&host, id)["state"], "cancelled");
    }
    let out = fails(&host, &["retry", &good, &first], &["the job is succeeded: it has succeeded"]);
    let again =
        out.trim().strip_prefix(&format!("{first}: submitted again as ")).expect("the new job").to_owned();
    assert_eq!(show(&host, &again)["retry_of"], *first);
    fails(&host, &["retry", &again], &["it has not ended; cancel it first"]);
    assert_eq!(succeeds(&host, &["cancel", &again]), format!("{again}: cancelled\n"));
}

#[test]
fn a_purge_deletes_what_it_names_and_nothing_else() {
    let durable = Setup::new(&format!("{DURABLE}{HOSTILE}")).file("hostile.wasm", plugin("hostile"));
    for host in [setup(HOSTILE).start(), durable.start()] {
        let (good, bad) = (submit(&host, &deed("hostile", "ok")), submit(&host, &failing()));
        ended(&host, &good, "succeeded");
        ended(&host, &bad, "failed");
        let running = submit(&host, &deed("hostile", "sleep"));
        wait_for(&host, &running, "the job to run", |job| job["state"] == "running");
        let purge = |args: &[&str]| succeeds(&host, &[&["purge"], args].concat());
        fails(&host, &["purge"], &["no filter given", "--all"]);
        fails(&host, &["purge", "--state", "running"], &["cannot purge jobs that are running"]);
        assert_eq!(purge(&["--older-than", "1h"]), "0 jobs were deleted\n");
        assert_eq!(purge(&["--model", "other"]), "0 jobs were deleted\n");
        assert_eq!(purge(&["--all", "--dry-run"]), "2 jobs would be deleted\n");
        assert_eq!(purge(&["--state", "failed,cancelled"]), "1 job was deleted\n");
        assert_eq!(host.get(&format!("/jobs/{bad}")).status, 404);
        assert_eq!(show(&host, &good)["state"], "succeeded");
        assert_eq!((kept(&host, "failed"), kept(&host, "succeeded")), (0.0, 1.0));
        host.wait_for_log(&["jobs purged", "jobs=1", "hostler/"]);
        assert_eq!(
            purge(&["--older-than", "0s", "--model", "hostile", "--version", "1"]),
            "1 job was deleted\n"
        );
        assert_eq!(purge(&["--all"]), "0 jobs were deleted\n");
        assert_eq!(show(&host, &running)["state"], "running", "it has not ended");
        cancel(&host, &running);
    }
}

#[test]
fn a_purge_of_thousands_of_jobs_leaves_no_record_and_no_file() {
    let manifest = format!("{DURABLE}capacity = 100000\n[models.plus]\npath = \"plus.onnx\"\n");
    let host = Setup::new(&manifest).file("plus.onnx", model("plus1")).start();
    let body = json!({"model": "plus", "items": vec![json!({"data": [1]}); 1000]}).to_string();
    for _ in 0..3 {
        assert_eq!(host.post("/predict/async/batch", &body).status, 202);
    }
    // Over 64 KB, so that the result has a file of its own.
    let large = submit(&host, &json!({"model": "plus", "data": vec![0.12345; 20_000]}));
    ended(&host, &large, "succeeded");
    let done = || (kept(&host, "succeeded") == 3001.0).then_some(());
    eventually("all jobs to end", done, || host.log());
    let files = || -> Vec<String> {
        let entries = std::fs::read_dir(host.path("kept")).expect("the folder of the store");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        names.filter(|name| name.ends_with(".result")).collect()
    };
    assert_eq!(files().len(), 1);
    assert_eq!(succeeds(&host, &["purge", "--all", "--dry-run"]), "3001 jobs would be deleted\n");
    assert_eq!(succeeds(&host, &["purge", "--state", "succeeded"]), "3001 jobs were deleted\n");
    assert_eq!(kept(&host, "succeeded"), 0.0);
    assert_eq!(host.metric("hostler_job_store_bytes"), 0.0);
    eventually("the file to be removed", || files().is_empty().then_some(()), || format!("{:?}", files()));
}

#[test]
fn a_reset_begins_anew_with_a_damaged_store_only() {
    let setup = Setup::new(&format!("{DURABLE}{HOSTILE}")).file("hostile.wasm", plugin("hostile"));
    let mut host = setup.start();
    let id = submit(&host, &deed("hostile", "ok"));
    ended(&host, &id, "succeeded");
    fails(&host, &["reset"], &["nothing was done", "--yes", &host.admin.to_string()]);
    fails(
        &host,
        &["reset", "--yes"],
        &["nothing was reset", "which is not damaged", "POST /admin/jobs/purge"],
    );
    assert_eq!(show(&host, &id)["state"], "succeeded");
    host.signal("TERM");
    host.wait();
    std::fs::write(host.path("kept/jobs.redb"), b"no database").expect("the database is damaged");
    let host = Setup::at(host.setup.dir.path()).start();
    fails(&host, &["list"], &["the job store is damaged", "hostler jobs reset"]);
    fails(&host, &["purge", "--all"], &["the job store is damaged"]);
    fails(&host, &["reset"], &["nothing was done"]);
    let out = succeeds(&host, &["reset", "--yes"]);
    let folder = out.split_whitespace().find(|word| word.starts_with("damaged-")).expect("the folder");
    let aside = host.path("kept").join(folder).join("jobs.redb");
    assert_eq!(std::fs::read(aside).expect("the damaged file"), b"no database");
    assert_eq!(succeeds(&host, &["list"]), "no jobs\n");
    let memory = crate::support::slow::setup(HOSTILE).start();
    fails(&memory, &["reset", "--yes"], &["nothing was reset: jobs are kept in memory"]);
}

#[test]
fn the_address_comes_from_the_option_or_the_manifest() {
    let host = setup(HOSTILE).start();
    let nobody =
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let run = |setup: &Setup, args: &[&str], parts: &[&str]| {
        let (code, out, err) = setup.run(args);
        assert_eq!((code, &*out), (1, ""), "{args:?}: {err}");
        for part in parts {
            assert!(err.contains(part), "{args:?}: {err}\nlacks {part}");
        }
    };
    let server = format!("[server]\nhttp = \"{}\"\nadmin = \"{}\"\n", host.http, host.admin);
    let named = Setup::new(&server)
        .text("other.toml", &format!("[server]\nhttp = \"{nobody}\"\nadmin = \"{nobody}\"\n"));
    assert_eq!(named.run(&["jobs", "list"]), (0, "no jobs\n".to_owned(), String::new()));
    assert_eq!(named.run(&["jobs", "purge", "--all"]).0, 0);
    let no_host = format!("no Hostler answers on {nobody}");
    run(&named, &["jobs", "list", "--manifest", "other.toml"], &[&no_host, "its public address with --http"]);
    run(
        &named,
        &["jobs", "purge", "--all", "--manifest", "other.toml"],
        &[&no_host, "its admin address with --admin"],
    );
    for command in ["show", "cancel", "retry"] {
        run(&named, &["jobs", command, "x", "--http", &nobody], &[&no_host]);
    }
    run(&named, &["jobs", "export", "--http", &nobody], &[&no_host]);
    run(&named, &["jobs", "reset", "--yes", "--admin", &nobody], &[&no_host]);
    run(&named, &["jobs", "list", "--manifest", "none.toml"], &["cannot read none.toml", "No such file"]);
    let odd = Setup::new("[server]\nhttp = \"127.0.0.1:0\"\n").text("bad.toml", "[server]\nhtpp = 1\n");
    run(&odd, &["jobs", "list"], &["lets the system choose the port of the public listener", "--http"]);
    run(&odd, &["jobs", "list", "--manifest", "bad.toml"], &["bad.toml:2:1", "did you mean \"http\"?"]);
    // The listeners are mistaken for each other.
    let admin = host.admin.to_string();
    run(
        &named,
        &["jobs", "list", "--http", &admin],
        &[&format!("{admin} is not the public address of a Hostler"), "no route GET /jobs"],
    );
    let http = host.http.to_string();
    run(
        &named,
        &["jobs", "purge", "--all", "--admin", &http],
        &[&format!("{http} is not the admin address of a Hostler")],
    );
}
