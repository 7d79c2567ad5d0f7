//! A real Triton, from the wheel that carries one, laid out in the cache so that one program starts it.
//! Only fetches and arranges it: tests and the benchmark start it, through the variable that this module names.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{output, step};
use crate::content::{Fresh, key, make_folder};
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;
use crate::packages::python_packages;

/// Where tests find the program that starts Triton. It takes Triton's own arguments.
pub const VARIABLE: &str = "HOSTLER_TRITON";
/// Why a machine has none, for tests that skip: this stands in the place of [`VARIABLE`].
pub const REASON: &str = "HOSTLER_TRITON_MISSING";
/// Pythons that the wheel has a working stub for and that this repository takes.
const PYTHONS: [&str; 2] = ["3.11", "3.12"];
const GLIBC_MIN: (u32, u32) = (2, 34);

/// Version, folder of the programs and of the library of the Python that models run in; the C library's version.
const PROBE: &str = "
import os, platform, sys, sysconfig
print('%d.%d' % sys.version_info[:2])
print(os.path.join(sys.base_exec_prefix, 'bin'))
print(sysconfig.get_config_var('LIBDIR'))
print(platform.libc_ver()[1])
print(platform.machine())
";

struct Python {
    version: String,
    bin: String,
    libraries: String,
}

/// The program that starts Triton, made if need be: `PROGRAM --model-repository=… --http-port=…`.
pub fn program(layout: &Layout) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) {
        return match path.is_file() {
            true => Ok(path),
            false => {
                let mend = "unset it to have Triton fetched from PyPI";
                Err(Error::new(format!("{VARIABLE} names {}, which is not there", path.display()), mend))
            }
        };
    }
    let python = python()?;
    let packages = python_packages(layout, &layout.root.join("xtask/triton-requirements.txt"))?;
    let script = script(&python, &packages);
    let folder = layout.cache.join("triton").join(key(&[&script], &[])?);
    let program = folder.join("triton");
    if !program.is_file() {
        step("lay out Triton");
        make_folder(&layout.cache.join("triton"))?;
        let fresh = Fresh::beside(&folder)?;
        lay_out(&python, &packages, &fresh.path, &script)?;
        fresh.put_in_place()?;
    }
    Ok(program)
}

/// The variable for tests: where Triton is, or why it is not. Not having it is no error here.
pub fn variable(layout: &Layout) -> (&'static str, String) {
    match program(layout) {
        Ok(program) => (VARIABLE, program.display().to_string()),
        Err(error) => {
            step(&format!("no Triton for tests: {error}"));
            (REASON, error.to_string())
        }
    }
}

/// The Python of this machine, if the wheel can run with it.
fn python() -> Result<Python> {
    let mend = format!("a Triton needs x86-64 Linux with glibc {}.{} and Python ", GLIBC_MIN.0, GLIBC_MIN.1)
        + &PYTHONS.join(" or ")
        + "; tests that want one are skipped without";
    let text = output(Command::new("python3").args(["-c", PROBE]), &mend)?;
    let lines: Vec<&str> = text.lines().collect();
    let [version, bin, libraries, glibc, machine] = lines[..] else {
        return Err(Error::new(format!("ask python3 about itself: it said {text:?}"), mend));
    };
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    let mut parts = glibc.split('.');
    let glibc_version = (number(parts.next()), number(parts.next()));
    if !PYTHONS.contains(&version) || glibc_version < GLIBC_MIN || machine != "x86_64" {
        let here = format!("this is Python {version} with glibc {glibc:?} on {machine}");
        return Err(Error::new(format!("fetch Triton: {here}"), mend));
    }
    Ok(Python { version: version.into(), bin: bin.into(), libraries: libraries.into() })
}

/// Becomes Triton, so that signals reach it. Its stubs look for a Python on the path, heed no variable that names
/// packages, and die at once if they bind to another libpython than that Python's.
fn script(python: &Python, packages: &Path) -> String {
    let packages = packages.display();
    format!(
        "#!/bin/sh\n\
         # Python {} in {}\n\
         here=$(dirname \"$(readlink -f \"$0\")\")\n\
         export LD_LIBRARY_PATH='{packages}/nvidia_pytriton.libs:{}' PATH=\"$here/python/bin:$PATH\"\n\
         export ORT_DISABLE_TELEMETRY=1\n\
         exec '{packages}/pytriton/tritonserver/bin/tritonserver' --backend-directory=\"$here/backends\" \"$@\"\n",
        python.version, python.bin, python.libraries
    )
}

/// The wheel stays as it is: links into it, with the stub of this Python where Triton looks for it, and a virtual
/// environment that has the packages.
fn lay_out(python: &Python, packages: &Path, folder: &Path, script: &str) -> Result<()> {
    let link = |from: &Path, to: &Path| symlink(from, to).attempting(|| format!("link {}", from.display()));
    let environment = folder.join("python");
    let library = environment.join("lib").join(format!("python{}", python.version));
    make_folder(&environment.join("bin"))?;
    make_folder(&library)?;
    link(&Path::new(&python.bin).join("python3"), &environment.join("bin/python3"))?;
    link(packages, &library.join("site-packages"))?;
    let home = format!("home = {}\n", python.bin);
    fs::write(environment.join("pyvenv.cfg"), home).attempting(|| "write pyvenv.cfg".to_owned())?;

    let wheel = packages.join("pytriton/tritonserver");
    let backend = folder.join("backends/python");
    make_folder(&backend)?;
    let stub = format!("python_backend_stubs/{}/triton_python_backend_stub", python.version);
    for part in [
        "backends/python/libtriton_python.so",
        "backends/python/triton_python_backend_utils.py",
        stub.as_str(),
    ] {
        let from = wheel.join(part);
        let name = from.file_name().unwrap_or_default();
        if !from.exists() {
            return Err(Error::new(format!("find {} in the wheel: it is not there", from.display()), ""));
        }
        link(&from, &backend.join(name))?;
    }
    let program = folder.join("triton");
    fs::write(&program, script)
        .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
        .attempting(|| format!("write {}", program.display()))
}
