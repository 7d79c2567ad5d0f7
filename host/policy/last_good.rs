//! Copies on disk of the files of the last good policies, so that the host can restart with faulty
//! files.
//!
//! Copies are in a folder of the host's own, one for each manifest. Each copy is a folder that
//! mirrors the file system below `/`. The file `current` names the last good copy and the one
//! before. A copy is valid from the moment that `current` names it, in one rename. Until then, and
//! if the host ends in between, the copy before it is valid. Copies that `current` does not name
//! and that no process uses are removed.

use super::files::{File, Files, hex_digest};
use super::plan::{ExecutorPlan, ModelPlan, Plan, PluginPlan, SourcePlan, WebhooksPlan};
use crate::error::{Error, Result};
use crate::input_file::{FileKind, Limit};
use crate::lock::LockUnpoisoned;
use crate::private_folder::PrivateFolder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The host's own folder inside the folder that the user names.
const FOLDER: &str = "hostler-last-good";
const CURRENT: &str = "current";
const LOCK: &str = "lock";
const COPY_PREFIX: &str = "copy-";

/// The most bytes of the file `current`, which has two names.
const CURRENT_BYTES_MAX: u64 = 4096;

/// How long to wait for the lock. A change of `current` takes milliseconds; a host that holds the
/// lock for longer is not running.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

pub struct LastGood {
    /// The folder of one manifest.
    folder: PathBuf,
    /// Where earlier versions kept the copy. It is read and never changed.
    legacy: PathBuf,
    /// Copies that this process reads from, locked so that no other process removes them.
    used: Mutex<Vec<fs::File>>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Current {
    last: Option<String>,
    previous: Option<String>,
}

impl LastGood {
    /// Keeps the copies in `state_dir`, by default where this user's programs keep their state.
    pub fn new(state_dir: Option<&Path>, manifest: &Path) -> Result<Self> {
        let key = &hex_digest(manifest.as_os_str().as_encoded_bytes())[..16];
        let (state, legacy) = match state_dir {
            Some(folder) => (folder.to_owned(), folder.join("files")),
            None => {
                let folder = default_state_dir().ok_or_else(|| {
                    Error::unavailable(
                        "no last-good copy can be kept: neither XDG_STATE_HOME nor HOME is set; name a folder for it \
                         with --state-dir",
                    )
                })?;
                let legacy = folder.join(key).join("files");
                (folder, legacy)
            }
        };
        Ok(LastGood { folder: state.join(FOLDER).join(key), legacy, used: Mutex::default() })
    }

    /// Copies the files of a plan. Files that the previous copy already has are linked, not copied.
    pub fn save(&self, plan: &Plan, files: &Files) -> Result<()> {
        let failed = |error| self.failed(error);
        let folder = self.open().map_err(failed)?;
        let name = format!("{COPY_PREFIX}{:016x}", fastrand::u64(..));
        let root = self.folder.join(&name);
        // Only this user may read it, because keys and secrets may be among the files.
        fs::DirBuilder::new().mode(0o700).create(&root).map_err(failed)?;
        // The lock keeps other hosts from removing the copy before it is valid.
        let in_use = fs::File::open(&root).inspect(|root| drop(root.try_lock_shared())).map_err(failed)?;
        let copied = self.copy(plan, files, &folder, &root).and_then(|()| {
            self.change(&folder, |current| Current { previous: current.last, last: Some(name) })
                .map_err(failed)
        });
        drop(in_use);
        if copied.is_err() {
            let _ = fs::remove_dir_all(&root);
        }
        copied
    }

