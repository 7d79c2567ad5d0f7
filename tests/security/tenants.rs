//! Tenants: their limits over each interface, and their shares of what they share.

use crate::access::key;
use crate::support::jobs::{cancel, ended, job, sleep, submit, wait_for};
use crate::support::{Answer, Host, Setup, grpc, model, plugin, replace};
use serde_json::{Value, json};
use tonic::Code;

const PROXIED: &str = "[server]\ntenant_header = \"x-tenant\"\ntrusted_proxies = [\"127.0.0.1\"]\n";

/// Returns the folder of a host that trusts the header `x-tenant`, with these tables.
fn setup(tables: &str) -> Setup {
    let manifest = format!(
        "{PROXIED}[models.plus]\npath = \"plus.onnx\"\nmax_batch_size = 8\n\
         [models.hostile]\nplugin = \"hostile\"\n\
         [plugins.hostile]\npath = \"hostile.wasm\"\n{tables}"
    );
    Setup::new(&manifest).file("plus.onnx", model("plus1")).file("hostile.wasm", plugin("hostile")).grpc()
}

/// Sends a request of a tenant.
fn send(host: &Host, tenant: &str, path: &str, body: &Value) -> Answer {
    let headers: &[(&str, &str)] = if tenant.is_empty() { &[] } else { &[("x-tenant", tenant)] };
    host.client().request("POST", path, headers, body.to_string().as_bytes())
}

fn predict(host: &Host, tenant: &str) -> Answer {
    send(host, tenant, "/predict", &json!({"model": "plus", "data": [1]}))
}

fn refused(host: &Host, tenant: &str, reason: &str) -> f64 {
    host.metric(&format!("hostler_tenant_refused_total{{reason=\"{reason}\",tenant=\"{tenant}\"}}"))
}

#[test]
fn requests_beyond_a_rate_are_refused_and_told_when_to_come_back() {
    let host = setup("[tenants.a]\nrequests_per_s = 0.01\nburst_requests = 3\n").start();
    assert_eq!(predict(&host, "a").status, 200);
    let body = json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]});
    assert_eq!(send(&host, "a", "/v2/models/plus/infer", &body).status, 200);
    assert_eq!(send(&host, "a", "/predict/async", &json!({"model": "plus", "data": [1]})).status, 202);
    let answer = predict(&host, "a");
    let error = answer.refused(429, "overloaded", &["tenant \"a\"", "0.01 requests/s", "requests_per_s"]);
    assert_eq!(error["model"], Value::Null);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=100).contains(&wait), "{wait}");
    assert_eq!(answer.header("ratelimit-policy"), Some("\"requests\";q=3;w=300"));
    assert_eq!(answer.header("ratelimit"), Some(&*format!("\"requests\";r=0;t={wait}")));
    // Every interface counts, and the others may go on.
    for path in
        ["/v2/models/plus/infer", "/predict/async", "/predict/stream", "/predict/batch", "/predict/plus"]
    {
        assert_eq!(send(&host, "a", path, &body).status, 429, "{path}");
    }
    let mut request = tonic::Request::new(grpc::floats("plus", &[1.0]));
    request.metadata_mut().insert("x-tenant", "a".parse().unwrap());
    let status = grpc::Caller::new(&host).infer(request).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let pushback: u64 =
        status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert!((1..=100_001).contains(&pushback), "{pushback}");
    for other in ["b", ""] {
        assert_eq!(predict(&host, other).status, 200, "{other}");
    }
    assert_eq!(refused(&host, "a", "requests"), 7.0);
    assert_eq!(host.metric("hostler_tenant_requests_total{tenant=\"a\"}"), 3.0);
    assert_eq!(host.metric("hostler_tenant_requests_total{tenant=\"_other\"}"), 2.0, "b, and anonymous");
}

