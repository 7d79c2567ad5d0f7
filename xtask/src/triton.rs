//! A real Triton, from a wheel that contains it, laid out in the cache so that one program starts
//! it. Only fetches it and lays it out: tests start it through the environment variable
//! [`VARIABLE`], and the benchmark through [`program`].

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{output, step};
use crate::content::{Fresh, key, make_folder};
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;
use crate::packages::python_packages;

/// The environment variable in which tests find the program that starts Triton. The program takes
/// Triton's own arguments.
pub const VARIABLE: &str = "HOSTLER_TRITON";
/// The environment variable that is set instead of [`VARIABLE`] on a machine without Triton. Tests
/// that skip print its value, the reason.
pub const REASON: &str = "HOSTLER_TRITON_MISSING";
/// Versions of Python for which the wheel has a working stub and that this repository supports.
const PYTHONS: [&str; 2] = ["3.11", "3.12"];
const GLIBC_MIN: (u32, u32) = (2, 34);

/// A Python script that prints about the Python that models run in: its version, the folder of its
/// programs, the folder of its library, the C library's version, and the architecture.
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

/// Returns the program that starts Triton: `PROGRAM --model-repository=… --http-port=…`. Creates it
/// if it is not in the cache.
pub fn program(layout: &Layout) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) {
        return match path.is_file() {
            true => Ok(path),
            false => {
                let fix = "correct the path, or unset the variable to fetch Triton from PyPI";
                Err(Error::new(format!("{VARIABLE} names {}, which is not a file", path.display()), fix))
            }
        };
    }
    let python = python()?;
    let packages = python_packages(layout, &layout.root.join("xtask/triton-requirements.txt"))?;
    let script = script(&python, &packages);
    let folder = layout.cache.join("triton").join(key(&[&script], &[])?);
    let program = folder.join("triton");
    if !program.is_file() {
        step("lay out Triton in the cache");
        make_folder(&layout.cache.join("triton"))?;
        let fresh = Fresh::beside(&folder)?;
        lay_out(&python, &packages, &fresh.path, &script)?;
        fresh.put_in_place()?;
    }
    Ok(program)
}

/// Returns the environment variable for tests: the path of Triton, or the reason why it is missing.
/// A missing Triton is not an error here.
pub fn variable(layout: &Layout) -> (&'static str, String) {
    match program(layout) {
        Ok(program) => (VARIABLE, program.display().to_string()),
        Err(error) => {
            step(&format!("tests run without Triton: {error}"));
            (REASON, error.to_string())
        }
    }
}

/// Returns the Python of this machine if the wheel can run with it.
fn python() -> Result<Python> {
    let fix = format!("Triton needs x86-64 Linux with glibc {}.{} and Python ", GLIBC_MIN.0, GLIBC_MIN.1)
        + &PYTHONS.join(" or ")
        + "; without Triton, tests that need it are skipped";
    let text = output(Command::new("python3").args(["-c", PROBE]), &fix)?;
    let lines: Vec<&str> = text.lines().collect();
    let [version, bin, libraries, glibc, machine] = lines[..] else {
        return Err(Error::new(format!("cannot inspect python3: it printed {text:?}"), fix));
    };
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    let mut parts = glibc.split('.');
    let glibc_version = (number(parts.next()), number(parts.next()));
    if !PYTHONS.contains(&version) || glibc_version < GLIBC_MIN || machine != "x86_64" {
        let here = format!("this is Python {version} with glibc {glibc:?} on {machine}");
        return Err(Error::new(format!("cannot fetch Triton: {here}"), fix));
    }
    Ok(Python { version: version.into(), bin: bin.into(), libraries: libraries.into() })
}

/// Returns the shell script that starts Triton. It ends with `exec`, so that signals reach Triton.
/// Triton's Python stubs look for Python on the path, ignore variables that name packages, and exit
/// immediately if they bind to a libpython other than that Python's.
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

/// Lays out Triton in `folder` with links into the wheel, which stays unchanged: the stub for this
/// Python is where Triton looks for it, and a virtual environment contains the packages.
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
            return Err(Error::new(format!("cannot find {} in the wheel", from.display()), ""));
        }
        link(&from, &backend.join(name))?;
    }
    let program = folder.join("triton");
    fs::write(&program, script)
        .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
        .attempting(|| format!("write {}", program.display()))
}
