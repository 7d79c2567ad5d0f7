//! Says in one line where a plugin panicked: `panicked in preprocess at src/lib.rs:14:20: index out
//! of bounds`. A panic ends the instance, so this line is the last one of its log, and is all that
//! the author learns.

use crate::bindings::logging::{Level, log};
use crate::{Error, ErrorKind};
use std::future::{Future, poll_fn};
use std::panic::PanicHookInfo;
use std::pin::pin;
use std::sync::{Mutex, Once, PoisonError};

/// The function of the contract that runs now, or that ran last.
static FUNCTION: Mutex<&'static str> = Mutex::new("initialisation");

/// Enters a function of the contract.
pub(crate) fn enter(function: &'static str) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(report)));
    *FUNCTION.lock().unwrap_or_else(PoisonError::into_inner) = function;
}

/// Enters a function of the contract whenever its future is polled.
pub(crate) async fn entered<F: Future>(function: &'static str, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        enter(function);
        future.as_mut().poll(cx)
    })
    .await
}

/// Logs an error that is the plugin's fault with the function that returns it.
pub(crate) fn noted<T>(function: &str, result: Result<T, Error>) -> Result<T, Error> {
    if let Err(Error { kind: ErrorKind::Failed, message, .. }) = &result {
        log(Level::Error, "", &format!("{function} returned failed: {message}"));
    }
    result
}

fn report(panic: &PanicHookInfo<'_>) {
    let function = *FUNCTION.lock().unwrap_or_else(PoisonError::into_inner);
    let message = panic.payload_as_str().unwrap_or("a payload that is not text");
    match panic.location() {
        Some(place) => eprintln!("panicked in {function} at {place}: {message}"),
        None => eprintln!("panicked in {function}: {message}"),
    }
}
