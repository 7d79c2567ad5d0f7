//! Webhooks: the end of a job is reported to a receiver, signed, and at least once.

use crate::support::jobs::{cancel, ended, job, sleep, submit, wait_for};
use crate::support::receiver::{Reaction, Received, Receiver, secret};
use crate::support::{Host, Setup, eventually, plugin, replace, root};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// Returns the folder of a host that may call these receivers. Secrets are those of the bytes 1 and
/// 2. `more` are further keys of `[jobs.webhooks]`, or tables.
pub fn allowing(receivers: &[String], more: &str) -> Setup {
    let manifest = format!(
        "[models.hostile]\nplugin = \"hostile\"\n[plugins.hostile]\npath = \"hostile.wasm\"\n\
         [jobs.webhooks]\nallow_hosts = {receivers:?}\n\
         secrets = [{{ file = \"first.secret\" }}, {{ env = \"SECOND_SECRET\" }}]\n{more}"
    );
    let setup = Setup::new(&manifest).file("hostile.wasm", plugin("hostile"));
    setup.text("first.secret", &format!("{}\n", secret(1))).env("SECOND_SECRET", &secret(2))
}

const STORE: &str = "[stores.main]\nkind = \"redb\"\ndir = \"kept\"\n[jobs]\nstore = \"main\"\n";

/// Returns a host that may call this receiver.
pub fn calling(receiver: &Receiver, more: &str) -> Host {
    allowing(&[receiver.url("")], more).start()
}

pub fn echo(url: &str) -> Value {
    json!({"model": "hostile", "data": ["a"], "webhook": url})
}

/// Waits until the delivery of a job has this state, and returns what the job shows about it.
pub fn delivery(host: &Host, id: &str, state: &str) -> Value {
    wait_for(host, id, &format!("the webhook to be {state}"), |job| job["webhook"]["state"] == state)["webhook"]
        .clone()
}

/// Waits until an attempt to deliver has failed, and returns its error.
pub fn last_error(host: &Host, id: &str) -> String {
    let job = wait_for(host, id, "an attempt", |job| job["webhook"]["last_error"].is_string());
    job["webhook"]["last_error"].as_str().expect("an error").to_owned()
}

/// Waits until so many deliveries have this outcome. They are counted once they are recorded.
fn counted(host: &Host, outcome: &str, count: f64) {
    let metric = format!("hostler_webhook_deliveries_total{{outcome=\"{outcome}\"}}");
    eventually(&metric, || (host.metric(&metric) == count).then_some(()), || host.log());
}

fn of(received: &[Received], job: &str) -> Received {
    received.iter().find(|one| one.job() == job).expect("the job is reported").clone()
}

#[test]
fn each_end_of_a_job_is_reported_and_signed_with_both_secrets() {
    let receiver = Receiver::start();
    let host = calling(&receiver, "");
    let url = receiver.url("/hook?token=a%20b");
    let hook = json!({"webhook": url});
    let succeeded = submit(&host, &job(echo(&url), &json!({"version": "1"})));
    let error = json!({"do": "error", "kind": "failed", "at": "predict"});
    let failed = submit(&host, &job(json!({"model": "hostile", "data": ["a"], "parameters": error}), &hook));
    let cancelled = submit(&host, &job(sleep(60_000), &hook));
    let timeout = submit(&host, &job(job(sleep(60_000), &hook), &json!({"max_runtime_ms": 20})));
    wait_for(&host, &cancelled, "the job to run", |job| job["state"] == "running");
    cancel(&host, &cancelled);
    let received = receiver.wait_for(4);
    for (id, state) in
        [(&succeeded, "succeeded"), (&failed, "failed"), (&cancelled, "cancelled"), (&timeout, "timeout")]
    {
        let report = of(&received, id);
        let body = report.json();
        let data = json!({
            "job_id": id, "state": state, "model": "hostile", "version": "1", "url": format!("/jobs/{id}"),
        });
        let timestamp = body["timestamp"].as_str().expect("a time").to_owned();
        assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{timestamp}");
        // No input, no result, nothing else.
        assert_eq!(body, json!({"type": format!("job.{state}"), "timestamp": timestamp, "data": data}));
        assert_eq!(report.path, "/hook?token=a%20b");
        assert_eq!(report.header("content-type"), "application/json");
        assert_eq!(report.header("webhook-id"), format!("msg_{id}"));
        let sent: u64 = report.header("webhook-timestamp").parse().expect("seconds");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(sent) < 60, "{sent}, now {now}");
        report.verify(&secret(1), 2);
        report.verify(&secret(2), 2);
        let shown = delivery(&host, id, "delivered");
        assert_eq!(shown, json!({"url": url, "state": "delivered", "attempts": 1, "last_error": null}));
    }
    assert_eq!(receiver.received().len(), 4);
    counted(&host, "delivered", 4.0);
    assert_eq!(host.metric("hostler_webhook_attempts_total{outcome=\"delivered\"}"), 4.0);
    assert_eq!(host.metric("hostler_webhook_duration_seconds_count"), 4.0);
    assert_eq!(host.metric("hostler_webhooks_pending"), 0.0);
    let without = submit(&host, &json!({"model": "hostile", "data": ["a"]}));
    assert_eq!(ended(&host, &without, "succeeded")["webhook"], Value::Null);
}