#[test]
fn rows_calls_and_bytes_in_flight_are_limited() {
    let tables = "[tenants.rows]\nrows_per_s = 0.01\nburst_rows = 4\n\
                  [tenants.calls]\nmax_in_flight = 1\n[tenants.bytes]\nmax_in_flight_mb = 1\n";
    let host = setup(tables).start();
    let rows = |count: usize| {
        let data = vec![1.0; count];
        let body = json!({"inputs": [{"name": "x", "shape": [count], "datatype": "FP32", "data": data}]});
        send(&host, "rows", "/v2/models/plus/infer", &body)
    };
    assert_eq!(rows(3).status, 200);
    let answer = rows(2);
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(answer.header("ratelimit-policy"), Some("\"rows\";q=4;w=400"));
    assert_eq!(rows(1).status, 200, "one is left");

    std::thread::scope(|scope| {
        let long = scope.spawn(|| {
            let mut body = sleep(60_000);
            body["timeout_ms"] = json!(60_000);
            let mut client = host.client();
            let body = body.to_string();
            client.begin("POST", "/predict", &[("x-tenant", "calls")], body.as_bytes()).unwrap();
            client
        });
        host.wait_for_executor("cpu", "busy", 1);
        let error =
            predict(&host, "calls").refused(429, "overloaded", &["1 requests in flight", "max_in_flight"]);
        assert_eq!(error["model"], Value::Null);
        assert_eq!(host.metric("hostler_tenant_in_flight{tenant=\"calls\"}"), 1.0);
        long.join().unwrap().leave();
    });
    crate::support::eventually(
        "the call to be over",
        || (host.metric("hostler_tenant_in_flight{tenant=\"calls\"}") == 0.0).then_some(()),
        || host.log(),
    );
    assert_eq!(predict(&host, "calls").status, 200);

    // Refused by its length, before it is read.
    let large = json!({"model": "plus", "data": "x".repeat(1 << 20)});
    send(&host, "bytes", "/predict", &large).refused(413, "too_large", &["may have 1 MB in flight"]);
    let part = json!({"model": "plus", "data": "x".repeat(600 << 10)}).to_string();
    let mut first = host.client();
    let head = format!(
        "POST /predict HTTP/1.1\r\nhost: a\r\nx-tenant: bytes\r\ncontent-length: {}\r\n\r\n{{",
        part.len()
    );
    first.send(head.as_bytes()).unwrap();
    let in_flight = || {
        (host.metric("hostler_tenant_in_flight_bytes{tenant=\"bytes\"}") == part.len() as f64).then_some(())
    };
    crate::support::eventually("its length to count", in_flight, || host.log());
    let headers = [("x-tenant", "bytes")];
    let second = host.client().request("POST", "/predict", &headers, part.as_bytes());
    second.refused(429, "overloaded", &["1 MB of requests in flight"]);
    assert_eq!(predict(&host, "bytes").status, 200);
    first.leave();
    crate::support::eventually(
        "the first to be given up",
        || (host.metric("hostler_tenant_in_flight_bytes{tenant=\"bytes\"}") == 0.0).then_some(()),
        || host.log(),
    );
    let headers = [("x-tenant", "bytes"), ("transfer-encoding", "chunked")];
    let mut client = host.client();
    client.send(b"POST /predict HTTP/1.1\r\nhost: a\r\n").unwrap();
    for (name, value) in headers {
        client.send(format!("{name}: {value}\r\n").as_bytes()).unwrap();
    }
    client.send(b"\r\n").unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, " ".repeat(64 << 10));
    while client.send(chunk.as_bytes()).is_ok() && refused(&host, "bytes", "bytes") < 3.0 {}
    assert_eq!(client.receive().unwrap().status, 413);
    assert_eq!(host.metric("hostler_tenant_in_flight_bytes{tenant=\"bytes\"}"), 0.0);
}

