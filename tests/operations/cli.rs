//! Tests the command line: help, checks of plugins, the contract, single predictions, `diff`, and
//! start-up.

use crate::support::{Setup, churn, is_deceptive, model, plugin, replace, root, slow};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PLUS: &str = "[models.plus]\npath = \"plus.onnx\"\n";

fn plus(more: &str) -> Setup {
    let setup = Setup::new(&format!("{more}\n{PLUS}")).file("plus.onnx", model("plus1"));
    setup.file("loop.onnx", model("loop"))
}

/// Checks for exit code 1, an empty stdout, and all of `parts` on stderr.
fn refused(setup: &Setup, args: &[&str], parts: &[&str]) {
    let (code, out, err) = setup.run(args);
    assert_eq!((code, &*out), (1, ""), "{args:?}: {err}");
    for part in parts {
        assert!(err.contains(part), "{args:?}: {err}\nlacks {part}");
    }
}

#[test]
fn every_command_argument_and_option_is_explained() {
    let setup = Setup::new("");
    for command in [
        "",
        "serve",
        "check",
        "diff",
        "predict",
        "drill",
        "wit",
        "jobs",
        "jobs list",
        "jobs show",
        "jobs cancel",
        "jobs retry",
        "jobs purge",
        "jobs export",
        "jobs reset",
    ] {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let (code, out, err) = setup.run(&args);
        assert_eq!((code, &*err), (0, ""), "{args:?}");
        assert!(!out.lines().next().unwrap().is_empty(), "{args:?} begins with what it does");
        let entries: Vec<&str> = out.lines().filter(|line| line.starts_with("  ")).collect();
        assert!(entries.len() > 1, "{out}");
        for entry in entries {
            let explained =
                entry.trim().split_once("  ").is_some_and(|(_, text)| !text.trim().starts_with('['));
            assert!(explained, "{args:?}: {entry:?} is not explained");
        }
    }
    assert_eq!(setup.run(&["--version"]).1, format!("hostler {}\n", env!("CARGO_PKG_VERSION")));
    let (code, _, err) = setup.run(&["sreve"]);
    assert!(code == 2 && err.contains("serve"), "{err}");
}

