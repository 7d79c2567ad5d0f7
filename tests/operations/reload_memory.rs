//! Tests that reloads return the memory of what they replace to the system.

use crate::support::{self, Setup, onnx, replace};
use serde_json::json;

const WIDTH: u64 = 768;
const LAYERS: u64 = 8;

/// Returns a model with 19 MB of weights, which depend on the seed.
fn layers(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut weight = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 / WIDTH as f32
    };
    let mut fields = Vec::new();
    for layer in 0..LAYERS {
        let weights: Vec<f32> = (0..WIDTH * WIDTH).map(|_| weight()).collect();
        let (name, input, output) = (format!("W{layer}"), format!("h{layer}"), format!("h{}", layer + 1));
        let tensor = onnx::tensor(&name, onnx::FLOAT, &[WIDTH, WIDTH], &onnx::floats(&weights));
        fields.push(onnx::field(5, tensor));
        fields.push(onnx::node("MatMul", &[&input, &name], &[&output], &[]));
    }
    let value = |name: &str| onnx::value(name, onnx::FLOAT, &[1, WIDTH]);
    onnx::model(&onnx::graph(&fields, &[value("h0")], &[value(&format!("h{LAYERS}"))]), &[])
}

#[test]
fn twenty_reloads_of_a_model_leave_no_more_than_the_two_generations_that_are_kept() {
    let manifest =
        "[models.m]\npath = \"m.onnx\"\n[executors.onnx]\nsessions = 2\n[reload]\nmode = \"manual\"\n";
    let setup = Setup::new(manifest);
    let model = layers(1);
    // A different model each time, because content of the live or previous generation is not loaded
    // again.
    let numbered = |turn: u32| {
        let property = [onnx::field(1, "turn"), onnx::field(2, turn.to_string())].concat();
        [model.clone(), onnx::field(14, property)].concat()
    };
    replace(&setup.path("m.onnx"), &numbered(0));
    let host = setup.start();
    let start = host.usage().rss_kb;
    let row = vec![1.0; WIDTH as usize];
    for turn in 1..=20 {
        replace(&host.path("m.onnx"), &numbered(turn));
        assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "applied", "{}", host.log());
        host.predict("m", json!([row])).result();
    }
    let most = start * 2;
    let seen = || host.usage().rss_kb;
    support::eventually(
        &format!("no more than {most} kB of memory"),
        || (seen() <= most).then_some(()),
        || format!("{start} kB at start, {} kB now", seen()),
    );
}
