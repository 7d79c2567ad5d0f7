//! `examples/secured` as its README shows it.

use crate::support::tls::TlsClient;
use crate::support::{Setup, root};
use std::process::Command;

const ROW: &str = r#"{"model":"bankchurn","data":[[0,0,0,0,0,0,0,0,0,1,0,0,0,1,0,1,0,0]]}"#;

fn make(folder: &std::path::Path) {
    let output = Command::new(root().join("examples/secured/make.sh"))
        .arg(folder)
        .env("HOSTLER", env!("CARGO_BIN_EXE_hostler"))
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_example_serves_each_key_its_part() {
    let example = root().join("examples/secured");
    let read = |name: &str| std::fs::read_to_string(example.join(name)).expect("a file");
    let manifest = read("hostler.toml").replace("../bankchurn/model.onnx", "model.onnx");
    let setup = Setup::new(&manifest)
        .text("access.toml", &read("access.toml"))
        .file("model.onnx", root().join("examples/bankchurn/model.onnx"));
    let secrets = setup.path("secrets");
    make(&secrets);
    let host = setup.start();
    let ask = |address, name: &str, method: &str, path: &str, body: &str| {
        let client = TlsClient::new(&secrets.join("server.pem"), None);
        let key = std::fs::read_to_string(secrets.join(format!("{name}.key"))).expect("a key");
        let bearer = format!("Bearer {}", key.trim());
        let reply = client.run(async {
            let mut connection = client.connect(address, &["http/1.1"]).await?;
            connection.send(method, path, &[("authorization", &bearer)], body).await
        });
        let reply = reply.expect("a reply");
        (reply.status, reply.body)
    };
    let (status, body) = ask(host.http, "shop", "POST", "/predict", ROW);
    assert!(status == 200 && body.contains("0.9552785"), "{body}");
    let (status, body) = ask(host.admin, "shop", "GET", "/admin/policy", "");
    assert!(status == 403 && body.contains("key:shop may not"), "{body}");
    assert_eq!(ask(host.admin, "prometheus", "GET", "/metrics", "").0, 200);
    assert_eq!(ask(host.http, "prometheus", "POST", "/predict", ROW).0, 403);
    assert_eq!(ask(host.admin, "ops", "GET", "/admin/policy", "").0, 200);
    // Five at once, and then one a second: a slow machine may send more before it is refused.
    let refused =
        (0..1000).map(|_| ask(host.http, "ops", "POST", "/predict", ROW)).find(|(status, _)| *status != 200);
    let (status, body) = refused.expect("its rate is limited");
    assert!(status == 429 && body.contains("tenant \\\"key:ops\\\" sends more than 1 requests/s"), "{body}");
    assert_eq!(ask(host.http, "shop", "POST", "/predict", ROW).0, 200, "another tenant");
    // New secrets are taken while the host serves.
    let old = TlsClient::new(&secrets.join("server.pem"), None);
    make(&secrets);
    host.wait_for_log(&["access rules applied", "generation=2"]);
    let replaced = || old.request(host.http, &["http/1.1"], "GET", "/health", "").is_err().then_some(());
    crate::support::eventually("the new certificate is used", replaced, || host.log());
    assert_eq!(ask(host.http, "shop", "POST", "/predict", ROW).0, 200);
}