    fn copy(&self, plan: &Plan, files: &Files, folder: &PrivateFolder, root: &Path) -> Result<()> {
        let failed = |error| self.failed(error);
        let before = read(folder).last.map(|name| Files::below(self.folder.join(name)));
        let copy = Files::below(root.to_owned());
        let place = |path: &Path| {
            let target = copy.location(path);
            let parent = target.parent().expect("invariant: below the folder");
            fs::create_dir_all(parent).map(|()| target)
        };
        // Not the manifest on the disk, which may have changed since this plan was read.
        write(&place(&plan.path).map_err(failed)?, plan.text.as_bytes()).map_err(failed)?;
        // Every file was within its limit when it was planned.
        let any_size = Limit::bytes(FileKind::Asset, u64::MAX);
        // Several models may name one file.
        let all: BTreeMap<&Path, &File> =
            files_of(plan).map(|file| (&*file.path, file)).filter(|(path, _)| **path != *plan.path).collect();
        for file in all.into_values() {
            let target = place(&file.path).map_err(failed)?;
            let same = before
                .as_ref()
                .filter(|old| old.file(&file.path, any_size).is_ok_and(|old| old.sha256 == file.sha256));
            let linked = same.is_some_and(|old| fs::hard_link(old.location(&file.path), &target).is_ok());
            if !linked {
                write(&target, &files.read(file)?).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Makes the copy before the last one current again. Without one, no copy remains.
    pub fn roll_back(&self) -> Result<()> {
        let folder = match PrivateFolder::open(&self.folder) {
            // No copy was ever kept.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            folder => folder.map_err(|error| self.failed(error))?,
        };
        self.change(&folder, |current| Current { last: current.previous, previous: None })
            .map_err(|error| self.failed(error))
    }

    /// Returns the files of the last good copy; `None` if there is no copy.
    pub fn files(&self) -> Option<Files> {
        let root = match PrivateFolder::open(&self.folder) {
            Ok(folder) if folder.stat(CURRENT).is_some() => {
                let used = self.hold_last(&folder).unwrap_or_else(|error| {
                    tracing::warn!("cannot use the last-good copy: {error}");
                    None
                });
                return used.map(Files::below);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot use the last-good copy: {error}");
                return None;
            }
            _ => PrivateFolder::open(&self.legacy).ok()?.path().to_owned(),
        };
        Some(Files::below(root))
    }

    /// Returns the last copy, and keeps other processes from removing it until this one ends. On a
    /// file system without locks, other hosts still keep the last two copies.
    fn hold_last(&self, folder: &PrivateFolder) -> io::Result<Option<PathBuf>> {
        // While this lock is held, no other process names another copy, so none removes one. In a
        // folder that cannot be written to, nothing can change.
        let lock = folder.lock_file(LOCK);
        let _ = lock.as_ref().map(wait_for);
        let Some(name) = read(folder).last else { return Ok(None) };
        let root = self.folder.join(name);
        let in_use = fs::File::open(&root)?;
        let _ = in_use.try_lock_shared();
        self.used.lock_unpoisoned().push(in_use);
        Ok(Some(root))
    }

    fn open(&self) -> io::Result<PrivateFolder> {
        PrivateFolder::make(self.folder.parent().expect("invariant: it has two names of its own"))?;
        PrivateFolder::make(&self.folder)
    }

    /// Changes which copies are named, in one step, and removes those that are no longer named.
    fn change(&self, folder: &PrivateFolder, change: impl FnOnce(Current) -> Current) -> io::Result<()> {
        let lock = folder.lock_file(LOCK)?;
        wait_for(&lock)?;
        let current = change(read(folder));
        let beside = format!("{CURRENT}-{:016x}", fastrand::u64(..));
        let written = folder.create(&beside).and_then(|mut file| {
            file.write_all(&serde_json::to_vec(&current)?)?;
            file.sync_all()?;
            folder.rename(&beside, CURRENT)?;
            folder.sync()
        });
        if written.is_err() {
            let _ = folder.remove(&beside);
        }
        written?;
        for name in folder.names().unwrap_or_default() {
            let Some(name) = name.to_str() else { continue };
            let named = [&current.last, &current.previous].into_iter().flatten().any(|kept| kept == name);
            if is_copy(name) && !named {
                self.remove(name);
            }
        }
        Ok(())
    }

    /// Removes a copy, unless it is being made or read.
    fn remove(&self, name: &str) {
        let path = self.folder.join(name);
        if fs::File::open(&path).is_ok_and(|copy| copy.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(path);
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        self.copying(Error::io(&error))
    }

    fn copying(&self, error: Error) -> Error {
        error.context(format!("cannot keep a last-good copy in {}", self.folder.display()))
    }
}

fn default_state_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("hostler"))
}

fn is_copy(name: &str) -> bool {
    let id = name.strip_prefix(COPY_PREFIX).unwrap_or_default();
    id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads which copies are valid; none if the file is missing or damaged.
fn read(folder: &PrivateFolder) -> Current {
    let read = || {
        let mut text = Vec::new();
        folder.read(CURRENT)?.take(CURRENT_BYTES_MAX).read_to_end(&mut text)?;
        io::Result::Ok(serde_json::from_slice::<Current>(&text)?)
    };
    let mut current = read().unwrap_or_default();
    for name in [&mut current.last, &mut current.previous] {
        *name = name.take().filter(|name| is_copy(name) && folder.path().join(name).is_dir());
    }
    current
}

/// Writes a new file, and syncs it to the disk before `current` names its copy.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Takes the lock. On a file system without locks, this host is taken to be the only one.
fn wait_for(lock: &fs::File) -> io::Result<()> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock.try_lock() {
            Err(fs::TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(io::Error::other("another host holds its lock"));
            }
            Ok(()) | Err(fs::TryLockError::Error(_)) => return Ok(()),
        }
    }
}

/// Returns every file of a plan except its manifest.
pub fn files_of(plan: &Plan) -> impl Iterator<Item = &File> {
    // Destructured in full, so that a new file cannot be forgotten.
    let plugins = plan.plugins.values().flat_map(|plugin| {
        let PluginPlan { file, limits: _, config: _, assets, http, roles: _ } = plugin;
        let ca = http.iter().filter_map(|http| http.ca.as_ref());
        std::iter::once(file).chain(assets.values()).chain(ca)
    });
    let models = plan.models.values().flat_map(|model| {
        let ModelPlan {
            source,
            executor: _,
            transformer: _,
            timeout: _,
            batching: _,
            labels,
            idempotent: _,
            checks,
        } = model;
        let source: Vec<&File> = match source {
            SourcePlan::Onnx { file, external } => std::iter::once(file).chain(external).collect(),
            SourcePlan::Remote { reference: Some((file, external)), .. } => {
                std::iter::once(file).chain(external).collect()
            }
            SourcePlan::Plugin(_) | SourcePlan::Remote { .. } | SourcePlan::Pipeline(_) => Vec::new(),
        };
        let checks = checks.iter().map(|check| &check.file);
        source.into_iter().chain(labels.values()).chain(checks)
    });
    let executors = plan.executors.values().flat_map(|executor| match executor {
        ExecutorPlan::Triton { tls, .. } => tls.iter().flat_map(|tls| tls.files()).collect(),
        ExecutorPlan::Pool { .. } | ExecutorPlan::Custom { .. } | ExecutorPlan::Pipeline { .. } => Vec::new(),
    });
    let webhooks = plan.webhooks.iter().flat_map(WebhooksPlan::files);
    plugins.chain(models).chain(executors).chain(webhooks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_fails_in_the_middle_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let (home, state) = (dir.path().join("home"), dir.path().join("state"));
        fs::create_dir(&home).unwrap();
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
        for name in ["plus1.onnx", "plus2.onnx"] {
            fs::copy(models.join(name), home.join(name)).unwrap();
        }
        let manifest = home.join("hostler.toml");
        fs::write(&manifest, "[models.a]\npath = \"plus1.onnx\"\n[models.b]\npath = \"plus2.onnx\"\n")
            .unwrap();
        let files = Files::default();
        let plan = Plan::read(&manifest, &files).map_err(|why| why.lines()).unwrap();
        let last_good = LastGood::new(Some(&state), &manifest).unwrap();
        last_good.save(&plan, &files).unwrap();
        let names = || PrivateFolder::open(&last_good.folder).unwrap().names().unwrap().len();
        let before = names();

        // As if the disk were full: the second file of the new copy cannot be made.
        fs::copy(models.join("plus1.onnx"), home.join("plus2.onnx")).unwrap();
        let plan = Plan::read(&manifest, &files).map_err(|why| why.lines()).unwrap();
        fs::remove_file(home.join("plus2.onnx")).unwrap();
        // This is another attempt, which holds no file in memory.
        let error = last_good.save(&plan, &files.attempt()).unwrap_err();
        assert!(error.message().contains("plus"), "{error}");
        assert_eq!(names(), before, "the half copy is removed");
        let copy = last_good.files().unwrap();
        assert!(Plan::read(&manifest, &copy).is_ok(), "the one before counts");

        last_good.roll_back().unwrap();
        assert!(last_good.files().is_none(), "there was none before it");
    }

    #[test]
    fn a_copy_has_the_manifest_of_its_plan_and_not_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/plus1.onnx");
        fs::copy(model, dir.path().join("plus1.onnx")).unwrap();
        let manifest = dir.path().join("hostler.toml");
        fs::write(&manifest, "[models.a]\npath = \"plus1.onnx\"\n").unwrap();
        let files = Files::default();
        let plan = Plan::read(&manifest, &files).map_err(|why| why.lines()).unwrap();
        fs::write(&manifest, "[modles]\n").unwrap();
        let last_good = LastGood::new(Some(&dir.path().join("state")), &manifest).unwrap();
        last_good.save(&plan, &files.attempt()).unwrap();
        let saved = Plan::read(&manifest, &last_good.files().unwrap()).map_err(|why| why.lines()).unwrap();
        assert_eq!(saved.digest, plan.digest);
    }
}
