//! Names of tenants.

/// What names may be.
pub const NAME_HINT: &str =
    "a name has 1 to 128 letters, digits and - _ . : @ /, and begins with a letter or digit";

const NAME_BYTES_MAX: usize = 128;

/// Checks a name, from the manifest or from a header.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@/".contains(&byte);
    match name.len() {
        0 => Err("is empty"),
        // Names of the host's own begin with `_`.
        1..=NAME_BYTES_MAX if !name.as_bytes()[0].is_ascii_alphanumeric() => {
            Err("does not begin with a letter or digit")
        }
        1..=NAME_BYTES_MAX if name.bytes().all(is_known) => Ok(()),
        1..=NAME_BYTES_MAX => Err("has characters that a name of a tenant cannot have"),
        _ => Err("is too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for name in ["a", "team-1", "key:ci", "user:alice@example.org", "org/team"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["_other", "-a", "", " ", "a b", "a\n", "ä", "*", &"a".repeat(129)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
