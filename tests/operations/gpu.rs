//! Tests models on a GPU. They need a GPU and the libraries of PyPI's `onnxruntime-gpu`, so they
//! run only on request: `ORT_DYLIB_PATH=…/libonnxruntime.so.1.31.1 cargo xtask test --only tests
//! --test operations gpu:: -- --ignored --nocapture --test-threads=1`. The load error on a machine
//! without a GPU is tested in `models`.

use crate::support::load::{Load, Shot};
use crate::support::{Answer, Host, Setup, model, repeats, replace};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// The model `dense` on the CPU executor `here` and on the GPU executor `there`.
const BOTH: &str = "[executors.here]\nkind = \"onnx\"\n\n[executors.there]\nkind = \"onnx\"\ndevice = \"cuda\"\n\n\
                    [models.slow]\npath = \"dense.onnx\"\n\n[models.fast]\npath = \"dense.onnx\"\n\n\
                    [policy]\nslow = \"here\"\nfast = \"there\"\n";

fn serve(manifest: &str) -> Host {
    Setup::new(manifest).file("dense.onnx", model("dense")).start()
}

/// Returns `count` different rows.
fn rows(count: usize) -> Value {
    let cell = |row: usize, column: usize| ((row * 16 + column) as f64 * 0.37).sin();
    (0..count).map(|row| (0..16).map(|column| cell(row, column)).collect::<Vec<_>>()).collect()
}

fn outputs(answer: &Answer) -> Vec<f64> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rows = answer.result()["y"].as_array().expect("rows").clone();
    rows.iter().flat_map(|row| row.as_array().expect("a row").clone()).map(|y| y.as_f64().unwrap()).collect()
}

/// Returns the largest difference between two answers.
fn apart(left: &[f64], right: &[f64]) -> f64 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f64::max)
}

/// Returns the memory in use on the first GPU, in MB.
fn gpu_memory_mb() -> u64 {
    let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"];
    let output = Command::new("nvidia-smi").args(query).output().expect("nvidia-smi runs");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number of MB")
}

/// Tolerance for the GPU's rounding: it multiplies with a mantissa of 10 bits where ONNX Runtime
/// allows it.
const ROUNDING: f64 = 5e-3;

#[test]
#[ignore = "needs a GPU"]
fn answers_are_those_of_the_cpu() {
    let host = serve(BOTH);
    let mut worst = 0f64;
    for count in [1, 2, 7, 64, 300] {
        let data = rows(count);
        let (slow, fast) = (host.predict("slow", data.clone()), host.predict("fast", data));
        worst = worst.max(apart(&outputs(&slow), &outputs(&fast)));
    }
    eprintln!("CPU and GPU differ by {worst:e} at most");
    assert!(worst < ROUNDING, "{worst}");
    let config = host.get("/v2/models/fast/config").json();
    assert_eq!(config["instance_group"][0]["kind"], "KIND_GPU", "{config}");
    assert_eq!(config["instance_group"][0]["gpus"], json!([0]), "{config}");
    let refused = host.predict("fast", json!([[1.0, 2.0]]));
    refused.refused(400, "invalid_input", &["expected shape [-1,16], got [1,2]"]);
    assert_eq!(host.predict("fast", rows(1)).status, 200);
}

#[test]
#[ignore = "needs a GPU"]
fn a_gpu_that_is_not_there_is_refused() {
    let manifest = BOTH.replace("\"cuda\"", "\"cuda:63\"");
    let setup = Setup::new(&manifest).file("dense.onnx", model("dense"));
    let (code, out, err) = setup.run(&["check", "hostler.toml"]);
    assert_eq!(code, 1, "{out}{err}");
    for part in
        ["model \"fast:1\": ", "device \"cuda:63\" cannot be used", "nvidia-smi -L", "device = \"cpu\""]
    {
        assert!(err.contains(part), "{err}\nlacks {part}");
    }
    eprintln!("{err}");
    // A running host keeps its live policy.
    let host = serve(BOTH);
    replace(&host.path("hostler.toml"), manifest.as_bytes());
    let policy = host.wait_for_outcome("rejected");
    assert!(policy["last_reload"].to_string().contains("cuda:63"), "{policy}");
    assert_eq!(host.predict("fast", rows(1)).status, 200);
}