#[test]
fn check_tells_what_a_plugin_is_needs_and_costs() {
    for (name, role, import) in [
        ("churn", "transformer", "hostler:plugin/assets@0.1.0"),
        ("echo", "model", "wasi:config/store@0.2.0-rc.1"),
    ] {
        let file = plugin(name);
        let setup = Setup::new("").file("p.wasm", &file);
        let (code, out, err) = setup.run(&["check", "p.wasm"]);
        assert_eq!(code, 0, "{out}{err}");
        let bytes = std::fs::metadata(&file).unwrap().len();
        for line in [
            &*format!("p.wasm: {bytes} bytes, sha256 "),
            "contract: hostler:plugin@0.1.0\n",
            &format!("roles: {role}\n"),
            "imports:\n",
            "  hostler:plugin/types@0.1.0\n",
            &format!("  {import}\n"),
        ] {
            assert!(out.contains(line), "{out}\nlacks {line}");
        }
        let cost = out.lines().find_map(|line| line.strip_prefix("fresh instance: ")?.strip_suffix(" us"));
        let cost: f64 = cost.unwrap_or_else(|| panic!("{out}")).parse().unwrap();
        assert!(cost > 0.0 && cost < 1e6, "{cost}");
    }
    for (content, part) in [
        (&b""[..], "plugin \"p\": the file is empty"),
        (b"text", "plugin \"p\": the file is not WebAssembly"),
        (b"\0asm\x01\0\0\0", "plugin \"p\": the file is a core WebAssembly module, not a component"),
    ] {
        let setup = Setup::new("");
        replace(&setup.path("p.wasm"), content);
        refused(&setup, &["check", "p.wasm"], &[part]);
    }
    refused(&Setup::new(""), &["check", "none.wasm"], &["cannot read none.wasm: No such file"]);
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn wit_writes_the_whole_contract() {
    let setup = Setup::new("");
    for round in 0..2 {
        let (code, out, err) = setup.run(&["wit", "a/contract"]);
        assert_eq!((code, &*err), (0, ""), "round {round}");
        let contents = |dir: &Path| -> Vec<(PathBuf, String)> {
            let paths = files(dir).into_iter();
            let read = |path: PathBuf| {
                let text = std::fs::read_to_string(&path).unwrap();
                (path.strip_prefix(dir).unwrap().to_owned(), text)
            };
            paths.map(read).collect()
        };
        let written = contents(&setup.path("a/contract"));
        assert_eq!(written, contents(&root().join("wit")));
        assert_eq!(out.lines().count(), written.len(), "a line for each file: {out}");
    }
    refused(&setup, &["wit", "hostler.toml"], &["cannot write hostler.toml/hostler.wit"]);
}

#[test]
fn wit_writes_over_nothing_that_is_not_the_contract() {
    let setup = Setup::new("").text("mine/async/concurrent.wit", "package mine:own;");
    refused(&setup, &["wit", "mine"], &["mine/async/concurrent.wit exists and has other content", "--force"]);
    let path = setup.path("mine/async/concurrent.wit");
    assert_eq!(std::fs::read(&path).unwrap(), b"package mine:own;");
    assert_eq!(files(&setup.path("mine")).len(), 1, "nothing else is written either");
    assert_eq!(setup.run(&["wit", "mine", "--force"]).0, 0);
    assert_eq!(
        std::fs::read(&path).unwrap(),
        std::fs::read(root().join("wit/async/concurrent.wit")).unwrap()
    );
}

/// Runs `hostler predict` with the request on its standard input.
fn predict(setup: &Setup, request: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hostler"))
        .args(["predict", "-"])
        .current_dir(setup.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn predict_answers_as_the_host_does() {
    let record = churn::rows()[0].0.clone();
    let host = churn::setup("").start();
    let setup = churn::setup("");
    for request in [
        json!({"model": "bankchurn", "data": record}),
        json!({"model": "bankchurn", "version": "1", "data": record, "parameters": {"explain": true}}),
        json!({"model": "bankchurn", "version": 1, "data": record, "timeout_ms": 10_000}),
        json!({"model": "bankchurn-raw", "data": [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]}),
    ] {
        let (code, out, err) = predict(&setup, &request.to_string());
        assert_eq!(code, 0, "{request}: {err}");
        let result: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        assert_eq!(result, host.post("/predict", request.to_string()).result());
    }
    let setup = setup.text("request.json", &json!({"model": "bankchurn", "data": record}).to_string());
    let (code, out, _) = setup.run(&["predict", "request.json", "--manifest", "hostler.toml"]);
    assert_eq!((code, out.contains("\"probability\":")), (0, true));
    refused(&setup, &["predict", "none.json"], &["cannot read none.json: No such file"]);
    refused(
        &setup,
        &["predict", "request.json", "--manifest", "none.toml"],
        &["none.toml", "cannot read the manifest"],
    );
}

#[test]
fn predict_sends_a_body_and_says_what_it_took() {
    let manifest =
        "[plugins.echo]\npath = \"echo.wasm\"\n[models.echo]\nplugin = \"echo\"\ntransformer = \"echo\"\n";
    let content = b"\x00\xffno text\x1b[31m";
    let setup = Setup::new(manifest).file("echo.wasm", plugin("hostile"));
    replace(&setup.path("picture.png"), content);
    let output = Command::new(env!("CARGO_BIN_EXE_hostler"))
        .args(["predict", "--body", "picture.png", "--repeat", "3"])
        .current_dir(setup.dir.path())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    assert_eq!(output.stdout, content, "bytes are printed as they are");
    for part in ["first call: ", "2 further calls, microseconds: p50 ", "plugin echo: "] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let text =
        ["predict", "--body", "picture.png", "--content-type", "application/json", "--model", "echo:1"];
    refused(&setup, &text, &["JSON"]);
    refused(&setup, &["predict", "--body", "picture.png", "--model", "ech"], &["did you mean \"echo\""]);
    let two = Setup::new(&(manifest.to_owned() + "[models.other]\nplugin = \"echo\"\n"))
        .file("echo.wasm", plugin("hostile"))
        .text("picture.png", "a");
    refused(&two, &["predict", "--body", "picture.png"], &["name the model", "--model", "echo, other"]);
}

#[test]
fn predict_refuses_what_the_host_refuses() {
    let setup = plus("[models.loop]\npath = \"loop.onnx\"");
    for (request, parts) in [
        ("", &["not a request"][..]),
        ("{", &["not a request"]),
        (r#"{"model":"plus"}"#, &["not a request", "missing field `data`"]),
        (r#"{"model":"plus","data":[1],"versoin":"1"}"#, &["not a request", "unknown field `versoin`"]),
        (r#"{"model":"pluss","data":[1]}"#, &["no model \"pluss\" (did you mean \"plus\"?)"]),
        (
            r#"{"model":"plus","version":"2","data":[1]}"#,
            &["model \"plus\" has no version \"2\"", "versions: 1"],
        ),
        (r#"{"model":"plus","data":["x"]}"#, &["input \"x\"[0]: expected a number for FP32"]),
        (
            r#"{"model":"plus","data":[1],"parameters":{"p":[]}}"#,
            &["parameter 'p' has invalid type. It is a list"],
        ),
        (r#"{"model":"loop","data":{"n":[1000000000]},"timeout_ms":50}"#, &["deadline"]),
    ] {
        let (code, out, err) = predict(&setup, request);
        assert_eq!((code, &*out), (1, ""), "{request}: {err}");
        assert!(parts.iter().all(|part| err.contains(part)), "{request}: {err}");
    }
}

#[test]
fn diff_says_what_a_manifest_would_change() {
    let host = plus("[reload]\nmode = \"manual\"\n[executors.onnx]\nworkers = 2\nqueue = 7").start();
    let admin = host.admin.to_string();
    let diff = |setup: &Setup| {
        let (code, out, err) = setup.run(&["diff", "hostler.toml", "--admin", &admin]);
        assert_eq!(code, 0, "{out}{err}");
        let mut lines = out.lines().map(|line| line.trim().to_owned());
        let first = lines.next().unwrap();
        let digest = host.policy()["digest"].as_str().unwrap().to_owned();
        let running = format!("running: generation 1, digest {digest}; hostler.toml: digest ");
        let new = first.strip_prefix(&running).unwrap_or_else(|| panic!("{out}")).to_owned();
        let lines: Vec<String> = lines.collect();
        assert_eq!(new == digest, lines == ["no change"], "{out}");
        lines
    };
    assert_eq!(diff(&host.setup), ["no change"]);
    let same = plus("[reload]\nmode = \"manual\"\n[executors.onnx]\nqueue = 7\nworkers = 2 # two");
    assert_eq!(diff(&same), ["no change"], "equal content in another folder");
    let changed = plus(
        "[executors.onnx]\nworkers = 2\nqueue = 9\n[models.more]\npath = \"plus.onnx\"\n[policy]\nplus = \"gpu\"",
    );
    assert_eq!(
        diff(&changed),
        [
            "executor \"onnx\": queue 7 -> 9",
            "model \"plus:1\": executor onnx -> gpu",
            "model \"more:1\": added"
        ]
    );
    let other = Setup::new(
        "[executors.onnx]\nworkers = 2\nqueue = 7\n[models.other]\npath = \"m.onnx\"\ntimeout_ms = 50\n",
    );
    assert_eq!(
        diff(&other.file("m.onnx", model("plus1"))),
        ["model \"plus:1\": removed", "model \"other:1\": added"]
    );
    let file = plus("[reload]\nmode = \"manual\"\n[executors.onnx]\nworkers = 2\nqueue = 7")
        .file("plus.onnx", model("plus2"));
    let lines = diff(&file);
    assert!(lines.len() == 1 && lines[0].starts_with("model \"plus:1\": file "), "{lines:?}");
    assert_eq!(host.generation(), 1, "looking changes nothing");
}

#[test]
fn diff_without_a_host_or_with_a_bad_manifest_fails() {
    let setup = plus("");
    // The listener is dropped at once, so nothing listens on this address.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let args = ["diff", "hostler.toml", "--admin", &*nobody];
    refused(
        &setup,
        &args,
        &[&format!("no Hostler answers on {nobody}"), "name its admin address with --admin"],
    );
    let manifest = plus(&format!("[server]\nadmin = \"{nobody}\""));
    refused(&manifest, &["diff"], &[&format!("no Hostler answers on {nobody}")]);
    let host = plus("").start();
    let args = ["diff", "hostler.toml", "--admin", &*host.http.to_string()];
    refused(&setup, &args, &[&format!("{} is not the admin address of a Hostler", host.http)]);
    let args = ["diff", "hostler.toml", "--admin", &*host.admin.to_string()];
    refused(&Setup::new("[models.m]\n"), &args, &["hostler.toml:1:9", "neither a path nor a plugin"]);
}

#[test]
fn serve_prints_addresses_routes_and_a_line_to_paste() {
    let host = churn::setup("").text("request.json", "{}").start();
    let (http, admin) = (host.http, host.admin);
    assert!(http.port() != 0 && admin.port() != 0 && http != admin);
    assert_eq!(host.get("/models").status, 200);
    let lines = crate::support::eventually(
        "the announcement",
        || Some(host.stdout()).filter(|lines| lines.len() >= 5),
        String::new,
    );
    let version = env!("CARGO_PKG_VERSION");
    let manifest = host.path("hostler.toml").canonicalize().unwrap();
    assert!(lines[0].starts_with(&format!("hostler {version} serves {} (", manifest.display())), "{lines:?}");
    assert_eq!(lines[1].trim(), "bankchurn:1 on onnx, transformer churn");
    assert_eq!(lines[2].trim(), "bankchurn-raw:1 on onnx");
    assert_eq!(lines[3], format!("try: curl -s http://{http}/predict -d @request.json"));
    assert_eq!(lines[4], format!("policy: curl -s http://{admin}/admin/policy"));
    assert_eq!(lines[5], format!("page: http://{admin}/ui/"));
}

#[test]
fn an_address_in_use_or_a_bad_manifest_ends_serve_with_a_reason() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (free, setup) = ("127.0.0.1:0", plus(""));
    for (http, admin, what) in [(&*address, free, "http"), (free, &address, "admin")] {
        let args = ["serve", "hostler.toml", "--http", http, "--admin", admin];
        refused(&setup, &args, &[&format!("cannot listen for {what} on {address}: Address already in use")]);
    }
    let setup = Setup::new("[models.m]\npath = \"none.onnx\"\n");
    let args = ["serve", "hostler.toml", "--http", free, "--admin", free];
    refused(&setup, &args, &["hostler.toml:2:8", "none.onnx: No such file"]);
    refused(
        &Setup::new(""),
        &["serve", "none.toml"],
        &["none.toml", "cannot read the manifest: No such file"],
    );
    let (code, _, err) = setup.run(&["serve", "--http", "localhost"]);
    assert!(code == 2 && err.contains("--http"), "{err}");
}

#[test]
fn text_of_others_cannot_pass_as_lines_of_a_command() {
    let name = "a\nhostler.toml: ok\r\u{1b}[31m\u{202e}.toml";
    let manifest = "[plugins.hostile]\npath = \"hostile.wasm\"\n[models.hostile]\nplugin = \"hostile\"\n";
    let request = |deed: &str| {
        let parameters = json!({"do": deed, "at": "predict"});
        json!({"model": "hostile", "data": ["a"], "parameters": parameters})
    };
    let setup = slow::setup(manifest)
        .text("request.json", &request("forged-error").to_string())
        .text("traps.json", &request("forged-last-words").to_string())
        .text(name, "[models.m]\npath = \"gone\\nhostler.toml: ok\\u202e.onnx\"\n");
    for args in [
        &["predict", "request.json"][..],
        &["predict", "traps.json"],
        &["check", name],
        &["check", "gone\r\u{202e}.toml"],
    ] {
        let (code, out, err) = setup.run(args);
        assert_eq!((code, &*out), (1, ""), "{args:?}: {err}");
        assert!(!err.contains(|one| one != '\n' && is_deceptive(one)), "{args:?}: {err:?}");
        let is_forged = |line: &str| line.starts_with("hostler.toml: ok") || line.starts_with("2026-01-01");
        assert!(!err.lines().any(is_forged), "{args:?}: {err}");
        assert!(err.contains("\\u{202e}"), "{args:?}: {err}");
    }
}