#[test]
fn each_job_of_a_batch_and_each_retry_is_reported() {
    let receiver = Receiver::start();
    let host = calling(&receiver, STORE);
    let error = json!({"do": "error", "kind": "failed", "at": "predict"});
    let batch = json!({
        "model": "hostile", "webhook": receiver.url("/"), "items": [{"data": ["a"]}, {"data": ["b"], "parameters": error}],
    });
    let answer = host.post("/predict/async/batch", batch.to_string());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = |place: usize| answer.json()["jobs"][place]["job_id"].as_str().expect("an id").to_owned();
    let received = receiver.wait_for(2);
    assert_eq!(of(&received, &id(0)).json()["type"], "job.succeeded");
    assert_eq!(of(&received, &id(1)).json()["type"], "job.failed");
    let retry = host.post(&format!("/jobs/{}/retry", id(1)), "");
    let retry = retry.json()["job_id"].as_str().expect("an id").to_owned();
    assert_eq!(delivery(&host, &retry, "delivered")["url"], receiver.url("/"));
    assert_eq!(of(&receiver.received(), &retry).header("webhook-id"), format!("msg_{retry}"));
}

#[test]
fn a_receiver_that_was_down_is_called_when_it_is_back_and_others_do_not_wait() {
    let (mut down, up) = (Receiver::down(), Receiver::start());
    let host = allowing(&[down.url(""), up.url("")], "").start();
    let ids: Vec<String> = (0..20).map(|_| submit(&host, &echo(&down.url("/")))).collect();
    for id in &ids {
        ended(&host, id, "succeeded");
    }
    assert!(last_error(&host, &ids[0]).contains("connection refused"), "{}", last_error(&host, &ids[0]));
    let other = submit(&host, &echo(&up.url("/")));
    delivery(&host, &other, "delivered");
    assert_eq!(host.metric("hostler_webhooks_pending"), 20.0);
    // The report outlives its job.
    assert_eq!(host.client().request("DELETE", &format!("/jobs/{}", ids[0]), &[], b"").status, 204);
    down.listen(|_| Reaction::Status(200));
    let reported: BTreeSet<String> = down.wait_for(20).iter().map(Received::job).collect();
    assert_eq!(reported, ids.iter().cloned().collect());
    let shown = delivery(&host, &ids[19], "delivered");
    assert!(shown["attempts"].as_u64() >= Some(1), "{shown}");
}

