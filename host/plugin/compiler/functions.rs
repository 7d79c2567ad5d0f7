//! Native code of single functions, which the compiler takes over when a component is compiled
//! again after a small change, or another one has the same functions.
//!
//! Two builds of a plugin in Python have thousands of functions of CPython in common. The compiler
//! process gets a pack of functions with the component, and sends back which of them it has used
//! and those that it has compiled. The host keeps the pack ([`super::super::cache`]).
//!
//! A pack is a sequence of entries: the lengths of key and value, 4 bytes little-endian each, then
//! both. The most recently used entry is the first.

use crate::lock::LockUnpoisoned;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{Error, Result};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use wasmtime::CacheStore;

/// Packs are kept up to this size.
pub const PACK_BYTES_MAX: usize = 64 << 20;

/// The most bytes of newly compiled functions that a compiler process sends back.
pub const NEW_BYTES_MAX: usize = 48 << 20;

/// Smaller components are compiled faster than a pack is read.
pub const COMPONENT_BYTES_MIN: usize = 1 << 20;

/// Marks the end of the positions of used entries.
const NO_MORE: u32 = u32::MAX;

/// One entry of a pack: where its key and its value are.
struct Entry {
    key: Range<usize>,
    value: Range<usize>,
}

/// Returns the entries of a pack.
///
/// # Errors
/// If it is cut off.
fn entries(pack: &[u8]) -> Result<Vec<Entry>> {
    let (mut entries, mut at) = (Vec::new(), 0);
    while at < pack.len() {
        let length = |at: usize| -> Result<usize> {
            let bytes = pack.get(at..at + 4).ok_or_else(cut_off)?;
            Ok(u32::from_le_bytes(bytes.try_into().expect("invariant: four bytes")) as usize)
        };
        let (key, value) = (length(at)?, length(at + 4)?);
        let key = at + 8..at + 8 + key;
        let value = key.end..key.end + value;
        if value.end > pack.len() {
            return Err(cut_off());
        }
        at = value.end;
        entries.push(Entry { key, value });
    }
    Ok(entries)
}

fn cut_off() -> Error {
    Error::other("a pack of functions is cut off")
}

fn append(pack: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    pack.extend_from_slice(&(key.len() as u32).to_le_bytes());
    pack.extend_from_slice(&(value.len() as u32).to_le_bytes());
    pack.extend_from_slice(key);
    pack.extend_from_slice(value);
}

/// The functions of one compilation, in the compiler process.
pub struct FunctionStore {
    pack: Vec<u8>,
    /// Positions in the pack, by key.
    known: HashMap<Vec<u8>, usize>,
    entries: Vec<(Entry, AtomicBool)>,
    new: Mutex<NewFunctions>,
}

/// The functions that were compiled.
#[derive(Default)]
struct NewFunctions {
    pack: Vec<u8>,
    keys: HashSet<Vec<u8>>,
}

impl FunctionStore {
    /// A pack that is damaged counts as empty.
    pub fn new(pack: Vec<u8>) -> Self {
        let entries = entries(&pack).unwrap_or_default();
        let mut known = HashMap::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            // Of two entries, the first is the newer one.
            known.entry(pack[entry.key.clone()].to_vec()).or_insert(at);
        }
        let entries = entries.into_iter().map(|entry| (entry, AtomicBool::new(false))).collect();
        FunctionStore { pack, known, entries, new: Mutex::default() }
    }

    /// Returns what has changed, for [`merged`].
    pub fn change(&self) -> Vec<u8> {
        let used = self.entries.iter().enumerate().filter(|(_, (_, used))| used.load(Ordering::Relaxed));
        let mut change: Vec<u8> = used.flat_map(|(at, _)| (at as u32).to_le_bytes()).collect();
        change.extend_from_slice(&NO_MORE.to_le_bytes());
        change.extend_from_slice(&self.new.lock_unpoisoned().pack);
        change
    }
}

impl fmt::Debug for FunctionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionStore").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl CacheStore for FunctionStore {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let (entry, used) = &self.entries[*self.known.get(key)?];
        used.store(true, Ordering::Relaxed);
        Some(Cow::Borrowed(&self.pack[entry.value.clone()]))
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        let mut new = self.new.lock_unpoisoned();
        let fits = new.pack.len() + key.len() + value.len() + 8 <= NEW_BYTES_MAX;
        // A component may have the same function several times.
        if fits && new.keys.insert(key.to_vec()) {
            append(&mut new.pack, key, &value);
        }
        fits
    }
}

