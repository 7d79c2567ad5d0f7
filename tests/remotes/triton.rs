//! Tests the `triton` executor against a real Triton: what it sends and receives, and what it
//! refuses.

use crate::support::certificates::Certificates;
use crate::support::triton::Triton;
use crate::support::{Host, Setup, churn, eventually, example, model, plugin};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Starts a host whose models are all on the remote, under the same names.
fn host(triton: &Triton, keys: &str, models: &[&str]) -> Host {
    let models: Vec<String> =
        models.iter().map(|name| format!("[models.{name}]\nremote = {{ name = \"{name}\" }}\n")).collect();
    Setup::new(&(triton.executor(keys) + &models.concat())).start()
}

#[test]
fn every_datatype_goes_there_and_comes_back() {
    let Some(triton) = Triton::start(&["datatypes"]) else { return };
    let host = host(&triton, "", &["datatypes"]);
    let many: Vec<f64> = (0..200_000).map(|number| f64::from(number) / 2.0).collect();
    for (name, values) in [
        ("bool", json!([true, false])),
        ("uint8", json!([0, 255])),
        ("uint16", json!([0, 65_535])),
        ("uint32", json!([0, 4_294_967_295_u32])),
        ("uint64", json!([0, 18_446_744_073_709_551_615_u64])),
        ("int8", json!([-128, 127])),
        ("int16", json!([-32_768, 32_767])),
        ("int32", json!([-2_147_483_648, 2_147_483_647])),
        ("int64", json!([i64::MIN, i64::MAX])),
        ("fp16", json!([-1.5, 65_504.0])),
        ("bf16", json!([-1.5, 256.0])),
        ("fp32", json!([-1.5, 0.25])),
        ("fp64", json!([-1.5, 1e300])),
        ("bytes", json!(["", "grün", "a\u{0}b"])),
        ("int64", json!([])),
        ("fp64", json!(many)),
    ] {
        let answer = host.predict("datatypes", json!({ name: values })).result();
        assert_eq!(answer, json!({ format!("{name}_out"): values }), "{name}");
    }
    // Several outputs in one answer keep their names.
    let both = host.predict("datatypes", json!({"bytes": ["x"], "int8": [7]})).result();
    assert_eq!(both, json!({"bytes_out": ["x"], "int8_out": [7]}));
}

#[test]
fn a_model_is_what_the_remote_says_it_is() {
    let Some(triton) = Triton::start(&["bankchurn", "repeat", "datatypes"]) else { return };
    let host = host(&triton, "", &["bankchurn", "repeat", "datatypes"]);
    let metadata = host.get("/v2/models/bankchurn").json();
    assert_eq!(metadata["inputs"], json!([{"name": "input", "datatype": "FP32", "shape": [-1, 18]}]));
    assert_eq!(metadata["outputs"], json!([{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}]));
    // A decoupled model has no single answer, and an optional input may be missing.
    let ask = json!({"inputs": [
        {"name": "values", "datatype": "INT32", "shape": [1], "data": [1]},
        {"name": "delays_ms", "datatype": "UINT32", "shape": [1], "data": [0]},
    ]});
    assert_eq!(host.post("/v2/models/repeat/infer", ask.to_string()).status, 501);
    assert_eq!(host.predict("datatypes", json!({})).status, 200);
    host.predict("bankchurn", json!([[1.0]])).refused(400, "invalid_input", &["expected shape [-1,18]"]);
    assert_eq!(host.metric("hostler_triton_connected{executor=\"remote\"}"), 1.0);
    assert_eq!(host.get("/v2/models/bankchurn/ready").status, 200);
}

#[test]
fn transformers_and_batches_work_as_with_a_model_of_ones_own() {
    let Some(triton) = Triton::start(&["bankchurn"]) else { return };
    let manifest = triton.executor("workers = 3")
        + "[models.bankchurn]\nremote = { name = \"bankchurn\", version = \"1\" }\ntransformer = \"churn\"\n\
           checks = [{ file = \"checks.json\", tolerance = 1e-5 }]\n\
           [plugins.churn]\npath = \"churn.wasm\"\n[plugins.churn.assets]\nscaling = \"scaling.json\"\n\
           [executors.again]\nkind = \"custom\"\nplugin = \"retry\"\ninner = \"remote\"\n[plugins.retry]\n\
           path = \"retry.wasm\"\n[policy]\nbankchurn = \"again\"\n";
    let through_a_plugin = Setup::new(&manifest);
    let directly = Setup::new(&manifest.replace("bankchurn = \"again\"", "bankchurn = \"remote\""));
    for setup in [directly, through_a_plugin] {
        let host = setup
            .file("scaling.json", example("bankchurn/scaling.json"))
            .file("checks.json", example("bankchurn/checks.json"))
            .file("churn.wasm", plugin("churn"))
            .file("retry.wasm", plugin("retry"))
            .start();
        let rows: Vec<(Value, f64)> = churn::rows().into_iter().take(40).collect();
        let items: Vec<Value> = rows.iter().map(|(row, _)| json!({ "data": row })).collect();
        let answer = host.post("/predict/batch", json!({"model": "bankchurn", "items": items}).to_string());
        assert_eq!(answer.json()["errors"], json!([]), "{}", answer.text());
        for (result, (_, expected)) in answer.json()["results"].as_array().expect("results").iter().zip(&rows)
        {
            let probability = result["probability"].as_f64().expect("a probability");
            assert!((probability - expected).abs() < 1e-4, "{probability} {expected}");
        }
        host.wait_for_idle("remote");
    }
}

