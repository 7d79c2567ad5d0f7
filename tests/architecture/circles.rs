//! No file of the host imports, over whatever way, from a file that imports from it.

use super::sources::{Import, host};
use std::collections::{BTreeMap, BTreeSet};

/// Files that may import each other in a circle, with the reason. Keep it empty.
const KNOTS: [&[&str]; 0] = [];

type Module = Vec<String>;

struct Modules {
    imports: BTreeMap<Module, Vec<Import>>,
}

impl Modules {
    /// From a path as it stands in a module to one from the crate's root. `None` for what is not of
    /// this crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([module, &path[1..]].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat())
            }
            first => {
                let child = [&module[..], &[first.to_owned()]].concat();
                if self.imports.contains_key(&child) {
                    return Some([module, path].concat());
                }
                // A name that was imported, as a module.
                let import =
                    self.imports[module].iter().find(|import| import.name == first && import.path != path)?;
                let start = self.absolute(module, &import.path)?;
                Some([&start[..], &path[1..]].concat())
            }
        }
    }

    /// The module that defines what a path from the root names: re-exports are followed. `None` for
    /// a module itself.
    fn definer(&self, path: &[String], depth: usize) -> Option<Module> {
        let known = (0..=path.len()).rev().find(|length| self.imports.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(known);
        let item = rest.first()?;
        let export = self.imports[module].iter().find(|import| import.is_public && import.name == *item);
        let further = export.filter(|_| depth < 16).and_then(|export| {
            let target = self.absolute(&module.to_vec(), &export.path)?;
            self.definer(&[&target[..], &rest[1..]].concat(), depth + 1)
        });
        Some(further.unwrap_or_else(|| module.to_vec()))
    }
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let sources = host();
    let modules = Modules {
        imports: sources
            .iter()
            .filter(|source| source.path != "host/main.rs")
            .map(|source| (source.module(), source.imports()))
            .collect(),
    };
    let mut edges: BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path != "host/main.rs") {
        let module = source.module();
        let re_exports: Vec<_> = modules.imports[&module]
            .iter()
            .filter(|import| import.is_public)
            .map(|import| &import.path)
            .collect();
        for path in source.paths().iter().filter(|path| !re_exports.contains(path)) {
            let Some(absolute) = modules.absolute(&module, path) else { continue };
            if let Some(definer) = modules.definer(&absolute, 0).filter(|definer| *definer != module) {
                edges.entry(module.clone()).or_default().entry(definer).or_default().insert(path.join("::"));
            }
        }
    }
    let mut faults = Vec::new();
    for circle in circles(&edges) {
        let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        if KNOTS.iter().any(|knot| names.iter().all(|name| knot.contains(&name.as_str()))) {
            continue;
        }
        for module in &circle {
            for (other, paths) in edges[module].iter().filter(|(other, _)| circle.contains(*other)) {
                faults.push(format!("{} -> {}: {paths:?}", module.join("::"), other.join("::")));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new(), "files that import each other in a circle");
}

/// The modules of each circle: those that reach each other.
fn circles(edges: &BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>) -> Vec<BTreeSet<Module>> {
    let reach = |from: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = open.pop() {
            for next in edges.get(&module).into_iter().flatten().map(|(next, _)| next) {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        edges.keys().map(|module| (module, reach(module))).collect();
    let mut found: BTreeSet<BTreeSet<Module>> = BTreeSet::new();
    for (module, all) in &reached {
        if all.contains(*module) {
            let together = |other: &&Module| reached.get(other).is_some_and(|back| back.contains(*module));
            found.insert(all.iter().filter(together).cloned().collect());
        }
    }
    found.into_iter().collect()
}
