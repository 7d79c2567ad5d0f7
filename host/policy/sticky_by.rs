//! What keeps a caller on one version of a model, and on one side of a rollout.

/// The part of a request whose hash selects a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyBy {
    RequestId,
    Header(String),
}

impl StickyBy {
    /// Parses `request-id` or `header:<name>`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "request-id" => Some(StickyBy::RequestId),
            Some(("header", header)) if !header.is_empty() => Some(StickyBy::Header(header.to_lowercase())),
            _ => None,
        }
    }
}

/// Hashes a key to the same value in every process and release (FNV-1a, mixed), so that a caller
/// stays on its version.
pub(super) fn sticky_hash(key: &str) -> u64 {
    let fnv = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept_and_callers_stay() {
        let share = |range: std::ops::Range<u64>| {
            let hits = (0..10_000).filter(|id| range.contains(&(sticky_hash(&format!("user-{id}")) % 100)));
            hits.count()
        };
        assert!((800..1200).contains(&share(0..10)), "{}", share(0..10));
        assert_eq!(sticky_hash("user-1"), sticky_hash("user-1"));
    }
}
