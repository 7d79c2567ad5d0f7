//! `max_batch_size`: requests that share a run get the answers that they would get alone, and fail
//! individually.

use crate::support::gather::{batches, gathered, hold, predict, reruns, send, wait_for_queue};
use crate::support::slow::ENDLESS;
use crate::support::{Client, Host, Setup, eventually, model, plugin};
use serde_json::{Value, json};
use std::time::Duration;

const MANIFEST: &str = r#"
[executors.onnx]
workers = 1
sessions = 1

[models.loop]
path = "loop.onnx"

[models.gather]
path = "gather.onnx"
max_batch_size = 32

[models.alone]
path = "gather.onnx"

[models.small]
path = "gather.onnx"
max_batch_size = 4

[models.matrix]
path = "identity.onnx"
max_batch_size = 32

[models.two]
path = "two_inputs.onnx"
max_batch_size = 32

[models.positives]
path = "positives.onnx"
max_batch_size = 32

[models.rounds]
path = "rounds.onnx"
max_batch_size = 32
"#;

/// Starts a host with one worker, which a test can occupy while requests queue behind it.
fn start() -> Host {
    let files = ["loop", "gather", "identity", "two_inputs", "positives", "rounds"];
    let setup = files
        .iter()
        .fold(Setup::new(MANIFEST), |setup, name| setup.file(&format!("{name}.onnx"), model(name)));
    setup.start()
}

fn oip(model: &str, inputs: Value) -> (String, Value) {
    (format!("/v2/models/{model}/infer"), json!({"inputs": inputs}))
}

#[test]
fn what_waits_is_run_at_once_whatever_way_it_was_asked() {
    let host = start();
    let (path, body) =
        oip("gather", json!([{"name": "x", "datatype": "INT64", "shape": [2], "data": [3, 4]}]));
    let items: Vec<Value> = (0..5).map(|x| json!({"data": [x]})).collect();
    let answers = gathered(
        &host,
        &[
            ("/predict", predict("gather", json!([1]))),
            ("/predict", predict("gather", json!([2]))),
            (&path, body),
            ("/predict/batch", json!({"model": "gather", "items": items})),
            ("/predict/gather", json!([9, 8, 7])),
        ],
    );
    let tenth = |x: i64| json!((x as f64) / 10.0);
    assert_eq!(answers[0].result()["y"], json!([tenth(1)]));
    assert_eq!(answers[1].result()["y"], json!([tenth(2)]));
    let outputs = &answers[2].json()["outputs"];
    assert_eq!((&outputs[0]["shape"], &outputs[0]["data"]), (&json!([2]), &json!([tenth(3), tenth(4)])));
    let expected: Vec<Value> = (0..5).map(|x| json!({"y": [tenth(x)]})).collect();
    assert_eq!(answers[3].json()["results"], json!(expected));
    assert_eq!(answers[4].result()["y"], json!([tenth(9), tenth(8), tenth(7)]));
    assert_eq!(batches(&host), (1.0, 9.0), "one run of all");
    host.wait_for_idle("onnx");
    let status = host.executor("onnx");
    assert_eq!((&status["busy"], &status["queue_length"]), (&json!(0), &json!(0)), "{status}");
}

#[test]
fn no_run_has_more_rows_than_allowed() {
    let host = start();
    let singles: Vec<_> = (0..10).map(|x| ("/predict", predict("small", json!([x])))).collect();
    for (x, answer) in gathered(&host, &singles).iter().enumerate() {
        assert_eq!(answer.result()["y"], json!([x as f64 / 10.0]));
    }
    assert_eq!(batches(&host), (3.0, 10.0), "4, 4 and 2");
    // Rows count, not requests. A request that exceeds the limit runs alone.
    let rows = |count: usize| ("/predict", predict("small", json!(vec![1; count])));
    let answers = gathered(&host, &[rows(3), rows(2), rows(2), rows(6)]);
    let lengths: Vec<usize> =
        answers.iter().map(|answer| answer.result()["y"].as_array().unwrap().len()).collect();
    assert_eq!(lengths, [3, 2, 2, 6]);
    assert_eq!(batches(&host), (6.0, 14.0), "3, 2 + 2 and 6");
    // A batch of a thousand items yields the worker after each run.
    let items: Vec<Value> = (0..1000).map(|x| json!({"data": [x % 10]})).collect();
    let answer = host.post("/predict/batch", json!({"model": "small", "items": items}).to_string()).json();
    let expected: Vec<Value> = (0..1000).map(|x| json!({"y": [f64::from(x % 10) / 10.0]})).collect();
    assert_eq!(answer["results"], json!(expected));
}

