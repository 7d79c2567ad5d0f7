//! The layers of the host: each may name only those to its right (`host/lib.rs` has the picture).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// From the outermost to the innermost. Modules in one row may not name each other.
const LAYERS: [&[&str]; 13] = [
    &["main"],
    &["cli", "drill"],
    &["app"],
    &["server"],
    &["jobs"],
    &["router"],
    &["policy", "access_log"],
    &["executor"],
    &["plugin", "offload", "graph"],
    &["input_file"],
    &["metrics", "shutdown", "config", "predict"],
    &["cancel", "private_folder"],
    &["alarm", "error", "output", "proto", "wait_list"],
];

/// Files may be a little longer than a reader likes, not much.
const LINES_MAX: usize = 500;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn host_sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("host");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths.sort();
    let module = |path: &Path| {
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
    };
    let read = |path: PathBuf| (module(&path), path.clone(), std::fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

#[test]
fn layers_name_only_what_is_below_them() {
    let layer: BTreeMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(row, names)| names.iter().map(move |name| (*name, row)))
        .collect();
    let mut faults = Vec::new();
    for (module, path, text) in host_sources().iter().filter(|(module, ..)| module != "lib") {
        let Some(own) = layer.get(module.as_str()) else {
            faults.push(format!("{}: module {module} is in no layer", path.display()));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for other in named_modules(code) {
                let above = layer.get(other.as_str()).is_none_or(|other_row| other_row <= own);
                if other != *module && above {
                    faults.push(format!("{}:{}: {module} names {other}", path.display(), number + 1));
                }
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

/// `crate::x`, `hostler::x`, and the names in `crate::{x, y}`.
fn named_modules(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for prefix in ["crate::", "hostler::{", "hostler::"] {
        for (start, _) in code.match_indices(prefix) {
            // A part of a longer path, such as a generated module of the contract's package.
            if code[..start].ends_with("::") {
                continue;
            }
            let rest = &code[start + prefix.len()..];
            let list = rest.strip_prefix('{').unwrap_or(rest);
            let end = list.find(['}', ';']).unwrap_or(list.len());
            let parts: Vec<&str> = if list.len() < rest.len() || prefix.ends_with('{') {
                list[..end].split(',').collect()
            } else {
                vec![list]
            };
            let word = |part: &str| {
                part.trim()
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            };
            names.extend(parts.into_iter().map(word).filter(|name| name.starts_with(char::is_lowercase)));
        }
    }
    // The contract's package has the crate's name: `hostler::plugin` there is not ours.
    names.retain(|name| !code.contains("exports::hostler") || name != "plugin");
    names
}

#[test]
fn every_file_says_what_it_is_for_and_is_not_too_long() {
    let mut faults = Vec::new();
    for (_, path, text) in host_sources() {
        if !text.starts_with("//!") {
            faults.push(format!("{} does not begin with //!", path.display()));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{} has {lines} lines", path.display()));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn only_load_knows_concrete_executors() {
    let concrete = ["PoolExecutor", "TritonExecutor", "CustomExecutor", "PipelineExecutor"];
    let faults: Vec<String> = host_sources()
        .into_iter()
        .filter(|(module, path, text)| {
            let allowed =
                module == "executor" || path.parent().is_some_and(|folder| folder.ends_with("policy/load"));
            !allowed && concrete.iter().any(|name| text.contains(name))
        })
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    assert_eq!(faults, Vec::<String>::new());
}
