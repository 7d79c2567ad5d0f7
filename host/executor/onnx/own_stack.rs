//! Runs native code on a separate stack, which is abandoned if the code calls `std::terminate`.
//!
//! Kernels of ONNX Runtime check sizes with contracts that call `std::terminate`, which ends the
//! process; an empty batch for an LSTM is enough. The handler here suspends the code forever
//! instead, and returns to its caller. Other threads of the runtime may still work for the run and
//! refer to its stack, so the stack is never freed.

use crate::error::{Error, Result};
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;

/// The address space reserved for each stack. Pages that are not touched take no memory.
const STACK_BYTES: usize = 4 << 20;

thread_local! {
    /// The yielder of the coroutine that runs on this thread, or null.
    static RUNNING: Cell<*const Yielder<(), ()>> = const { Cell::new(ptr::null()) };
}

type Handler = extern "C" fn();

/// The handler that `std::terminate` called before.
static PREVIOUS: OnceLock<Option<Handler>> = OnceLock::new();

/// Makes `std::terminate` abandon code that runs on a separate stack. Must be called after the
/// library was loaded.
pub(super) fn install() {
    PREVIOUS.get_or_init(|| {
        // SAFETY: the library is only looked up, and the symbol has this type in every libstdc++.
        unsafe {
            let library = libc::dlopen(c"libstdc++.so.6".as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_NOW);
            let symbol = match library.is_null() {
                true => ptr::null_mut(),
                false => libc::dlsym(library, c"_ZSt13set_terminatePFvvE".as_ptr()),
            };
            if symbol.is_null() {
                tracing::warn!(
                    "libstdc++ is not a shared library here: a std::terminate of ONNX Runtime ends the process"
                );
                return None;
            }
            let set =
                std::mem::transmute::<*mut libc::c_void, extern "C" fn(Handler) -> Option<Handler>>(symbol);
            set(on_terminate)
        }
    });
}

extern "C" fn on_terminate() {
    let running = RUNNING.replace(ptr::null());
    // SAFETY: the pointer is set only while its coroutine runs, on this thread.
    if let Some(yielder) = unsafe { running.as_ref() } {
        yielder.suspend(());
        // It is never resumed.
    }
    if let Some(previous) = PREVIOUS.get().copied().flatten() {
        previous();
    }
    std::process::abort();
}

/// The code has called `std::terminate`. It stays suspended, and its stack allocated, forever.
#[derive(Debug)]
pub(super) struct AbandonedRun;

/// A stack that is used for one run at a time, and allocated by the first run.
#[derive(Default)]
pub(super) struct OwnStack(Option<DefaultStack>);

impl OwnStack {
    /// Runs `work` to its end, unless it is abandoned. Then the values that it owns are never
    /// dropped. This thread no longer uses what `work` borrows, but threads that it has started
    /// may: their memory must not be freed.
    ///
    /// # Errors
    /// `Overloaded` if there is no memory for a stack.
    pub fn run<R>(&mut self, work: impl FnOnce() -> R) -> Result<std::result::Result<R, AbandonedRun>> {
        let stack = match self.0.take() {
            Some(stack) => stack,
            None => DefaultStack::new(STACK_BYTES)
                .map_err(|error| Error::overloaded(format!("cannot allocate a stack for a run: {error}")))?,
        };
        let _outer = Outer(RUNNING.get());
        let body = |yielder: &Yielder<(), ()>, ()| {
            RUNNING.set(yielder);
            work()
        };
        // SAFETY: the coroutine runs to its end within this function, or is forgotten and never
        // resumed. Its frames are not read again, so the borrows in them may end.
        let mut coroutine: Coroutine<(), (), R, DefaultStack> =
            unsafe { Coroutine::with_stack_unchecked(stack, body) };
        match coroutine.resume(()) {
            CoroutineResult::Return(result) => {
                self.0 = Some(coroutine.into_stack());
                Ok(Ok(result))
            }
            CoroutineResult::Yield(()) => {
                std::mem::forget(coroutine);
                Ok(Err(AbandonedRun))
            }
        }
    }
}

/// The yielder of the outer run on this thread. It is restored when dropped, also after a panic.
struct Outer(*const Yielder<(), ()>);

impl Drop for Outer {
    fn drop(&mut self) {
        RUNNING.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_ends_itself_is_left_and_its_stack_is_not_used_again() {
        let (mut stack, kept) = (OwnStack::default(), Arc::new(7));
        assert_eq!(stack.run(|| *kept + 1).unwrap().unwrap(), 8);
        let first = stack.0.as_ref().map(|stack| ptr::from_ref(stack).addr()).unwrap();
        let owned = Arc::clone(&kept);
        let abandoned = stack.run(move || {
            assert_eq!(*owned, 7);
            // As the runtime calls it, from C++.
            on_terminate();
        });
        assert!(abandoned.unwrap().is_err() && stack.0.is_none());
        assert_eq!(Arc::strong_count(&kept), 2, "what it owns is never dropped");
        assert!(RUNNING.get().is_null());
        assert_eq!(stack.run(|| *kept).unwrap().unwrap(), 7);
        assert!(first > 0 && stack.0.is_some());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_stack_is_free_again() {
        let mut stack = OwnStack::default();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = stack.run(|| panic!("as any other"));
        }));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"as any other"));
        assert!(RUNNING.get().is_null());
        assert_eq!(stack.run(|| 5).unwrap().unwrap(), 5);
    }
}
