//! The query of a request under `/admin`.

use crate::error::{Error, Result, did_you_mean};
use crate::server::http;

/// Parameters of a query, each once.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query with these parameters. A parameter without a value is `true`.
    ///
    /// # Errors
    /// `invalid_input` for a parameter that is not known, or is given twice.
    pub fn parse(query: Option<&str>, known: &[&str]) -> Result<Self> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in http::query_pairs(query, "true") {
            let (name, value) = pair?;
            if !known.contains(&&*name) {
                return Err(unknown(&name, known));
            }
            let shown: String = name.chars().take(80).collect();
            if pairs.iter().any(|(before, _)| *before == name) {
                return Err(Error::invalid(format!("{shown} is given twice")).field(shown));
            }
            pairs.push((name, value));
        }
        Ok(Query(pairs))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns a whole number.
    ///
    /// # Errors
    /// `invalid_input` if the value is none.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        let number = |value: &str| {
            let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse().ok().filter(|_| is_number).ok_or_else(|| refused(name, value, "a whole number"))
        };
        self.text(name).map(number).transpose()
    }

    /// Returns whether a parameter is `true`.
    ///
    /// # Errors
    /// `invalid_input` if it is neither `true` nor `false`.
    pub fn flag(&self, name: &str) -> Result<bool> {
        self.text(name).map_or(Ok(false), |value| flag(name, value))
    }
}

/// Reads a parameter that is `true` or `false`.
pub(super) fn flag(name: &str, value: &str) -> Result<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(refused(name, other, "true or false")),
    }
}

/// Returns the error for a parameter that is not known.
pub(super) fn unknown(name: &str, known: &[&str]) -> Error {
    let name: String = name.chars().take(80).collect();
    let (hint, known) = (did_you_mean(&name, known.iter().copied()), known.join(", "));
    Error::invalid(format!("the query \"{name}\" is not known{hint}; known here: {known}")).field(name)
}

/// Returns the error for a value that a parameter cannot have.
pub(super) fn refused(name: &str, value: &str, wanted: &str) -> Error {
    let value: String = value.chars().take(80).collect();
    Error::invalid(format!("{name} is \"{value}\"; it must be {wanted}")).field(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_single_and_of_their_type() {
        let query =
            Query::parse(Some("after=17&dry_run&graph=%73vg"), &["after", "dry_run", "graph"]).unwrap();
        assert_eq!(query.number("after").unwrap(), Some(17));
        assert!(query.flag("dry_run").unwrap() && !query.flag("other").unwrap());
        assert_eq!((query.text("graph"), query.text("other")), (Some("svg"), None));
        for (text, part) in [
            ("afte=1", "did you mean \"after\"?"),
            ("after=1&after=1", "given twice"),
            ("after=%2B1", "after is \"+1\""),
            ("after=-1", "whole number"),
            ("after=", "whole number"),
            ("after=99999999999999999999", "whole number"),
            ("after=%zz", "percent"),
        ] {
            let error = Query::parse(Some(text), &["after"]).and_then(|query| query.number("after"));
            let message = error.unwrap_err().message().to_owned();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
