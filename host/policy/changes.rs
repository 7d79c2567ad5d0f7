//! Which files have changed, and whether they have been unchanged (quiet) for long enough to be
//! read.
//!
//! Each file is quiet or not for itself. A file that keeps changing delays the others for a bounded
//! time only. Then it is read as it is, and again at growing intervals while it keeps changing.

use super::files::{Signature, Stat};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest pause between two reads of a file that keeps changing.
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct QuietLimits {
    /// A file that has not changed for this long is quiet.
    pub quiet: Duration,
    /// The longest wait for a file that keeps changing.
    pub longest: Duration,
}

#[derive(Default)]
pub(super) struct Changes {
    changing: BTreeMap<PathBuf, Changing>,
    /// Files that were read while they changed: until when their changes are ignored, and that
    /// pause.
    unquiet: HashMap<PathBuf, (Instant, Duration)>,
}

struct Changing {
    stat: Option<Stat>,
    first: Instant,
    last: Instant,
}

#[derive(Debug, PartialEq)]
pub(super) enum ChangesVerdict {
    Unchanged,
    /// Check again after this time.
    Wait(Duration),
    /// Read the files now. These are not quiet.
    Read(Vec<PathBuf>),
}

impl Changes {
    /// Notes the state of the files now, compared with their state when they were read.
    pub fn observe(&mut self, seen: &Signature, now: &Signature, at: Instant) {
        self.changing.retain(|path, _| seen.get(path) != now.get(path) && seen.contains_key(path));
        for (path, stat) in now.iter().filter(|(path, stat)| seen.get(*path) != Some(*stat)) {
            match self.changing.get_mut(path) {
                Some(changing) if changing.stat == *stat => {}
                Some(changing) => (changing.stat, changing.last) = (stat.clone(), at),
                None => {
                    let changing = Changing { stat: stat.clone(), first: at, last: at };
                    self.changing.insert(path.clone(), changing);
                }
            }
        }
    }

    pub fn verdict(&self, at: Instant, limits: QuietLimits) -> ChangesVerdict {
        let (mut settled, mut unquiet, mut wait) = (false, Vec::new(), None::<Duration>);
        let mut look_again = |after: Duration| wait = Some(wait.map_or(after, |wait| wait.min(after)));
        let mut all_due = true;
        for (path, changing) in &self.changing {
            let quiet_for = at.saturating_duration_since(changing.last);
            if quiet_for >= limits.quiet {
                settled = true;
                continue;
            }
            unquiet.push(path.clone());
            look_again(limits.quiet.saturating_sub(quiet_for));
            let since_first = at.saturating_duration_since(changing.first);
            let paused = self.unquiet.get(path).is_some_and(|(until, _)| at < *until);
            all_due &= since_first >= limits.longest && !paused;
        }
        // A file that was read while it changed, and still changes, does not delay other changes.
        let known = |path: &PathBuf| self.unquiet.contains_key(path);
        let others_wait = settled && unquiet.iter().all(known);
        match wait {
            None if settled => ChangesVerdict::Read(Vec::new()),
            None => ChangesVerdict::Unchanged,
            Some(_) if all_due || others_wait => ChangesVerdict::Read(unquiet),
            Some(wait) => ChangesVerdict::Wait(wait),
        }
    }

    /// Notes that the files are read now, and which of them were not quiet.
    pub fn read(&mut self, unquiet: &[PathBuf], at: Instant, limits: QuietLimits) {
        self.changing.clear();
        let before = std::mem::take(&mut self.unquiet);
        for path in unquiet {
            let pause = before.get(path).map_or(limits.longest, |(_, pause)| (*pause * 2).min(PAUSE_MAX));
            self.unquiet.insert(path.clone(), (at + pause, pause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn limits() -> QuietLimits {
        QuietLimits { quiet: 50 * MS, longest: 1000 * MS }
    }

    fn signature(files: &[(&str, u64)]) -> Signature {
        files.iter().map(|(path, length)| (PathBuf::from(path), Some(Stat::made_up(*length)))).collect()
    }

    #[test]
    fn a_file_is_read_once_it_is_quiet_and_only_then() {
        let start = Instant::now();
        let mut changes = Changes::default();
        let seen = signature(&[("a", 1), ("b", 1)]);
        changes.observe(&seen, &seen, start);
        assert_eq!(changes.verdict(start, limits()), ChangesVerdict::Unchanged);
        changes.observe(&seen, &signature(&[("a", 2), ("b", 1)]), start);
        assert_eq!(changes.verdict(start, limits()), ChangesVerdict::Wait(50 * MS));
        changes.observe(&seen, &signature(&[("a", 3), ("b", 1)]), start + 40 * MS);
        assert_eq!(changes.verdict(start + 60 * MS, limits()), ChangesVerdict::Wait(30 * MS));
        assert_eq!(changes.verdict(start + 90 * MS, limits()), ChangesVerdict::Read(Vec::new()));
        changes.observe(&seen, &seen, start + 95 * MS);
        assert_eq!(changes.verdict(start + 95 * MS, limits()), ChangesVerdict::Unchanged, "it is as it was");
    }

    #[test]
    fn a_file_that_never_is_quiet_holds_others_up_for_a_bounded_time() {
        let start = Instant::now();
        let mut changes = Changes::default();
        let mut seen = signature(&[("a", 1), ("b", 1)]);
        let (mut reads, mut length) = (Vec::new(), 1);
        for step in 0..1000 {
            let at = start + step * 20 * MS;
            length += 1;
            // `a` changes all the time. `b` changes once at the start, and once more at 10 s.
            let b = if step < 500 { 2 } else { 3 };
            let now = signature(&[("a", length), ("b", b)]);
            changes.observe(&seen, &now, at);
            if let ChangesVerdict::Read(unquiet) = changes.verdict(at, limits()) {
                assert_eq!(unquiet, [PathBuf::from("a")]);
                changes.read(&unquiet, at, limits());
                reads.push((step * 20, b != 2));
                seen = now;
            }
        }
        let at: Vec<u32> = reads.iter().map(|(at, _)| *at).collect();
        assert_eq!(at[0], 1000, "the bound");
        assert!(at.iter().any(|at| (10_050..10_100).contains(at)), "b is not held up again: {at:?}");
        assert!(at.len() < 10, "a is read at growing intervals: {at:?}");
    }
}
