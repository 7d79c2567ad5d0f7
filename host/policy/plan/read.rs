//! Reads a manifest, and every file that it names, into a plan.

use super::plan::Plan;
use super::planner::Planner;
use super::unplanned::Unplanned;
use crate::error::Error;
use crate::input_file::{FileKind, FileLimits};
use crate::policy::diagnostic::{Diagnostic, Diagnostics};
use crate::policy::files::Files;
use crate::policy::manifest::Manifest;
use crate::policy::overlay::Overlay;
use std::path::Path;

impl Plan {
    /// Reads the manifest and every file that it names.
    pub fn read(path: &Path, files: &Files) -> Result<Self, Unplanned> {
        Plan::read_under(&Overlay::default(), path, files)
    }

    /// Does the same, and applies the changes of model control.
    pub(in crate::policy) fn read_under(
        overlay: &Overlay,
        path: &Path,
        files: &Files,
    ) -> Result<Self, Unplanned> {
        let unreadable = |error: Error| {
            let fault = Diagnostic::new(format!("cannot read the manifest: {error}"));
            let fault = Diagnostic { transient: error.is_transient(), ..fault };
            Unplanned::Faulty(Box::new(Diagnostics::new(path, "", vec![fault])))
        };
        let file = files.file(path, FileLimits::default().of(FileKind::Manifest)).map_err(unreadable)?;
        let text = String::from_utf8(files.read(&file).map_err(unreadable)?.into())
            .map_err(|_| unreadable(Error::invalid("it is not UTF-8")))?;
        let plan_under = |overlay: &Overlay| {
            let mut manifest = Manifest::parse(path, &text).map_err(Unplanned::Faulty)?;
            let overlay = overlay.apply(&mut manifest);
            Planner::new(path, files, overlay).check(&manifest, &text)
        };
        let bare = plan_under(&Overlay::default());
        if overlay.is_empty() {
            return bare;
        }
        let plan = plan_under(overlay)?;
        // Faults of the manifest without the overlay are no faults of the plan under it.
        let written = bare.map_or_else(|_| plan.digest.clone(), |bare| bare.digest);
        Ok(Plan { written, ..plan })
    }
}
