//! The ONNX Runtime shared library, extracted from the wheel `onnxruntime`.
//! Only finds or fetches it: the host loads it, through the environment variable [`VARIABLE`].

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::command::{output, step};
use crate::content::{Fresh, make_folder};
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;
use crate::packages::python_wheel;

/// The environment variable in which the host finds the path of the library.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";
/// The newest release at the time the host's bindings were pinned; they need 1.31 (`api-31`).
pub const VERSION: &str = "1.31.1";

/// A Python script that extracts the library from the only wheel in a folder and deletes the wheel.
/// Prints nothing.
const UNPACK: &str = "
import glob, os, sys, zipfile
folder, library = sys.argv[1:]
[wheel] = glob.glob(os.path.join(folder, '*.whl'))
with zipfile.ZipFile(wheel) as archive:
    with open(os.path.join(folder, library), 'wb') as out:
        out.write(archive.read('onnxruntime/capi/' + library))
os.remove(wheel)
";

/// Returns the path of the library: the one that the environment names, else the cached one.
/// Fetches it if it is not in the cache.
pub fn library(layout: &Layout) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) {
        if path.exists() {
            return Ok(path);
        }
        let fix = format!("correct the path, or unset {VARIABLE} to fetch version {VERSION}");
        return Err(Error::new(format!("{VARIABLE} names {}, which does not exist", path.display()), fix));
    }
    let folder = layout.cache.join("onnxruntime").join(VERSION);
    let name = format!("libonnxruntime.so.{VERSION}");
    let library = folder.join(&name);
    if library.is_file() {
        return Ok(library);
    }
    step(&format!("fetch ONNX Runtime {VERSION} from PyPI"));
    let fresh = Fresh::beside(&folder)?;
    python_wheel(&format!("onnxruntime=={VERSION}"), &fresh.path)?;
    let fix = format!("set {VARIABLE} to a libonnxruntime.so of version {VERSION} or newer");
    output(Command::new("python3").args(["-c", UNPACK]).arg(&fresh.path).arg(&name), &fix)?;
    make_folder(&folder)?;
    fs::rename(fresh.path.join(&name), &library)
        .attempting(|| format!("move the library to {}", library.display()))?;
    Ok(library)
}
