//! Tests components that attack the compiler: each is rejected with a reason, within bounded time
//! and memory, and the host continues to serve. A compilation can be cancelled, and ends with its
//! host.

use crate::support::{Setup, engine, eventually, model, replace, root};
use hostler::cancel::Cancel;
use hostler::config::PluginLimits;
use hostler::error::Kind;
use hostler::metrics::Metrics;
use hostler::plugin::Plugin;
use serde_json::json;
use std::fmt::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("it is WAT")
}

/// Returns a component that takes minutes to compile: it has jump tables to many blocks, and sets
/// all locals anew before each table.
fn slow() -> Vec<u8> {
    const TABLES: usize = 30;
    const BLOCKS: usize = 300;
    let mut body = "(block ".repeat(BLOCKS);
    let targets: String = (1..=BLOCKS).map(|n| format!("{n} ")).collect();
    for table in 0..TABLES {
        for local in 1..=BLOCKS {
            let add = table * 7 + local;
            write!(body, "(local.set {local} (i32.add (local.get {local}) (i32.const {add})))").unwrap();
        }
        write!(body, "(if (local.get 0) (then (br_table {targets} (local.get 0))))").unwrap();
        body.push_str("(local.set 0 (i32.load (local.get 0)))");
    }
    body.push_str(&")".repeat(BLOCKS));
    for local in 1..=BLOCKS {
        write!(body, "(i32.store (i32.const {}) (local.get {local}))", 4 * local).unwrap();
    }
    let locals = "i32 ".repeat(BLOCKS);
    component(&format!(
        "(component (core module (memory 1) (func (export \"f\") (param i32) (local {locals}) {body})))"
    ))
}

/// Returns a component in which each of `levels` levels holds ten instances of the level before.
fn nested(levels: usize) -> Vec<u8> {
    let mut text =
        "(component (component $c0 (core module $m (func (export \"f\"))) (core instance (instantiate $m)))"
            .to_owned();
    for level in 0..levels {
        let instances = "(instance (instantiate $k))".repeat(10);
        let (next, alias) = (level + 1, format!("(alias outer 1 $c{level} (component $k))"));
        write!(text, "(component $c{next} {alias} {instances})").unwrap();
    }
    component(&format!("{text} (instance (instantiate $c{levels})))"))
}

/// Concatenates `part` for each number below `count`.
fn each(count: usize, part: impl Fn(usize) -> String) -> String {
    (0..count).map(part).collect()
}

/// Returns a component with a custom section of this length after its header.
fn custom_section(length: usize) -> Vec<u8> {
    let mut wasm = component("(component)");
    let mut size = length + 2;
    wasm.push(0);
    while size >= 0x80 {
        wasm.push(size as u8 | 0x80);
        size >>= 7;
    }
    wasm.push(size as u8);
    wasm.extend([1, b'x']);
    wasm.resize(wasm.len() + length, 0);
    wasm
}

fn hostile(name: &str) -> Vec<u8> {
    let module = |inside: String| component(&format!("(component (core module {inside}))"));
    match name {
        "slow" => slow(),
        "nested 7" => nested(7),
        "nested 9" => nested(9),
        "many functions" => module(each(100_000, |_| "(func)".into())),
        "many types" => module(each(100_000, |n| format!("(type (func (param {})))", "i32 ".repeat(n % 9)))),
        "a wide jump table" => {
            let targets = "0 ".repeat(300_000);
            module(format!("(func (param i32) (block (br_table {targets} (local.get 0))))"))
        }
        "much data" => module(format!("(memory 1024) (data (i32.const 0) \"{}\")", "x".repeat(16 << 20))),
        "deep blocks" => module(format!("(func {} {})", "(block ".repeat(20_000), ")".repeat(20_000))),
        "many exports" => {
            let exports = each(2000, |n| format!("(export \"e{n}\" (type $t))"));
            component(&format!("(component (type $t (tuple u8)) {exports})"))
        }
        "a long name" => {
            let name = "e".repeat(50_000);
            component(&format!("(component (type $t (tuple u8)) (export \"{name}\" (type $t)))"))
        }
        "many modules" => {
            let modules = each(900, |_| "(core module (func))".into());
            let inner = each(900, |n| format!("(component {} )", if n < 20 { &*modules } else { "" }));
            component(&format!("(component {inner})"))
        }
        "deep types" => {
            let types = each(60, |n| format!("(type $t{} (tuple $t{n} $t{n}))", n + 1));
            component(&format!("(component (type $t0 (tuple u8 u8)) {types})"))
        }
        "deep components" => component(&format!("{}{}", "(component ".repeat(90), ")".repeat(90))),
        "a large custom section" => custom_section(16 << 20),
        "many instances" => {
            let instances = each(900, |_| "(core instance (instantiate $m))".into());
            component(&format!("(component (core module $m (func)) {instances})"))
        }
        "many memories" => {
            let instances = each(20, |_| "(core instance (instantiate $m))".into());
            component(&format!("(component (core module $m (memory 1)) {instances})"))
        }
        "many tables" => {
            let instances = each(40, |_| "(core instance (instantiate $m))".into());
            component(&format!("(component (core module $m (table 10 funcref)) {instances})"))
        }
        "a large table" => {
            component("(component (core module $m (table 9000000 funcref)) (core instance (instantiate $m)))")
        }
        other => panic!("{other}"),
    }
}