#[test]
fn what_fails_there_is_named_here() {
    let Some(triton) = Triton::start(&["raises"]) else { return };
    let host = host(&triton, "", &["raises"]);
    let parts = ["executor \"remote\"", &triton.url(), "model \"raises\" version 1", "ValueError: boom"];
    let error = host.predict("raises", json!(["boom"])).refused(500, "failed", &parts);
    assert!(!error.to_string().contains("model.py"), "where it was raised is for the log: {error}");
}

#[test]
fn deadlines_and_callers_who_leave_cancel_there_and_free_the_place() {
    let Some(triton) = Triton::start(&["cancelled"]) else { return };
    let host = host(&triton, "", &["cancelled"]);
    let cancelled = || host.predict("cancelled", json!([0])).result()["cancelled"][0].as_i64();
    assert_eq!(cancelled(), Some(0));

    let long = json!({"model": "cancelled", "data": [60_000], "timeout_ms": 100}).to_string();
    host.post("/predict", &long).refused(504, "deadline", &[]);
    host.wait_for_idle("remote");
    assert_eq!(cancelled(), Some(1));

    let long = json!({"model": "cancelled", "data": [60_000]}).to_string();
    // A call that is cancelled in transit never starts on the remote, so the test repeats it.
    let leave = || {
        let mut client = host.client();
        let headers = [("content-type", "application/json")];
        client.begin("POST", "/predict", &headers, long.as_bytes()).expect("sent");
        host.wait_for_policy("the call being there", |policy| policy["executors"]["remote"]["busy"] == 1);
        client.leave();
        host.wait_for_idle("remote");
        (cancelled() == Some(2)).then_some(())
    };
    eventually("a call that was cancelled there", leave, || host.log());
}

#[test]
fn more_calls_than_workers_are_refused_at_once() {
    let Some(triton) = Triton::start(&["slow"]) else { return };
    let host = host(&triton, "workers = 2", &["slow"]);
    let mut waiting = [host.client(), host.client()];
    let body = json!({"model": "slow", "data": [5_000]}).to_string();
    for client in &mut waiting {
        client.begin("POST", "/predict", &[], body.as_bytes()).expect("sent");
    }
    host.wait_for_policy("two calls being there", |policy| policy["executors"]["remote"]["busy"] == 2);
    let parts = ["executor \"remote\"", "at capacity: 2 calls in flight"];
    host.predict("slow", json!([0])).refused(429, "overloaded", &parts);
    for client in &mut waiting {
        assert_eq!(client.receive().expect("an answer").result(), json!({"slept": [5_000]}));
    }
    assert_eq!(host.metric("hostler_executor_overloaded_total{executor=\"remote\"}"), 1.0);
}

/// Checks that the host does not start and reports each of `parts`.
fn refused(setup: Setup, parts: &[&str]) {
    let said = setup.try_start().err().expect("it does not start");
    for part in parts {
        assert!(said.contains(part), "{said}\nlacks {part}");
    }
}

#[test]
fn a_remote_that_does_not_fit_is_refused_at_load() {
    let Some(triton) = Triton::start(&["bankchurn"]) else { return };
    let serve = |model: &str| Setup::new(&(triton.executor("") + "[models.m]\n" + model));
    let url = triton.url();
    let there = format!("the model \"bankchurn\" version 1 at executor \"remote\": Triton at http://{url}");
    let other = "path = \"m.onnx\"\nremote = { name = \"bankchurn\" }\n[policy]\nm = \"remote\"\n";
    refused(
        serve(other).file("m.onnx", model("dense")),
        &["model \"m:1\"", &there, "differs from the file", "m.onnx", "the file's input \"x\" is missing"],
    );
    let same = serve(other).file("m.onnx", example("bankchurn/model.onnx")).start();
    assert_eq!(same.predict("m", json!([vec![0.0; 18]])).status, 200);
    refused(
        serve("remote = { name = \"nobody\" }\n"),
        &["model \"nobody\"", "executor \"remote\"", "nobody"],
    );
    refused(serve("remote = { name = \"bankchurn\", version = \"7\" }\n"), &["model \"bankchurn\"", "7"]);
}

