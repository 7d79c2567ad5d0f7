//! The ONNX Runtime shared library, taken out of the wheel of the same name.
//! Only finds or fetches it: the host loads it, through the variable that this module names.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::command::{output, step};
use crate::content::{Fresh, make_folder};
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;
use crate::packages::python_wheel;

/// Where the host looks for the library.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";
/// The newest release when the host's bindings were pinned; they need 1.31 (`api-31`).
const VERSION: &str = "1.31.1";

/// Takes the library out of the one wheel in a folder; prints nothing.
const UNPACK: &str = "
import glob, os, sys, zipfile
folder, library = sys.argv[1:]
[wheel] = glob.glob(os.path.join(folder, '*.whl'))
with zipfile.ZipFile(wheel) as archive:
    with open(os.path.join(folder, library), 'wb') as out:
        out.write(archive.read('onnxruntime/capi/' + library))
os.remove(wheel)
";

/// The path of the library: what the environment names, else the cached one, which is fetched if need be.
pub fn library(layout: &Layout) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) {
        if path.exists() {
            return Ok(path);
        }
        let mend = format!("unset it to have version {VERSION} fetched");
        return Err(Error::new(format!("{VARIABLE} names {}, which is not there", path.display()), mend));
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
    let mend = format!("point {VARIABLE} at a libonnxruntime.so of version {VERSION} or newer");
    output(Command::new("python3").args(["-c", UNPACK]).arg(&fresh.path).arg(&name), &mend)?;
    make_folder(&folder)?;
    fs::rename(fresh.path.join(&name), &library)
        .attempting(|| format!("put {} in place", library.display()))?;
    Ok(library)
}
