//! What is wrong with the parts of a plan. One load reports the faults of all its plugins and
//! models.

use crate::error::{Error, Kind};
use crate::output::one_line;
use crate::policy::model_name::ModelName;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A load ends after so many faults.
const FAULTS_MAX: usize = 20;

/// Why a plan was not loaded.
#[derive(Clone, Debug)]
pub struct LoadFaults {
    errors: Vec<Error>,
    /// Plugins and models that were not tried any more.
    untried: usize,
}

impl LoadFaults {
    /// Returns one line for each fault, and one that counts what was not tried.
    pub fn lines(&self) -> Vec<String> {
        self.errors.iter().map(ToString::to_string).chain(self.more()).collect()
    }

    fn more(&self) -> Option<String> {
        let untried = self.untried;
        (untried > 0).then(|| format!("and {untried} more plugins and models, which were not tried"))
    }

    /// Whether the same files may load later, because nothing is wrong with them.
    pub fn may_pass(&self) -> bool {
        self.errors
            .iter()
            .all(|error| error.is_transient() || matches!(error.kind(), Kind::Unavailable | Kind::Overloaded))
    }

    pub fn is_transient(&self) -> bool {
        self.errors.iter().all(Error::is_transient)
    }

    /// Returns the details of the faults, for the log.
    pub fn details(&self) -> impl Iterator<Item = &str> {
        self.errors.iter().filter_map(Error::detail)
    }
}

impl From<Error> for LoadFaults {
    fn from(error: Error) -> Self {
        LoadFaults { errors: vec![error], untried: 0 }
    }
}

impl From<LoadFaults> for Error {
    fn from(faults: LoadFaults) -> Self {
        match &faults.errors[..] {
            [only] if faults.untried == 0 => only.clone(),
            errors => {
                let kind = errors.first().map_or(Kind::Failed, Error::kind);
                let shown = errors.iter().map(|error| match error.is_laid_out() {
                    true => error.message().to_owned(),
                    false => one_line(error.message()).into_owned(),
                });
                let shown: Vec<String> = shown.chain(faults.more()).collect();
                Error::new(kind, shown.join("\n")).laid_out()
            }
        }
    }
}

/// What has failed so far. Parts that are built on a part that has failed are not tried.
#[derive(Default)]
pub(super) struct Failed {
    errors: Vec<Error>,
    /// Plugins and models that have not been tried yet.
    pub open: usize,
    pub executors: BTreeSet<Arc<str>>,
    pub plugins: BTreeSet<Arc<str>>,
    pub models: BTreeSet<ModelName>,
}

impl Failed {
    /// `open` is the number of plugins and models.
    pub fn new(open: usize) -> Self {
        Failed { open, ..Failed::default() }
    }

    /// Adds a fault. Returns all faults if nothing else should be tried: there are many, or this
    /// one took its full time, or it is not the fault of its part, and the others would repeat it.
    pub fn add(&mut self, error: Error) -> Result<(), LoadFaults> {
        let ends = error.is_transient()
            || matches!(
                error.kind(),
                Kind::Unavailable | Kind::Overloaded | Kind::Deadline | Kind::Cancelled
            );
        self.errors.push(error);
        if ends || self.errors.len() >= FAULTS_MAX { Err(self.take()) } else { Ok(()) }
    }

    /// Returns the faults if there are any.
    pub fn check(&mut self) -> Result<(), LoadFaults> {
        if self.errors.is_empty() { Ok(()) } else { Err(self.take()) }
    }

    fn take(&mut self) -> LoadFaults {
        LoadFaults { errors: std::mem::take(&mut self.errors), untried: self.open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_collected_up_to_their_maximum() {
        let mut failed = Failed::new(30);
        let mut add = |number: usize| {
            failed.open -= 1;
            failed.add(Error::invalid(format!("model {number}")))
        };
        assert!((1..FAULTS_MAX).all(|number| add(number).is_ok()));
        let lines = add(FAULTS_MAX).unwrap_err().lines();
        assert_eq!(lines.len(), FAULTS_MAX + 1);
        assert_eq!((&*lines[0], &*lines[FAULTS_MAX - 1]), ("model 1", "model 20"));
        assert_eq!(lines[FAULTS_MAX], "and 10 more plugins and models, which were not tried");
    }

    #[test]
    fn a_fault_of_the_environment_ends_the_load_and_only_such_faults_pass() {
        let mut failed = Failed::new(2);
        failed.add(Error::invalid("bad")).unwrap();
        let faults = failed.add(Error::unavailable("no library")).unwrap_err();
        assert_eq!((faults.lines().len(), faults.may_pass()), (3, false));
        assert!(LoadFaults::from(Error::unavailable("no library")).may_pass());
        let error = Error::from(LoadFaults::from(Error::deadline("late").model("m:1")));
        assert_eq!((error.kind(), error.model_name()), (Kind::Deadline, Some("m:1")));
    }
}
