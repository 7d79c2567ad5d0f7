//! `hostler component`: makes a component of a core module. The tools of several languages, such as
//! C, Zig and Go, build only core modules.

use super::embedded;
use super::steps::{COMPONENT_HEAD, replace_file};
use crate::error::{Error, Result, did_you_mean};
use crate::input_file::{self, FileKind, FileLimits, Progress};
use crate::output;
use std::path::Path;
use wasi_preview1_component_adapter_provider as wasi;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve, WorldId};

/// The first bytes of every core module.
const MODULE_HEAD: [u8; 8] = [0, b'a', b's', b'm', 1, 0, 0, 0];

/// `hostler component MODULE --world WORLD --out FILE`: writes a component that exports and imports
/// what the world of the contract says. What the module uses of WASI preview 1 is adapted.
pub fn component(module: &Path, world: &str, out: &Path) -> Result<bool> {
    let shown = module.display();
    let limit = FileLimits::default().of(FileKind::Plugin);
    let mut bytes = input_file::read(module, limit, &Progress::default())
        .map_err(|error| error.context(format!("cannot read the module {shown}")))?;
    if bytes.starts_with(&COMPONENT_HEAD) {
        return Err(Error::invalid(format!("{shown} is a component already; a host can load it as it is")));
    }
    if !bytes.starts_with(&MODULE_HEAD) {
        return Err(Error::invalid(format!(
            "{shown} is not a WebAssembly module; it is what the compiler writes for a target such as wasm32-wasi"
        )));
    }
    let (contract, world_id) = find_world(world)?;
    let failed = |error: &dyn std::fmt::Display| {
        Error::invalid(format!(
            "cannot make a component of {shown} for the world {world}: {error:#}; the module must export the functions of \
             the world, and may import what the world and WASI preview 1 offer"
        ))
    };
    embed_component_metadata(&mut bytes, &contract, world_id, StringEncoding::UTF8)
        .map_err(|error| failed(&error))?;
    let encoded = ComponentEncoder::default()
        .module(&bytes)
        .and_then(|encoder| {
            let adapter = wasi::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;
            encoder.validate(true).adapter(wasi::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)
        })
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| failed(&error))?;
    replace_file(out, &encoded).map_err(|error| {
        Error::unavailable(format!("cannot write the component {}: {error}", out.display()))
    })?;
    output::print(format_args!(
        "component written to {} ({} KB)",
        out.display(),
        encoded.len().div_ceil(1024)
    ));
    Ok(true)
}

/// Returns a world of the contract by its name.
fn find_world(name: &str) -> Result<(Resolve, WorldId)> {
    let (contract, packages) = parse_contract();
    let worlds = || packages.iter().flat_map(|package| &contract.packages[*package].worlds);
    let found = worlds().find(|(known, _)| *known == name).map(|(_, world)| *world);
    let Some(world) = found else {
        let names: Vec<&str> =
            worlds().map(|(name, _)| name.as_str()).filter(|name| name.ends_with("-plugin")).collect();
        let hint = did_you_mean(name, names.iter().copied());
        return Err(Error::invalid(format!(
            "the contract has no world \"{name}\"{hint}; worlds of plugins: {}",
            names.join(", ")
        )));
    };
    Ok((contract, world))
}

/// Returns the contract, and the packages that it consists of.
fn parse_contract() -> (Resolve, Vec<PackageId>) {
    let mut contract = Resolve::default();
    let mut packages = Vec::new();
    // A package comes after those that it uses.
    let mut files: Vec<(&str, &[u8])> = embedded::contract().collect();
    files.sort_by_key(|(path, _)| (!path.starts_with("deps/"), path.starts_with("async/")));
    for (path, content) in files {
        let text = std::str::from_utf8(content).expect("invariant: the contract is text");
        packages.push(contract.push_str(path, text).expect("invariant: the contract is valid"));
    }
    (contract, packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(module: &[u8], world: &str) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let (path, out) = (folder.path().join("core.wasm"), folder.path().join("out.wasm"));
        std::fs::write(&path, module).unwrap();
        component(&path, world, &out)?;
        Ok(std::fs::read(out).unwrap())
    }

    /// A module that exports the one function of the world `optional-inputs-plugin`.
    const MODULE: &str = r#"(module
        (memory (export "memory") 1)
        (func (export "hostler:plugin/optional-inputs@0.1.0#names") (result i32) i32.const 0)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 0))"#;

    #[test]
    fn a_module_becomes_a_component_of_its_world() {
        let module = wat::parse_str(MODULE).unwrap();
        let component = run(&module, "optional-inputs-plugin").unwrap();
        assert!(component.starts_with(&COMPONENT_HEAD));
        wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all())
            .validate_all(&component)
            .expect("a valid component");
        let error = run(&component, "optional-inputs-plugin").unwrap_err();
        assert!(error.message().contains("is a component already"), "{error}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let module = wat::parse_str(MODULE).unwrap();
        let error = run(&module, "transformer-plugin").unwrap_err();
        for part in ["core.wasm", "transformer-plugin", "hostler:plugin/transformer@0.1.0"] {
            assert!(error.message().contains(part), "{error}");
        }
        let error = run(&module, "transformer-plugn").unwrap_err();
        assert!(error.message().contains("did you mean \"transformer-plugin\""), "{error}");
        let error = run(b"no module", "transformer-plugin").unwrap_err();
        assert!(error.message().contains("is not a WebAssembly module"), "{error}");
        // Cut off in the middle.
        let error = run(&module[..module.len() / 2], "optional-inputs-plugin").unwrap_err();
        assert!(error.message().contains("cannot make a component"), "{error}");
    }
}