#[test]
fn a_remote_that_is_away_is_said_at_load() {
    // The listener is dropped at once, so nothing listens on this port.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let manifest = format!(
        "[executors.remote]\nkind = \"triton\"\nurl = \"{free}\"\n[models.m]\nremote = {{ name = \"m\" }}\n"
    );
    let parts = ["model \"m:1\"", "executor \"remote\"", "cannot be reached", "refused", "start it"];
    refused(Setup::new(&manifest), &parts);
}

#[test]
fn what_runs_where_is_said_with_the_mend() {
    let executor = "[executors.remote]\nkind = \"triton\"\nurl = \"127.0.0.1:9\"\n";
    let model = |keys: &str| format!("{executor}[models.m]\n{keys}\n");
    for (manifest, parts) in [
        (
            model("path = \"m.onnx\"\n[policy]\nm = \"remote\""),
            &["model \"m:1\" has a file", "executor \"remote\", of kind triton", "onnx or thread-pool"][..],
        ),
        (
            model("plugin = \"p\"\n[policy]\nm = \"remote\""),
            &["model \"m:1\" has a plugin", "executor \"remote\"", "thread-pool, such as \"cpu\""],
        ),
        (
            model("remote = { name = \"m\" }\n[policy]\nm = \"onnx\""),
            &["model \"m:1\" has a remote only", "executor \"onnx\", of kind onnx", "of kind triton"],
        ),
        (model("remote = { name = \"m\" }\nplugin = \"p\""), &["both a plugin and a remote", "two versions"]),
        (model("remote = { nam = \"m\" }"), &["unknown key \"nam\"", "did you mean \"name\"?"]),
        (
            "[models.m]\nremote = { name = \"m\" }\n".to_owned(),
            &["there is no executor of kind triton", "[executors.remote]", "url = "],
        ),
        (
            executor.replace("remote", "other") + &model("remote = { name = \"m\" }"),
            &["[policy] does not say on which", "other, remote"],
        ),
        (executor.replace("url", "ur"), &["unknown key \"ur\"", "did you mean \"url\"?"]),
        (
            executor.replace("url = \"127.0.0.1:9\"", ""),
            &["executor \"remote\"", "has no url", "127.0.0.1:8001"],
        ),
        (executor.replace("127.0.0.1:9", "127.0.0.1"), &["a url that is not host:port"]),
        (executor.replace("127.0.0.1:9", "ftp://a:9"), &["a url of an unknown scheme"]),
        (executor.to_owned() + "tls = { cert = \"c.pem\" }\n", &["one of cert and key", "go together"]),
        (
            executor.to_owned() + "tls = { ca = \"c.pem\" }\n",
            &["executor \"remote\": tls: cannot read", "c.pem"],
        ),
        (executor.replace("127", "http://127") + "tls = {}\n", &["has tls and a url with http://"]),
        (executor.to_owned() + "queue = 3\n", &["queue does not belong to its kind", "thread-pool and onnx"]),
        (executor.to_owned() + "workers = 0\n", &["workers must be at least 1"]),
        (executor.to_owned() + "channels = 1000\n", &["channels must be at most 64"]),
        ("[executors.onnx]\nurl = \"a:9\"\n".to_owned(), &["url does not belong", "of kind triton"]),
        ("[executors.cpu]\nkind = \"triton\"\n".to_owned(), &["always exists and cannot be triton"]),
    ] {
        let setup = Setup::new(&manifest).text("m.onnx", "").text("p.wasm", "");
        let (code, _, said) = setup.run(&["check", "hostler.toml"]);
        assert_eq!(code, 1, "{manifest}\n{said}");
        for part in parts {
            assert!(said.contains(part), "{manifest}\n{said}\nlacks {part}");
        }
    }
}

#[test]
fn a_remote_that_hangs_is_told_apart_from_a_slow_one_and_comes_back() {
    let Some(triton) = Triton::start(&["bankchurn"]) else { return };
    let host = host(&triton, "", &["bankchurn"]);
    let ask = || host.predict("bankchurn", json!([vec![0.0; 18]]));
    assert_eq!(ask().status, 200);
    triton.hang();
    let waits = json!({"model": "bankchurn", "data": [vec![0.0; 18]], "timeout_ms": 200}).to_string();
    host.post("/predict", &waits).refused(504, "deadline", &[]);
    // A call with a longer timeout fails when the watch detects the silent remote.
    ask().refused(503, "unavailable", &["executor \"remote\"", "is unavailable", "does not answer"]);
    let ready = host.get("/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("model \\\"bankchurn:1\\\""), "{}", ready.text());
    triton.go_on();
    eventually("the answer", || (ask().status == 200).then_some(()), || host.log());
    assert_eq!(host.get("/ready").status, 200);
}

