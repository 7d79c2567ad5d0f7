//! Jobs that are kept in a folder: what survives the process, and what a damaged or missing store
//! does.

use crate::support::jobs::{cancel, ended, job, outcomes, show, sleep, submit, wait_for};
use crate::support::{Answer, Client, Host, Setup, eventually, plugin};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "[models.hostile]\nplugin = \"hostile\"\n[plugins.hostile]\npath = \"hostile.wasm\"\n\
                        [stores.main]\nkind = \"redb\"\ndir = \"kept\"\n[jobs]\nstore = \"main\"\n";

/// The folder of a manifest and a store. It outlives the hosts that use it.
struct Place {
    setup: Setup,
}

impl Place {
    /// `more` are further keys of `[jobs]`, or tables.
    fn new(more: &str) -> Self {
        let setup = Setup::new(&format!("{MANIFEST}{more}")).file("hostile.wasm", plugin("hostile"));
        Place { setup }
    }

    fn start(&self) -> Host {
        Setup::at(self.setup.dir.path()).start()
    }

    /// Kills a host without a warning, and starts another one.
    fn killed(&self, mut host: Host) -> Host {
        host.signal("KILL");
        host.wait();
        drop(host);
        self.start()
    }
}

fn echo(text: &str) -> Value {
    json!({"model": "hostile", "data": [text]})
}

fn with_key(host: &Host, path: &str, key: &str, body: &Value) -> Answer {
    let mut client = Client::new(host.http);
    client.request("POST", path, &[("idempotency-key", key)], body.to_string().as_bytes())
}

#[test]
fn what_was_accepted_survives_a_kill() {
    let place = Place::new("concurrency = 1\n");
    let host = place.start();
    let done = submit(&host, &echo("done"));
    ended(&host, &done, "succeeded");
    let interrupted = submit(&host, &sleep(500));
    wait_for(&host, &interrupted, "the job to run", |job| job["state"] == "running");
    let waiting = submit(&host, &job(echo("waiting"), &json!({"max_attempts": 3})));
    let cancelled = submit(&host, &echo("cancelled"));
    cancel(&host, &cancelled);
    let before = [&done, &cancelled].map(|id| show(&host, id));
    let second = place.killed(host);
    let after = [&done, &cancelled].map(|id| show(&second, id));
    for (mut before, mut after) in before.into_iter().zip(after) {
        // The time that is left is the same, and the wall clock has gone on.
        for job in [&mut before, &mut after] {
            job["expires_at"].take();
        }
        assert_eq!(before, after);
    }
    let again = ended(&second, &interrupted, "succeeded");
    assert_eq!(outcomes(&again), ["interrupted", "succeeded"], "{again}");
    assert_eq!((&again["interruptions"], &again["max_attempts"]), (&json!(1), &json!(1)), "{again}");
    assert_eq!(ended(&second, &waiting, "succeeded")["result"], json!({"data": ["waiting"]}));
    assert_eq!(second.metric("hostler_job_interruptions_total"), 1.0);
    second.wait_for_log(&["job interrupted", &interrupted]);
}

#[test]
fn a_job_that_was_interrupted_three_times_is_not_run_again() {
    let place = Place::new("");
    let mut host = place.start();
    let id = submit(&host, &sleep(60_000));
    for times in 0..3 {
        wait_for(&host, &id, "the job to run", |job| {
            job["state"] == "running" && job["interruptions"] == times
        });
        host = place.killed(host);
    }
    let job = ended(&host, &id, "failed");
    assert_eq!(outcomes(&job), ["interrupted"; 3], "{job}");
    let message = job["error"]["message"].as_str().expect("a message");
    assert!(message.contains("the host ended 3 times while it ran this job"), "{message}");
    // The input is kept, so that an operator who has mended the cause can run it again.
    let answer = host.post(&format!("/jobs/{id}/retry"), "");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let retry = answer.json()["job_id"].as_str().expect("an id").to_owned();
    assert_eq!(show(&host, &retry)["retry_of"], id);
    cancel(&host, &retry);
}

#[test]
fn a_shutdown_gives_an_unfinished_attempt_back() {
    let place = Place::new("[server]\ndrain_timeout_ms = 100\n");
    let mut host = place.start();
    let running = submit(&host, &sleep(3_000));
    wait_for(&host, &running, "the job to run", |job| job["state"] == "running");
    let later = submit(&host, &job(echo("later"), &json!({"run_after_ms": 1})));
    ended(&host, &later, "succeeded");
    host.signal("TERM");
    assert!(host.wait().success(), "no job is lost:\n{}", host.log());
    let second = place.start();
    let job = ended(&second, &running, "succeeded");
    assert_eq!(outcomes(&job), ["interrupted", "succeeded"]);
    assert_eq!(job["interruptions"], 0, "a shutdown is not the fault of a job: {job}");
}

