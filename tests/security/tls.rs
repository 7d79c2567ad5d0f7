//! TLS of the listeners: handshakes, client certificates, and files that change under load.

use crate::support::certificates::Certificates;
use crate::support::tls::TlsClient;
use crate::support::{Host, PATIENCE, Setup, grpc, model, replace};
use hyper::Version;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const GOOD: &str = r#"{"model":"plus","data":[1]}"#;
const HTTP1: &[&str] = &["http/1.1"];
const HTTP2: &[&str] = &["h2", "http/1.1"];

/// Copies a pair, as a host's own files that can be replaced.
fn put(host: &Host, certificates: &Certificates, name: &str) {
    for end in ["key", "pem"] {
        let content = std::fs::read(certificates.path(&format!("{name}.{end}"))).expect("a file");
        replace(&host.path(&format!("server.{end}")), &content);
    }
}

fn setup(server: &str, tls: &str, certificates: &Certificates) -> Setup {
    let manifest = format!(
        "[server]\n{server}\n[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n{tls}\n\
         [models.plus]\npath = \"plus.onnx\"\n"
    );
    Setup::new(&manifest)
        .file("plus.onnx", model("plus1"))
        .file("server.pem", certificates.path("server.pem"))
        .file("server.key", certificates.path("server.key"))
        .file("ca.pem", certificates.path("ca.pem"))
        .grpc()
}

/// The admin listener is without TLS, for the metrics that tests read.
const PLAIN_ADMIN: &str = "[server.tls.admin]\nenabled = false";

fn client(certificates: &Certificates) -> TlsClient {
    TlsClient::new(&certificates.path("ca.pem"), None)
}

fn handshakes(host: &Host, outcome: &str) -> f64 {
    let name = "hostler_tls_handshakes_total";
    host.metric(&format!("{name}{{listener=\"http\",outcome=\"{outcome}\"}}"))
}

#[test]
fn every_listener_speaks_tls() {
    let certificates = Certificates::make();
    let host = setup("", "", &certificates).start();
    let client = client(&certificates);
    for (alpn, version) in [(HTTP1, Version::HTTP_11), (HTTP2, Version::HTTP_2), (&[][..], Version::HTTP_11)]
    {
        let reply = client.request(host.http, alpn, "POST", "/predict", GOOD).expect("a reply");
        assert_eq!((reply.version, reply.status), (version, 200), "{reply:?}");
        let reply = client.request(host.admin, alpn, "GET", "/admin/policy", "").expect("a reply");
        assert_eq!((reply.version, reply.status), (version, 200), "{reply:?}");
    }
    let ca = std::fs::read(certificates.path("ca.pem")).expect("a file");
    for address in [host.grpc.expect("a listener"), host.http] {
        let trust = tonic::transport::Certificate::from_pem(&ca);
        let tls = tonic::transport::ClientTlsConfig::new().ca_certificate(trust).domain_name("127.0.0.1");
        let endpoint =
            tonic::transport::Channel::from_shared(format!("https://{address}")).expect("an address");
        let caller = grpc::Caller::at(endpoint.tls_config(tls).expect("a configuration"));
        assert_eq!(caller.infer(grpc::floats("plus", &[1.0])).expect("an answer").model_name, "plus");
    }
    let metrics = client.request(host.admin, HTTP1, "GET", "/metrics", "").expect("a reply").body;
    for part in [
        "hostler_tls_handshakes_total{listener=\"admin\",outcome=\"completed\"}",
        "hostler_tls_handshakes_total{listener=\"grpc\",outcome=\"completed\"} 1",
        "hostler_tls_certificate_expiry_timestamp_seconds{listener=\"http\"}",
    ] {
        assert!(metrics.contains(part), "{metrics}\nlacks {part}");
    }
}