/// Returns a setup with one model on an encrypted remote, and the files that `tls` may name.
fn encrypted(triton: &Triton, certificates: &Certificates, tls: &str) -> Setup {
    let manifest = triton.executor(tls) + "[models.m]\nremote = { name = \"bankchurn\" }\n";
    let manifest = manifest.replace("url = \"", "url = \"https://");
    ["ca.pem", "other-ca.pem", "client.pem", "client.key"]
        .iter()
        .fold(Setup::new(&manifest), |setup, file| setup.file(file, certificates.path(file)))
}

#[test]
fn an_encrypted_remote_is_asked_if_the_named_authority_has_signed_for_it() {
    let certificates = Certificates::make();
    let Some(mut triton) = Triton::start_with(&["bankchurn"], &certificates.triton(false)) else { return };
    let serve = |tls: &str| encrypted(&triton, &certificates, tls);
    let row = || json!([vec![0.0; 18]]);
    let known = serve("tls = { ca = \"ca.pem\" }").start();
    assert_eq!(known.predict("m", row()).status, 200);
    let by_name = serve("tls = { ca = \"ca.pem\", domain = \"triton.test\" }").start();
    assert_eq!(by_name.predict("m", row()).status, 200);
    let there = format!("executor \"remote\": Triton at https://{} cannot be reached: ", triton.url());
    for (tls, parts) in [
        ("tls = { ca = \"other-ca.pem\" }", &["certificate", "tls.ca has not signed it"][..]),
        // The certificates that this machine trusts have not signed it either.
        ("tls = {}", &["certificate", "tls.ca"]),
        (
            "tls = { ca = \"ca.pem\", domain = \"other.test\" }",
            &["certificate", "other.test", "triton.test", "tls.domain"],
        ),
    ] {
        refused(serve(tls), &[&[&*there, "model \"m:1\""][..], parts].concat());
    }
    // The remote does not answer without encryption.
    let manifest = triton.executor("") + "[models.m]\nremote = { name = \"bankchurn\" }\n";
    refused(Setup::new(&manifest), &["cannot be reached", "url and tls of the executor"]);
    // A file without a certificate is a fault of the file.
    let parts = ["executor \"remote\": tls", "client.key has no certificate in PEM"];
    refused(serve("tls = { ca = \"client.key\" }"), &parts);

    // A broken connection is replaced, encrypted as before.
    triton.kill();
    let ask = || known.predict("m", row()).status;
    eventually("the refusal", || (ask() == 503).then_some(()), || known.log());
    triton.restart();
    eventually("the answer", || (ask() == 200).then_some(()), || known.log());
}

#[test]
fn a_remote_that_wants_to_know_who_asks_is_shown_the_certificate() {
    let certificates = Certificates::make();
    let Some(triton) = Triton::start_with(&["bankchurn"], &certificates.triton(true)) else { return };
    let own = "tls = { ca = \"ca.pem\", cert = \"client.pem\", key = \"client.key\" }";
    let host = encrypted(&triton, &certificates, own).start();
    assert_eq!(host.predict("m", json!([vec![0.0; 18]])).status, 200);
    let parts = ["executor \"remote\"", "cannot be reached", "tls"];
    refused(encrypted(&triton, &certificates, "tls = { ca = \"ca.pem\" }"), &parts);
}

#[test]
fn keepalive_finds_a_silent_remote_and_leaves_a_slow_one_alone() {
    // Triton allows pings this often only with these options.
    let often = ["--grpc-http2-min-recv-ping-interval-without-data=50", "--grpc-http2-max-ping-strikes=0"];
    let Some(triton) = Triton::start_with(&["slow"], &often.map(str::to_owned)) else { return };
    let host = host(&triton, "keepalive_ms = 200", &["slow"]);
    let slow = json!({"model": "slow", "data": [1_500]}).to_string();
    assert_eq!(host.post("/predict", &slow).result(), json!({"slept": [1_500]}));
    let mut client = host.client();
    let long = json!({"model": "slow", "data": [60_000]}).to_string();
    client.begin("POST", "/predict", &[], long.as_bytes()).expect("sent");
    host.wait_for_policy("the call being there", |policy| policy["executors"]["remote"]["busy"] == 1);
    triton.hang();
    let started = Instant::now();
    client.receive().expect("an answer").refused(503, "unavailable", &["executor \"remote\"", "connection"]);
    // The watch alone would take four unanswered probes, about seven seconds.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    triton.go_on();
}