/// Batched rows have the same results as single ones, and a row that does not fit fails alone.
#[test]
#[ignore = "needs a GPU"]
fn batches_give_what_single_requests_give() {
    let batched = BOTH.replace("[models.fast]\n", "[models.fast]\nmax_batch_size = 64\n");
    let host = serve(&batched);
    let expected = outputs(&host.predict("slow", rows(64)));
    let wrong = move |answer: &Answer| {
        let difference = apart(&outputs(answer), &expected[..4]);
        (difference > ROUNDING).then(|| format!("{difference}: {}", answer.text()))
    };
    let load = Load::start(host.http, 50, Shot::predict("fast", &rows(1)), None, wrong);
    std::thread::sleep(Duration::from_secs(1));
    let outcome = load.stop();
    assert_eq!(outcome.faults, Vec::<String>::new());
    let (count, sum) = ("hostler_executor_batch_size_count", "hostler_executor_batch_size_sum");
    let of = |name: &str| host.metric(&format!("{name}{{executor=\"there\"}}"));
    eprintln!("{} answers in runs of {:.1}", outcome.answers, of(sum) / of(count));
    assert!(of(sum) > 2.0 * of(count), "requests that wait share runs");
}

#[test]
#[ignore = "needs a GPU"]
fn moves_between_cpu_and_gpu_fail_no_request() {
    let swaps = repeats(20);
    let host = serve(BOTH);
    let expected = outputs(&host.predict("slow", rows(1)));
    let wrong = move |answer: &Answer| {
        let fault = || Some(format!("{} {}", answer.status, answer.text()));
        let right = answer.status == 200 && apart(&outputs(answer), &expected) < ROUNDING;
        if right { None } else { fault() }
    };
    let load = Load::start(host.http, 50, Shot::predict("slow", &rows(1)), None, wrong);
    let (mut generation, mut memory) = (host.generation(), Vec::new());
    for number in 0..swaps {
        let executor = ["there", "here"][number % 2];
        let manifest = BOTH.replace("slow = \"here\"", &format!("slow = \"{executor}\""));
        replace(&host.path("hostler.toml"), manifest.as_bytes());
        generation += 1;
        host.wait_for_generation(generation);
        std::thread::sleep(Duration::from_millis(250));
        memory.push(gpu_memory_mb());
    }
    let outcome = load.stop();
    let (p50, p99) = (outcome.percentile(0.5), outcome.percentile(0.99));
    eprintln!(
        "{swaps} moves, {} answers, p50 {p50:?}, p99 {p99:?}, MB on the GPU: {memory:?}",
        outcome.answers
    );
    assert_eq!(outcome.faults, Vec::<String>::new());
    // The first moves fill the pools of the driver, so late moves are compared with middle ones.
    let (early, late) = (memory[memory.len() / 2], memory[memory.len() - 1]);
    assert!(late <= early + 64, "sessions that are gone hold memory: {memory:?}");
}

/// Prints figures for the record and checks no bounds, because machines differ.
#[test]
#[ignore = "needs a GPU"]
fn figures() {
    let there = |keys: &str| BOTH.replace("device = \"cuda\"\n", &format!("device = \"cuda\"\n{keys}\n"));
    let batched =
        |manifest: String| manifest.replace("[models.fast]\n", "[models.fast]\nmax_batch_size = 64\n");
    let idle_mb = gpu_memory_mb();
    for (what, manifest, model, connections, count) in [
        ("CPU, 1 row", BOTH.to_owned(), "slow", 50, 1),
        ("GPU, 1 row", BOTH.to_owned(), "fast", 50, 1),
        ("GPU, 1 row, 1 session", there("sessions = 1"), "fast", 50, 1),
        ("GPU, 1 row, 8 sessions", there("sessions = 8"), "fast", 50, 1),
        ("GPU, 1 row, batched", batched(BOTH.to_owned()), "fast", 50, 1),
        ("GPU, 1 row, batched, 1 session", batched(there("sessions = 1")), "fast", 50, 1),
        ("GPU, 1 row, batched, 8 sessions", batched(there("sessions = 8")), "fast", 50, 1),
        ("CPU, 256 rows", BOTH.to_owned(), "slow", 8, 256),
        ("GPU, 256 rows", BOTH.to_owned(), "fast", 8, 256),
        ("GPU, 256 rows, 1 session", there("sessions = 1"), "fast", 8, 256),
        ("GPU, 256 rows, 8 sessions", there("sessions = 8"), "fast", 8, 256),
    ] {
        let host = serve(&manifest);
        let fault = |answer: &Answer| (answer.status != 200).then(|| answer.text());
        let load = Load::start(host.http, connections, Shot::predict(model, &rows(count)), None, fault);
        std::thread::sleep(Duration::from_secs(3));
        let memory_mb = gpu_memory_mb() - idle_mb;
        let outcome = load.stop();
        let (rate, p50, p99) = (outcome.answers / 3, outcome.percentile(0.5), outcome.percentile(0.99));
        eprintln!(
            "{what}, {connections} connections: {rate}/s, p50 {p50:?}, p99 {p99:?}, {memory_mb} MB on the GPU"
        );
        assert_eq!(outcome.faults, Vec::<String>::new());
    }
}