#[test]
fn only_trusted_proxies_name_tenants() {
    let limited = "[tenants.a]\nrequests_per_s = 0.01\nburst_requests = 1\n";
    let elsewhere = setup(limited);
    let manifest = std::fs::read_to_string(elsewhere.path("hostler.toml")).unwrap();
    replace(&elsewhere.path("hostler.toml"), manifest.replace("127.0.0.1", "10.0.0.0/8").as_bytes());
    let host = elsewhere.start();
    for _ in 0..3 {
        assert_eq!(predict(&host, "a").status, 200, "the header is that of anybody");
    }
    let host = setup(limited).start();
    for (name, why) in [("a b", "characters"), ("", "is empty"), (&*"a".repeat(200), "too long")] {
        let headers = [("x-tenant", name)];
        let answer = host.client().request("POST", "/predict/plus", &headers, b"[1]");
        answer.refused(400, "invalid_input", &["the header x-tenant", why]);
    }
    let headers = [("x-tenant", "a"), ("x-tenant", "b")];
    let answer = host.client().request("POST", "/predict/plus", &headers, b"[1]");
    answer.refused(400, "invalid_input", &["more than once"]);
}

#[test]
fn a_reload_changes_limits_at_once_and_forgets_removed_tenants() {
    let tables = "[tenants.a]\nrequests_per_s = 0.01\nburst_requests = 1\n";
    let host = setup(tables).start();
    assert_eq!((predict(&host, "a").status, predict(&host, "a").status), (200, 429));
    assert_eq!(predict(&host, "z").status, 200);
    let path = host.path("hostler.toml");
    let manifest = std::fs::read_to_string(&path).unwrap();
    let faster = manifest.replace("requests_per_s = 0.01", "requests_per_s = 1000000");
    replace(&path, faster.as_bytes());
    host.wait_for_generation(2);
    assert_eq!(predict(&host, "a").status, 200);
    replace(&path, manifest.replace("[tenants.a]", "[tenants.\"*\"]").as_bytes());
    host.wait_for_generation(3);
    assert_eq!((predict(&host, "new").status, predict(&host, "new").status), (200, 429));
    assert_eq!(predict(&host, "newer").status, 200, "each tenant has limits of its own");
    // The policies to which a rollback could return still know it.
    for burst in 2..20 {
        let further = manifest
            .replace("[tenants.a]", "[tenants.\"*\"]")
            .replace("burst_requests = 1", &format!("burst_requests = {burst}"));
        replace(&path, further.as_bytes());
        host.wait_for_generation(burst + 2);
    }
    crate::support::eventually(
        "the series of a removed tenant to go",
        || (!host.get("/metrics").text().contains("tenant=\"a\"")).then_some(()),
        || host.get("/metrics").text(),
    );
}

/// Holds the one worker of `cpu`, and returns the client that does.
fn occupy(host: &Host, tenant: &str) -> crate::support::Client {
    let mut client = host.client();
    let body = sleep(60_000).to_string();
    client.begin("POST", "/predict", &[("x-tenant", tenant)], body.as_bytes()).unwrap();
    host.wait_for_executor("cpu", "busy", 1);
    client
}

#[test]
fn a_full_queue_makes_room_for_the_tenant_below_its_share() {
    let host = setup("[executors.cpu]\nworkers = 1\nqueue = 4\n[tenants.heavy]\nweight = 3\n").start();
    let mut running = occupy(&host, "flood");
    std::thread::scope(|scope| {
        let call = |tenant: &'static str, id: String| {
            let body = sleep(1).to_string();
            let host = &host;
            scope.spawn(move || {
                let headers = [("x-tenant", tenant), ("x-request-id", &*id)];
                host.client().request("POST", "/predict", &headers, body.as_bytes())
            })
        };
        let flood: Vec<_> = (0..4)
            .map(|number| {
                let waiting = call("flood", format!("flood-{number}"));
                host.wait_for_executor("cpu", "queue_length", number + 1);
                waiting
            })
            .collect();
        let one_more = call("flood", "flood-4".into()).join().unwrap();
        one_more.refused(429, "overloaded", &["the queue of 4 is full"]);
        let quiet = call("quiet", "quiet".into());
        // The newest of the flood goes.
        let evicted: Vec<_> = flood.into_iter().rev().collect();
        let mut evicted = evicted.into_iter();
        let newest = evicted.next().unwrap().join().unwrap();
        newest.refused(429, "overloaded", &["evicted from a full queue"]);
        let heavy = call("heavy", "heavy".into());
        let next = evicted.next().unwrap().join().unwrap();
        next.refused(429, "overloaded", &["evicted from a full queue"]);
        running.leave();
        assert_eq!((quiet.join().unwrap().status, heavy.join().unwrap().status), (200, 200));
        for rest in evicted {
            assert_eq!(rest.join().unwrap().status, 200);
        }
    });
    assert_eq!(refused(&host, "_other", "evicted"), 2.0);
    let waited = |id: &str| host.access_log(id)["queue_ms"].as_f64().unwrap();
    assert!(waited("quiet") < waited("flood-1"), "the flood was there first, and waits longer");
    assert_eq!(host.access_log("quiet")["tenant"], "quiet");
}

