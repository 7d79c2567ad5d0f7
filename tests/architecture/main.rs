//! The structure of the sources, held by tests: layers, no circles, who may name which library,
//! sizes, words.
//!
//! `docs/architecture.md` has the picture. A failure names the file, the line and the rule.

mod circles;
mod documents;
mod layers;
mod sources;
mod words;

use sources::{Source, host, repository};

/// Files may be a little longer than a reader likes, not much.
const LINES_MAX: usize = 500;

/// Comments wrap here.
const COMMENT_WIDTH: usize = 100;

/// Libraries that only some folders of the host may name.
const LIBRARIES: [(&[&str], &[&str]); 5] = [
    (&["wasmtime", "wasmtime_wasi", "wasmparser"], &["plugin/"]),
    (&["ort"], &["executor/onnx/"]),
    (&["redb"], &["jobs/durable/"]),
    (&["opentelemetry_proto"], &["trace_export/"]),
    (
        &["tonic", "tonic_health", "tonic_prost", "tonic_reflection"],
        &["proto/", "server/grpc/", "executor/triton/", "trace_export/"],
    ),
];

/// Control flow that cannot be read off a function signature; each use has its reason in the file.
const IMPLICIT: [(&str, &[&str]); 2] = [
    (
        "thread_local!",
        &[
            "access_log.rs",
            "executor/onnx/division.rs",
            "executor/onnx/own_stack.rs",
            "executor/scheduler/guest_task.rs",
            "plugin/guest_ticks.rs",
            "server/wake_gate.rs",
            "task_timer.rs",
        ],
    ),
    (
        "Wake for",
        &[
            "executor/scheduler/guest_task.rs",
            "plugin/streaming/call_registry.rs",
            "plugin/streaming/event_loop.rs",
            "server/wake_gate.rs",
        ],
    ),
];

#[test]
fn every_file_says_what_it_is_for_and_is_not_too_long() {
    let mut faults = Vec::new();
    for source in repository() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{} has {lines} lines, more than {LINES_MAX}", source.path));
        }
        if !source.text.starts_with("//!") && !source.text.starts_with("#!") {
            faults.push(format!("{} does not begin with //!", source.path));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn comments_wrap() {
    let mut faults = Vec::new();
    for source in repository() {
        for (number, line) in source.text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let text = comment.trim_start_matches(['/', '!']);
            // Tables, code and a link or path of its own cannot be broken.
            let is_fixed =
                text.starts_with(" |") || text.starts_with("     ") || text.trim().split(' ').count() < 2;
            if !is_fixed && line.chars().count() > COMMENT_WIDTH {
                faults.push(format!(
                    "{}:{}: a comment of more than {COMMENT_WIDTH} columns",
                    source.path,
                    number + 1
                ));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn libraries_are_named_where_they_belong() {
    let mut faults = Vec::new();
    for source in host() {
        let at = source.path.trim_start_matches("host/");
        for (libraries, folders) in LIBRARIES {
            let is_allowed = folders.iter().any(|folder| at.starts_with(folder));
            let named = source.paths().into_iter().find(|path| libraries.contains(&path[0].as_str()));
            if let Some(path) = named.filter(|_| !is_allowed) {
                faults.push(format!("{} names {}; only {folders:?} may", source.path, path.join("::")));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn implicit_control_flow_is_in_known_places() {
    for (what, known) in IMPLICIT {
        let uses = |source: &Source| source.code().contains(what);
        let found: Vec<_> =
            host().iter().filter(|source| uses(source)).map(|source| source.path.clone()).collect();
        let known: Vec<_> = known.iter().map(|path| format!("host/{path}")).collect();
        assert_eq!(found, known, "{what}");
    }
}

#[test]
fn a_module_with_children_is_a_folder_with_a_mod_rs() {
    let paths: Vec<String> = repository().into_iter().map(|source| source.path).collect();
    let folder = |path: &str| format!("{}/", path.trim_end_matches(".rs"));
    let doubled = |path: &&String| paths.iter().any(|other| other.starts_with(&folder(path)));
    let faults: Vec<_> = paths.iter().filter(|path| !path.ends_with("/main.rs")).filter(doubled).collect();
    assert_eq!(faults, Vec::<&String>::new(), "move x.rs to x/mod.rs");
}

#[test]
fn only_load_knows_concrete_executors() {
    let concrete = ["PoolExecutor", "TritonExecutor", "CustomExecutor", "PipelineExecutor"];
    let faults: Vec<String> = host()
        .into_iter()
        .filter(|source| {
            !["host/executor/", "host/policy/load/"].iter().any(|at| source.path.starts_with(at))
        })
        .filter(|source| concrete.iter().any(|name| source.code().contains(name)))
        .map(|source| source.path)
        .collect();
    assert_eq!(faults, Vec::<String>::new());
}