const GOOD: &str = "smallest";

fn good() -> Vec<u8> {
    wat::parse_file(root().join(format!("tests/plugins/hostile/wat/{GOOD}.wat"))).expect("it is WAT")
}

/// Returns a setup with one plugin, `p.wasm`, and `keys` in its table.
fn setup(keys: &str) -> Setup {
    let manifest = format!(
        "[plugins.p]\npath = \"p.wasm\"\n{keys}\n[models.m]\nplugin = \"p\"\n[models.n]\npath = \"n.onnx\"\n\
         [policy]\ndefault = \"cpu\"\n"
    );
    let setup = Setup::new(&manifest).file("n.onnx", model("identity"));
    replace(&setup.path("p.wasm"), &good());
    setup
}

#[test]
fn a_component_that_attacks_the_compiler_is_rejected_and_the_host_serves_on() {
    let host = setup("compile_s = 1\ncompile_mb = 256").start();
    for name in ["slow", "nested 7", "nested 9"] {
        const REJECTED: &str = "hostler_reloads_total{outcome=\"rejected\"}";
        let before = host.metric(REJECTED);
        replace(&host.path("p.wasm"), &hostile(name));
        host.wait_for_policy(name, |_| host.metric(REJECTED) > before);
        let policy = host.wait_for_outcome("rejected");
        let error = policy["last_reload"]["errors"][0].as_str().unwrap();
        assert!(error.contains("plugin \"p\"") && error.contains("; raise compile_"), "{name}: {error}");
        assert_eq!(host.predict("m", json!([1.5])).result(), json!({"x": [1.5]}), "{name}");
    }
    assert!(host.usage().rss_kb < 400 << 10, "{:?}", host.usage());
    let generation = host.generation();
    replace(&host.path("p.wasm"), &crate::support::never_seen(&good(), 1));
    host.wait_for_generation(generation + 1);
}

#[test]
fn a_raised_limit_has_a_rejected_component_tried_again() {
    const REJECTED: &str = "hostler_reloads_total{outcome=\"rejected\"}";
    let host = setup("compile_mb = 128").start();
    let manifest = std::fs::read_to_string(host.path("hostler.toml")).unwrap();
    replace(&host.path("p.wasm"), &hostile("nested 9"));
    host.wait_for_outcome("rejected");
    replace(&host.path("hostler.toml"), format!("# the same\n{manifest}").as_bytes());
    host.wait_for_outcome("refused");
    let before = host.metric(REJECTED);
    replace(&host.path("hostler.toml"), manifest.replace("= 128", "= 129").as_bytes());
    host.wait_for_policy("another attempt", |_| host.metric(REJECTED) > before);
    let policy = host.wait_for_outcome("rejected");
    let error = policy["last_reload"]["errors"][0].as_str().unwrap();
    assert!(error.contains("takes more than 129 MB of memory"), "{error}");
}

