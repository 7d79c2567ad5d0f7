//! The files of TLS at start: which are refused, and in which words.

use crate::support::certificates::Certificates;
use crate::support::{Setup, model, replace};
use std::path::Path;
use std::process::Command;

const SERVER: &str = "[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";

fn setup(tls: &str, certificates: &Certificates) -> Setup {
    Setup::new(&format!("{tls}\n[models.plus]\npath = \"plus.onnx\"\n"))
        .file("plus.onnx", model("plus1"))
        .file("server.pem", certificates.path("server.pem"))
        .file("server.key", certificates.path("server.key"))
}

/// Checks that the host does not start, and that `hostler check` says the same.
fn refused(setup: Setup, parts: &[&str]) {
    let check = Command::new(env!("CARGO_BIN_EXE_hostler"))
        .args(["check", "--quick"])
        .arg(setup.path("hostler.toml"))
        .output()
        .expect("it runs");
    let check = String::from_utf8_lossy(&check.stderr).into_owned();
    let start = setup.try_start().err().expect("it does not start");
    for part in parts {
        assert!(start.contains(part), "{start}\nlacks {part}");
        assert!(check.contains(part), "{check}\nlacks {part}");
    }
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_remedy() {
    let certificates = Certificates::make();
    let good = || setup(SERVER, &certificates);
    let pem = |name: &str| std::fs::read(certificates.path(name)).expect("a file");
    let with = |name: &str, content: &[u8]| {
        let setup = good();
        replace(&setup.path(name), content);
        setup
    };
    let listener = "TLS of the http listener";
    refused(
        with("server.key", &pem("client.key")),
        &[listener, "is not that of the certificate", "same pair"],
    );
    refused(with("server.key", b"nothing"), &[listener, "server.key", "no \"-----BEGIN PRIVATE KEY-----\""]);
    refused(with("server.pem", &pem("server.key")), &[listener, "server.pem has no certificate"]);
    refused(with("server.pem", &[b'x'; 2 << 20]), &[listener, "over the limit of 1 MiB"]);
    let mut reversed = pem("ca.pem");
    reversed.extend(pem("server.pem"));
    refused(
        with("server.pem", &reversed),
        &[listener, "that of an authority", "write the server's own certificate first"],
    );
    let missing = good();
    std::fs::remove_file(missing.path("server.pem")).expect("removed");
    refused(missing, &[listener, "cannot read the certificate", "server.pem"]);
    let fifo = good();
    std::fs::remove_file(fifo.path("server.key")).expect("removed");
    assert!(Command::new("mkfifo").arg(fifo.path("server.key")).status().expect("it runs").success());
    refused(fifo, &[listener, "cannot read the private key", "FIFO"]);
    let encrypted = good();
    encrypt(&certificates.path("server.key"), &encrypted.path("server.key"));
    refused(encrypted, &[listener, "it is encrypted"]);
}

fn encrypt(key: &Path, to: &Path) {
    let mut command = Command::new("openssl");
    command
        .args(["pkcs8", "-topk8", "-v2", "aes256", "-passout", "pass:x", "-in"])
        .arg(key)
        .arg("-out")
        .arg(to);
    assert!(command.output().expect("openssl runs").status.success());
}

#[test]
fn keys_of_the_manifest_that_do_not_fit_are_named() {
    let certificates = Certificates::make();
    for (tls, parts) in [
        (
            "[server.tls]\ncertificate = \"server.pem\"",
            &["tls has no key for the http listener", "write key ="][..],
        ),
        ("[server.tls.admin]\nkey = \"server.key\"", &["tls has no certificate for the http listener"]),
        (
            "[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_certificates = \"required\"",
            &["and no client_ca"],
        ),
        (
            "[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"server.pem\"\n\
             client_certificates = \"maybe\"",
            &["\"maybe\", which is not known", "write \"required\", \"optional\" or"],
        ),
        ("[server.tls]\ncert = \"server.pem\"", &["unknown key \"cert\""]),
    ] {
        refused(setup(tls, &certificates), parts);
    }
}

#[test]
fn a_listener_has_files_of_its_own_or_none() {
    let certificates = Certificates::make();
    let tls = "[server.tls.http]\nenabled = false\n[server.tls.grpc]\nenabled = false\n\
               [server.tls.admin]\ncertificate = \"server.pem\"\nkey = \"server.key\"";
    let host = setup(tls, &certificates).grpc().start();
    assert_eq!(host.get("/health").status, 200);
    let client = crate::support::tls::TlsClient::new(&certificates.path("ca.pem"), None);
    let reply = client.request(host.admin, &["http/1.1"], "GET", "/health", "").expect("a reply");
    assert_eq!(reply.status, 200);
}

#[test]
fn commands_reach_a_host_with_tls() {
    let certificates = Certificates::make();
    let host = setup(SERVER, &certificates).start();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        command.current_dir(host.setup.dir.path()).args(["jobs", "list", "--http", &host.http.to_string()]);
        let output = command.args(more).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (ca, other) = (certificates.path("ca.pem"), certificates.path("other-ca.pem"));
    assert!(run(&["--manifest", "hostler.toml"]).0, "the certificate of the manifest is trusted");
    assert!(run(&["--ca", ca.to_str().expect("text")]).0);
    for (more, part) in [
        (&["--ca", other.to_str().expect("text")][..], "TLS failed"),
        (&[], "speaks TLS; name its manifest"),
        (&["--ca", "gone.pem"], "cannot read gone.pem"),
    ] {
        let (is_good, message) = run(more);
        assert!(!is_good && message.contains(part), "{more:?}: {message}");
    }
}
