//! A copy on disk of everything that the last good policy was made of, so that a restart survives bad files.
//!
//! `<folder>/files` mirrors the file system below `/`. A new copy is made beside it and swapped in.

use super::files::{File, Files};
use super::plan::{ExecutorPlan, Plan, SourcePlan};
use crate::error::{Error, Result};
use crate::input_file::{FileKind, Limit};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub struct LastGood {
    folder: PathBuf,
}

impl LastGood {
    pub fn new(folder: PathBuf) -> Self {
        LastGood { folder }
    }

    /// The folder for a manifest, where users keep state: each manifest has its own.
    pub fn default_folder(manifest: &Path) -> Option<PathBuf> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
        let digest = super::files::hex_digest(manifest.as_os_str().as_encoded_bytes());
        Some(state.join("hostler").join(&digest[..16]))
    }

    /// Copies the files of a plan. Files that the copy has already are linked, not copied.
    pub fn save(&self, plan: &Plan, files: &Files) -> Result<()> {
        let next = self.folder.join("next");
        let failed = |error| self.failed(error);
        match fs::remove_dir_all(&next) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        // For this user alone: the key of an executor's tls may be among the files.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&next).map_err(failed)?;
        let old = Files::below(self.root());
        // What is in the copy, or is to go there, was within its limit when it was planned.
        let any_size = Limit::bytes(FileKind::Asset, u64::MAX);
        let manifest = files.file(&plan.path, any_size).map_err(|error| self.copying(error))?;
        for file in std::iter::once(&manifest).chain(files_of(plan)) {
            let target = Files::below(next.clone()).location(&file.path);
            fs::create_dir_all(target.parent().expect("invariant: below the folder")).map_err(failed)?;
            let same = old.file(&file.path, any_size).is_ok_and(|copy| copy.sha256 == file.sha256);
            let linked = same && fs::hard_link(old.location(&file.path), &target).is_ok();
            if !linked {
                fs::write(&target, files.read(file)?).map_err(failed)?;
            }
        }
        let previous = self.previous();
        let _ = fs::remove_dir_all(&previous);
        if self.root().exists() {
            fs::rename(self.root(), &previous).map_err(failed)?;
        }
        fs::rename(&next, self.root()).map_err(failed)
    }

    /// Makes the copy before the last one the last again; without one there is none.
    pub fn roll_back(&self) -> Result<()> {
        let failed = |error| self.failed(error);
        if self.root().exists() {
            fs::remove_dir_all(self.root()).map_err(failed)?;
        }
        if self.previous().exists() {
            fs::rename(self.previous(), self.root()).map_err(failed)?;
        }
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> Error {
        self.copying(Error::io(&error))
    }

    fn copying(&self, error: Error) -> Error {
        error.context(format!("cannot keep a last-good copy in {}", self.folder.display()))
    }

    fn previous(&self) -> PathBuf {
        self.folder.join("previous")
    }

    /// The files as they were last good; none if there is no copy.
    pub fn files(&self) -> Option<Files> {
        self.root().is_dir().then(|| Files::below(self.root()))
    }

    fn root(&self) -> PathBuf {
        self.folder.join("files")
    }
}

/// Every file of a plan but its manifest.
pub fn files_of(plan: &Plan) -> impl Iterator<Item = &File> {
    let plugins = plan.plugins.values().flat_map(|plugin| {
        let ca = plugin.http.iter().filter_map(|http| http.ca.as_ref());
        std::iter::once(&plugin.file).chain(plugin.assets.values()).chain(ca)
    });
    let models = plan.models.values().flat_map(|model| {
        let source: Vec<&File> = match &model.source {
            SourcePlan::Onnx { file, external } => std::iter::once(file).chain(external).collect(),
            SourcePlan::Remote { twin: Some((file, external)), .. } => {
                std::iter::once(file).chain(external).collect()
            }
            SourcePlan::Plugin(_) | SourcePlan::Remote { .. } => Vec::new(),
        };
        let checks = model.checks.iter().map(|check| &check.file);
        source.into_iter().chain(model.labels.values()).chain(checks)
    });
    let executors = plan.executors.values().flat_map(|executor| match executor {
        ExecutorPlan::Triton { tls, .. } => tls.iter().flat_map(|tls| tls.files()).collect(),
        ExecutorPlan::Pool { .. } | ExecutorPlan::Custom { .. } => Vec::new(),
    });
    plugins.chain(models).chain(executors)
}
