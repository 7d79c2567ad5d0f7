//! The resource usage of a process.

use std::path::PathBuf;

/// Threads, open files and resident memory.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub threads: usize,
    pub files: usize,
    pub rss_kb: u64,
}

impl Usage {
    /// Reads the current usage of a process; zeros if it has ended.
    pub fn of(pid: u32) -> Self {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let count = |name: &str| std::fs::read_dir(proc.join(name)).map_or(0, Iterator::count);
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss_kb = rss.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        Usage { threads: count("task"), files: count("fd"), rss_kb }
    }

    /// Returns the smallest growth in memory over all of these later measurements. The allocator
    /// returns pages at its own time, so the memory of a host without leaks varies by some MB; a
    /// leak is present in every measurement.
    pub fn growth_kb(&self, later: &[Usage]) -> u64 {
        later.iter().map(|look| look.rss_kb.saturating_sub(self.rss_kb)).min().unwrap_or(0)
    }
}
