//! Names of callers and of models as rules write them: exact, or with a `*` at the end.

/// The kinds of callers that have names, as in `key:ci`.
pub const KINDS: [&str; 5] = ["key", "user", "group", "cert", "plugin"];

/// Every caller, plugins excepted.
pub const EVERYONE: &str = "*";

/// Those who have shown nothing.
pub const ANONYMOUS: &str = "anonymous";

/// Those who have shown something that is valid, plugins excepted.
pub const AUTHENTICATED: &str = "authenticated";

/// Shortens a name from a request for a message.
pub fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}

/// A name, or the beginning of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: Box<str>,
    is_prefix: bool,
}

impl NamePattern {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (text, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if text.contains('*') {
            return Err("has a * that is not its last character");
        }
        if text.is_empty() && !is_prefix {
            return Err("is empty");
        }
        Ok(NamePattern { text: text.into(), is_prefix })
    }

    pub fn matches(&self, name: &str) -> bool {
        match self.is_prefix {
            true => name.starts_with(&*self.text),
            false => name == &*self.text,
        }
    }
}

/// A model as a rule names it: `name`, `name:version`, `team-*`, `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPattern {
    name: NamePattern,
    /// `None` for all versions.
    version: Option<NamePattern>,
}

impl ModelPattern {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        Ok(match text.split_once(':') {
            Some((name, version)) => {
                ModelPattern { name: NamePattern::parse(name)?, version: Some(NamePattern::parse(version)?) }
            }
            None => ModelPattern { name: NamePattern::parse(text)?, version: None },
        })
    }

    /// Whether this is the model. Without a version: whether one of its versions may be meant.
    pub fn matches(&self, name: &str, version: Option<&str>) -> bool {
        let fits = |pattern: &NamePattern| version.is_none_or(|version| pattern.matches(version));
        self.name.matches(name) && self.version.as_ref().is_none_or(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_or_their_beginning() {
        for (pattern, model, version, expected) in [
            ("*", "m", Some("1"), true),
            ("m", "m", Some("1"), true),
            ("m", "m2", None, false),
            ("m", "M", None, false),
            ("m:1", "m", Some("1"), true),
            ("m:1", "m", Some("2"), false),
            ("m:1", "m", None, true),
            ("m:1*", "m", Some("12"), true),
            ("team-*", "team-a", None, true),
            ("team-*", "team", None, false),
            ("*:1", "m", Some("1"), true),
            ("*:1", "m", Some("2"), false),
        ] {
            let parsed = ModelPattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(model, version), expected, "{pattern} {model} {version:?}");
        }
        for pattern in ["", "a*b", "**", ":1", "m:", "m:*1"] {
            assert!(ModelPattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