/// Returns the pack after a compilation: new functions first, then those that were used, then as
/// many of the others as fit. `None` if no function is new.
///
/// # Errors
/// If the change was not made for this pack.
pub fn merged(pack: &[u8], change: &[u8]) -> Result<Option<Vec<u8>>> {
    let known = entries(pack)?;
    let (mut used, mut rest) = (vec![false; known.len()], change);
    loop {
        let (position, after) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        rest = after;
        let position = u32::from_le_bytes(*position);
        if position == NO_MORE {
            break;
        }
        *used.get_mut(position as usize).ok_or_else(|| Error::other("a function that was not sent"))? = true;
    }
    // Only whole entries are kept.
    let new = entries(rest)?;
    if new.is_empty() {
        return Ok(None);
    }
    let mut merged = Vec::with_capacity((pack.len() + rest.len()).min(PACK_BYTES_MAX));
    let fresh = new.iter().map(|entry| (&rest[entry.key.clone()], &rest[entry.value.clone()]));
    let kept = |wanted: bool| {
        let kept = known.iter().zip(&used).filter(move |(_, used)| **used == wanted);
        kept.map(|(entry, _)| (&pack[entry.key.clone()], &pack[entry.value.clone()]))
    };
    let mut keys = HashSet::new();
    for (key, value) in fresh.chain(kept(true)).chain(kept(false)) {
        if !keys.insert(key) {
            continue;
        }
        if merged.len() + key.len() + value.len() + 8 > PACK_BYTES_MAX {
            break;
        }
        append(&mut merged, key, value);
    }
    Ok(Some(merged))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut pack = Vec::new();
        entries.iter().for_each(|(key, value)| append(&mut pack, key.as_bytes(), value.as_bytes()));
        pack
    }

    #[test]
    fn what_was_used_last_comes_first() {
        let before = pack(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let store = FunctionStore::new(before.clone());
        assert_eq!(store.get(b"c").as_deref(), Some(&b"3"[..]));
        assert_eq!(store.get(b"d"), None);
        assert!(store.insert(b"d", b"4".to_vec()));
        assert!(store.insert(b"d", b"again".to_vec()), "the same function twice");
        let after = merged(&before, &store.change()).unwrap().unwrap();
        assert_eq!(after, pack(&[("d", "4"), ("c", "3"), ("a", "1"), ("b", "2")]));
    }

    #[test]
    fn damaged_packs_and_changes_are_refused() {
        let before = pack(&[("a", "1")]);
        for length in 1..before.len() {
            assert!(entries(&before[..length]).is_err());
            assert!(FunctionStore::new(before[..length].to_vec()).known.is_empty());
        }
        let store = FunctionStore::new(before.clone());
        assert_eq!(merged(&before, &store.change()).unwrap(), None, "nothing new");
        store.insert(b"b", b"2".to_vec());
        let change = store.change();
        for length in 0..change.len() {
            // Cut off between two entries, it is a change with fewer of them.
            assert!(merged(&before, &change[..length]).is_err() || length == 4, "{length}");
        }
        assert!(merged(&before, &[9, 0, 0, 0, 255, 255, 255, 255]).is_err(), "a position that is not there");
    }

    #[test]
    fn a_pack_is_bounded() {
        let value = "x".repeat(PACK_BYTES_MAX / 4);
        let before = pack(&[("a", &value), ("b", &value), ("c", &value)]);
        let store = FunctionStore::new(before.clone());
        let _ = store.get(b"c");
        store.insert(b"d", value.clone().into_bytes());
        let after = merged(&before, &store.change()).unwrap().unwrap();
        assert!(after.len() <= PACK_BYTES_MAX);
        let keys: Vec<&[u8]> = entries(&after).unwrap().into_iter().map(|entry| &after[entry.key]).collect();
        assert_eq!(keys, [b"d", b"c", b"a"]);
        assert!(!store.insert(b"e", vec![0; NEW_BYTES_MAX]), "what a process sends is bounded too");
    }
}