#[test]
fn what_is_no_handshake_is_refused_and_counted() {
    let certificates = Certificates::make();
    let host = setup("header_timeout_ms = 400", PLAIN_ADMIN, &certificates).start();
    // A client without TLS is told so.
    let mut plain = TcpStream::connect(host.http).expect("a connection");
    plain.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let mut reply = String::new();
    plain.read_to_string(&mut reply).expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("this listener speaks TLS"), "{reply}");
    // Garbage behind the first byte of a handshake.
    let mut garbage = TcpStream::connect(host.http).expect("a connection");
    garbage.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    garbage.write_all(&[22; 300]).expect("sent");
    let _ = garbage.read_to_end(&mut Vec::new());
    // A client that sends nothing, and one that sends half a handshake, are closed.
    let started = Instant::now();
    for first in [&[][..], &[22, 3, 1, 0, 200][..]] {
        let mut silent = TcpStream::connect(host.http).expect("a connection");
        silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        silent.write_all(first).expect("sent");
        assert_eq!(silent.read_to_end(&mut Vec::new()).expect("the end"), 0);
    }
    assert!(started.elapsed() >= Duration::from_millis(700), "{:?}", started.elapsed());
    // A check of the port leaves no trace.
    TcpStream::connect(host.http).expect("a connection").shutdown(Shutdown::Both).expect("closed");
    // An authority that is not known to the client.
    let stranger = TlsClient::new(&certificates.path("other-ca.pem"), None);
    stranger.request(host.http, HTTP1, "GET", "/health", "").expect_err("an unknown authority");
    let seen = || (handshakes(&host, "plain"), handshakes(&host, "failed"), handshakes(&host, "late"));
    crate::support::eventually(
        "all are counted",
        || (seen() == (1.0, 2.0, 2.0)).then_some(()),
        || format!("{:?}", seen()),
    );
    assert_eq!(
        client(&certificates).request(host.http, HTTP1, "POST", "/predict", GOOD).unwrap().status,
        200
    );
}

#[test]
fn old_versions_are_not_spoken() {
    let certificates = Certificates::make();
    let host = setup("", PLAIN_ADMIN, &certificates).start();
    let connects = |version: &str| {
        let mut command = std::process::Command::new("openssl");
        command.args(["s_client", "-connect", &host.http.to_string(), version, "-cipher", "ALL:@SECLEVEL=0"]);
        let output = command.stdin(std::process::Stdio::null()).output().expect("openssl runs");
        String::from_utf8_lossy(&output.stdout).contains("BEGIN CERTIFICATE")
    };
    assert!(connects("-tls1_2") && connects("-tls1_3"));
    assert!(!connects("-tls1_1") && !connects("-tls1"));
}

#[test]
fn client_certificates_are_required_or_optional() {
    let certificates = Certificates::make();
    let tls = |kind: &str| format!("client_ca = \"ca.pem\"\nclient_certificates = \"{kind}\"\n{PLAIN_ADMIN}");
    let pair = |name: &str| {
        Some((certificates.path(&format!("{name}.pem")), certificates.path(&format!("{name}.key"))))
    };
    let ca = certificates.path("ca.pem");
    let known = TlsClient::new(&ca, pair("client"));
    let nameless = TlsClient::new(&ca, None);
    let foreign = TlsClient::new(&ca, pair("other-ca"));
    for (kind, without) in [("required", false), ("optional", true)] {
        let host = setup("", &tls(kind), &certificates).start();
        let can = |client: &TlsClient| {
            let reply = client.request(host.http, HTTP2, "POST", "/predict", GOOD);
            reply.is_ok_and(|reply| reply.status == 200)
        };
        assert!(can(&known), "{kind}");
        assert_eq!(can(&nameless), without, "{kind}");
        assert!(!can(&foreign), "{kind}");
    }
}

