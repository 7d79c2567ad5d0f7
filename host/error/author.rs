//! Errors as the author of a plugin reads them, in a terminal that shows nothing else.

use super::Error;

/// How the SDK in Rust begins the line of a panic.
const PANICKED: &str = "panicked in ";

/// Returns where an error came about in the source of a plugin, from its detail: the line of a
/// panic, or the first frame of the author's own code.
fn place_in_source(detail: &str) -> Option<String> {
    let panicked = detail.lines().find(|line| line.starts_with(PANICKED));
    let is_own = |frame: &&str| !["/rustc/", "/registry/", "/sdk/"].iter().any(|other| frame.contains(other));
    let frames = detail.lines().filter_map(|line| line.strip_prefix("  at "));
    let frame = || frames.filter(|frame| frame.ends_with(')')).find(is_own);
    panicked.or_else(frame).map(ToOwned::to_owned)
}

impl Error {
    /// Names the plugin, its function and the field in the message, for a terminal that shows
    /// nothing else of the error.
    pub fn for_author(mut self) -> Self {
        let Some(plugin) = self.0.plugin.clone() else { return self };
        let place = self.0.detail.as_deref().and_then(place_in_source);
        if let Some(place) = place.filter(|place| !self.0.message.contains(place)) {
            self.0.message = match self.0.message.strip_suffix("panicked or aborted") {
                Some(before) if place.starts_with(PANICKED) => format!("{before}{place}"),
                _ => format!("{} at {place}", self.0.message),
            };
        }
        let lacks = |message: &str, name: &str| !message.contains(name);
        let place = self.0.function.filter(|function| lacks(&self.0.message, function));
        if let Some(field) = self.0.field.clone().filter(|field| lacks(&self.0.message, field)) {
            self.0.message = format!("{} (field {field})", self.0.message);
        }
        let is_named = self.0.message.contains(&format!("\"{plugin}\""));
        match (is_named, place) {
            (true, None) => self,
            (true, Some(function)) => {
                self.0.message = format!("{} (in {function})", self.0.message);
                self
            }
            (false, None) => self.context(format!("plugin \"{plugin}\"")),
            (false, Some(function)) => self.context(format!("plugin \"{plugin}\": {function}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(message: &str, detail: &str) -> String {
        let error = Error::failed(message).plugin("double").function("predict").with_detail(detail);
        error.for_author().to_string()
    }

    #[test]
    fn a_panic_says_its_place_and_words() {
        let detail = "starting\npanicked in predict at src/lib.rs:9:5: no number\nwasm trap: unreachable";
        assert_eq!(
            failed("plugin \"double\" panicked or aborted", detail),
            "plugin \"double\" panicked in predict at src/lib.rs:9:5: no number"
        );
    }

    #[test]
    fn a_trap_says_the_first_frame_of_the_author() {
        let detail = "wasm trap: call stack exhausted\nwasm backtrace:\n  at core::fmt::write (/rustc/1/fmt.rs:1:2)\n  \
                      at double::depth (src/lib.rs:4:1)";
        assert_eq!(
            failed("plugin \"double\" trapped: stack overflow", detail),
            "plugin \"double\" trapped: stack overflow at double::depth (src/lib.rs:4:1) (in predict)"
        );
    }

    #[test]
    fn what_the_message_lacks_is_added_once() {
        let error = Error::failed("no table").plugin("double").function("predict");
        assert_eq!(error.clone().for_author().to_string(), "plugin \"double\": predict: no table");
        assert_eq!(Error::failed("no table").for_author().to_string(), "no table");
        let error = error.field("size").for_author().to_string();
        assert_eq!(error, "plugin \"double\": predict: no table (field size)");
    }
}
