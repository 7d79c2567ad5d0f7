//! The parameters of a query that say which jobs are meant: those of a list, and of a purge.

use crate::error::{Error, Result};
use crate::jobs::{Cursor, Filter, State};
use crate::timestamp;
use std::time::SystemTime;

/// The parameters, for errors.
pub(in crate::server) const PARAMETERS: [&str; 7] =
    ["state", "model", "version", "created_after", "created_before", "ended_before", "after"];

/// Sets what a parameter says. Returns false if it is none of [`PARAMETERS`].
pub(in crate::server) fn set(filter: &mut Filter, name: &str, value: &str) -> Result<bool> {
    match name {
        "state" => {
            filter.states = value.split(',').map(State::parse).collect::<Result<_>>()?;
            // A state that is named twice selects its jobs once.
            filter.states.sort_unstable();
            filter.states.dedup();
        }
        "model" => filter.model = Some(value.to_owned()),
        "version" => filter.version = Some(value.to_owned()),
        "created_after" => filter.created_after = Some(time(name, value)?),
        "created_before" => filter.created_before = Some(time(name, value)?),
        "ended_before" => filter.ended_before = Some(time(name, value)?),
        "after" => filter.after = Some(Cursor(value.to_owned())),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Refuses a parameter that is given twice: one of the values would count for nothing.
pub(in crate::server) fn check_unique(pairs: &[(String, String)]) -> Result<()> {
    let is_repeated = |at: &usize| pairs[..*at].iter().any(|(name, _)| *name == pairs[*at].0);
    let Some(at) = (0..pairs.len()).find(is_repeated) else { return Ok(()) };
    let name: String = pairs[at].0.chars().take(80).collect();
    let hint = if name == "state" { "; write several states as state=failed,timeout" } else { "" };
    Err(Error::invalid(format!("{name} is given twice{hint}")).field(name))
}

/// Checks what only the whole query shows.
pub(in crate::server) fn check(filter: &Filter) -> Result<()> {
    if filter.version.is_some() && filter.model.is_none() {
        return Err(
            Error::invalid("version needs model: send the name of the model as well").field("version")
        );
    }
    Ok(())
}

fn time(name: &str, value: &str) -> Result<SystemTime> {
    // A plus sign in a query means a space, and an offset of a time begins with one.
    let text = match value.char_indices().nth(11) {
        Some((at, _)) => value[..at].to_owned() + &value[at..].replace(' ', "+"),
        None => value.to_owned(),
    };
    timestamp::parse(&text).ok_or_else(|| {
        let shown: String = value.chars().take(80).collect();
        Error::invalid(format!(
            "{name} is \"{shown}\"; it must be a time such as 2026-11-30T16:25:42Z, a day such as 2026-11-30, or \
             seconds since 1970"
        ))
        .field(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_plus_sign_of_an_offset_may_have_become_a_space() {
        for text in ["2026-11-30T17:25:42+01:00", "2026-11-30T17:25:42 01:00", "2026-11-30 17:25:42 01:00"] {
            let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_055_942);
            assert_eq!(time("created_after", text).unwrap(), expected, "{text}");
        }
        let error = time("created_after", "yesterday").unwrap_err();
        assert_eq!(error.field_name(), Some("created_after"));
        assert!(error.message().contains("created_after is \"yesterday\""), "{error}");
    }

    #[test]
    fn states_are_a_list_without_repetition() {
        let mut filter = Filter::default();
        assert!(set(&mut filter, "state", "timeout,failed,timeout").unwrap());
        assert_eq!(filter.states, [State::Failed, State::Timeout]);
        for wrong in ["", "failed,", "failed,,timeout", "failed timeout"] {
            assert!(set(&mut filter, "state", wrong).is_err(), "{wrong:?}");
        }
        assert!(!set(&mut filter, "limit", "1").unwrap());
    }
}
