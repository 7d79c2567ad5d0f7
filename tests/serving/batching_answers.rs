//! Requests that share a run get the answers that they would get alone: bit for bit, where the
//! runtime guarantees it.

use crate::support::gather::{batches, gathered, predict, reruns};
use crate::support::{Answer, Client, Setup, churn, example, model, plugin};
use serde_json::{Value, json};

#[test]
fn every_datatype_comes_out_as_it_went_in() {
    let manifest = "[executors.onnx]\nworkers = 1\n[models.loop]\npath = \"loop.onnx\"\n[models.types]\npath = \"types.onnx\"\nmax_batch_size = 32\n";
    let host =
        Setup::new(manifest).file("types.onnx", model("datatypes")).file("loop.onnx", model("loop")).start();
    let request = |seed: i64, rows: usize| {
        let numbers: Vec<i64> = (0..rows as i64).map(|row| (seed + row) % 7).collect();
        let inputs: serde_json::Map<String, Value> = [
            "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "fp16", "bf16",
            "fp32", "fp64", "bytes",
        ]
        .into_iter()
        .map(|name| {
            let data = match name {
                "bool" => json!(numbers.iter().map(|n| n % 2 == 0).collect::<Vec<_>>()),
                "bytes" => json!(numbers.iter().map(|n| "é".repeat(*n as usize)).collect::<Vec<_>>()),
                _ => json!(numbers),
            };
            (name.to_owned(), data)
        })
        .collect();
        Value::Object(inputs)
    };
    let sizes = [1, 3, 0, 2, 1];
    let bodies: Vec<Value> =
        sizes.iter().enumerate().map(|(seed, &rows)| predict("types", request(seed as i64, rows))).collect();
    let alone: Vec<Value> =
        bodies.iter().map(|body| host.post("/predict", body.to_string()).result()).collect();
    let before = batches(&host);
    let requests: Vec<_> = bodies.into_iter().map(|body| ("/predict", body)).collect();
    let together: Vec<Value> = gathered(&host, &requests).iter().map(Answer::result).collect();
    assert_eq!(together, alone);
    let after = batches(&host);
    assert_eq!((after.0 - before.0, after.1 - before.1), (1.0, 5.0));
}

fn bankchurn(instances: &str) -> Setup {
    let tables = "path = \"model.onnx\"\ntransformer = \"churn\"\n";
    let manifest = format!(
        "[models.single]\n{tables}[models.batched]\n{tables}max_batch_size = 32\n[models.tensors]\npath = \
         \"model.onnx\"\nmax_batch_size = 32\n[plugins.churn]\npath = \"churn.wasm\"\ninstances = \
         \"{instances}\"\n[plugins.churn.assets]\nscaling = \"scaling.json\"\n"
    );
    let setup = Setup::new(&manifest).file("model.onnx", example("bankchurn/model.onnx"));
    setup.file("scaling.json", example("bankchurn/scaling.json")).file("churn.wasm", plugin("churn"))
}

#[test]
fn bankchurn_answers_the_same_to_the_last_bit() {
    let rows = churn::rows();
    for instances in ["fresh", "reused"] {
        let host = bankchurn(instances).start();
        let ask = |client: &mut Client, name: &str, row: &Value| {
            client.post("/predict", predict(name, row.clone()).to_string()).result().to_string()
        };
        let mut client = host.client();
        let alone: Vec<String> = rows.iter().map(|(row, _)| ask(&mut client, "single", row)).collect();
        // Compared as text: a number that differs in its last bit differs in its text.
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let (host, rows, alone) = (&host, &rows, &alone);
                scope.spawn(move || {
                    let mut client = host.client();
                    for index in (thread..rows.len()).step_by(16) {
                        let answer =
                            client.post("/predict", predict("batched", rows[index].0.clone()).to_string());
                        assert_eq!(answer.result().to_string(), alone[index], "row {index}");
                    }
                });
            }
        });
        let items: Vec<Value> = rows.iter().map(|(row, _)| json!({"data": row})).collect();
        let answer =
            host.post("/predict/batch", json!({"model": "batched", "items": items}).to_string()).json();
        let results: Vec<String> =
            answer["results"].as_array().unwrap().iter().map(Value::to_string).collect();
        assert_eq!(results, alone);
        let (runs, requests) = batches(&host);
        eprintln!("{instances}: {requests} requests in {runs} runs");
        assert!(requests == 2.0 * rows.len() as f64 && runs < requests / 2.0, "{requests} in {runs}");
        assert_eq!(reruns(&host), 0.0);
    }
}

#[test]
fn a_record_that_preprocess_refuses_fails_alone_before_the_run() {
    let host = bankchurn("reused").start();
    let rows = churn::rows();
    let mut items: Vec<Value> = rows.iter().take(16).map(|(row, _)| json!({"data": row})).collect();
    items[3]["data"]["age"] = 101.into();
    let answer = host.post("/predict/batch", json!({"model": "batched", "items": items}).to_string()).json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.iter().filter(|result| result.is_null()).count(), 1, "{answer}");
    assert_eq!((&answer["errors"][0]["index"], &answer["errors"][0]["field"]), (&json!(3), &json!("age")));
    assert_eq!(reruns(&host), 0.0);
}

/// A matrix product of one row uses other instructions than one of many rows, so the last bits of a
/// number may differ: `docs/reference/manifest.md` says so. The difference must stay within
/// rounding.
#[test]
fn a_matrix_product_may_differ_in_its_last_bits_and_no_more() {
    let manifest = "[executors.onnx]\nworkers = 1\n[models.loop]\npath = \"loop.onnx\"\n[models.dense]\npath = \
                    \"dense.onnx\"\nmax_batch_size = 16\n";
    let host =
        Setup::new(manifest).file("dense.onnx", model("dense")).file("loop.onnx", model("loop")).start();
    let bodies: Vec<Value> = (0..16)
        .map(|row| {
            let features: Vec<f64> =
                (0..16).map(|column| f64::from((row * 31 + column * 17) % 29) / 29.0).collect();
            predict("dense", json!([features]))
        })
        .collect();
    let values =
        |answer: &Answer| -> Vec<f64> { serde_json::from_value(answer.result()["y"][0].clone()).unwrap() };
    let alone: Vec<Vec<f64>> =
        bodies.iter().map(|body| values(&host.post("/predict", body.to_string()))).collect();
    let requests: Vec<_> = bodies.into_iter().map(|body| ("/predict", body)).collect();
    let together: Vec<Vec<f64>> = gathered(&host, &requests).iter().map(values).collect();
    assert_eq!(batches(&host), (17.0, 32.0), "16 alone, 16 in one run");
    let pairs = || together.iter().flatten().zip(alone.iter().flatten());
    let worst = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    eprintln!("{} of 64 numbers differ, by {worst:e} at most", pairs().filter(|(a, b)| a != b).count());
    assert!(worst < 1e-5, "{worst:e}");
    assert!(alone.iter().any(|row| row != &alone[0]), "the rows are not all the same");
}