#[test]
fn the_limit_that_a_component_reaches_is_named() {
    let cases = [
        (
            "slow",
            "compile_s = 1\ncompile_mb = 4096",
            "takes more than 1 s of processor time; raise compile_s",
        ),
        (
            "nested 7",
            "compile_s = 60\ncompile_mb = 128",
            "takes more than 128 MB of memory; raise compile_mb",
        ),
        (
            "nested 9",
            "compile_s = 60\ncompile_mb = 128",
            "takes more than 128 MB of memory; raise compile_mb",
        ),
    ];
    for (name, keys, reason) in cases {
        let setup = setup(keys);
        replace(&setup.path("p.wasm"), &hostile(name));
        let (code, _, error) = setup.run(&["check"]);
        assert_eq!(code, 1, "{name}");
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn what_a_component_may_have_is_bounded() {
    let setup = setup("compile_s = 2\ncompile_mb = 512");
    // `None` if the component is valid but has no role; the expected reason otherwise.
    let cases = [
        ("many functions", None),
        ("many types", None),
        ("a wide jump table", None),
        ("much data", None),
        ("deep blocks", None),
        ("many exports", Some("it has more than 1000 exports")),
        ("a long name", Some("it imports or exports a name of 50000 bytes; at most 512 are read")),
        ("many modules", None),
        ("deep types", None),
        ("deep components", None),
        ("a large custom section", None),
        (
            "many instances",
            Some("contains 900 core module instances, which exceeds the configured maximum of 200"),
        ),
        (
            "many memories",
            Some("contains 20 Wasm linear memories, which exceeds the configured maximum of 8"),
        ),
        ("many tables", Some("contains 40 tables, which exceeds the configured maximum of 32")),
        ("a large table", Some("minimum element size of 9000000 which exceeds the limit of 100000")),
    ];
    for (name, reason) in cases {
        replace(&setup.path("p.wasm"), &hostile(name));
        let started = Instant::now();
        let (code, out, error) = setup.run(&["check"]);
        let took = started.elapsed();
        assert_eq!(code, 1, "{name}: {out}{error}");
        let allowed = [
            "needs the role model",
            "; raise compile_",
            "nested too deeply",
            "implementation limit",
            "too large",
            "it has too many types",
            "exceeds",
        ];
        match reason {
            Some(reason) => assert!(error.contains(reason), "{name}: {error}"),
            None => assert!(allowed.iter().any(|reason| error.contains(reason)), "{name}: {error}"),
        }
        assert!(took < Duration::from_secs(60), "{name}: {took:?}");
    }
}

/// Finds the compiler process of `parent` for a component of `bytes` bytes.
fn compiler_of(parent: u32, bytes: usize) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").expect("/proc");
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let read =
        |id: u32, name: &str| std::fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_default();
    let is_ours = |id: &u32| {
        let status = read(*id, "status");
        status
            .lines()
            .any(|line| line.strip_prefix("PPid:").is_some_and(|id| id.trim() == parent.to_string()))
            && read(*id, "cmdline").contains(&format!("compile-plugin\0--bytes\0{bytes}\0"))
    };
    ids.into_iter().find(is_ours)
}

/// Returns whether the process runs: false if it has exited, even if nobody has reaped it yet.
fn runs(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

fn wait_for_compiler(parent: u32, wasm: &[u8]) -> u32 {
    eventually("a compiler process", || compiler_of(parent, wasm.len()), String::new)
}

fn wait_for_end(id: u32) {
    eventually("the end of the compiler process", || (!runs(id)).then_some(()), String::new);
}

#[test]
fn an_abandoned_compile_ends_at_once() {
    let metrics = Metrics::new();
    let engine = engine(1);
    let cancel = Cancel::default();
    let load = || {
        let limits = PluginLimits::default();
        let spec = engine.plugin_spec("slow".into(), limits, &metrics);
        Plugin::load(&engine, spec, &slow(), &metrics, &cancel).map(drop)
    };
    std::thread::scope(|scope| {
        // The second compilation waits for the first.
        let loads = [scope.spawn(load), scope.spawn(load)];
        let compiler = wait_for_compiler(std::process::id(), &slow());
        cancel.cancel();
        for load in loads {
            assert_eq!(load.join().unwrap().unwrap_err().kind(), Kind::Cancelled);
        }
        assert!(!runs(compiler));
    });
}

/// Starts `hostler check` on a component that takes minutes to compile.
fn slow_check(setup: &Setup) -> Child {
    replace(&setup.path("p.wasm"), &slow());
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
    command.args(["check", "p.wasm"]).current_dir(setup.dir.path());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
}

#[test]
fn a_compiler_that_is_killed_is_not_the_plugins_fault() {
    let setup = setup("");
    let check = slow_check(&setup);
    let compiler = wait_for_compiler(check.id(), &slow());
    assert!(Command::new("kill").args(["-KILL", &compiler.to_string()]).status().unwrap().success());
    let output = check.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("its compiler process was killed (SIGKILL)"), "{error}");
}

#[test]
fn a_compile_ends_with_its_host() {
    let setup = setup("");
    let mut check = slow_check(&setup);
    let compiler = wait_for_compiler(check.id(), &slow());
    check.kill().unwrap();
    check.wait().unwrap();
    wait_for_end(compiler);
}

#[test]
fn the_compiler_inherits_nothing() {
    let setup = setup("");
    let mut check = slow_check(&setup);
    let compiler = wait_for_compiler(check.id(), &slow());
    let limits = || std::fs::read_to_string(format!("/proc/{compiler}/limits")).unwrap_or_default();
    let bound = |limits: &str| {
        limits.lines().any(|line| line.starts_with("Max address space") && line.contains("1073741824"))
    };
    eventually("its limits", || Some(limits()).filter(|limits| bound(limits)), limits);
    let environment = std::fs::read_to_string(format!("/proc/{compiler}/environ")).unwrap();
    let names: Vec<&str> =
        environment.split_terminator('\0').filter_map(|pair| pair.split('=').next()).collect();
    assert_eq!(names, ["MALLOC_ARENA_MAX", "MIMALLOC_ARENA_RESERVE"], "nothing of the host's");
    let files: Vec<_> = std::fs::read_dir(format!("/proc/{compiler}/fd"))
        .unwrap()
        .flatten()
        .map(|file| file.file_name())
        .collect();
    assert!(files.len() <= 3, "{files:?}");
    check.kill().unwrap();
    check.wait().unwrap();
    wait_for_end(compiler);
}

#[test]
fn limits_are_checked() {
    for (keys, reason) in [
        ("compile_s = 0", "compile_s must be at least 1"),
        ("compile_mb = 1", "compile_mb must be at least 128"),
    ] {
        let (code, _, error) = setup(keys).run(&["check", "--quick"]);
        assert_eq!(code, 1);
        assert!(error.contains(reason), "{error}");
    }
}