#[test]
fn a_submission_that_is_repeated_with_its_key_gets_the_same_job() {
    let place = Place::new("");
    let host = place.start();
    let first = with_key(&host, "/predict/async", "k-1", &echo("a"));
    assert_eq!((first.status, first.header("idempotent-replayed")), (202, None), "{}", first.text());
    let id = first.json()["job_id"].as_str().expect("an id").to_owned();
    ended(&host, &id, "succeeded");
    let again = with_key(&host, "/predict/async", "k-1", &echo("a"));
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, Some("true")));
    assert_eq!((&again.json()["job_id"], &again.json()["state"]), (&json!(id), &json!("succeeded")));
    let other = with_key(&host, "/predict/async", "k-1", &echo("b"));
    assert_eq!((other.status, &other.json()["error"]["kind"]), (409, &json!("conflict")), "{}", other.text());
    let host = place.killed(host);
    assert_eq!(with_key(&host, "/predict/async", "k-1", &echo("a")).json()["job_id"], id);
    // The key outlives its job.
    assert_eq!(host.client().request("DELETE", &format!("/jobs/{id}"), &[], b"").status, 204);
    let gone = with_key(&host, "/predict/async", "k-1", &echo("a"));
    assert_eq!((gone.status, &gone.json()["job_id"], &gone.json()["state"]), (202, &json!(id), &Value::Null));
    let batch = json!({"model": "hostile", "items": [{"data": ["a"]}, {"data": ["b"]}]});
    let first = with_key(&host, "/predict/async/batch", "k-2", &batch).json();
    assert_eq!(
        with_key(&host, "/predict/async/batch", "k-2", &batch).json()["jobs"][1]["job_id"],
        first["jobs"][1]["job_id"]
    );
    let long = "x".repeat(256);
    for wrong in ["", &long] {
        let answer = with_key(&host, "/predict/async", wrong, &echo("a"));
        assert_eq!((answer.status, &answer.json()["error"]["field"]), (400, &json!("Idempotency-Key")));
    }
}

#[test]
fn what_was_accepted_once_is_answered_like_that_whatever_has_changed() {
    let place = Place::new("");
    let host = place.start();
    let body = job(echo("a"), &json!({"max_attempts": 3}));
    let first = with_key(&host, "/predict/async", "k-1", &body);
    let id = first.json()["job_id"].as_str().expect("an id").to_owned();
    ended(&host, &id, "succeeded");
    // The model is gone, and so many attempts are not allowed any more.
    let manifest = MANIFEST.replace("[models.hostile]", "[models.other]");
    std::fs::write(host.path("hostler.toml"), format!("{manifest}max_attempts = 2\n")).unwrap();
    host.wait_for_generation(2);
    assert_eq!(host.post("/predict/async", body.to_string()).status, 404);
    let again = with_key(&host, "/predict/async", "k-1", &body);
    assert_eq!((again.status, &again.json()["job_id"]), (202, &json!(id)), "{}", again.text());
    let other = with_key(&host, "/predict/async", "k-1", &echo("b"));
    assert_eq!(other.status, 409, "{}", other.text());
}

#[test]
fn a_retry_that_is_repeated_with_its_key_makes_one_job() {
    let place = Place::new("");
    let host = place.start();
    let failing = json!({"model": "hostile", "data": ["a"], "parameters": {"do": "error", "kind": "failed", "at": "predict"}});
    let failed = submit(&host, &failing);
    ended(&host, &failed, "failed");
    let path = format!("/jobs/{failed}/retry");
    let retry = |key: &str| Client::new(host.http).request("POST", &path, &[("idempotency-key", key)], b"");
    let first = retry("k-1");
    let again = retry("k-1");
    assert_eq!((first.status, again.status, again.header("idempotent-replayed")), (202, 202, Some("true")));
    assert_eq!(first.json()["job_id"], again.json()["job_id"]);
    assert_ne!(retry("k-2").json()["job_id"], first.json()["job_id"]);
}

