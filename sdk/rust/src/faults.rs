//! Says in one line where a plugin failed: `panicked in preprocess at src/lib.rs:14:20: index out
//! of bounds`, or `preprocess returned failed: there is no tensor "z", at src/lib.rs:14:20`. A
//! panic ends the instance, so this line is the last one of its log.

use crate::bindings::logging::{Level, log};
use crate::{Error, ErrorKind};
use std::future::{Future, poll_fn};
use std::io::Write as _;
use std::panic::{Location, PanicHookInfo};
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

/// The last error that a function of this crate has returned, with the call in the plugin.
static LAST: Mutex<Option<(String, &'static Location<'static>)>> = Mutex::new(None);

/// Remembers where the plugin has called the function of this crate that returns an error.
pub(crate) fn at(place: &'static Location<'static>, error: Error) -> Error {
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some((error.message.clone(), place));
    error
}

/// Logs an error that a function of the contract returns if the plugin is at fault: one of the kind
/// `failed`, and one of this crate, with the call that it comes from. Its message does not tell.
pub(crate) fn noted<T>(function: &str, result: Result<T, Error>) -> Result<T, Error> {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Err(Error { kind, message, .. }) = &result {
        let kind = name(*kind);
        match last.filter(|(last, _)| message.contains(last.as_str())) {
            Some((_, place)) => {
                log(Level::Error, "", &format!("{function} returned {kind}: {message}, at {place}"))
            }
            None if kind == "failed" => {
                log(Level::Error, "", &format!("{function} returned {kind}: {message}"))
            }
            None => {}
        }
    }
    result
}

fn report(panic: &PanicHookInfo<'_>) {
    let function = *FUNCTION.lock().unwrap_or_else(PoisonError::into_inner);
    let message = panic.payload_as_str().unwrap_or("a payload that is not text");
    let place = panic.location().map_or(String::new(), |place| format!(" at {place}"));
    // The host keeps what is last written to stderr.
    let _ = std::io::stderr()
        .write_all(["panicked in ", function, &place, ": ", message, "\n"].concat().as_bytes());
}

fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidInput => "invalid-input",
        ErrorKind::NotFound => "not-found",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::TooLarge => "too-large",
        ErrorKind::Overloaded => "overloaded",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Deadline => "deadline",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::Failed => "failed",
    }
}