#[test]
fn models_without_batches_and_other_limits_do_not_mix() {
    let host = start();
    // All models use the same file, and therefore the same sessions.
    let requests: Vec<_> = ["gather", "alone", "small", "gather", "alone", "small"]
        .map(|name| ("/predict", predict(name, json!([5]))))
        .into();
    for answer in gathered(&host, &requests) {
        assert_eq!(answer.result()["y"], json!([0.5]));
    }
    assert_eq!(batches(&host), (2.0, 4.0), "those without are not counted");
}

#[test]
fn one_bad_request_among_fifteen_good_ones_fails_alone() {
    let host = start();
    let request = |x: i64| ("/predict", predict("gather", json!([x])));
    let mut requests: Vec<_> = (0..16).map(|x| request(x % 10)).collect();
    requests[6] = request(10);
    let answers = gathered(&host, &requests);
    for (x, answer) in answers.iter().enumerate() {
        if x == 6 {
            assert!([400, 500].contains(&answer.status), "{}", answer.text());
            assert!(answer.text().contains("out of data bounds"), "{}", answer.text());
        } else {
            assert_eq!(answer.result()["y"], json!([(x % 10) as f64 / 10.0]));
        }
    }
    assert_eq!((batches(&host), reruns(&host)), ((1.0, 16.0), 1.0));
    assert_eq!(host.metric("hostler_requests_total{code=\"200\",model=\"gather\",version=\"1\"}"), 15.0);
}

#[test]
fn other_shapes_run_apart_and_other_orders_together() {
    let host = start();
    let matrix = |rows: &[&[f64]]| ("/predict", predict("matrix", json!(rows)));
    let answers = gathered(
        &host,
        &[
            matrix(&[&[1.0, 2.0]]),
            matrix(&[&[3.0]]),
            matrix(&[&[4.0, 5.0], &[6.0, 7.0]]),
            matrix(&[&[8.0], &[9.0]]),
        ],
    );
    let results: Vec<Value> = answers.iter().map(|answer| answer.result()["y"].clone()).collect();
    assert_eq!(
        results,
        [json!([[1.0, 2.0]]), json!([[3.0]]), json!([[4.0, 5.0], [6.0, 7.0]]), json!([[8.0], [9.0]])]
    );
    assert_eq!(batches(&host), (2.0, 4.0), "two widths, two runs");

    let input = |name: &str, data: Value| {
        let length = data.as_array().unwrap().len();
        json!({"name": name, "datatype": "FP32", "shape": [length], "data": data})
    };
    let two = |inputs: Value| oip("two", inputs);
    let bodies = [
        two(json!([input("a", json!([1])), input("b", json!([10]))])),
        two(json!([input("b", json!([20])), input("a", json!([2]))])),
        // If one row applies to all others, that is up to the model: such a request has no row
        // count.
        two(json!([input("a", json!([3, 4])), input("b", json!([30]))])),
    ];
    let requests: Vec<_> = bodies.iter().map(|(path, body)| (path.as_str(), body.clone())).collect();
    let answers = gathered(&host, &requests);
    let results: Vec<Value> =
        answers.iter().map(|answer| answer.json()["outputs"][0]["data"].clone()).collect();
    assert_eq!(results, [json!([11.0]), json!([22.0]), json!([33.0, 34.0])]);
    assert_eq!(batches(&host), (4.0, 7.0), "two together, one apart");
}

