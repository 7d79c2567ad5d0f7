//! The ids of jobs.

use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// How many bytes of an id are random.
const RANDOM: usize = 10;

/// For how many ids random bytes are fetched at once. A call of the system costs more than the rest
/// of an id.
const AT_ONCE: usize = 64;

/// Makes ids: the time in milliseconds, then 80 random bits, because anybody who knows a job's id
/// can fetch and cancel the job. Ids that were made one after the other are near each other in the
/// tables of a store, so that a change of many jobs touches few pages.
#[derive(Default)]
pub(super) struct JobIds {
    /// Random bytes that no id has yet.
    unused: Mutex<Vec<u8>>,
}

impl JobIds {
    pub fn make(&self) -> Result<Arc<str>> {
        let mut random = [0; 16];
        self.random(&mut random[16 - RANDOM..])?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let id = since.as_millis() << 80 | u128::from_be_bytes(random);
        Ok(format!("{id:032x}").into())
    }

    fn random(&self, id: &mut [u8]) -> Result<()> {
        let mut unused = self.unused.lock_unpoisoned();
        if unused.len() < id.len() {
            let mut bytes = vec![0; RANDOM * AT_ONCE];
            getrandom::fill(&mut bytes).map_err(|error| {
                Error::failed(format!("cannot create a job id: no random numbers: {error}"))
            })?;
            *unused = bytes;
        }
        let rest = unused.len() - id.len();
        id.copy_from_slice(&unused[rest..]);
        unused.truncate(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_long_and_no_random_bits_are_used_twice() {
        let ids = JobIds::default();
        let made: Vec<Arc<str>> = (0..AT_ONCE * 3).map(|_| ids.make().unwrap()).collect();
        assert!(made.iter().all(|id| id.len() == 32));
        let random: HashSet<&str> = made.iter().map(|id| &id[12..]).collect();
        assert_eq!(random.len(), made.len());
    }
}
