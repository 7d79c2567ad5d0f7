//! Configuration, index and statistics of models, over HTTP and gRPC, and model control over gRPC.

use crate::support::control::*;
use crate::support::gather::{gathered, predict};
use crate::support::grpc as caller;
use crate::support::grpc::{Caller, floats, input, request};
use crate::support::{Host, Setup, churn, model, replace};
use hostler::proto::inference::model_config::SchedulingChoice;
use hostler::proto::inference::model_instance_group::Kind;
use hostler::proto::inference::model_repository_parameter::ParameterChoice;
use hostler::proto::inference::*;
use serde_json::json;
use tonic::{Code, Status};

#[test]
fn a_configuration_has_the_tensors_without_their_batch() {
    let host = setup("", "").start();
    let batched = config(&host, "gather");
    let expected = json!({
        "name": "gather",
        "platform": "hostler",
        "backend": "onnx",
        "version_policy": {"all": {}},
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_INT64", "format": "FORMAT_NONE", "dims": [], "optional": false}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [], "label_filename": ""}],
        "instance_group": [{"name": "onnx", "kind": "KIND_CPU", "count": 1, "gpus": []}],
        "dynamic_batching": {"preferred_batch_size": [8], "max_queue_delay_microseconds": 100},
        "model_transaction_policy": {"decoupled": false},
        "parameters": {"executor": {"string_value": "onnx"}},
    });
    assert_eq!(batched, expected);
    assert_eq!(ok(host.get("/v2/models/gather/versions/1/config")), expected);
    assert_eq!(ok(host.get("/v2/models/gather"))["inputs"][0]["shape"], json!([-1]));

    let plain = config(&host, "plain");
    assert_eq!(plain["max_batch_size"], 0);
    assert_eq!(plain.get("dynamic_batching"), None);
    assert_eq!(plain["input"][0]["dims"], json!([-1]));
    assert_eq!(plain["parameters"]["timeout_ms"], json!({"string_value": "5000"}));
    refused(&host.get("/v2/models/gathr/config"), 404, &["no model \"gathr\" (did you mean \"gather\"?)"]);
    refused(&host.get("/v2/models/plain/versions/2/config"), 404, &["no version \"2\""]);
    refused(&host.post("/v2/models/plain/config", ""), 405, &["GET only"]);
}

#[test]
fn a_configuration_names_every_datatype_and_the_transformer() {
    let manifest = "[models.all]\npath = \"all.onnx\"\n";
    let host = Setup::new(manifest).file("all.onnx", model("datatypes")).start();
    let inputs = config(&host, "all")["input"].clone();
    let types = inputs.as_array().unwrap().iter().map(|input| {
        (input["name"].as_str().unwrap().to_owned(), input["data_type"].as_str().unwrap().to_owned())
    });
    for (name, data_type) in types {
        let known = if name == "string" || name == "bytes" {
            "TYPE_STRING".into()
        } else {
            format!("TYPE_{}", name.to_uppercase())
        };
        assert_eq!(data_type, known, "{inputs}");
    }
    let host = churn::setup("").start();
    assert_eq!(config(&host, "bankchurn")["parameters"]["transformer"], json!({"string_value": "churn"}));
}