#[test]
fn the_result_alone_can_be_fetched() {
    let place = Place::new("");
    let host = place.start();
    let id = submit(&host, &echo("a"));
    let answer = host.get(&format!("/jobs/{id}/result?wait_ms=10000"));
    assert_eq!((answer.status, answer.text()), (200, "{\"data\":[\"a\"]}".to_owned()));
    let slow = submit(&host, &sleep(60_000));
    let answer = host.get(&format!("/jobs/{slow}/result"));
    assert_eq!((answer.status, answer.header("retry-after")), (202, Some("1")), "{}", answer.text());
    cancel(&host, &slow);
    let answer = host.get(&format!("/jobs/{slow}/result"));
    assert_eq!((answer.status, &answer.json()["state"]), (409, &json!("cancelled")));
    let failing = json!({"model": "hostile", "data": ["a"], "parameters": {"do": "error", "kind": "overloaded-not", "at": "predict"}});
    let failed = submit(&host, &failing);
    let direct = host.post("/predict", failing.to_string());
    let answer = host.get(&format!("/jobs/{failed}/result?wait_ms=10000"));
    assert_eq!(
        (answer.status, &answer.json()["error"]["kind"]),
        (direct.status, &direct.json()["error"]["kind"])
    );
    assert_eq!(host.get("/jobs/none/result").status, 404);
}

/// Damages the files of a store while no host runs.
fn damaged(name: &str, damage: impl FnOnce(&Path)) {
    let place = Place::new("");
    let mut host = place.start();
    let id = submit(&host, &echo("a"));
    ended(&host, &id, "succeeded");
    host.signal("TERM");
    host.wait();
    let kept = place.setup.path("kept");
    damage(&kept.join("jobs.redb"));
    let second = place.start();
    let refused = second.post("/predict/async", echo("b").to_string());
    let error = refused.json()["error"].clone();
    assert_eq!((refused.status, &error["kind"]), (503, &json!("unavailable")), "{name}: {error}");
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("/admin/jobs/reset") && message.contains("jobs.redb"), "{name}: {message}");
    assert_eq!(second.get(&format!("/jobs/{id}")).status, 503, "{name}: never as if it were empty");
    assert_eq!(second.predict("hostile", json!(["a"])).status, 200, "{name}: the rest of the host lives");
    let reset = second.admin_post("/admin/jobs/reset");
    assert_eq!(reset.status, 200, "{name}: {}", reset.text());
    let aside: PathBuf = kept.join(reset.json()["set_aside"].as_str().expect("a folder"));
    assert_eq!(aside.join("jobs.redb").exists(), name != "missing", "{name}: nothing is thrown away");
    assert_eq!(second.get(&format!("/jobs/{id}")).status, 404, "{name}");
    ended(&second, &submit(&second, &echo("c")), "succeeded");
    assert_eq!(second.admin_post("/admin/jobs/reset").status, 409, "{name}: it is not damaged any more");
}

#[test]
fn a_damaged_store_is_said_and_kept_until_it_is_reset() {
    damaged("empty", |path| std::fs::write(path, b"").unwrap());
    damaged("missing", |path| std::fs::remove_file(path).unwrap());
    damaged("truncated", |path| {
        let data = std::fs::read(path).unwrap();
        std::fs::write(path, &data[..data.len() / 2]).unwrap();
    });
    damaged("foreign", |path| std::fs::write(path, b"SQLite format 3\0".repeat(1000)).unwrap());
    damaged("flipped", |path| {
        let mut data = std::fs::read(path).unwrap();
        for byte in data.iter_mut().skip(4096).step_by(997) {
            *byte ^= 0x55;
        }
        std::fs::write(path, data).unwrap();
    });
}

#[test]
fn a_store_that_another_host_has_is_taken_when_it_is_free() {
    let place = Place::new("");
    let mut first = place.start();
    let id = submit(&first, &sleep(60_000));
    wait_for(&first, &id, "the job to run", |job| job["state"] == "running");
    let second = place.start();
    let refused = second.post("/predict/async", echo("b").to_string());
    let message = refused.json()["error"]["message"].as_str().expect("a message").to_owned();
    let pid = format!("process id {}", first.pid());
    assert!(refused.status == 503 && message.contains(&pid), "{message}");
    first.signal("KILL");
    first.wait();
    let known = || (second.get(&format!("/jobs/{id}")).status == 200).then_some(());
    eventually("the store to be free", known, || second.log());
    wait_for(&second, &id, "the job to run again", |job| {
        job["state"] == "running" && job["interruptions"] == 1
    });
    cancel(&second, &id);
}

#[test]
fn a_folder_that_cannot_be_written_is_said_and_the_host_serves_the_rest() {
    let place = Place::new("");
    // A file where the folder should be.
    std::fs::write(place.setup.path("kept"), "not a folder").unwrap();
    let host = place.start();
    let refused = host.post("/predict/async", echo("a").to_string());
    let message = refused.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert!(refused.status == 503 && message.contains("kept"), "{message}");
    assert_eq!(host.predict("hostile", json!(["a"])).status, 200);
    std::fs::remove_file(host.path("kept")).unwrap();
    let accepted = || (host.post("/predict/async", echo("a").to_string()).status == 202).then_some(());
    eventually("the folder to be usable", accepted, || host.log());
}
