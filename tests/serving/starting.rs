//! The start of a host: health checks are answered at once, and everything else is refused until
//! the models are loaded.

use crate::support::grpc::endpoint;
use crate::support::host::{Lines, follow};
use crate::support::process::{Process, command};
use crate::support::slow::{ENDLESS, rounds, setup};
use crate::support::{Client, PATIENCE, Setup, eventually, plugin};
use hostler::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use hostler::proto::inference::{ServerLiveRequest, ServerReadyRequest};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Returns a setup that never finishes loading, because the check of its model does not end.
fn endless() -> Setup {
    let manifest = "[server]\nmax_timeout_ms = 600000\n[models.loop]\npath = \"loop.onnx\"\n\
                    timeout_ms = 600000\nchecks = [{ file = \"check.json\" }]\n";
    let check = json!({"data": rounds(ENDLESS)["data"], "expect": {}});
    setup(manifest).text("check.json", &check.to_string())
}

/// Returns a setup whose check waits for an answer of the server at this address.
fn waiting(server: SocketAddr) -> Setup {
    let manifest = format!(
        "[server]\nmax_timeout_ms = 600000\n[models.loop]\npath = \"loop.onnx\"\n\
         [plugins.fetch]\npath = \"fetch.wasm\"\ntimeout_ms = 600000\n\
         [plugins.fetch.http]\nallow_hosts = [\"http://{server}\"]\ntimeout_ms = 60000\n\
         [models.fetch]\nplugin = \"fetch\"\ntimeout_ms = 600000\nchecks = [{{ file = \"check.json\" }}]\n"
    );
    let check = json!({"data": {"url": [format!("http://{server}/")]}, "expect": {}});
    setup(&manifest).file("fetch.wasm", plugin("fetch")).text("check.json", &check.to_string())
}

struct Addresses {
    http: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
}

fn wait_for_line(lines: &Lines, part: &str) -> String {
    let find = || lines.lock().unwrap().iter().find(|line| line.contains(part)).cloned();
    eventually(part, find, || lines.lock().unwrap().join("\n"))
}

/// Starts a host and returns it with its log.
fn start(setup: Setup, more: &[&str]) -> (Process, Lines) {
    let mut command = command(&setup);
    command.args(["--grpc", "127.0.0.1:0"]).args(more).stderr(Stdio::piped());
    let mut process = Process::start(setup, &mut command);
    let log = follow(process.child.stderr.take().expect("piped"));
    (process, log)
}

fn addresses(log: &Lines) -> Addresses {
    let line = wait_for_line(log, "listeners opened");
    let address = |key: &str| {
        let rest = line.split(key).nth(1).unwrap_or_else(|| panic!("{key} in {line}"));
        rest.split([' ', '"']).next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    Addresses { http: address("http="), grpc: address("grpc="), admin: address("admin=") }
}

#[test]
fn health_is_answered_while_models_load_and_everything_once_they_are_loaded() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (process, log) = start(waiting(server.local_addr().expect("its address")), &[]);
    // The check runs, and waits until the test answers it.
    let (mut check, _) = server.accept().expect("the request of the check");
    let Addresses { http, grpc, admin } = addresses(&log);
    let get = |path: &str| Client::new(http).get(path);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let channel = runtime.block_on(endpoint(grpc).connect()).expect("a connection");
    let mut watch = runtime.block_on(async {
        let mut health = HealthClient::new(channel.clone());
        health.watch(HealthCheckRequest::default()).await.expect("a stream").into_inner()
    });

    for path in ["/health", "/v2/health/live", "/metrics"] {
        assert_eq!(get(path).status, 200, "{path}");
    }
    assert_eq!(Client::new(admin).get("/health").status, 200);
    assert_eq!(Client::new(admin).get("/metrics").status, 200);
    let ready = get("/ready");
    assert_eq!((ready.status, ready.header("retry-after")), (503, Some("1")));
    assert_eq!(ready.json()["ready"], false);
    assert!(
        ready.json()["reason"].as_str().unwrap().contains("the models are being loaded"),
        "{}",
        ready.text()
    );
    assert_eq!(get("/v2/health/ready").status, 503);
    assert_eq!(Client::new(http).request("HEAD", "/v2/health/ready", &[], b"").status, 503);
    // A connection from before the end of the start serves on after it.
    let mut early = Client::new(http);
    for path in ["/predict", "/predict/batch", "/predict/stream", "/predict/loop", "/predict/async"] {
        let answer = early.post(path, rounds(1).to_string());
        answer.refused(503, "unavailable", &["the models are being loaded"]);
        assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
    }
    early.get("/models").refused(503, "unavailable", &["the models are being loaded"]);
    let infer = early.post("/v2/models/loop/infer", "{}");
    assert!(infer.status == 503 && infer.json()["error"].is_string(), "{}", infer.text());
    Client::new(admin).get("/admin/policy").refused(503, "unavailable", &["the models are being loaded"]);
    runtime.block_on(async {
        let mut client = GrpcInferenceServiceClient::new(channel.clone());
        assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
        assert!(!client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
        let refused = client.model_infer(crate::support::grpc::rounds(1)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains("the models are being loaded"), "{refused}");
        let mut health = HealthClient::new(channel.clone());
        let check = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(check.status(), ServingStatus::NotServing);
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    });

    let mut request = BufReader::new(check.try_clone().expect("the same connection")).lines();
    while request.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    check.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("it can be sent");
    eventually("ready", || (get("/ready").status == 200).then_some(()), || log.lock().unwrap().join("\n"));
    assert_eq!(early.post("/predict", rounds(1).to_string()).status, 200);
    assert_eq!(get("/v2/health/ready").status, 200);
    assert_eq!(Client::new(admin).get("/admin/policy").status, 200);
    runtime.block_on(async {
        let next = tokio::time::timeout(PATIENCE, watch.message()).await.expect("a change");
        assert_eq!(next.unwrap().unwrap().status(), ServingStatus::Serving);
        let mut client = GrpcInferenceServiceClient::new(channel);
        assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
        client.model_infer(crate::support::grpc::rounds(1)).await.unwrap();
    });
    drop(process);
}

#[test]
fn nobody_can_connect_before_the_host_is_ready_if_the_operator_wants_that() {
    let (process, log) = start(endless(), &["--bind-when-ready"]);
    wait_for_line(&log, "ONNX Runtime loaded");
    assert_eq!(process.listeners(), []);
    drop(process);
    let setup = setup("[models.loop]\npath = \"loop.onnx\"\n");
    let mut serve = command(&setup);
    serve.arg("--bind-when-ready");
    let process = Process::start(setup, &mut serve);
    let (http, _) = process.addresses();
    assert_eq!(Client::new(http).get("/ready").status, 200);
}

#[test]
fn an_address_in_use_ends_the_start_before_anything_is_loaded() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    for flag in ["--http", "--grpc", "--admin"] {
        for more in [&[][..], &["--bind-when-ready"]] {
            let setup = endless();
            let free = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
            let mut args = vec!["serve", "hostler.toml"];
            for pair in free.chunks(2) {
                args.extend([pair[0], if pair[0] == flag { &address } else { pair[1] }]);
            }
            args.extend(more);
            let (code, _, error) = setup.run(&args);
            assert_eq!(code, 1, "{error}");
            let what = &flag[2..];
            assert!(error.contains(&format!("cannot listen for {what} on {address}")), "{error}");
            assert!(error.contains("in use") && !error.contains("ONNX Runtime loaded"), "{error}");
        }
    }
}