#[test]
fn a_model_that_does_not_keep_rows_apart_is_run_alone_and_said_once() {
    let host = start();
    let request = |x: f64| ("/predict", predict("positives", json!([x, 1.0])));
    for _ in 0..2 {
        let answers = gathered(&host, &[request(2.0), request(-2.0), request(3.0)]);
        let results: Vec<Value> = answers.iter().map(|answer| answer.result()["y"].clone()).collect();
        assert_eq!(results, [json!([2.0, 1.0]), json!([1.0]), json!([3.0, 1.0])]);
    }
    assert_eq!(reruns(&host), 2.0);
    host.wait_for_log(&["batch not divisible into rows", "model=\"positives\"", "expected 6 rows"]);
    assert_eq!(host.log().matches("batch not divisible into rows").count(), 1);
}

#[test]
fn who_has_left_is_not_computed() {
    let host = start();
    let holder = hold(&host);
    let mut clients: Vec<Client> =
        (0..6).map(|x| send(&host, "/predict", &predict("gather", json!([x])))).collect();
    wait_for_queue(&host, 6);
    clients.drain(..3).for_each(drop);
    // The host has noticed the disconnects, but reading the metric does not sweep the queue.
    let seen = || (host.metric("hostler_errors_total{kind=\"cancelled\"}") == 3.0).then_some(());
    eventually("three to have left", seen, || host.log());
    drop(holder);
    for (x, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.receive().unwrap().result()["y"], json!([(x + 3) as f64 / 10.0]));
    }
    assert_eq!(batches(&host), (1.0, 3.0));
}

#[test]
fn each_has_its_own_deadline_and_the_run_ends_with_the_last() {
    let host = start();
    let within = |rounds: u64, timeout_ms: u64| {
        let mut body = predict("rounds", json!([rounds]));
        body["timeout_ms"] = timeout_ms.into();
        ("/predict", body)
    };
    // One request needs more time than it has. The run continues for the others as long as one of
    // them waits.
    let holder = hold(&host);
    let mut hasty = send(&host, "/predict", &within(ENDLESS, 700).1);
    let mut patient = send(&host, "/predict", &within(1, 1500).1);
    wait_for_queue(&host, 2);
    drop(holder);
    let answer = hasty.receive().unwrap();
    answer.refused(504, "deadline", &["deadline"]);
    let status = host.executor("onnx");
    assert_eq!(status["busy"], 1, "the other still waits: {status}");
    patient.receive().unwrap().refused(504, "deadline", &["deadline"]);
    host.wait_for_idle("onnx");
    assert_eq!(batches(&host), (1.0, 2.0));
    assert_eq!(host.metric("hostler_executor_timeouts_total{executor=\"onnx\"}"), 2.0);

    // Running requests are counted as running. The run stops once all of its clients have
    // disconnected.
    let holder = hold(&host);
    let running: Vec<Client> = (0..4).map(|_| send(&host, "/predict", &within(ENDLESS, 60_000).1)).collect();
    wait_for_queue(&host, 4);
    drop(holder);
    host.wait_for_policy("four in one run", |policy| {
        let status = &policy["executors"]["onnx"];
        status["busy"] == 1 && status["inflight"] == 4 && status["queue_length"] == 0
    });
    drop(running);
    host.wait_for_idle("onnx");
    assert_eq!(reruns(&host), 0.0, "nobody was left to run again for");
    assert_eq!(host.predict("rounds", json!([1, 2])).result()["y"], json!([1.0, 2.0]));
}

