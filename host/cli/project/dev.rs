//! `hostler dev`: serves a project, and builds it again whenever a file is saved. The host notices
//! the new component like any other change of its files.

use super::settings::{self, Settings};
use super::sources::{self, State};
use super::steps::{self, StepOutput};
use crate::app;
use crate::error::{Error, Result};
use crate::output;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

/// How often the files are looked at. Looking needs no support by the file system, so it works in
/// containers and on network file systems too.
const INTERVAL: Duration = Duration::from_millis(100);

pub struct Dev {
    /// The folder of the project.
    pub folder: PathBuf,
    pub serve: app::Options,
}

/// `hostler dev`: builds until that succeeds, then serves until the process ends.
pub fn dev(dev: Dev) -> Result<Infallible> {
    let Dev { folder, serve } = dev;
    let mut project = Project::open(folder)?;
    while !project.build(StepOutput::Terminal) {
        project.wait_for_change();
    }
    let building = std::thread::Builder::new().name("build".into()).spawn(move || {
        loop {
            project.wait_for_change();
            project.build(StepOutput::Lines);
        }
    });
    building.map_err(|error| Error::failed(format!("cannot start the thread that builds: {error}")))?;
    app::serve(serve)
}

struct Project {
    folder: PathBuf,
    settings: Settings,
    /// The files as the latest build found them.
    built: State,
}

impl Project {
    fn open(folder: PathBuf) -> Result<Self> {
        let folder = app::absolute(&folder)?;
        let settings = Settings::read(&folder)?;
        if settings.watch.is_empty() {
            return Err(Error::invalid(format!(
                "cannot watch {}: plugin.toml names no files to watch; add watch = [\"src\"]",
                folder.display()
            )));
        }
        Ok(Project { folder, settings, built: State::new() })
    }

    fn state(&self) -> State {
        let mut watched = self.settings.watch.clone();
        watched.push(settings::NAME.into());
        let mut state = sources::state(&self.folder, &watched);
        // What a build writes is no reason to build again.
        let Settings { component, output, .. } = &self.settings;
        let built = [Some(component), output.as_ref()].into_iter().flatten();
        for path in built {
            state.remove(&self.folder.join(path));
        }
        state.retain(|path, _| !path.starts_with(self.folder.join(steps::FOLDER)));
        state
    }

    /// Builds once, and reports what failed. Returns whether it succeeded.
    fn build(&mut self, output: StepOutput) -> bool {
        self.built = self.state();
        let settings = Settings::read(&self.folder);
        let built = settings.and_then(|settings| {
            self.settings = settings;
            steps::build(&self.folder, &self.settings, output)
        });
        match built {
            Ok(_) => true,
            Err(error) => {
                output::report(format_args!("{}; waiting for a change", error.message().trim_end()));
                false
            }
        }
    }

    /// Returns once a file differs from the one that was built, and no further one has changed for
    /// an interval.
    fn wait_for_change(&self) {
        let mut latest = self.built.clone();
        loop {
            std::thread::sleep(INTERVAL);
            let now = self.state();
            let is_settled = now == latest;
            latest = now;
            if is_settled && let Some(path) = sources::changed(&self.built, &latest) {
                let shown = path.strip_prefix(&self.folder).unwrap_or(path);
                output::print(format_args!("{} has changed", shown.display()));
                return;
            }
        }
    }
}
