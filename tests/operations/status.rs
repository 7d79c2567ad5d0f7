//! What operators see at a glance: `/admin/status` and `/admin/reloads`.

use crate::support::{Setup, model, plugin, replace};
use serde_json::{Value, json};

const MANIFEST: &str = "[reload]\nmode = \"manual\"\n[models.plus]\npath = \"plus.onnx\"\n";

fn setup() -> Setup {
    Setup::new(MANIFEST).file("plus.onnx", model("plus1"))
}

#[test]
fn the_status_has_executors_models_and_their_numbers() {
    let host = setup().start();
    (0..20).for_each(|_| drop(host.predict("plus", json!([1])).result()));
    assert_eq!(host.predict("plus", json!(["a"])).status, 400);
    host.wait_for_idle("onnx");
    let status = host.admin_get("/admin/status").json();
    assert_eq!((&status["generation"], &status["stale"]), (&json!(1), &json!(false)), "{status}");
    assert!(status["at"].as_f64() > status["started"].as_f64() && status["rollout"].is_null(), "{status}");
    let executors = status["executors"].as_array().unwrap();
    let onnx = executors.iter().find(|executor| executor["name"] == "onnx").unwrap();
    assert!(onnx["workers"].as_u64() > Some(0) && onnx["saturation"] == 0.0, "{onnx}");
    let [plus] = &status["models"].as_array().unwrap()[..] else { panic!("{status}") };
    assert_eq!(
        (&plus["model"], &plus["version"], &plus["ready"]),
        (&json!("plus"), &json!("1"), &json!(true))
    );
    assert_eq!((&plus["requests"], &plus["errors"]), (&json!(21), &json!(1)), "{plus}");
    let counts = plus["latency"]["counts"].as_array().unwrap();
    assert_eq!(counts.len(), status["latency_bounds_ms"].as_array().unwrap().len() + 1);
    let p = |name: &str| plus["latency"][name].as_f64().unwrap();
    assert!(0.0 < p("p50_ms") && p("p50_ms") <= p("p99_ms"), "{plus}");
    assert_eq!(status["plugins"], json!([]));
}

#[test]
fn reloads_are_listed_and_a_faulty_manifest_makes_the_status_stale() {
    let host = setup().start();
    let reload = |text: &str| {
        replace(&host.path("hostler.toml"), text.as_bytes());
        host.admin_post("/admin/reload").json()["outcome"].clone()
    };
    let slow = MANIFEST.replace("path =", "timeout_ms = 500\npath =");
    assert_eq!(host.admin_post("/admin/reload?dry_run=true").json()["outcome"], "unchanged");
    assert_eq!(reload(&slow), "applied");
    assert_eq!(reload("[models.plus]\npath = 7\n"), "rejected");
    let status = host.admin_get("/admin/status").json();
    assert_eq!(status["stale"], true);
    assert!(status["stale_reason"].as_str().unwrap().contains("path"), "{status}");
    assert_eq!(reload(&slow), "unchanged");
    let records = host.admin_get("/admin/reloads").json()["reloads"].clone();
    let outcomes: Vec<&Value> = records.as_array().unwrap().iter().map(|record| &record["outcome"]).collect();
    assert_eq!(outcomes, ["unchanged", "rejected", "applied", "applied"], "a dry run leaves no record");
    assert!(records[2]["changes"][0].as_str().unwrap().contains("timeout"), "{records}");
    let last = host.admin_get("/admin/reloads?limit=1").json()["reloads"].clone();
    assert_eq!(last, json!([records[0]]));
    for query in ["limit=0", "limit=201", "limit=many", "after=1"] {
        host.admin_get(&format!("/admin/reloads?{query}")).refused(400, "invalid_input", &[]);
    }
}

#[test]
fn a_reload_of_another_model_keeps_the_numbers_of_a_plugin() {
    let plugin_model = "[plugins.echo]\npath = \"echo.wasm\"\n[models.echo]\nplugin = \"echo\"\n";
    let host = Setup::new(&format!("{MANIFEST}{plugin_model}"))
        .file("plus.onnx", model("plus1"))
        .file("echo.wasm", plugin("echo"))
        .start();
    let requests = |name: &str| {
        let status = host.admin_get("/admin/status").json();
        let models = status["models"].as_array().unwrap().clone();
        models.iter().find(|model| model["model"] == name).unwrap()["requests"].clone()
    };
    (0..3).for_each(|_| drop(host.predict("echo", json!({"data": ["a"]}))));
    assert_eq!(requests("echo"), 3);
    let more = format!("{MANIFEST}timeout_ms = 500\n{plugin_model}");
    replace(&host.path("hostler.toml"), more.as_bytes());
    assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "applied");
    assert_eq!(requests("echo"), 3);
    let limited = more.replace("path = \"echo.wasm\"", "path = \"echo.wasm\"\nmemory_mb = 32");
    replace(&host.path("hostler.toml"), limited.as_bytes());
    assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "applied");
    assert_eq!(requests("echo"), 0, "another plugin");
}
