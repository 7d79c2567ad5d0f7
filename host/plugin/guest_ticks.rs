//! What happens at each tick of the epoch while a guest runs: it continues, yields to others, or is
//! stopped. How long guests on a thread may compute before they yield is a property of the thread.

use super::store_data::StoreData;
use std::cell::Cell;
use std::time::Instant;
use wasmtime::{StoreContextMut, UpdateDeadline};

/// Called at each tick of the epoch while a guest runs.
pub(super) fn on_epoch_tick(store: StoreContextMut<'_, StoreData>) -> wasmtime::Result<UpdateDeadline> {
    let may_run = store
        .data()
        .call
        .as_ref()
        .is_some_and(|call| Instant::now() < call.deadline && !call.context.cancellation.is_cancelled());
    Ok(match (may_run, TICKS_LEFT.get()) {
        (false, _) => UpdateDeadline::Interrupt,
        (true, Some(0)) => UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())),
        (true, left) => {
            TICKS_LEFT.set(left.map(|left| left - 1));
            UpdateDeadline::Continue(1)
        }
    })
}

thread_local! {
    /// Ticks until a guest on this thread yields; `None` if a guest has its worker to itself.
    static TICKS_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Makes guests on the calling thread take turns: a guest that computes yields to the others at
/// each tick. On other threads, a guest has its worker to itself.
pub fn share_this_thread() {
    TICKS_LEFT.set(Some(0));
}

/// Runs `work`, during which guests on the calling thread may compute for `ticks` ticks in total;
/// after that, they yield.
pub fn with_ticks<R>(ticks: u32, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<u32>);
    impl Drop for Restore {
        fn drop(&mut self) {
            TICKS_LEFT.set(self.0);
        }
    }
    let _restore = Restore(TICKS_LEFT.replace(Some(ticks)));
    work()
}