#[test]
fn certificates_change_under_load_and_no_connection_drops() {
    let rotations = if crate::support::is_soak() { 20 } else { 4 };
    let (old, new) = (Certificates::make(), Certificates::make());
    let host = setup("", PLAIN_ADMIN, &old).start();
    let clients = [client(&old), client(&new)];
    let stop = AtomicBool::new(false);
    let answered = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..if rotations > 4 { 50 } else { 8 } {
            let (client, stop, answered) = (&clients[0], &stop, &answered);
            let alpn = if number % 2 == 0 { HTTP1 } else { HTTP2 };
            let http = host.http;
            scope.spawn(move || {
                let mut connection = client.run(client.connect(http, alpn)).expect("a connection");
                while !stop.load(Ordering::Relaxed) {
                    let reply = client.run(connection.send("POST", "/predict", &[], GOOD));
                    assert_eq!(reply.expect("the connection is kept").status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for rotation in 0..rotations {
            let (certificates, client) =
                if rotation % 2 == 0 { (&new, &clients[1]) } else { (&old, &clients[0]) };
            put(&host, certificates, "server");
            let applied = "hostler_tls_reloads_total{listener=\"http\",outcome=\"applied\"}";
            crate::support::eventually(
                "the new certificate is used",
                || (host.metric(applied) == f64::from(rotation + 1)).then_some(()),
                || host.log(),
            );
            client.request(host.http, HTTP1, "GET", "/health", "").expect("the new authority");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 0);
    assert_eq!(host.metric("hostler_tls_reloads_total{listener=\"http\",outcome=\"rejected\"}"), 0.0);
}

#[test]
fn faulty_files_are_rejected_and_the_ones_before_stay() {
    let certificates = Certificates::make();
    let host = setup("", PLAIN_ADMIN, &certificates).start();
    let client = client(&certificates);
    let answers =
        || client.request(host.http, HTTP1, "GET", "/health", "").is_ok_and(|reply| reply.status == 200);
    let other = std::fs::read(certificates.path("client.key")).expect("a file");
    let key = std::fs::read(certificates.path("server.key")).expect("a file");
    for (content, part) in [(&other[..], "is not that of the certificate"), (b"", "cannot be used")] {
        replace(&host.path("server.key"), content);
        host.wait_for_log(&["certificate rejected", "listener=\"http\"", "server.key", part]);
        assert!(answers());
    }
    std::fs::remove_file(host.path("server.key")).expect("removed");
    host.wait_for_log(&["certificate rejected", "listener=\"http\"", "cannot read the private key"]);
    assert!(answers());
    replace(&host.path("server.key"), &key);
    put(&host, &Certificates::make(), "server");
    host.wait_for_log(&["certificate loaded"]);
    crate::support::eventually("the new pair is used", || (!answers()).then_some(()), || host.log());
}

#[test]
fn a_reply_over_tls_that_nobody_reads_is_given_up() {
    let certificates = Certificates::make();
    let manifest = format!(
        "[server]\nwrite_timeout_ms = 300\nmin_bytes_per_s = 0\n[server.tls]\ncertificate = \"server.pem\"\n\
         key = \"server.key\"\n{PLAIN_ADMIN}\n[models.same]\npath = \"same.onnx\"\n"
    );
    let host = Setup::new(&manifest)
        .file("same.onnx", model("identity"))
        .file("server.pem", certificates.path("server.pem"))
        .file("server.key", certificates.path("server.key"))
        .start();
    let client = client(&certificates);
    let body = format!("{{\"model\":\"same\",\"data\":[[{}]]}}", vec!["1.5"; 3_500_000].join(","));
    client.run(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = client.handshake(host.http, HTTP1).await.expect("a handshake");
        let head =
            format!("POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(body.as_bytes()).await.expect("sent");
        stream.flush().await.expect("sent");
        tokio::task::spawn_blocking({
            let admin = host.admin;
            move || {
                let closed = || {
                    let text = crate::support::Client::new(admin).get("/metrics").text();
                    text.contains(
                        "hostler_transfers_aborted_total{direction=\"answer\",reason=\"stalled\"} 1",
                    )
                    .then_some(())
                };
                crate::support::eventually("the connection is closed", closed, String::new);
            }
        })
        .await
        .expect("closed");
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest).await;
        assert!(read.is_err() || rest.len() < body.len(), "{} bytes", rest.len());
    });
}