#[test]
fn requests_of_a_higher_priority_come_first_within_a_tenant() {
    let host = setup("[executors.cpu]\nworkers = 1\nqueue = 3\n").start();
    let mut running = occupy(&host, "a");
    std::thread::scope(|scope| {
        let call = |id: &'static str, priority: u64| {
            let mut body = sleep(1);
            body["priority"] = json!(priority);
            let host = &host;
            scope.spawn(move || {
                let headers = [("x-tenant", "a"), ("x-request-id", id)];
                host.client().request("POST", "/predict", &headers, body.to_string().as_bytes())
            })
        };
        let mut calls = Vec::new();
        for (number, (id, priority)) in [("ninth", 9), ("fifth", 5), ("third", 3)].into_iter().enumerate() {
            calls.push(call(id, priority));
            host.wait_for_executor("cpu", "queue_length", number as u64 + 1);
        }
        // It takes the place of the last one, and one that is last itself does not.
        let first = call("first", 1);
        calls.remove(0).join().unwrap().refused(429, "overloaded", &["of higher priority"]);
        call("late", 9).join().unwrap().refused(429, "overloaded", &["the queue of 3 is full"]);
        running.leave();
        calls.push(first);
        for call in calls {
            assert_eq!(call.join().unwrap().status, 200);
        }
    });
    let waited = |id: &str| host.access_log(id)["queue_ms"].as_f64().unwrap();
    assert!(waited("first") < waited("third") && waited("third") < waited("fifth"));
    for (path, body) in [
        ("/predict", json!({"model": "plus", "data": [1], "priority": 0})),
        ("/predict", json!({"model": "plus", "data": [1], "priority": 10})),
        ("/predict/plus?priority=x", json!([1])),
        ("/predict/async", json!({"model": "plus", "data": [1], "priority": 10})),
        ("/predict/async/plus?priority=0", json!([1])),
    ] {
        send(&host, "", path, &body).refused(
            400,
            "invalid_input",
            &["priority is", "it must be a whole number from 1, which comes first, to 9"],
        );
    }
    for priority in [0, 1, 5, 100] {
        let body = json!({"parameters": {"priority": priority},
            "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]});
        assert_eq!(
            send(&host, "", "/v2/models/plus/infer", &body).status,
            200,
            "as Triton's clients send it"
        );
    }
}

#[test]
fn jobs_of_tenants_take_turns_and_go_by_priority() {
    let host = setup("[jobs]\nconcurrency = 1\n[tenants.b]\nweight = 2\n").start();
    let blocker = submit(&host, &job(sleep(60_000), &json!({"max_runtime_ms": 60_000})));
    wait_for(&host, &blocker, "it to run", |job| job["state"] == "running");
    let submit = |tenant: &str, priority: u64| {
        let mut body = sleep(1);
        body["priority"] = json!(priority);
        let answer = send(&host, tenant, "/predict/async", &body);
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["job_id"].as_str().unwrap().to_owned()
    };
    let a: Vec<String> = [9, 5, 1].map(|priority| submit("a", priority)).into();
    let b: Vec<String> = (0..4).map(|_| submit("b", 5)).collect();
    cancel(&host, &blocker);
    let started = |id: &String| {
        let job = ended(&host, id, "succeeded");
        job["started_at"].as_f64().unwrap()
    };
    let (a, b): (Vec<f64>, Vec<f64>) = (a.iter().map(started).collect(), b.iter().map(started).collect());
    assert!(a[2] < a[1] && a[1] < a[0], "{a:?}");
    assert!(b.is_sorted(), "{b:?}");
    // Two of b for one of a: the third of b comes before the last of a.
    assert!(b[2] < a[0], "{a:?} {b:?}");
}

#[test]
fn callers_of_access_rules_are_tenants() {
    let (web, web_entry) = key("web");
    let (batch, batch_entry) = key("batch");
    let (other, other_entry) = key("other");
    let manifest = "[server]\naccess_rules = \"access.toml\"\n[models.plus]\npath = \"plus.onnx\"\n\
                    [tenants.acme]\ncallers = [\"key:web\", \"key:batch\"]\nrequests_per_s = 0.01\nburst_requests = 2\n";
    let host = Setup::new(manifest)
        .file("plus.onnx", model("plus1"))
        .text("keys.toml", &format!("{web_entry}{batch_entry}{other_entry}"))
        .text(
            "access.toml",
            "keys = \"keys.toml\"\n[[rules]]\nwho = [\"*\"]\nverbs = [\"predict\", \"metrics\"]\n",
        )
        .start();
    let predict = |key: &str| {
        let authorization = format!("Bearer {key}");
        let id = &key[key.len() - 8..];
        let headers = [("authorization", &*authorization), ("x-tenant", "elsewhere"), ("x-request-id", id)];
        host.client().request("POST", "/predict/plus", &headers, b"[1]").status
    };
    assert_eq!((predict(&web), predict(&batch)), (200, 200));
    assert_eq!((predict(&web), predict(&batch)), (429, 429), "they share the rate of their tenant");
    assert_eq!(predict(&other), 200);
    assert_eq!(host.access_log(&other[other.len() - 8..])["tenant"], "key:other");
}

#[test]
fn tenants_have_shares_of_executors_without_a_queue() {
    let manifest = format!(
        "{PROXIED}[models.hostile]\nplugin = \"hostile\"\n[policy]\nhostile = \"wide\"\n[plugins.hostile]\npath = \"hostile.wasm\"\n\
         [plugins.pass]\npath = \"pass.wasm\"\n[executors.wide]\nkind = \"custom\"\nplugin = \"pass\"\ninner = \"cpu\"\nworkers = 8\n"
    );
    let host = Setup::new(&manifest)
        .file("hostile.wasm", plugin("hostile"))
        .file("pass.wasm", plugin("pass"))
        .start();
    let begin = |tenant: &str| {
        let mut client = host.client();
        let body = sleep(60_000).to_string();
        client.begin("POST", "/predict", &[("x-tenant", tenant)], body.as_bytes()).unwrap();
        client
    };
    let ask = |tenant: &str| send(&host, tenant, "/predict", &sleep(0));
    // It was here a moment ago, so a part stays free for it.
    assert_eq!(ask("quiet").status, 200);
    let mut flood = Vec::new();
    for number in 1..=7 {
        flood.push(begin("flood"));
        host.wait_for_executor("wide", "busy", number);
    }
    ask("flood").refused(429, "overloaded", &["tenant \"flood\" has its share of 8 calls in flight"]);
    assert_eq!(refused(&host, "_other", "share"), 1.0);
    let mut quiet = begin("quiet");
    host.wait_for_executor("wide", "busy", 8);
    ask("flood").refused(429, "overloaded", &["executor \"wide\""]);
    quiet.leave();
    flood.into_iter().for_each(|mut client| client.leave());
}
