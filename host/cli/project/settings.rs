//! `plugin.toml`: how a project is built. It names commands, so nothing but `hostler build` and
//! `hostler dev` reads it.

use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, Limit, Progress};
use serde::Deserialize;
use std::path::{Path, PathBuf};

pub(super) const NAME: &str = "plugin.toml";

const BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// The component that the project is built to, relative to the project.
    pub component: PathBuf,
    /// What the last step writes, if that is another file. It is moved to `component` when all
    /// steps have succeeded, so that a host never reads half a component.
    pub output: Option<PathBuf>,
    /// The files and folders that a component depends on. `dev` builds again when one changes.
    #[serde(default)]
    pub watch: Vec<PathBuf>,
    /// The steps of a build, in order.
    pub build: Vec<BuildStep>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BuildStep {
    /// The program and its arguments. It runs in the folder of the project, without a shell.
    pub run: Vec<String>,
    /// The step is skipped if this file or folder exists.
    pub creates: Option<PathBuf>,
    /// The step is skipped while these files are what they were when it last succeeded.
    #[serde(default)]
    pub inputs: Vec<PathBuf>,
}

impl Settings {
    /// Reads the settings of the project in a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let content =
            input_file::read(&path, Limit::bytes(FileKind::Manifest, BYTES_MAX), &Progress::default());
        let content = content.map_err(|error| {
            let message = format!(
                "cannot read {}: {}; run this in the folder of a project, which `hostler new` creates",
                path.display(),
                error.message()
            );
            Error::new(error.kind(), message)
        })?;
        let text = std::str::from_utf8(&content)
            .map_err(|error| Error::invalid(format!("{} is not UTF-8: {error}", path.display())))?;
        let settings: Settings = toml::from_str(text)
            .map_err(|error| Error::invalid(format!("{}: {error}", path.display())).laid_out())?;
        settings.check(&path)?;
        Ok(settings)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let fault = |why: String| Err(Error::invalid(format!("{}: {why}", path.display())));
        if self.build.is_empty() {
            return fault(
                "build has no steps; add [[build]] with run = [\"PROGRAM\", \"ARGUMENT\"]".to_owned(),
            );
        }
        for (index, step) in self.build.iter().enumerate() {
            if step.run.first().is_none_or(String::is_empty) {
                return fault(format!("step {} has an empty run; write run = [\"PROGRAM\", …]", index + 1));
            }
        }
        if self.component.as_os_str().is_empty() {
            return fault("component is empty; name the .wasm file that the project is built to".to_owned());
        }
        Ok(())
    }
}
