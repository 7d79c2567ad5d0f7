//! `hostler build`: runs the steps of `plugin.toml`.

use super::settings::Settings;
use super::steps::{self, StepOutput};
use crate::app;
use crate::error::Result;
use std::path::Path;

/// `hostler build [FOLDER]`
pub fn build(folder: &Path) -> Result<bool> {
    let folder = &app::absolute(folder)?;
    let settings = Settings::read(folder)?;
    steps::build(folder, &settings, StepOutput::Terminal)?;
    Ok(true)
}
