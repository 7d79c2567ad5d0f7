//! Tests `examples/scoring` and `examples/vision` as shipped.

use crate::support::{Answer, Host, Setup, example, plugin};
use serde_json::{Value, json};

fn serve(name: &str, files: &[&str]) -> Host {
    let manifest = std::fs::read_to_string(example(&format!("{name}/hostler.toml"))).unwrap();
    let manifest = manifest.replace("../../plugins/bin/", "");
    let mut setup = Setup::new(&manifest).file(&format!("{name}.wasm"), plugin(name));
    for file in files {
        setup = setup.file(file, example(&format!("{name}/{file}")));
    }
    setup.start()
}

#[test]
fn scoring_asks_the_big_model_if_the_small_one_is_not_sure() {
    let host = serve("scoring", &["small.onnx", "big.onnx", "reasons.onnx", "checks.json"]);
    let request = std::fs::read_to_string(example("scoring/request.json")).unwrap();
    let result = host.post("/predict", request).result();
    assert_eq!(result["reasons"][0].as_array().unwrap().len(), 8, "{result}");
    let runs = |step: &str, outcome: &str| {
        host.admin_get("/admin/pipelines/scoring").json()["steps"][step]["runs"][outcome].as_u64().unwrap()
    };
    let before = runs("big", "ok");
    let sure = host.predict("scoring", json!({"x": [[3, 0, 3, 0, 0, 0, 0, 0]]})).result();
    assert!(sure["probability"][0][0].as_f64().unwrap() > 0.99 && sure.get("reasons").is_none(), "{sure}");
    assert_eq!(runs("big", "ok"), before);
    host.predict("scoring", json!({"x": [[0.5, 1, 0.5, 0, 0, 0, 1, 1]]})).result();
    assert_eq!(runs("big", "ok"), before + 1);
    let wrong = host.predict("scoring", json!({"x": [[0, 9, 0, 0, 0, 0, 0, 0]]}));
    let error =
        wrong.refused(400, "invalid_input", &["step \"valid\"", "feature 1 is 9; it must be from -5 to 5"]);
    assert_eq!(error["step"], "valid", "{error}");
}

#[test]
fn vision_names_what_is_in_a_picture_and_nothing_in_an_empty_one() {
    let host = serve("vision", &["detector.onnx", "classifier.onnx"]);
    let ask = |jpeg: &[u8]| -> Answer {
        host.client().request("POST", "/predict/vision", &[("content-type", "image/jpeg")], jpeg)
    };
    let picture = |name: &str| std::fs::read(example(&format!("vision/{name}"))).unwrap();
    let found = ask(&picture("three.jpg")).result();
    let square =
        |label: &str, x: i64, y: i64| json!({"label": label, "box": [8 * x, 8 * y, 8 * x + 8, 8 * y + 8]});
    assert_eq!(found, json!([square("red", 1, 1), square("green", 5, 2), square("blue", 3, 6)]));
    assert_eq!(ask(&picture("nothing.jpg")).result(), json!([]));
    // More crops than the 16 rows of one part.
    let many = ask(&picture("many.jpg")).result();
    let many = many.as_array().unwrap();
    assert_eq!(many.len(), 24);
    let colour = |found: &Value| ["red", "green", "blue"][found["box"][0].as_u64().unwrap() as usize / 8 % 3];
    assert!(many.iter().all(|found| found["label"] == colour(found)), "{many:?}");
    // Bytes that are no picture, and a picture that is cut short.
    let parts = ["step \"decode\"", "not a JPEG that can be read"];
    let error = ask(b"hello").refused(400, "invalid_input", &parts);
    assert_eq!(error["field"], "jpeg", "{error}");
    ask(&picture("three.jpg")[..200]).refused(400, "invalid_input", &parts);
    assert_eq!(ask(&picture("nothing.jpg")).result(), json!([]), "and it serves on");
}
