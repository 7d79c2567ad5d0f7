//! Where a guest was when it could not return, in the terms of its author: one frame a line, with
//! the names and the lines that the component has.

use super::source_lines::SourceLines;
use std::fmt::Write;
use wasmtime::{FrameInfo, WasmBacktrace};

/// The most characters of a function's name that are shown.
const NAME_MAX: usize = 300;

/// Describes an error of a guest call: its causes, and the frames of the guest.
pub(super) fn describe(error: &wasmtime::Error, lines: &SourceLines) -> String {
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    let shown = backtrace.map(ToString::to_string);
    // The backtrace is one of the causes, as text.
    let causes: Vec<String> =
        error.chain().map(ToString::to_string).filter(|cause| Some(cause) != shown.as_ref()).collect();
    let mut text = causes.join(": ");
    if let Some(backtrace) = backtrace {
        text.push_str("\nwasm backtrace:");
        backtrace.frames().iter().for_each(|frame| write_frame(frame, lines, &mut text));
    }
    text
}

fn write_frame(frame: &FrameInfo, lines: &SourceLines, text: &mut String) {
    let name = match frame.func_name() {
        Some(name) => demangled(name),
        None => {
            let module = frame.module().name().unwrap_or("module");
            format!("function {} of {}", frame.func_index(), clipped(module))
        }
    };
    let _ = match frame.module_offset().and_then(|offset| lines.at(offset)) {
        Some(place) => write!(text, "\n  at {name} ({place})"),
        None => write!(text, "\n  at {name}"),
    };
}

/// Returns the name of a function as its author wrote it.
fn demangled(name: &str) -> String {
    clipped(&format!("{:#}", rustc_demangle::demangle(name)))
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(NAME_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_source() {
        assert_eq!(demangled("_ZN4plus6double17h0123456789abcdefE"), "plus::double");
        assert_eq!(demangled("_RNvCs1234_4plus6double"), "plus::double");
        assert_eq!(demangled("PyObject_Call"), "PyObject_Call");
        let long = demangled(&"x".repeat(1000));
        assert_eq!(long.chars().count(), NAME_MAX + 1);
    }

    #[test]
    fn an_error_without_frames_is_its_causes() {
        let error = wasmtime::Error::msg("no room").context("cannot call");
        assert_eq!(describe(&error, &SourceLines::default()), "cannot call: no room");
    }
}