#[test]
fn an_answer_decides_what_follows() {
    let failing = Receiver::answering(|number| match number {
        0 => Reaction::Status(500),
        1 => Reaction::With(429, "retry-after: 0\r\n"),
        _ => Reaction::Status(202),
    });
    let gone = Receiver::answering(|_| Reaction::Status(410));
    let host = allowing(&[failing.url(""), gone.url("")], "max_age_s = 600\n").start();
    let [first, second] = [&failing, &gone].map(|receiver| submit(&host, &echo(&receiver.url("/"))));
    let shown = delivery(&host, &first, "delivered");
    assert_eq!((&shown["attempts"], failing.received().len()), (&json!(3), 3));
    assert!(shown["last_error"].as_str().expect("an error").ends_with("answered 429"), "{shown}");
    let ids: BTreeSet<String> =
        failing.received().iter().map(|one| one.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 1, "a receiver recognizes a repeated delivery");
    failing.received().iter().for_each(|one| one.verify(&secret(1), 2));

    let shown = delivery(&host, &second, "failed");
    assert_eq!((&shown["attempts"], gone.received().len()), (&json!(1), 1));
    assert!(shown["last_error"].as_str().expect("an error").contains("wants no further attempt"), "{shown}");
    host.wait_for_log(&["webhook not delivered", &second, &gone.url("")]);
    counted(&host, "failed", 1.0);
    assert_eq!(host.metric("hostler_webhook_attempts_total{outcome=\"gone\"}"), 1.0);
    assert_eq!(host.metric("hostler_webhook_attempts_total{outcome=\"refused\"}"), 2.0);
}

#[test]
fn a_receiver_that_asks_for_more_time_than_there_is_gets_a_last_call() {
    let later = Receiver::answering(|_| Reaction::With(503, "retry-after: 1000\r\n"));
    let host = allowing(&[later.url("")], "max_age_s = 5\n").start();
    let id = submit(&host, &echo(&later.url("/")));
    let shown = delivery(&host, &id, "failed");
    let error = shown["last_error"].as_str().expect("an error");
    assert!(error.contains("answered 503; given up, because max_age_s is 5"), "{error}");
    // The second one just before the webhook expires.
    assert_eq!((&shown["attempts"], later.received().len()), (&json!(2), 2));
    counted(&host, "failed", 1.0);
}

#[test]
fn a_webhook_is_called_again_after_a_kill() {
    let stalling = Receiver::answering(|number| match number {
        0 => Reaction::Stall,
        _ => Reaction::Status(204),
    });
    let mut down = Receiver::down();
    let setup = allowing(&[stalling.url(""), down.url("")], STORE);
    let folder = setup.dir.path().to_owned();
    let mut host = setup.start();
    let cut_short = submit(&host, &echo(&stalling.url("/")));
    let waiting = submit(&host, &echo(&down.url("/")));
    ended(&host, &waiting, "succeeded");
    last_error(&host, &waiting);
    stalling.wait_for(1);
    assert_eq!(host.client().request("DELETE", &format!("/jobs/{waiting}"), &[], b"").status, 204);
    host.signal("KILL");
    host.wait();
    down.listen(|_| Reaction::Status(204));
    let host = Setup::at(&folder).env("SECOND_SECRET", &secret(2)).start();
    let received = stalling.wait_for(2);
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    assert_eq!(received[0].body, received[1].body);
    assert_eq!(delivery(&host, &cut_short, "delivered")["attempts"], 1, "the one before left no trace");
    assert_eq!(down.wait_for(1)[0].job(), waiting);
    let none_waits = || (host.metric("hostler_webhooks_pending") == 0.0).then_some(());
    eventually("all deliveries to be recorded", none_waits, || host.log());
}

#[test]
fn a_shutdown_calls_what_it_can_and_says_what_is_lost() {
    let receiver = Receiver::start();
    let down = Receiver::down();
    let mut host = allowing(&[receiver.url(""), down.url("")], "").start();
    let lost = submit(&host, &echo(&down.url("/")));
    last_error(&host, &lost);
    let running =
        submit(&host, &job(sleep(60_000), &json!({"webhook": receiver.url("/"), "max_runtime_ms": 300})));
    wait_for(&host, &running, "the job to run", |job| job["state"] == "running");
    host.signal("TERM");
    assert!(host.wait().success(), "{}", host.log());
    assert_eq!(of(&receiver.received(), &running).json()["type"], "job.timeout");
    host.wait_for_log(&["webhooks were lost"]);
}