fn delayed(delay_us: u64, workers: usize) -> Host {
    let manifest = format!(
        "[executors.onnx]\nworkers = {workers}\n[models.gather]\npath = \"gather.onnx\"\nmax_batch_size = 4\n\
         max_queue_delay_us = {delay_us}\n[models.now]\npath = \"identity.onnx\"\nmax_batch_size = 4\n"
    );
    Setup::new(&manifest)
        .file("gather.onnx", model("gather"))
        .file("identity.onnx", model("identity"))
        .start()
}

#[test]
fn a_delay_fills_a_batch_and_ends_when_it_is_full() {
    for workers in [1, 3] {
        // Far longer than the test: any answer arrives because the batch was full.
        let host = delayed(1_000_000, workers);
        let started = std::time::Instant::now();
        let mut clients: Vec<Client> =
            (0..4).map(|x| send(&host, "/predict", &predict("gather", json!([x])))).collect();
        for (x, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.receive().unwrap().result()["y"], json!([x as f64 / 10.0]));
        }
        eprintln!("{workers} workers: a full batch after {:?}", started.elapsed());
        assert_eq!(batches(&host), (1.0, 4.0));
        // A request that waits for its batch to fill does not block other models.
        let started = std::time::Instant::now();
        let mut waiting = send(&host, "/predict", &predict("gather", json!([9])));
        wait_for_queue(&host, 1);
        assert_eq!(host.predict("now", json!([[1.0]])).status, 200);
        assert_eq!(host.executor("onnx")["queue_length"], 1);
        assert_eq!(waiting.receive().unwrap().result()["y"], json!([0.9]), "it goes alone in the end");
        assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
        assert_eq!(batches(&host), (3.0, 6.0));
    }
}

#[test]
fn a_short_delay_under_load_answers_everything() {
    for workers in [1, 2, 4] {
        let host = delayed(500, workers);
        std::thread::scope(|scope| {
            for x in 0..12 {
                let host = &host;
                scope.spawn(move || {
                    let mut client = host.client();
                    for round in 0..100 {
                        let (name, data, expected) = match (x + round) % 4 {
                            0 => ("now", json!([[x]]), json!([[f64::from(x)]])),
                            _ => ("gather", json!([x % 10]), json!([f64::from(x % 10) / 10.0])),
                        };
                        let answer = client.post("/predict", predict(name, data).to_string());
                        assert_eq!(answer.result()["y"], expected);
                    }
                });
            }
        });
        host.wait_for_idle("onnx");
        let (runs, requests) = batches(&host);
        eprintln!("{workers} workers: {requests} requests in {runs} runs");
        assert_eq!((requests, reruns(&host)), (1200.0, 0.0));
    }
}

#[test]
fn plugins_that_are_models_share_runs_only_if_the_requests_are_alike() {
    let manifest = "[executors.cpu]\nworkers = 1\n[models.hostile]\nplugin = \"hostile\"\nmax_batch_size = 16\n\
                    [models.holder]\nplugin = \"hostile\"\n[plugins.hostile]\npath = \"hostile.wasm\"\n";
    let host = Setup::new(manifest).file("hostile.wasm", plugin("hostile")).start();
    let calls = || host.metric("hostler_plugin_calls_total{plugin=\"hostile\"}");
    let body =
        |deed: &str| json!({"model": "hostile", "data": ["a"], "parameters": {"do": deed, "at": "predict"}});
    let mut hold = body("sleep");
    hold["model"] = "holder".into();
    let holder = send(&host, "/predict", &hold);
    host.wait_for_policy("the holder", |policy| policy["executors"]["cpu"]["busy"] == 1);
    let before = calls();
    let mut clients: Vec<Client> =
        ["ok", "ok", "trap", "ok", "trap"].iter().map(|deed| send(&host, "/predict", &body(deed))).collect();
    host.wait_for_policy("five to wait", |policy| policy["executors"]["cpu"]["queue_length"] == 5);
    drop(holder);
    let statuses: Vec<u16> = clients.iter_mut().map(|client| client.receive().unwrap().status).collect();
    assert_eq!(statuses, [200, 200, 500, 200, 500]);
    // One run of the requests that succeed, one of those that trap, and then each of the latter
    // alone.
    assert_eq!(calls() - before, 4.0);
    assert_eq!(host.metric("hostler_executor_batch_reruns_total{executor=\"cpu\"}"), 1.0);
    assert_eq!(host.predict("hostile", json!(["a"])).status, 200);
}

