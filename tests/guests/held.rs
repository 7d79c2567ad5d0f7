//! Tests the limits on host memory that guests retain: tensors that they never drop, inputs that
//! they keep, results of calls, values in their state. Each counts against a limit of the manifest,
//! in every role and kind of instance. A guest that leaks is replaced, and its requests succeed.

use crate::support::slow::{fresh_and_reused, setup};
use crate::support::{Answer, Client, Host, Setup, eventually, model, plugin};
use serde_json::{Value, json};

const MB: usize = 1 << 20;

/// Starts a host with the models `fresh`, `reused` and `around`, which has `fresh` as model and
/// `reused` as transformer. `limits` goes into the tables of both plugins.
fn hostile(limits: &str) -> Host {
    let around = "[models.around]\nplugin = \"fresh\"\ntransformer = \"reused\"\n";
    let models = fresh_and_reused(&format!("result_mb = 256\nheld_mb = 64\n{limits}"));
    setup(&(models + around)).start()
}

/// Starts a host with models that call `plus1.onnx`, all on one worker; `parameters` of a request
/// say what they do.
fn caller(language: &str) -> Host {
    let manifest = r#"
[executors.cpu]
kind = "thread-pool"
workers = 1

[plugins.caller]
path = "caller.wasm"
instances = "reused"
memory_mb = 256
held_mb = 32

[plugins.caller.config]
to = "plus1"

[models.caller]
plugin = "caller"

[models.around]
path = "plus1.onnx"
transformer = "caller"

[models.plus1]
path = "plus1.onnx"

[policy]
caller = "cpu"
plus1 = "cpu"
around = "cpu"
"#;
    let manifest = match language {
        "caller" => manifest.to_owned(),
        // The plugins in other languages are transformers only.
        _ => manifest.replace("[models.caller]\nplugin = \"caller\"\n", "").replace("caller = \"cpu\"\n", ""),
    };
    Setup::new(&manifest).file("caller.wasm", plugin(language)).file("plus1.onnx", model("plus1")).start()
}

/// Sends one raw tensor of this shape in a body whose JSON is followed by `padding` spaces.
fn infer(
    client: &mut Client,
    name: &str,
    parameters: &Value,
    (input, datatype, count): (&str, &str, usize),
    data: &[u8],
    padding: usize,
) -> Answer {
    let mut parameters = parameters.clone();
    parameters["binary_data_output"] = json!(true);
    let tensor = json!({"name": input, "datatype": datatype, "shape": [count],
                        "parameters": {"binary_data_size": data.len()}});
    let mut body = json!({"parameters": parameters, "inputs": [tensor]}).to_string().into_bytes();
    body.resize(body.len() + padding, b' ');
    let length = body.len().to_string();
    body.extend_from_slice(data);
    let headers = [("inference-header-content-length", length.as_str())];
    client.request("POST", &format!("/v2/models/{name}/infer"), &headers, &body)
}

/// Returns one BYTES element of this length, as `hostile` accepts it.
fn element(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).expect("a small element").to_le_bytes();
    length.into_iter().chain(std::iter::repeat_n(7, bytes)).collect()
}

fn infer_element(client: &mut Client, name: &str, deed: &str, bytes: usize, padding: usize) -> Answer {
    let parameters = json!({"do": deed});
    infer(client, name, &parameters, ("data", "BYTES", 1), &element(bytes), padding)
}

/// Sends 4 MB of numbers, as `caller` and `repeat` accept them.
fn infer_numbers(client: &mut Client, name: &str, parameters: &Value) -> Answer {
    infer(client, name, parameters, ("x", "FP32", MB), &vec![0; 4 * MB], 0)
}

