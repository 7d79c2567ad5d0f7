//! Errors as the author of a plugin reads them, in a terminal that shows nothing else.

use super::Error;

/// How the SDK in Rust begins the line of a panic.
const PANICKED: &str = "panicked in ";

/// Returns the line of a panic, which says the place in the source and the words, from a detail.
fn panic_line(detail: &str) -> Option<String> {
    detail.lines().find(|line| line.starts_with(PANICKED)).map(ToOwned::to_owned)
}

impl Error {
    /// Names the plugin, its function and the field in the message, for a terminal that shows
    /// nothing else of the error.
    pub fn for_author(mut self) -> Self {
        let Some(plugin) = self.0.plugin.clone() else { return self };
        if let Some(line) = self.0.detail.as_deref().and_then(panic_line)
            && let Some(before) = self.0.message.strip_suffix("panicked or aborted")
        {
            self.0.message = format!("{before}{line}");
        }
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let lacks = |message: &str, name: &str| message.split(|one| !is_part(one)).all(|word| word != name);
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
    fn what_the_message_lacks_is_added_once() {
        let error = Error::failed("no table").plugin("double").function("predict");
        assert_eq!(error.clone().for_author().to_string(), "plugin \"double\": predict: no table");
        assert_eq!(Error::failed("no table").for_author().to_string(), "no table");
        let predictor = Error::failed("no table").plugin("predictor").function("predict").for_author();
        assert_eq!(predictor.to_string(), "plugin \"predictor\": predict: no table");
        let error = error.field("size").for_author().to_string();
        assert_eq!(error, "plugin \"double\": predict: no table (field size)");
    }
}