#[test]
fn statistics_count_answers_and_failures_and_what_they_took() {
    let host = setup("", "").start();
    let fresh = statistics(&host, "plain");
    assert_eq!((&fresh["last_inference"], &fresh["inference_count"]), (&json!(0), &json!(0)), "{fresh}");
    assert_eq!(fresh["batch_stats"], json!([]));
    for x in 0..5 {
        host.predict("plain", json!([x])).result();
    }
    let infer = json!({"inputs": [{"name": "x", "datatype": "INT64", "shape": [3], "data": [1, 2, 3]}]});
    ok(host.post("/v2/models/plain/infer", infer.to_string()));
    // Two of three items succeed.
    let items = json!({"model": "plain", "items": [{"data": [1]}, {"data": ["one"]}, {"data": [2]}]});
    ok(host.post("/predict/batch", items.to_string()));
    // One failure is the model's, the other the client's.
    assert_ne!(host.predict("plain", json!([99])).status, 200);
    assert_eq!(host.predict("plain", json!(["one"])).status, 400);

    let stats = statistics(&host, "plain");
    assert_eq!((&stats["name"], &stats["version"]), (&json!("plain"), &json!("1")));
    assert!(stats["last_inference"].as_u64().unwrap() > 1_600_000_000_000, "{stats}");
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&json!(8), &json!(8)), "{stats}");
    let infer = &stats["inference_stats"];
    assert_eq!((&infer["success"]["count"], &infer["fail"]["count"]), (&json!(8), &json!(3)), "{stats}");
    let ns = |part: &str| infer[part]["ns"].as_u64().unwrap();
    for part in ["queue", "compute_input", "compute_infer", "compute_output"] {
        assert_eq!(infer[part]["count"], 8, "{part}: {stats}");
    }
    let parts = ns("queue") + ns("compute_input") + ns("compute_infer") + ns("compute_output");
    assert!(ns("compute_infer") > 0 && parts <= ns("success"), "{stats}");
    assert_eq!(infer["cache_hit"], json!({"count": 0, "ns": 0}));
    let batches = stats["batch_stats"].as_array().unwrap();
    assert_eq!((batches.len(), &batches[0]["batch_size"]), (1, &json!(1)), "{stats}");
    assert_eq!(batches[0]["compute_infer"]["count"], 8, "{stats}");
    // The same file under another name has its own statistics.
    assert_eq!(statistics(&host, "gather")["inference_stats"]["success"]["count"], 0);
    let all = ok(host.get("/v2/models/stats"));
    assert_eq!(all["model_stats"].as_array().unwrap().len(), 3);
    assert_eq!(ok(host.get("/v2/models/plain/versions/1/stats"))["model_stats"][0]["inference_count"], 8);
    refused(&host.get("/v2/models/none/stats"), 404, &["no model \"none\""]);
    refused(&host.get("/v2/models/plain/versions/2/stats"), 404, &["no version \"2\""]);
}

