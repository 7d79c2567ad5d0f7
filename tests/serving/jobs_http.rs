//! Jobs over HTTP: refusals and their reasons, limits, expiry and listing.

use crate::support::jobs::{cancel, ended, job, kept, show, submit, wait_for};
use crate::support::slow::{deed, setup};
use crate::support::{Client, Host, Setup, eventually, model};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const HOSTILE: &str = "[plugins.hostile]\npath = \"hostile.wasm\"\n[models.hostile]\nplugin = \"hostile\"\n";

fn plus(jobs: &str) -> Host {
    let manifest = format!("[jobs]\n{jobs}\n[models.plus]\npath = \"plus.onnx\"\n");
    Setup::new(&manifest).file("plus.onnx", model("plus1")).start()
}

fn request(host: &Host, method: &str, path: &str) -> crate::support::Answer {
    Client::new(host.http).request(method, path, &[], b"")
}

const PLUS: &str = r#""model": "plus", "data": [1.0]"#;

#[test]
fn bad_submissions_are_refused_as_those_of_predict_are() {
    let host = plus("max_attempts = 5\nmax_total_runtime_ms = 60000");
    for (body, status, kind, field, part) in [
        (String::new(), 400, "invalid_input", None, "the body is empty"),
        ("[]".into(), 400, "invalid_input", None, "expected a JSON object"),
        ("{".into(), 400, "invalid_input", None, "not what this path takes"),
        (r#"{"data": [1.0]}"#.into(), 400, "invalid_input", None, "missing field `model`"),
        (format!("{{{PLUS}, \"max_attemps\": 2}}"), 400, "invalid_input", None, "max_attemps"),
        (r#"{"model": "plsu", "data": [1.0]}"#.into(), 404, "not_found", None, "did you mean \"plus\"?"),
        (format!("{{{PLUS}, \"version\": 2}}"), 404, "not_found", None, "no version \"2\""),
        (r#"{"model": "plus", "data": ["a"]}"#.into(), 400, "invalid_input", Some("x"), "input \"x\"[0]"),
        (r#"{"model": "plus", "data": {"z": [1]}}"#.into(), 400, "invalid_input", Some("z"), "\"z\""),
        (
            format!("{{{PLUS}, \"parameters\": {{\"a\": []}}}}"),
            400,
            "invalid_input",
            Some("parameters.a"),
            "is a list",
        ),
        (format!("{{{PLUS}, \"max_attempts\": 6}}"), 400, "invalid_input", Some("max_attempts"), "at most 5"),
        (
            format!("{{{PLUS}, \"max_total_runtime_ms\": 60001}}"),
            400,
            "invalid_input",
            Some("max_total_runtime_ms"),
            "at most 60000",
        ),
        (
            format!("{{{PLUS}, \"timeout_ms\": 5, \"max_runtime_ms\": 5}}"),
            400,
            "invalid_input",
            Some("timeout_ms"),
            "two names",
        ),
    ] {
        let error = host.post("/predict/async", &body).refused(status, kind, &[part]);
        assert_eq!(error["field"].as_str(), field, "{body}: {error}");
        assert_eq!(error["request_id"].as_str().unwrap().len(), 32, "{error}");
    }
    for field in ["timeout_ms", "max_attempts", "max_runtime_ms", "max_total_runtime_ms"] {
        for value in ["0", "-1", "1.5", "\"3\"", "true", "[]", "{}", "1e3", "18446744073709551616"] {
            let body = format!("{{{PLUS}, \"{field}\": {value}}}");
            let answer = host.post("/predict/async", &body);
            let error = answer.refused(400, "invalid_input", &[field, "whole number"]);
            assert_eq!(error["field"], field, "{body}");
        }
        let body = format!("{{{PLUS}, \"{field}\": null}}");
        assert_eq!(host.post("/predict/async", &body).status, 202, "null is as if it were not there");
    }
    assert_eq!(host.get("/jobs").json()["jobs"].as_array().unwrap().len(), 4, "nothing else was kept");
}

#[test]
fn paths_take_their_methods_and_no_other() {
    let host = plus("");
    let id = submit(&host, &json!({"model": "plus", "data": [1.0]}));
    ended(&host, &id, "succeeded");
    for (path, allow, wrong) in [
        ("/predict/async".into(), "POST", &["GET", "PUT", "DELETE"][..]),
        ("/predict/async/batch".into(), "POST", &["GET", "DELETE"]),
        ("/predict/async/x".into(), "POST", &["GET", "DELETE"]),
        ("/jobs".into(), "GET", &["POST", "DELETE"]),
        (format!("/jobs/{id}"), "GET, DELETE", &["POST", "PUT"]),
        (format!("/jobs/{id}/cancel"), "POST", &["GET", "DELETE"]),
    ] {
        for method in wrong {
            let answer = request(&host, method, &path);
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some(&*allow.replace("GET", "GET, HEAD"))),
                "{method} {path}"
            );
        }
    }
    for path in [
        "/jobs/",
        "/jobs//cancel",
        &format!("/jobs/{id}/x"),
        &format!("/jobs/{id}/cancel/x"),
        "/predict/async/x/y",
    ] {
        host.get(path).refused(404, "not_found", &["no route GET"]);
    }
    let unknown = "0123456789abcdef0123456789abcdef";
    for (method, path) in [
        ("GET", format!("/jobs/{unknown}")),
        ("DELETE", format!("/jobs/{unknown}")),
        ("POST", format!("/jobs/{unknown}/cancel")),
        ("GET", format!("/jobs/{}", "x".repeat(5000))),
    ] {
        let answer = request(&host, method, &path);
        answer.refused(404, "not_found", &["no job \""]);
        assert!(answer.body.len() < 500, "{}", answer.text());
        assert_eq!(answer.header("x-request-id").map(str::len), Some(32));
    }
    for (path, parts) in [
        ("/jobs?state=done", &["no state \"done\"", "succeeded, failed"][..]),
        ("/jobs?limit=0", &["limit is \"0\"", "from 1 to 1000"]),
        ("/jobs?limit=1001", &["from 1 to 1000"]),
        ("/jobs?limit=x", &["from 1 to 1000"]),
        ("/jobs?after=x", &["after is \"x\""]),
        ("/jobs?sate=failed", &["did you mean \"state\"?"]),
    ] {
        host.get(path).refused(400, "invalid_input", parts);
    }
    host.get(&format!("/jobs/{id}?wait_ms=soon")).refused(400, "invalid_input", &["wait_ms is \"soon\""]);
    host.get(&format!("/jobs/{id}?wait_msec=1")).refused(
        400,
        "invalid_input",
        &["did you mean \"wait_ms\"?"],
    );
    let deleted = request(&host, "DELETE", &format!("/jobs/{id}"));
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    host.get(&format!("/jobs/{id}")).refused(404, "not_found", &["no job", "was deleted"]);
    assert_eq!(kept(&host, "succeeded"), 0.0);
}

#[test]
fn a_batch_is_admitted_whole_or_not_at_all() {
    let host = plus("capacity = 3");
    let batch = |items: Value| {
        host.post("/predict/async/batch", json!({"model": "plus", "items": items}).to_string())
    };
    let error = batch(json!([{"data": [1]}, {"data": ["x"]}])).refused(
        400,
        "invalid_input",
        &["items[1]: input \"x\"[0]"],
    );
    assert_eq!(error["field"], "x");
    let error =
        batch(json!([{"data": [1]}, {"dat": [2]}])).refused(400, "invalid_input", &["items[1]: not an item"]);
    assert_eq!(error["field"], "items[1]");
    batch(json!(vec![json!({"data": [1]}); 1001])).refused(413, "too_large", &["1001 items", "at most 1000"]);
    batch(json!(vec![json!({"data": [1]}); 4])).refused(413, "too_large", &["4 jobs at once", "at most 3"]);
    assert_eq!(host.get("/jobs").json()["jobs"], json!([]), "none of them was kept");
    assert_eq!(batch(json!([])).json(), json!({"jobs": []}));
    let answer = batch(json!([{"data": [1]}, {"data": [2]}, {"data": [3]}]));
    assert_eq!(answer.status, 202, "{}", answer.text());
    let promised = answer.json()["jobs"].as_array().unwrap().clone();
    for (index, promise) in promised.iter().enumerate() {
        let job = ended(&host, promise["job_id"].as_str().unwrap(), "succeeded");
        assert_eq!(job["result"], json!({"y": [index as f64 + 2.0]}), "in the order of the items");
        assert_eq!(job["request_id"].as_str(), answer.header("x-request-id"));
    }
    // The store is full of unfetched results: they are kept, and the error says what to do.
    let full = batch(json!([{"data": [4]}]));
    full.refused(429, "overloaded", &["3 of 3 jobs, 3 jobs have ended", "delete", "capacity"]);
    assert_eq!(full.header("retry-after"), Some("1"));
    assert_eq!(request(&host, "DELETE", promised[0]["url"].as_str().unwrap()).status, 204);
    assert_eq!(batch(json!([{"data": [4]}])).status, 202);
}

#[test]
fn the_store_is_bounded_in_bytes_and_a_result_that_does_not_fit_fails_its_job() {
    let host = setup(&format!("[jobs]\nstore_mb = 1\nconcurrency = 1\n{HOSTILE}")).start();
    let large = |what: &str| {
        let mut body = deed("hostile", what);
        body["data"] = json!(["x".repeat(600 << 10)]);
        body
    };
    let blocker = submit(&host, &large("sleep"));
    let refused = host.post("/predict/async", large("ok").to_string());
    refused.refused(429, "overloaded", &["the job store is full", "of 1 MB", "store_mb"]);
    let enormous = json!({"model": "hostile", "data": ["x".repeat(2 << 20)]}).to_string();
    host.post("/predict/async", enormous).refused(413, "too_large", &["at most 1 MB"]);
    assert_eq!(cancel(&host, &blocker).status, 200);
    // An ended job keeps no input.
    let id = submit(&host, &large("ok"));
    ended(&host, &id, "succeeded");
    let parameters = json!({"do": "huge-answer", "mb": 2, "at": "predict"});
    let id = submit(&host, &json!({"model": "hostile", "data": ["a"], "parameters": parameters}));
    let job = ended(&host, &id, "failed");
    assert_eq!(job["error"]["kind"], "too_large", "{job}");
    assert!(job["error"]["message"].as_str().unwrap().contains("does not fit into the job store"), "{job}");
}

#[test]
fn what_has_ended_expires_and_what_has_not_does_not() {
    let host = setup(&format!("[jobs]\nresult_ttl_s = 1\n{HOSTILE}")).start();
    let running = submit(&host, &deed("hostile", "sleep"));
    let id = submit(&host, &deed("hostile", "ok"));
    ended(&host, &id, "succeeded");
    let gone = || (host.get(&format!("/jobs/{id}")).status == 404).then_some(());
    eventually("the job to expire", gone, || host.log());
    assert_eq!(show(&host, &running)["state"], "running");
    assert_eq!((kept(&host, "succeeded"), kept(&host, "running")), (0.0, 1.0));
    cancel(&host, &running);
    eventually("all to expire", || (kept(&host, "cancelled") == 0.0).then_some(()), || host.log());
    assert_eq!(host.get("/jobs").json(), json!({"jobs": [], "next": null}));
}

#[test]
fn pages_miss_nothing_and_repeat_nothing_while_jobs_come() {
    let host = plus("");
    let mut expected = BTreeSet::new();
    for _ in 0..25 {
        let id = submit(&host, &json!({"model": "plus", "data": [1.0]}));
        ended(&host, &id, "succeeded");
        expected.insert(id);
    }
    let (mut seen, mut after, mut sizes) = (Vec::new(), String::new(), Vec::new());
    loop {
        let page = host.get(&format!("/jobs?limit=10&state=succeeded&model=plus{after}")).json();
        let jobs = page["jobs"].as_array().unwrap();
        sizes.push(jobs.len());
        seen.extend(jobs.iter().map(|job| job["job_id"].as_str().unwrap().to_owned()));
        // A job that is submitted during paging is newer than every following page.
        ended(&host, &submit(&host, &json!({"model": "plus", "data": [1.0]})), "succeeded");
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert_eq!(seen.len(), 25, "none twice");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(host.get("/jobs?state=failed").json()["jobs"], json!([]));
    assert_eq!(host.get("/jobs?model=other").json()["jobs"], json!([]));
    let newest = host.get("/jobs?limit=1").json()["jobs"][0].clone();
    let created = host.get("/jobs").json()["jobs"][27]["created_at"].as_f64();
    assert!(newest["created_at"].as_f64() > created, "the newest comes first");
    assert!(newest.get("result").is_none() && newest.get("history").is_none(), "{newest}");
}

#[test]
fn ids_cannot_be_guessed_and_repeat_never() {
    let host = plus("");
    let answer = host.post(
        "/predict/async/batch",
        json!({"model": "plus", "items": vec![json!({"data": [1]}); 500]}).to_string(),
    );
    let jobs = answer.json()["jobs"].clone();
    let ids: BTreeSet<&str> =
        jobs.as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 500);
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    // The first 12 digits are the time. The digits behind them are about equally distributed.
    for place in [12, 31] {
        let digits: BTreeSet<char> = ids.iter().filter_map(|id| id.chars().nth(place)).collect();
        assert_eq!(digits.len(), 16);
    }
}

#[test]
fn a_long_poll_returns_with_the_end_or_after_its_time() {
    let host = setup(HOSTILE).start();
    let id = submit(&host, &deed("hostile", "sleep"));
    wait_for(&host, &id, "the job to run", |job| job["state"] == "running");
    let early = host.get(&format!("/jobs/{id}?wait_ms=50")).json();
    assert_eq!(early["state"], "running", "{early}");
    std::thread::scope(|scope| {
        // Exceeds the longest allowed wait, which is not an error.
        let poll = scope.spawn(|| host.get(&format!("/jobs/{id}?wait_ms=18446744073709551615")).json());
        host.wait_for_policy("the poll", |_| host.metric("hostler_http_connections") >= 1.0);
        cancel(&host, &id);
        assert_eq!(poll.join().unwrap()["state"], "cancelled");
    });
}

#[test]
fn budgets_and_bounds_are_live_and_bad_ones_are_shown_with_their_place() {
    let host = plus("max_attempts = 2");
    let asked = job(json!({"model": "plus", "data": [1.0]}), &json!({"max_attempts": 3}));
    host.post("/predict/async", asked.to_string()).refused(400, "invalid_input", &["at most 2"]);
    let manifest = "[jobs]\nmax_attempts = 3\n[models.plus]\npath = \"plus.onnx\"\n";
    crate::support::replace(&host.path("hostler.toml"), manifest.as_bytes());
    let policy = host.wait_for_generation(2);
    assert_eq!(policy["last_reload"]["changes"], json!(["jobs: max_attempts 2 -> 3"]));
    ended(&host, &submit(&host, &asked), "succeeded");

    for (table, parts) in [
        ("capacity = 0", &["hostler.toml:2:12", "[jobs] capacity must be at least 1"][..]),
        ("store_mb = 0", &["hostler.toml:2:12", "[jobs] store_mb must be at least 1"]),
        ("concurrency = 0", &["hostler.toml:2:15", "[jobs] concurrency must be at least 1"]),
        ("result_ttl_s = 0", &["hostler.toml:2:16", "[jobs] result_ttl_s must be at least 1"]),
        ("max_attempts = 0", &["hostler.toml:2:16", "[jobs] max_attempts must be at least 1"]),
        ("total_runtime_ms = 0", &["hostler.toml:2:20", "[jobs] total_runtime_ms must be at least 1"]),
        ("max_total_runtime_ms = 0", &["hostler.toml:2:24", "must be at least 1"]),
        (
            "total_runtime_ms = 5000\nmax_total_runtime_ms = 1000",
            &["hostler.toml:2:20", "total_runtime_ms is 5000, over max_total_runtime_ms", "at most 1000"],
        ),
        ("capacity = \"many\"", &["hostler.toml:2:12", "expected a whole number"]),
        ("capasity = 3", &["hostler.toml:2:1", "did you mean \"capacity\"?"]),
    ] {
        let manifest = format!("[jobs]\n{table}\n[models.plus]\npath = \"plus.onnx\"\n");
        let setup = Setup::new(&manifest).file("plus.onnx", model("plus1"));
        let (code, out, err) = setup.run(&["check", "hostler.toml", "--quick"]);
        assert_eq!(code, 1, "{table}");
        let said = out + &err;
        for part in parts {
            assert!(said.contains(part), "{table}\n{said}\nlacks {part}");
        }
    }
    // The default does not exceed the limit.
    let host = plus("max_total_runtime_ms = 5000");
    let id = submit(&host, &json!({"model": "plus", "data": [1.0]}));
    assert_eq!(show(&host, &id)["max_total_runtime_ms"], 5000);
}