#[test]
fn manifests_are_checked() {
    let check = |table: &str, args: &[&str]| {
        let setup =
            Setup::new(&format!("[models.m]\npath = \"m.onnx\"\n{table}")).file("m.onnx", model("gather"));
        let (code, out, err) = setup.run(&[&["check", "hostler.toml"], args].concat());
        (code, out + &err)
    };
    for (table, parts) in [
        (
            "max_batch_size = 0\n",
            &["hostler.toml:3:18", "model \"m:1\": max_batch_size is 0; it must be from 1 to 1024"][..],
        ),
        ("max_batch_size = 1025\n", &["hostler.toml:3:18", "from 1 to 1024", "1 runs each request alone"]),
        ("max_batch_size = \"many\"\n", &["hostler.toml:3:18", "expected a whole number"]),
        (
            "max_queue_delay_us = 100\n",
            &["hostler.toml:3:22", "does nothing without max_batch_size", "max_batch_size = 32"],
        ),
        ("max_batch_size = 8\nmax_queue_delay_us = 1000001\n", &["hostler.toml:4:22", "at most 1000000"]),
        (
            "timeout_ms = 10\nmax_batch_size = 8\nmax_queue_delay_us = 10000\n",
            &["hostler.toml:5:22", "as long as the model's timeout_ms"],
        ),
        ("batch_size = 8\n", &["hostler.toml:3:1", "did you mean \"max_batch_size\"?"]),
        ("max_queue_delay_microseconds = 8\n", &["hostler.toml:3:1", "did you mean \"max_queue_delay_us\"?"]),
    ] {
        let (code, said) = check(table, &["--quick"]);
        assert_eq!(code, 1, "{table}\n{said}");
        for part in parts {
            assert!(said.contains(part), "{table}\n{said}\nlacks {part}");
        }
    }
    for table in [
        "max_batch_size = 1\n",
        "max_batch_size = 8\n",
        "max_batch_size = 1024\nmax_queue_delay_us = 1000000\n",
    ] {
        let (code, said) = check(table, &[]);
        assert_eq!(code, 0, "{table}\n{said}");
    }
}

#[test]
fn a_model_without_rows_is_refused_with_the_tensor_and_its_shape() {
    for (file, parts) in [
        ("fixed", &["model \"m:1\": max_batch_size is 8", "input \"x\" has shape [3]"][..]),
        ("loop", &["input \"n\" has shape [1]"]),
    ] {
        let setup =
            Setup::new("[models.m]\npath = \"m.onnx\"\nmax_batch_size = 8\n").file("m.onnx", model(file));
        let (code, out, err) = setup.run(&["check", "hostler.toml"]);
        assert_eq!(code, 1, "{out}{err}");
        for part in parts {
            assert!(err.contains(part) || out.contains(part), "{out}{err}\nlacks {part}");
        }
    }
    // An input with a default may have its own shape: requests that set it run alone.
    let setup =
        Setup::new("[models.m]\npath = \"m.onnx\"\nmax_batch_size = 8\n").file("m.onnx", model("optional"));
    let host = setup.start();
    assert_eq!(host.predict("m", json!({"x": [1], "bias": [5]})).result()["y"], json!([6.0]));
    assert_eq!(host.predict("m", json!({"x": [1]})).result()["y"], json!([11.0]));
    // A change of the limit changes the policy.
    let (_, shown, _) = host.setup.run(&["check", "hostler.toml"]);
    assert!(shown.contains("ok"), "{shown}");
    assert_eq!(host.policy()["description"]["model \"m:1\""]["max_batch_size"], "8");
}