#[test]
fn secrets_are_exchanged_by_a_reload_and_shown_nowhere() {
    let receiver = Receiver::start();
    let host = allowing(&[receiver.url("")], "").env("HOSTLER_LOG", "debug").start();
    let before = host.policy();
    replace(&host.path("first.secret"), secret(3).as_bytes());
    let after = host.wait_for_generation(2);
    let changes = after["last_reload"]["changes"].to_string();
    assert!(changes.contains("jobs: webhooks.secrets changed"), "{changes}");
    let id = submit(&host, &echo(&receiver.url("/")));
    delivery(&host, &id, "delivered");
    receiver.received()[0].verify(&secret(3), 2);
    receiver.received()[0].verify(&secret(2), 2);
    let admin = host.admin.to_string();
    let (code, out, log) = host.setup.run(&["diff", "hostler.toml", "--admin", &admin]);
    assert!(code == 0 && out.contains("no change"), "{out}{log}");
    replace(&host.path("first.secret"), secret(4).as_bytes());
    let rejected = |policy: &Value| policy["generation"].as_u64() > Some(2);
    host.wait_for_policy("the next secret", rejected);
    let mut shown = vec![before.to_string(), after.to_string(), out, log, host.policy().to_string()];
    // A secret in the manifest itself is refused without being repeated.
    let manifest = std::fs::read_to_string(host.path("hostler.toml")).unwrap();
    for (wrong, part) in [
        (format!("\"{}\"", secret(1)), "wrong type: string, expected a table"),
        (format!("{{ file = \"{}\" }}", secret(1)), "file is a secret and not the path of a file"),
        (format!("{{ env = \"{}\" }}", secret(1)), "env is not the name of an environment variable"),
    ] {
        let faulty = manifest.replace("{ file = \"first.secret\" }", &wrong);
        replace(&host.path("faulty.toml"), faulty.as_bytes());
        let (code, out, log) = host.setup.run(&["check", "--quick", "faulty.toml"]);
        assert!(code == 1 && log.contains(part) && log.contains("<hidden>"), "{out}{log}");
        shown.extend([out, log]);
    }
    shown.extend([host.log(), host.stdout().join("\n"), host.admin_get("/metrics").text()]);
    let shown = shown.join("\n");
    for byte in 1..=4 {
        let key = secret(byte)["whsec_".len()..][..12].to_owned();
        assert!(!shown.contains(&key), "the secret {byte} is in\n{shown}");
    }
}

/// Returns the code of the receiver in the guide.
fn receiver_of_the_guide() -> String {
    let guide = std::fs::read_to_string(root().join("docs/guide/jobs.md")).unwrap();
    let blocks = guide.split("```python\n").skip(1);
    let mut code = blocks.map(|rest| rest.split("```").next().unwrap_or_default());
    code.find(|code| code.contains("webhook-signature")).expect("a receiver").to_owned()
}

#[test]
fn the_receiver_of_the_guide_accepts_deliveries_and_refuses_forgeries() {
    let code = receiver_of_the_guide();
    assert!(code.contains("9000"), "{code}");
    // Any free port, which is printed before the first request.
    let code =
        code.replace("9000", "0").replace("\nhttp.server.HTTPServer", "\nserver = http.server.HTTPServer");
    let code =
        code.replace(".serve_forever()", "\nprint(server.server_port, flush=True)\nserver.serve_forever()");
    let mut python = Command::new("python3");
    python.args(["-c", &code]).env("WEBHOOK_SECRET", secret(2)).stdout(Stdio::piped());
    let mut python = Killed(python.spawn().expect("python3 starts"));
    let mut lines = std::io::BufReader::new(python.0.stdout.take().expect("piped"));
    let mut line = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut lines, &mut line).expect("a line");
        line
    };
    let address = format!("127.0.0.1:{}", line().trim());
    let url = format!("http://{address}/hook");
    let host = allowing(&[format!("http://{address}")], "").start();
    let id = submit(&host, &echo(&url));
    assert_eq!(delivery(&host, &id, "delivered")["attempts"], 1);
    let printed: Value = serde_json::from_str(&line()).expect("it prints the body");
    assert_eq!((&printed["type"], &printed["data"]["job_id"]), (&json!("job.succeeded"), &json!(id)));
    // The same message, signed with another secret.
    let forged =
        [("webhook-id", "msg_1"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,AAAA v1,BBBB")];
    let mut forger = crate::support::Client::new(address.parse().expect("an address"));
    assert_eq!(forger.request("POST", "/hook", &forged, b"{}").status, 401);
}

/// A process that is killed when dropped.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
