//! Tests that metrics forget what no policy has any more, and nothing else.

use crate::support::{Host, Setup, eventually, model, plugin, repeats, replace};
use serde_json::json;
use std::io::Write;
use std::net::TcpStream;

const LABELS: [&str; 6] =
    ["model=\"m", "version=\"v", "executor=\"e", "plugin=\"p", "pipeline=\"g", "step=\"s"];

/// A manifest in which nothing has the same name as in another round.
fn manifest(round: usize) -> String {
    format!(
        r#"
[reload]
mode = "manual"
[executors.e{round}]
kind = "onnx"
workers = 1
sessions = 1
[models."m{round}:v{round}"]
path = "plus.onnx"
[plugins.p{round}]
path = "faulty.wasm"
[models.q{round}]
plugin = "p{round}"
[models.f{round}]
pipeline = "g{round}"
[pipelines.g{round}]
outputs = {{ y = "s{round}.y" }}
[pipelines.g{round}.steps.s{round}]
model = "m{round}"
in = {{ x = "input.x" }}
[policy]
"m{round}:v{round}" = "e{round}"
"#
    )
}

fn setup() -> Setup {
    Setup::new(&manifest(0)).file("plus.onnx", model("plus1")).file("faulty.wasm", plugin("faulty"))
}

fn swap(host: &Host, manifest: &str) {
    replace(&host.path("hostler.toml"), manifest.as_bytes());
    let record = host.admin_post("/admin/reload").json();
    assert_eq!(record["outcome"], "applied", "{record}");
}

fn metrics(host: &Host) -> String {
    host.admin_get("/metrics").text()
}

/// Uses everything that the manifest of this round has, so that all its series exist.
fn use_all(host: &Host, round: usize) {
    for model in ["m", "f"] {
        let answer = host.predict(&format!("{model}{round}"), json!({"x": [1.0]}));
        assert_eq!(answer.result()["y"], json!([2.0]), "{model}{round}");
    }
    assert_eq!(host.predict(&format!("m{round}"), json!({"z": [1.0]})).status, 400);
    assert_eq!(host.predict(&format!("q{round}"), json!([1.0])).status, 200);
}

#[test]
fn the_metrics_of_many_swaps_stay_as_many() {
    let host = setup().start();
    use_all(&host, 0);
    let mut first = 0;
    for round in 1..=repeats(100) {
        swap(&host, &manifest(round));
        use_all(&host, round);
        let has = |text: &str, round: usize| LABELS.map(|label| text.contains(&format!("{label}{round}\"")));
        // The policy before the previous one is freed in the background.
        let text = eventually(
            "the removal",
            || Some(metrics(&host)).filter(|text| round < 2 || has(text, round - 2) == [false; 6]),
            || metrics(&host),
        );
        assert_eq!(has(&text, round), [true; 6], "{text}");
        if round == 10 {
            first = text.len();
        }
        // Names grow by a digit or two.
        assert!(first == 0 || text.len() < first + first / 10, "{} instead of {first}", text.len());
    }
    // What is kept for a rollback counts on; what returns later begins at 0.
    let last = repeats(100);
    let sample = |round: usize| {
        format!("hostler_requests_total{{code=\"200\",model=\"m{round}\",version=\"v{round}\"}}")
    };
    assert_eq!(host.admin_post("/admin/policy/rollback").json()["outcome"], "rolled_back");
    assert_eq!(host.metric(&sample(last - 1)), 1.0);
    use_all(&host, last - 1);
    assert_eq!(host.metric(&sample(last - 1)), 2.0);
    swap(&host, &manifest(0));
    use_all(&host, 0);
    assert_eq!(host.metric(&sample(0)), 1.0);
}

#[test]
fn a_request_that_outlives_its_policy_is_still_counted() {
    let of = |name: &str| format!("[reload]\nmode = \"manual\"\n[models.{name}]\npath = \"loop.onnx\"\n");
    let host = Setup::new(&of("old")).file("loop.onnx", model("loop")).start();
    let body = json!({"model": "old", "data": {"n": [1_000_000_000_000_i64]}}).to_string();
    let mut client = TcpStream::connect(host.http).unwrap();
    let head = format!("POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all((head + &body).as_bytes()).unwrap();
    host.wait_for_executor("onnx", "busy", 1);
    for name in ["new", "newer", "newest"] {
        swap(&host, &of(name));
    }
    // The policy between them is freed in the background.
    let text = eventually(
        "the removal of the other model",
        || Some(metrics(&host)).filter(|text| !text.contains("model=\"new\"")),
        || metrics(&host),
    );
    assert!(text.contains("model=\"old\""), "{text}");
    drop(client);
    eventually(
        "the end of the series",
        || (!metrics(&host).contains("model=\"old\"")).then_some(()),
        || metrics(&host),
    );
    assert_eq!(host.metric("hostler_errors_total{kind=\"cancelled\"}"), 1.0);
}
