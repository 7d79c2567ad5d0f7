//! Cores, and the priorities of threads.

/// Returns the number of cores that this process may use, within its cgroup limits.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Sets the priority of the calling thread: `nice` from 0 to 19. I/O comes before computing, and
/// computing before loading. Lowering a priority needs no privilege; threads that it starts inherit
/// the priority and cannot raise it.
pub fn lower_priority(nice: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}

/// The priority of threads that read, compile and load.
pub const LOADER_NICE: i32 = 10;

/// Runs `work` on a thread of low priority, and waits for it. The calling thread keeps its own
/// priority, and so do the threads that it starts. Fails if no thread can be started.
pub fn at_low_priority<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let loader = std::thread::Builder::new().name("load".into()).spawn_scoped(scope, || {
            lower_priority(LOADER_NICE);
            work()
        });
        match loader?.join() {
            Ok(result) => Ok(result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Makes the calling thread one that does not interrupt another when it wakes (`SCHED_BATCH`). For
/// threads that wake for each packet: if all cores compute, they run within milliseconds, handle
/// everything that has arrived meanwhile at once, and so save two context switches per request.
pub fn never_preempt() {
    #[cfg(target_os = "linux")]
    {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: changes the policy of the calling thread only; the parameters live through the
        // call.
        if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "cannot change the scheduling of a thread");
        }
    }
}
