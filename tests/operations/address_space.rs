//! Tests the address space that the host reserves for plugin instances: none without a plugin, less
//! with lower limits, and which limit is reported when slots run out.

use crate::support::{Host, Setup, model, plugin, replace, root};
use serde_json::json;

const ONNX: &str = "[models.plus]\npath = \"plus.onnx\"\n";
const ECHO: &str = "[plugins.echo]\npath = \"echo.wasm\"\n[models.echo]\nplugin = \"echo\"\n";

/// 4 GB, of which the allocator, threads and ONNX Runtime reserve up to 3.
const LIMIT: &str = "-v 4000000";

fn setup(manifest: &str) -> Setup {
    Setup::new(manifest).file("plus.onnx", model("plus1")).file("echo.wasm", plugin("echo"))
}

/// Returns the address space of the process in GB.
fn address_space_gb(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 20
}

fn answers(host: &Host, name: &str) {
    let data = if name == "echo" { json!(["a text"]) } else { json!([1.0]) };
    let answer = host.predict(name, data);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_host_without_plugins_reserves_nothing_for_them() {
    let host = setup(ONNX).ulimit(LIMIT).start();
    answers(&host, "plus");
    // A plugin that does not fit is refused, and the host serves as before.
    replace(&host.path("hostler.toml"), format!("{ONNX}{ECHO}").as_bytes());
    let record = host.admin_post("/admin/reload").json();
    assert_eq!(record["outcome"], "rejected", "{record}");
    let errors = record["errors"].to_string();
    for part in ["cannot reserve about", "lower plugin_instances or plugin_memory_mb_max", "ulimit -v"] {
        assert!(errors.contains(part), "{errors}\nlacks {part}");
    }
    answers(&host, "plus");
}

#[test]
fn lower_limits_reserve_less_address_space() {
    let server = "[server]\nplugin_instances = 4\nplugin_memory_mb_max = 64\n";
    let host = setup(&format!("{server}{ONNX}{ECHO}")).ulimit(LIMIT).start();
    answers(&host, "plus");
    answers(&host, "echo");
}

#[test]
fn a_reload_that_adds_the_first_plugin_reserves_for_it() {
    let host = setup(&format!("[server]\nplugin_instances = 64\n{ONNX}")).start();
    let before = address_space_gb(&host);
    replace(&host.path("hostler.toml"), format!("[server]\nplugin_instances = 64\n{ONNX}{ECHO}").as_bytes());
    let record = host.admin_post("/admin/reload").json();
    assert_eq!(record["outcome"], "applied", "{record}");
    answers(&host, "echo");
    let after = address_space_gb(&host);
    // Two memories of 4 GB for each instance.
    assert!(before < 100 && after > before + 500, "{before} GB, then {after} GB");
}

/// Returns the smallest model with `more` in its component.
fn smallest_with(more: &str) -> Vec<u8> {
    let path = root().join("tests/plugins/hostile/wat/smallest.wat");
    let text = std::fs::read_to_string(path).expect("the model");
    let text = text.replacen("(core module $code", &format!("{more}\n  (core module $code"), 1);
    wat::parse_str(text).expect("it is WAT")
}

const SMALL: &str = "[plugins.small]\npath = \"small.wasm\"\n[models.small]\nplugin = \"small\"\n";

fn small(instances: u32, more: &str) -> Setup {
    let setup = Setup::new(&format!("[server]\nplugin_instances = {instances}\n{SMALL}"));
    replace(&setup.path("small.wasm"), &smallest_with(more));
    setup
}

#[test]
fn a_component_of_many_core_instances_takes_one_slot() {
    let more = "(core module $empty)".to_owned() + &"(core instance (instantiate $empty))".repeat(150);
    let host = small(1, &more).start();
    answers(&host, "small");
}

#[test]
fn the_limit_that_was_reached_is_named() {
    let memories =
        "(core module $memory (memory 1))".to_owned() + &"(core instance (instantiate $memory))".repeat(4);
    let log = small(2, &memories).try_start().err().expect("it does not start");
    let limit = "all 4 linear memories of the host's plugin instances are in use";
    assert!(log.contains(limit) && log.contains("raise plugin_instances"), "{log}");
    let tables = "(core module $table (table 1 funcref))".to_owned()
        + &"(core instance (instantiate $table))".repeat(9);
    let log = small(1, &tables).try_start().err().expect("it does not start");
    assert!(log.contains("all 8 tables of the host's plugin instances are in use"), "{log}");
    drop(small(3, &memories).start());
}
