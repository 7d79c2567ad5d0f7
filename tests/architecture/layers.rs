//! The layers of the host: each module may name only modules to its right (`docs/architecture.md`
//! has the picture).

use super::sources::host;
use std::collections::BTreeMap;

/// From the outermost to the innermost. Modules in one row may not name each other.
const LAYERS: [&[&str]; 15] = [
    &["main"],
    &["cli", "drill"],
    &["app"],
    &["server"],
    &["jobs"],
    &["router"],
    &["policy", "access_log"],
    &["executor"],
    &["plugin", "offload", "graph"],
    &["access", "audit", "trace_export"],
    &["input_file", "outbound"],
    &["metrics", "shutdown", "config", "predict"],
    &["cancel", "private_folder", "tenants", "traces"],
    &["allocator", "task_timer", "error", "fixed_routes", "output", "proto", "timestamp", "wait_list"],
    &["lock"],
];

#[test]
fn layers_name_only_what_is_below_them() {
    let rows = LAYERS.iter().enumerate().flat_map(|(row, names)| names.iter().map(move |name| (*name, row)));
    let layer: BTreeMap<&str, usize> = rows.collect();
    let mut faults = Vec::new();
    for source in host().iter().filter(|source| source.path != "host/lib.rs") {
        let module = source.module().swap_remove(0);
        let Some(own) = layer.get(module.as_str()) else {
            faults.push(format!("{}: module {module} is in no layer", source.path));
            continue;
        };
        for path in source.paths() {
            let [first, other, ..] = &path[..] else { continue };
            let is_ours = first == "crate" || (first == "hostler" && module == "main");
            let is_above = layer.get(other.as_str()).is_some_and(|other_row| other_row <= own);
            if is_ours && other != &module && is_above {
                faults.push(format!("{} names {}", source.path, path.join("::")));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}
