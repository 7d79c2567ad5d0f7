//! File descriptors: the limit of the process, and how many connections fit below it.
//!
//! Connections use descriptors, and so do the files that a reload reads, remotes, the log and the
//! file watcher. The descriptors are divided here, so that connections never use up those of the
//! others.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Contains the most descriptors that any process may have.
const NR_OPEN: &str = "/proc/sys/fs/nr_open";

/// Assumed if the limit cannot be read.
const LIMIT_FALLBACK: usize = 1024;

/// Raises the soft limit of open files to the hard limit, and returns the limit that now holds.
///
/// Child processes inherit it. Lower it before starting a foreign program: programs that use
/// `select` cannot handle descriptors of 1024 and above.
pub fn raise_limit() -> usize {
    let before = getrlimit(Resource::Nofile);
    let most = before.maximum.or_else(nr_open);
    if let (Some(current), Some(most)) = (before.current, most)
        && current < most
    {
        let wanted = Rlimit { current: Some(most), maximum: before.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(%error, limit = current, "cannot raise the limit of open files");
        }
    }
    limit()
}

fn limit() -> usize {
    let current = getrlimit(Resource::Nofile).current.or_else(nr_open);
    current.map_or(LIMIT_FALLBACK, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

fn nr_open() -> Option<u64> {
    std::fs::read_to_string(NR_OPEN).ok()?.trim().parse().ok()
}

/// Returns the number of open descriptors; a guess if `/proc` is not mounted.
fn open_now() -> usize {
    const GUESS: usize = 64;
    // One of the entries is the folder that is being read.
    std::fs::read_dir("/proc/self/fd").map_or(GUESS, |entries| entries.count().saturating_sub(1))
}

/// How the descriptors of the process are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorPlan {
    pub limit: usize,
    /// Connections of all public listeners together.
    pub public: usize,
    /// Further connections of each public listener, for health checks and metrics only.
    pub probes: usize,
    /// Connections of the admin listener.
    pub admin: usize,
    /// All requested connections fit.
    pub fits: bool,
}

impl DescriptorPlan {
    /// Divides the descriptors that are not open yet. `listeners` are the public ones, each with up
    /// to `max_connections`.
    pub fn new(listeners: usize, max_connections: usize) -> Self {
        Self::divide(limit(), open_now(), listeners, max_connections)
    }

    fn divide(limit: usize, open: usize, listeners: usize, max_connections: usize) -> Self {
        // For files that a reload reads, compiler processes, HTTP calls of plugins, and remotes
        // that are added later.
        let reserve = (limit / 8).clamp(32, 1024);
        let probes = (limit / 16).clamp(4, 32);
        let admin = (limit / 16).clamp(4, 64).min(max_connections);
        let left = limit.saturating_sub(open + reserve + admin + listeners * probes);
        let wanted = listeners.saturating_mul(max_connections);
        // A host must accept some connections: if even these do not fit, `accept` fails instead.
        let public = wanted.min(left.max(4));
        DescriptorPlan { limit, public, probes, admin, fits: wanted <= left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        for (limit, open, listeners) in
            [(256, 40, 1), (256, 40, 2), (1024, 60, 2), (4096, 300, 2), (1 << 20, 60, 2)]
        {
            let plan = DescriptorPlan::divide(limit, open, listeners, 4096);
            let taken = open + plan.public + plan.admin + listeners * plan.probes;
            assert!(taken + 32 <= limit, "{plan:?} leaves {}", limit as i64 - taken as i64);
            assert!(plan.public >= limit.min(8192) / 3, "{plan:?}");
            assert_eq!(plan.fits, plan.public == listeners * 4096);
        }
    }

    #[test]
    fn a_limit_without_room_still_leaves_a_few_connections() {
        let plan = DescriptorPlan::divide(48, 40, 2, 4096);
        assert_eq!((plan.public, plan.fits), (4, false));
        assert_eq!(DescriptorPlan::divide(48, 40, 1, 2).public, 2);
        assert_eq!(
            DescriptorPlan::divide(usize::MAX, 40, 2, usize::MAX).public,
            usize::MAX - 40 - 1024 - 128
        );
    }
}