#[test]
fn a_shared_run_counts_once_with_its_rows() {
    let host = setup("", "").start();
    let request = |rows: &[i64]| ("/predict", predict("gather", json!(rows)));
    for answer in gathered(&host, &[request(&[1]), request(&[2, 3]), request(&[4])]) {
        answer.result();
    }
    host.predict("gather", json!([5])).result();
    // More rows than the batch limit run alone, and are not counted as a batch size.
    host.predict("gather", json!([1, 2, 3, 4, 5, 6, 7, 8, 9])).result();
    let stats = statistics(&host, "gather");
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&json!(14), &json!(3)), "{stats}");
    assert_eq!(stats["inference_stats"]["success"]["count"], 5, "{stats}");
    let sizes: Vec<_> = stats["batch_stats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|batch| {
            (batch["batch_size"].as_u64().unwrap(), batch["compute_infer"]["count"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(sizes, [(1, 1), (4, 1)], "{stats}");
}

#[test]
fn statistics_go_on_while_their_route_is_the_same() {
    let host = setup("", "").start();
    host.predict("plain", json!([1])).result();
    host.predict("gather", json!([1])).result();
    let counts = || {
        let count = |model| statistics(&host, model)["inference_count"].as_u64().unwrap();
        (count("plain"), count("gather"))
    };
    let manifest = |delay: u32, timeout: u32| {
        let text = MODELS.replace("delay_us = 100", &format!("delay_us = {delay}"));
        text.replace("timeout_ms = 5000", &format!("timeout_ms = {timeout}"))
    };
    replace(&host.path("hostler.toml"), manifest(100, 4000).as_bytes());
    host.wait_for_generation(2);
    assert_eq!(counts(), (1, 1));
    replace(&host.path("hostler.toml"), manifest(200, 4000).as_bytes());
    host.wait_for_generation(3);
    assert_eq!(counts(), (1, 0), "gather is batched in another way");
}

/// Starts a host with this `model_control`, with gRPC.
fn controlled_over_grpc(mode: &str) -> Host {
    setup(&format!("model_control = \"{mode}\""), "").grpc().start()
}

fn asked_config(caller: &Caller, name: &str, version: &str) -> Result<ModelConfig, Status> {
    let asked = ModelConfigRequest { name: name.into(), version: version.into() };
    let answer = caller.run(async |mut client| client.model_config(asked).await);
    answer.map(|answer| answer.into_inner().config.expect("a configuration"))
}

fn asked_statistics(caller: &Caller, name: &str, version: &str) -> Result<Vec<ModelStatistics>, Status> {
    let asked = ModelStatisticsRequest { name: name.into(), version: version.into() };
    let answer = caller.run(async |mut client| client.model_statistics(asked).await);
    answer.map(|answer| answer.into_inner().model_stats)
}

/// Returns the name, state and reason of each model in the index.
fn asked_index(caller: &Caller, ready: bool, repository: &str) -> Result<Vec<[String; 3]>, Status> {
    let asked = RepositoryIndexRequest { ready, repository_name: repository.into() };
    let answer = caller.run(async |mut client| client.repository_index(asked).await);
    let models = answer?.into_inner().models.into_iter();
    Ok(models.map(|model| [format!("{}:{}", model.name, model.version), model.state, model.reason]).collect())
}

/// Parameters of a load or an unload, by name.
type Given<'a> = &'a [(&'a str, ParameterChoice)];

fn parameters(given: Given<'_>) -> std::collections::BTreeMap<String, ModelRepositoryParameter> {
    let one = |(name, choice): &(&str, ParameterChoice)| {
        (name.to_string(), ModelRepositoryParameter { parameter_choice: Some(choice.clone()) })
    };
    given.iter().map(one).collect()
}

fn ask_to_load(caller: &Caller, name: &str, given: Given<'_>) -> Result<(), Status> {
    let (model_name, parameters) = (name.into(), parameters(given));
    let asked = RepositoryModelLoadRequest { repository_name: String::new(), model_name, parameters };
    caller.run(async |mut client| client.repository_model_load(asked).await).map(|_| ())
}

fn ask_to_unload(caller: &Caller, name: &str, given: Given<'_>) -> Result<(), Status> {
    let (model_name, parameters) = (name.into(), parameters(given));
    let asked = RepositoryModelUnloadRequest { repository_name: String::new(), model_name, parameters };
    caller.run(async |mut client| client.repository_model_unload(asked).await).map(|_| ())
}

fn text(value: &str) -> ParameterChoice {
    ParameterChoice::StringParam(value.into())
}

fn gather(rows: &[i64]) -> ModelInferRequest {
    let raw = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
    request("plain", vec![input("x", "INT64", &[rows.len() as i64])], vec![raw])
}

#[test]
fn a_configuration_over_grpc_is_that_over_http() {
    let host = setup("", "").grpc().start();
    let caller = Caller::new(&host);
    let batched = asked_config(&caller, "gather", "1").unwrap();
    let names = (&*batched.name, &*batched.platform, &*batched.backend, batched.max_batch_size);
    assert_eq!(names, ("gather", "hostler", "onnx", 8));
    let [put, got] = [&batched.input[0].name, &batched.output[0].name];
    assert_eq!(
        (&**put, batched.input[0].data_type(), &batched.input[0].dims[..]),
        ("x", DataType::TypeInt64, &[][..])
    );
    assert_eq!((&**got, batched.output[0].data_type()), ("y", DataType::TypeFp32));
    let group = &batched.instance_group[0];
    assert_eq!((&*group.name, group.kind(), group.count), ("onnx", Kind::Cpu, 1));
    let Some(SchedulingChoice::DynamicBatching(batching)) = &batched.scheduling_choice else {
        panic!("batching")
    };
    assert_eq!((&batching.preferred_batch_size[..], batching.max_queue_delay_microseconds), (&[8][..], 100));
    assert_eq!(batched.model_transaction_policy, Some(ModelTransactionPolicy { decoupled: false }));
    assert_eq!(batched.parameters["executor"].string_value, "onnx");
    let plain = asked_config(&caller, "plain", "").unwrap();
    assert_eq!(
        (plain.max_batch_size, plain.scheduling_choice, &plain.input[0].dims[..]),
        (0, None, &[-1][..])
    );
    for (name, version, part) in
        [("gathr", "", "did you mean \"gather\"?"), ("plain", "2", "no version \"2\"")]
    {
        caller::refused(
            asked_config(&caller, name, version),
            Code::NotFound,
            &["Request for unknown model", part],
        );
    }
}

#[test]
fn statistics_over_grpc_are_those_over_http() {
    let host = setup("", "").grpc().start();
    let caller = Caller::new(&host);
    for _ in 0..3 {
        caller.infer(gather(&[1, 2])).unwrap();
    }
    caller.infer(floats("plain", &[1.0])).unwrap_err();
    let [own] = &asked_statistics(&caller, "plain", "1").unwrap()[..] else { panic!("one version") };
    let over_http = statistics(&host, "plain");
    assert_eq!((&*own.name, &*own.version), ("plain", "1"));
    assert_eq!((own.inference_count, own.execution_count), (3, 3));
    assert_eq!(over_http["last_inference"], own.last_inference);
    let infer = own.inference_stats.as_ref().unwrap();
    let parts = [
        ("success", &infer.success, 3),
        ("fail", &infer.fail, 1),
        ("queue", &infer.queue, 3),
        ("compute_input", &infer.compute_input, 3),
        ("compute_infer", &infer.compute_infer, 3),
        ("compute_output", &infer.compute_output, 3),
        ("cache_hit", &infer.cache_hit, 0),
        ("cache_miss", &infer.cache_miss, 0),
    ];
    for (name, part, count) in parts {
        let part = part.as_ref().unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(part.count, count, "{name}");
        assert_eq!(over_http["inference_stats"][name], json!({"count": part.count, "ns": part.ns}));
    }
    let batches: Vec<_> = own
        .batch_stats
        .iter()
        .map(|batch| (batch.batch_size, batch.compute_infer.as_ref().unwrap().count))
        .collect();
    assert_eq!(batches, [(1, 3)]);
    let names = |stats: Vec<ModelStatistics>| stats.into_iter().map(|stats| stats.name).collect::<Vec<_>>();
    assert_eq!(names(asked_statistics(&caller, "", "").unwrap()), ["gather", "loop", "plain"]);
    for (name, version, part) in [("none", "", "no model \"none\""), ("plain", "2", "no version \"2\"")] {
        caller::refused(asked_statistics(&caller, name, version), Code::NotFound, &[part]);
    }
}

#[test]
fn a_model_goes_and_comes_back_over_grpc() {
    let host = controlled_over_grpc("explicit");
    let caller = Caller::new(&host);
    let state = |name: &str, state: &str, reason: &str| [name, state, reason].map(str::to_owned);
    let others = [state("gather:1", "READY", ""), state("loop:1", "READY", "")];
    let all = |plain: [String; 3]| others.iter().cloned().chain([plain]).collect::<Vec<_>>();
    assert_eq!(asked_index(&caller, false, "").unwrap(), all(state("plain:1", "READY", "")));
    ask_to_unload(&caller, "plain", &[("unload_dependents", ParameterChoice::BoolParam(true))]).unwrap();
    assert_eq!(asked_index(&caller, false, "").unwrap(), all(state("plain:1", "UNAVAILABLE", "unloaded")));
    assert_eq!(asked_index(&caller, true, "").unwrap(), others);
    caller::refused(caller.infer(gather(&[1])), Code::NotFound, &["model \"plain\" was unloaded by request"]);
    // A repeated unload is not an error.
    ask_to_unload(&caller, "plain", &[]).unwrap();
    ask_to_load(&caller, "plain", &[("config", text("{\"max_batch_size\": \"16\", \"timeout_ms\": 700}"))])
        .unwrap();
    let config = asked_config(&caller, "plain", "").unwrap();
    assert_eq!((config.max_batch_size, &*config.parameters["timeout_ms"].string_value), (16, "700"));
    caller.infer(gather(&[1])).unwrap();
    // A load without `config` restores what the manifest says.
    ask_to_load(&caller, "plain", &[]).unwrap();
    let config = asked_config(&caller, "plain", "").unwrap();
    assert_eq!((config.max_batch_size, &*config.parameters["timeout_ms"].string_value), (0, "5000"));
    assert_eq!(asked_index(&caller, false, "").unwrap(), all(state("plain:1", "READY", "")));
}

#[test]
fn what_cannot_be_loaded_or_unloaded_is_refused_over_grpc_and_changes_nothing() {
    let host = controlled_over_grpc("explicit");
    let caller = Caller::new(&host);
    let (number, file) = (ParameterChoice::Int64Param(7), ParameterChoice::BytesParam(vec![1, 2].into()));
    for (name, given, code, parts) in [
        ("wrong", vec![], Code::NotFound, &["failed to load 'wrong'", "no model \"wrong\""][..]),
        ("plane", vec![], Code::NotFound, &["did you mean \"plain\"?"]),
        ("", vec![], Code::NotFound, &["no model \"\""]),
        (
            "plain",
            vec![("config", text("{"))],
            Code::InvalidArgument,
            &["failed to load 'plain'", "not a JSON object"],
        ),
        ("plain", vec![("config", number.clone())], Code::InvalidArgument, &["it must be a text"]),
        (
            "plain",
            vec![("config", text("{\"path\": \"/etc/passwd\"}"))],
            Code::InvalidArgument,
            &["\"path\""],
        ),
        (
            "plain",
            vec![("config", text("{\"max_batch_size\": 100000}"))],
            Code::InvalidArgument,
            &["from 1 to 1024"],
        ),
        (
            "plain",
            vec![("file:1/model.onnx", file)],
            Code::InvalidArgument,
            &["files are not taken from requests"],
        ),
        (
            "plain",
            vec![("priority", number.clone())],
            Code::InvalidArgument,
            &["parameter \"priority\" is not known"],
        ),
    ] {
        caller::refused(ask_to_load(&caller, name, &given), code, parts);
    }
    let wrong = [("unload_dependents", number.clone())];
    let outcome = ask_to_unload(&caller, "plain", &wrong);
    caller::refused(outcome, Code::InvalidArgument, &["\"unload_dependents\" is 7; it is true or false"]);
    let outcome = ask_to_unload(&caller, "plain", &[("priority", number)]);
    caller::refused(
        outcome,
        Code::InvalidArgument,
        &["parameter \"priority\" is not known; unload_dependents is"],
    );
    caller::refused(ask_to_unload(&caller, "wrong", &[]), Code::NotFound, &["failed to unload 'wrong'"]);
    let policy = host.policy();
    assert_eq!((&policy["generation"], &policy["stale"]), (&json!(1), &json!(false)), "{}", host.log());
    caller.infer(gather(&[1])).unwrap();
}

#[test]
fn another_repository_is_refused_over_both_protocols() {
    let host = controlled_over_grpc("explicit");
    let caller = Caller::new(&host);
    let parts = ["'repository_name' specification is not supported", "one repository"];
    let load = RepositoryModelLoadRequest {
        repository_name: "other".into(),
        model_name: "plain".into(),
        ..Default::default()
    };
    let outcome = caller.run(async |mut client| client.repository_model_load(load).await);
    caller::refused(outcome, Code::Unimplemented, &parts);
    let unload = RepositoryModelUnloadRequest {
        repository_name: "other".into(),
        model_name: "plain".into(),
        ..Default::default()
    };
    let outcome = caller.run(async |mut client| client.repository_model_unload(unload).await);
    caller::refused(outcome, Code::Unimplemented, &parts);
    caller::refused(asked_index(&caller, false, "other"), Code::Unimplemented, &parts);
    for path in ["index", "models/plain/load", "models/plain/unload"] {
        refused(&host.post(&format!("/v2/repository/other/{path}"), ""), 501, &parts);
        refused(&host.get(&format!("/v2/repository/other/{path}")), 405, &["POST only"]);
    }
    assert_eq!(host.generation(), 1);
}

#[test]
fn model_control_over_grpc_is_off_unless_the_manifest_allows_it() {
    let host = controlled_over_grpc("none");
    let caller = Caller::new(&host);
    let parts = ["explicit model load / unload is not allowed", "model_control = \"explicit\""];
    caller::refused(ask_to_load(&caller, "plain", &[]), Code::Unavailable, &parts);
    caller::refused(ask_to_unload(&caller, "plain", &[]), Code::Unavailable, &parts);
    assert_eq!(asked_index(&caller, true, "").unwrap().len(), 3);
}
