//! The ONNX Runtime library: finds it, loads it once, and explains what to do if it is missing.

use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use ort::environment::Environment;
use ort::logging::LogLevel;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// The release whose API this host is built for. Newer releases work too.
const VERSION_WANTED: &str = "1.31";

const HINT: &str = "install it with `python3 -m pip install onnxruntime==1.31.1`, or run `cargo xtask ort`, and \
    set [server] onnxruntime or ORT_DYLIB_PATH to the file libonnxruntime.so";

/// The one environment of the process, created when the first model needs it.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// Returns the environment. Loads the library from `configured`, `ORT_DYLIB_PATH`, the Python
/// package `onnxruntime` that was installed beside this program, the cache of `cargo xtask ort`, or
/// the system's library path, in this order. The first library that loads is used for the life of
/// the process.
pub fn environment(configured: Option<&Path>) -> Result<Environment> {
    let mut environment = ENVIRONMENT.lock_unpoisoned();
    if let Some(environment) = &*environment {
        return Ok(environment.clone());
    }
    let path = find(configured)?;
    let builder = ort::init_from(&path).map_err(|error| {
        Error::unavailable(format!(
            "cannot load ONNX Runtime {VERSION_WANTED} from {}: {error}; {HINT}",
            path.display()
        ))
    })?;
    let builder = builder.with_name("hostler").with_telemetry(false).with_logger(Arc::new(log));
    let built = builder.build().map_err(|error| {
        Error::unavailable(format!("cannot start ONNX Runtime from {}: {error}; {HINT}", path.display()))
    })?;
    // An error of a run is returned by that run, and a run stopped at its deadline needs no log
    // line.
    built.set_log_level(LogLevel::Fatal);
    super::division::install();
    super::own_stack::install();
    super::unload::keep_weights_apart();
    tracing::info!(path = %path.display(), "ONNX Runtime loaded");
    Ok(environment.insert(built).clone())
}

/// Writes messages of the library to the host's log. By default the library writes them to stderr,
/// and blocks there.
fn log(level: LogLevel, _category: &str, _id: &str, place: &str, message: &str) {
    match level {
        LogLevel::Verbose => tracing::trace!(target: "ort", place, "{message}"),
        LogLevel::Info => tracing::debug!(target: "ort", place, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "ort", place, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "ort", place, "{message}"),
    }
}

fn find(configured: Option<&Path>) -> Result<PathBuf> {
    let from_environment =
        std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    for (path, origin) in
        [(configured.map(Path::to_owned), "[server] onnxruntime"), (from_environment, "ORT_DYLIB_PATH")]
    {
        match path {
            Some(path) if path.is_file() => return Ok(path),
            Some(path) => {
                let path = path.display();
                return Err(Error::unavailable(format!(
                    "{origin}: {path} does not exist or is not a file; {HINT}"
                )));
            }
            None => {}
        }
    }
    // Without a path, the loader searches the system: LD_LIBRARY_PATH, ld.so.cache.
    Ok(beside_program().or_else(cached).unwrap_or_else(|| "libonnxruntime.so".into()))
}

/// Returns the library of the Python package `onnxruntime`, if pip has installed both it and this
/// program. The program is then in the folder `bin` of an environment, and the package belongs to
/// the user of the program.
fn beside_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let bin = program.parent().filter(|folder| folder.ends_with("bin"))?;
    let owner = std::fs::metadata(&program).ok()?.uid();
    let root = bin.parent()?;
    let environments = std::fs::read_dir(root.join("lib")).into_iter().flatten().flatten();
    let packages = environments
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .flat_map(|entry| ["site-packages", "dist-packages"].map(|name| entry.path().join(name)));
    let mut found: Vec<(SystemTime, PathBuf)> = packages
        .filter(|packages| has_package_of_program(packages))
        .filter_map(|packages| std::fs::read_dir(packages.join("onnxruntime/capi")).ok())
        .flat_map(|files| files.flatten().map(|file| file.path()))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
        })
        .filter_map(|path| {
            let file = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
            (file.uid() == owner).then_some((file.modified().ok()?, path))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

/// Whether a folder of Python packages has the one that installed this program.
fn has_package_of_program(packages: &Path) -> bool {
    let entries = std::fs::read_dir(packages).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("hostler-") && name.ends_with(".dist-info")
    })
}

/// Returns the newest library that `cargo xtask ort` has put into the cache.
fn cached() -> Option<PathBuf> {
    let versions = std::fs::read_dir(crate::config::default_cache_dir()?.join("onnxruntime")).ok()?;
    let libraries = versions.flatten().filter_map(|version| {
        let name = version.file_name().to_str()?.to_owned();
        let library = version.path().join(format!("libonnxruntime.so.{name}"));
        let order: Vec<u32> = name.split('.').map_while(|part| part.parse().ok()).collect();
        library.is_file().then_some((order, library))
    });
    libraries.max().map(|(_, library)| library)
}