fn good(answer: &Answer) {
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn held(host: &Host, plugin: &str) -> f64 {
    host.metric(&format!("hostler_plugin_held_bytes{{plugin=\"{plugin}\"}}"))
}

/// Waits until `plugin` holds `bytes`: an instance may end shortly after its last answer.
fn holds(host: &Host, plugin: &str, bytes: usize) {
    let what = format!("{plugin} holding {bytes} bytes");
    eventually(
        &what,
        || (held(host, plugin) == bytes as f64).then_some(()),
        || held(host, plugin).to_string(),
    );
}

/// Sends `rounds` requests that must all succeed, while the metric stays within `limit` bytes and
/// the process does not grow by what all requests leave behind.
fn leaks_are_bounded(
    host: &Host,
    plugin: &str,
    rounds: usize,
    limit: usize,
    mut ask: impl FnMut() -> Answer,
) {
    good(&ask());
    let before = host.usage();
    let mut most = 0.0_f64;
    for _ in 0..rounds {
        good(&ask());
        most = most.max(held(host, plugin));
    }
    assert!(most <= limit as f64, "{plugin} holds {most} bytes");
    let grown_kb = before.growth_kb(&[host.usage(), host.usage()]);
    // Leaves room for the allocator and for one request.
    assert!(grown_kb < 2 * (limit >> 10) as u64 + 100_000, "{plugin} has grown the host by {grown_kb} kB");
}

#[test]
fn a_reused_instance_that_leaks_tensors_is_replaced_before_it_is_refused() {
    let host = hostile("");
    let mut client = host.client();
    let ask = || {
        let body = json!({"model": "around", "data": 1, "parameters": {"do": "hoard", "mb": 10}});
        client.request("POST", "/predict", &[], body.to_string().as_bytes())
    };
    // Per round, two functions of `reused` and one of `fresh` leak 10 MB each: 900 MB in all.
    leaks_are_bounded(&host, "reused", 30, 64 * MB, ask);
    holds(&host, "fresh", 0);
}

#[test]
fn what_a_guest_wants_to_hold_over_its_limit_is_refused_in_its_call() {
    let host = hostile("");
    for name in ["reused", "fresh"] {
        let parameters = json!({"do": "hoard", "mb": 20, "count": 4});
        let answer = infer(&mut host.client(), name, &parameters, ("data", "BYTES", 1), &element(1), 0);
        let message = format!(
            "refused: plugin \"{name}\": an instance holds 60 MiB of tensors and results, and 20 MiB more would exceed \
             held_mb = 64; drop tensors that are no longer needed, or raise held_mb"
        );
        assert!(
            answer.status == 500 && answer.text().contains(&message.replace('"', "\\\"")),
            "{}",
            answer.text()
        );
        // The instance, which holds too much, ends with the call.
        holds(&host, name, 0);
    }
}

#[test]
fn all_instances_of_a_plugin_together_have_a_limit() {
    let host = hostile("held_total_mb = 64");
    let mut client = host.client();
    let mut hoard = |name: &str, mb: usize, count: usize| {
        let parameters = json!({"do": "hoard", "mb": mb, "count": count, "at": "predict"});
        infer(&mut client, name, &parameters, ("data", "BYTES", 1), &element(1), 0)
    };
    // An instance in the model role keeps about half of the total limit.
    good(&hoard("reused", 30, 1));
    holds(&host, "reused", 30 * MB);
    let body = json!({"model": "around", "data": 1, "parameters": {"do": "hoard", "mb": 20, "count": 2}});
    let answer = host.client().request("POST", "/predict", &[], body.to_string().as_bytes());
    let message = "its instances would hold 70 MiB of tensors and results together and exceed held_total_mb = 64; \
                   send fewer requests at once, or raise held_total_mb";
    assert!(answer.status == 500 && answer.text().contains(message), "{}", answer.text());
    // The refused instance is gone; the other one did not have to be evicted.
    holds(&host, "reused", 30 * MB);
}

#[test]
fn inputs_that_a_guest_keeps_count_from_the_end_of_its_call() {
    let host = hostile("");
    let mut client = host.client();
    // Inputs of 15 MB per request soon exceed held_mb, but no call is refused for its inputs.
    leaks_are_bounded(&host, "reused", 20, 64 * MB, || {
        infer_element(&mut client, "reused", "keep", 15 * MB, 0)
    });
    let mut client = host.client();
    for _ in 0..3 {
        good(&infer_element(&mut client, "fresh", "keep", 15 * MB, 0));
        holds(&host, "fresh", 0);
    }
}

#[test]
fn a_small_tensor_does_not_keep_the_body_that_it_was_cut_from() {
    let host = hostile("");
    let mut client = host.client();
    // 24 bodies of 8 MB; the guest keeps a few bytes of each.
    leaks_are_bounded(&host, "reused", 24, MB, || infer_element(&mut client, "reused", "keep", 5, 8 * MB));
    assert!(held(&host, "reused") >= 25.0 * 9.0, "what it keeps is counted");
    let mut client = host.client();
    leaks_are_bounded(&host, "reused", 24, MB, || {
        infer_element(&mut client, "reused", "remember", 5, 8 * MB)
    });
    let state = host.metric("hostler_plugin_state_bytes{plugin=\"reused\"}");
    assert!((1.0..1e6).contains(&state), "{state}");
}

#[test]
fn results_of_calls_count_when_they_are_read_and_while_they_wait() {
    let host = caller("caller");
    let mut client = host.client();
    leaks_are_bounded(&host, "caller", 80, 32 * MB, || {
        infer_numbers(&mut client, "caller", &json!({"do": "keep"}))
    });
    // All calls return before the guest reads a result.
    let parameters = json!({"do": "unread", "count": 20});
    let answer = infer_numbers(&mut host.client(), "caller", &parameters);
    assert!(answer.text().contains("4 MiB more would exceed held_mb = 32"), "{}", answer.text());
    good(&infer_numbers(&mut host.client(), "caller", &json!({"do": "unread", "count": 4})));
    eventually("the results being dropped", || (held(&host, "caller") <= 16e6).then_some(()), || host.log());
}

#[test]
fn guests_in_other_languages_are_held_to_the_same() {
    for language in ["caller-py", "caller-js"] {
        let host = caller(language);
        let mut client = host.client();
        let ask = || {
            let body = json!({"model": "around", "data": [1.0], "parameters": {"keep_mb": "4"}});
            client.request("POST", "/predict", &[], body.to_string().as_bytes())
        };
        leaks_are_bounded(&host, "caller", 60, 32 * MB, ask);
    }
}

#[test]
fn a_shared_instance_that_keeps_inputs_is_replaced_while_requests_go_on() {
    let manifest = r#"
[plugins.repeat]
path = "repeat.wasm"
held_mb = 32

[plugins.repeat.config]
leaf = "yes"
keep = "yes"

[models.repeat]
plugin = "repeat"
"#;
    let host = Setup::new(manifest).file("repeat.wasm", plugin("repeat")).start();
    let mut client = host.client();
    leaks_are_bounded(&host, "repeat", 80, 40 * MB, || infer_numbers(&mut client, "repeat", &json!({})));
    let log = host.wait_for_log(&["instance replaced", "held_mb"]);
    assert!(!log.contains("instance lost"), "no request was hurt: {log}");
}