#[test]
fn a_name_stands_for_all_of_its_addresses() {
    let setup = setup("[server]\nadmin = \"localhost:0\"\n[models.loop]\npath = \"loop.onnx\"\n");
    let mut serve =
        setup.command(&["serve", "hostler.toml", "--http", "localhost:0", "--grpc", "localhost:0"]);
    serve.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    let mut process = Process::start(setup, &mut serve);
    let out = follow(process.child.stdout.take().expect("piped"));
    let line = wait_for_line(&out, "listening ");
    let all = |key: &str| -> Vec<SocketAddr> {
        line.split(' ').filter_map(|word| word.strip_prefix(key)?.parse().ok()).collect()
    };
    let resolved = std::net::ToSocketAddrs::to_socket_addrs("localhost:0").expect("it resolves").count();
    let (http, admin) = (all("http="), all("admin="));
    assert!((1..=resolved).contains(&http.len()) && all("grpc=").len() == http.len(), "{line}");
    assert!(http.iter().all(|address| address.port() == http[0].port()), "{line}");
    for address in &http {
        assert_eq!(Client::new(*address).get("/ready").status, 200, "{address}");
        // The names of loopback addresses are checked.
        let mut client = Client::new(*address);
        client.send(b"GET /models HTTP/1.1\r\nhost: evil.example\r\n\r\n").expect("it can be sent");
        assert_eq!(client.receive().expect("an answer").status, 403);
    }
    let name = format!("localhost:{}", admin[0].port());
    let (code, printed, error) = process.setup.run(&["diff", "hostler.toml", "--admin", &name]);
    assert_eq!(code, 0, "{error}");
    assert!(printed.contains("no change"), "{printed}");
}

#[test]
fn a_name_that_does_not_resolve_and_what_is_no_address_are_named() {
    let setup = endless();
    let (code, _, error) = setup.run(&["serve", "hostler.toml", "--http", "no-such-name.invalid:8000"]);
    assert_eq!(code, 1, "{error}");
    for part in
        ["cannot listen for http on no-such-name.invalid:8000", "does not resolve", "write an IP address"]
    {
        assert!(error.contains(part), "{error}\nlacks {part}");
    }
    for wrong in ["localhost", "8000", ":8000", "localhost:http", "localhost:70000", "http://localhost:8000"]
    {
        let (code, _, error) = setup.run(&["serve", "hostler.toml", "--http", wrong]);
        assert_eq!(code, 2, "{wrong}: {error}");
        assert!(error.contains("write an IP address or a name, and a port"), "{wrong}: {error}");
    }
}
