//! Tests calls from plugins to models on a real Triton: their results, the ids and traces under
//! which they are made, and the error for a guest when the remote is gone.

use crate::support::triton::Triton;
use crate::support::{Host, Setup, eventually, model, plugin};
use serde_json::json;

/// The calling models. `outer` runs the plugin `caller`, with a blocking interface; `router` is a
/// streaming model.
const CALLERS: [&str; 2] = ["outer", "router"];

/// Starts a host with `far` on the remote and `near`, the same model, on this machine. `outer`
/// calls `far`, and `router` calls both.
fn host(triton: &Triton) -> Host {
    let models = "[models.far]\nremote = { name = \"plus1\" }\n\n[models.near]\npath = \"plus1.onnx\"\n\n\
                  [plugins.caller]\npath = \"caller.wasm\"\nconfig = { to = \"far\" }\n\n[plugins.router]\n\
                  path = \"router.wasm\"\nconfig = { first = \"far\", second = \"near\" }\n\n[models.outer]\n\
                  plugin = \"caller\"\n\n[models.router]\nplugin = \"router\"\n";
    Setup::new(&(triton.executor("") + models))
        .file("plus1.onnx", model("plus1"))
        .file("caller.wasm", plugin("caller"))
        .file("router.wasm", plugin("router"))
        .start()
}

#[test]
fn a_remote_model_is_called_as_any_other_and_its_loss_is_a_value() {
    let Some(mut triton) = Triton::start(&["plus1"]) else { return };
    let host = host(&triton);
    let ask = |name: &str, deed: &str| {
        let body = json!({"model": name, "data": [1.0, 2.0], "parameters": {"do": deed}});
        host.post("/predict", body.to_string())
    };
    for deed in ["call", "start", "catch"] {
        assert_eq!(ask("outer", deed).result(), json!({"y": [2.0, 3.0]}), "{deed}");
    }
    assert_eq!(ask("router", "").result(), json!({"first": [2.0, 3.0], "second": [2.0, 3.0]}));

    triton.kill();
    for (name, deed) in [("outer", "call"), ("outer", "start"), ("router", "")] {
        ask(name, deed).refused(503, "unavailable", &["executor \"remote\"", &triton.url()]);
    }
    assert_eq!(ask("outer", "catch").result(), json!({"y": [-1.0]}), "it goes on without");
    assert_eq!(ask("near", "").result(), json!({"y": [2.0, 3.0]}), "others are served");
    for plugin in ["caller", "router"] {
        assert_eq!(host.metric(&format!("hostler_plugin_traps_total{{plugin=\"{plugin}\"}}")), 0.0);
    }
    host.wait_for_idle("cpu");
    host.wait_for_idle("remote");

    triton.restart();
    eventually("the answer", || (ask("outer", "call").status == 200).then_some(()), || host.log());
}

#[test]
fn a_called_model_is_asked_in_the_trace_of_the_request() {
    let forwards = "--grpc-header-forward-pattern=traceparent".to_owned();
    let Some(triton) = Triton::start_with(&["plus1"], &[forwards]) else { return };
    let host = host(&triton);
    for (number, name) in CALLERS.iter().enumerate() {
        let id = format!("asks-{name}");
        let trace = format!("00-0af7651916cd43dd8448eb211c8031{number:02}-b7ad6b7169203331-01");
        let body = json!({"model": name, "data": [1.0]}).to_string();
        let headers =
            [("content-type", "application/json"), ("x-request-id", &*id), ("traceparent", &*trace)];
        let answer = host.client().request("POST", "/predict", &headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        triton.wait_for_log(&format!("plus1 for {id} in {trace}"));
    }
    // A request without a trace does not start one.
    assert_eq!(host.predict("outer", json!([1.0])).status, 200);
    triton.wait_for_log("in None");
}
