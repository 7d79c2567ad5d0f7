//! `cargo xtask dist`: the host as packages that need no compiler, a Python wheel and an archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{output, run, step};
use crate::content::{Fresh, make_folder, write};
use crate::error::{Attempt, Error, Result};
use crate::layout::Layout;
use crate::{sbom, serve};

const USAGE: &str = "dist [--hostler PATH] [--out FOLDER]";
const WHEEL: &str = include_str!("wheel.py");

/// Runs `dist`: builds the host, unless `--hostler` names a program, and packs it.
pub fn dist(layout: &Layout, args: &[String]) -> Result<()> {
    let (mut program, mut folder) = (None, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let slot = match arg.as_str() {
            "--hostler" => &mut program,
            "--out" => &mut folder,
            _ => return Err(Error::new(format!("dist: unexpected argument {arg:?}"), USAGE)),
        };
        let value = args.next().ok_or_else(|| Error::new(format!("dist: {arg} needs a path"), USAGE))?;
        *slot = Some(std::path::absolute(value).attempting(|| format!("use {arg} {value}"))?);
    }
    let program = match program {
        Some(program) => program,
        None => serve::build_host(layout, true)?,
    };
    let folder = match folder {
        Some(folder) => folder,
        None => layout.target()?.join("dist"),
    };
    make_folder(&folder)?;
    let work = Fresh::beside(&folder.join("hostler"))?;
    let stripped = stripped(&program, &work.path)?;
    let bill = work.path.join(sbom::FILE);
    write(&bill, sbom::document(layout)?.as_bytes())?;
    let wheel = pack_wheel(&layout.root, &stripped, Some(&bill), &folder);
    let archive = archive(layout, &stripped, &bill, &work.path, &folder);
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len()) >> 20;
    let (wheel, archive) = (wheel?, archive?);
    step(&format!("program {} MB", bytes(&stripped)));
    for path in [&wheel, &archive] {
        step(&format!("wrote {} ({} MB)", path.display(), bytes(path)));
    }
    println!("{}", wheel.display());
    Ok(())
}

/// Copies the program without its debug information, which is several times as large.
fn stripped(program: &Path, folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("hostler");
    let mut strip = Command::new("strip");
    strip.args(["--strip-debug", "-o"]).arg(&copy).arg(program);
    run(&mut strip, "install binutils (Debian: apt-get install binutils)")?;
    Ok(copy)
}

/// Packs a program as a wheel in a folder, without a bill of materials, and returns the path of the
/// wheel. `root` is that of this repository.
pub fn wheel(root: &Path, program: &Path, folder: &Path) -> Result<PathBuf> {
    make_folder(folder)?;
    let work = Fresh::beside(&folder.join("hostler"))?;
    pack_wheel(root, &stripped(program, &work.path)?, None, folder)
}

fn pack_wheel(root: &Path, program: &Path, sbom: Option<&Path>, folder: &Path) -> Result<PathBuf> {
    let mut python = Command::new("python3");
    python.args(["-c", WHEEL]).arg(program).arg(env!("CARGO_PKG_VERSION"));
    python.arg(root.join("LICENSE")).arg(root.join("README.md")).arg(folder).args(sbom);
    let path = output(&mut python, "install Python 3.8 or newer")?;
    Ok(PathBuf::from(path.trim()))
}

/// Writes `hostler-VERSION-ARCH-linux.tar.gz` with the program, the licence, the readme and the
/// bill of materials.
fn archive(layout: &Layout, program: &Path, bill: &Path, work: &Path, folder: &Path) -> Result<PathBuf> {
    let name = format!("hostler-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let contents = work.join(&name);
    make_folder(&contents)?;
    for (from, to) in [
        (program, "hostler"),
        (&layout.root.join("LICENSE"), "LICENSE"),
        (&layout.root.join("README.md"), "README.md"),
        (bill, sbom::FILE),
    ] {
        fs::copy(from, contents.join(to)).attempting(|| format!("copy {}", from.display()))?;
    }
    let path = folder.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-czf"]);
    run(tar.arg(&path).arg("-C").arg(work).arg(&name), "install tar and gzip")?;
    Ok(path)
}
