//! What a store must find quickly about deliveries: those that are due, by receiver. Part of the
//! index.

use crate::jobs::store_time::StoreTime;
use crate::jobs::webhooks::{Delivery, DeliveryClaim};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

#[derive(Default)]
pub(in crate::jobs) struct Outbox {
    entries: HashMap<u64, Entry>,
    receivers: HashMap<Arc<str>, Receiver>,
    /// Receivers by the time of their first delivery that is due.
    order: BTreeSet<(StoreTime, Arc<str>)>,
    /// The number of claims, which identifies the latest one.
    claims: u64,
    bytes: usize,
}

struct Entry {
    receiver: Arc<str>,
    /// For a delivery that is claimed, the end of its lease.
    due: StoreTime,
    /// The claim of the delivery; 0 if there is none.
    fence: u64,
    bytes: usize,
}

#[derive(Default)]
struct Receiver {
    due: BTreeSet<(StoreTime, u64)>,
    /// The latest claim of a delivery to it.
    claimed: u64,
}

impl Outbox {
    /// Adds a delivery that nobody has claimed, or replaces what is known about it.
    pub fn put(&mut self, delivery: &Delivery) {
        self.remove(delivery.number);
        let receiver = Arc::clone(&delivery.webhook.receiver);
        let entry = Entry { receiver, due: delivery.due, fence: 0, bytes: delivery.bytes() };
        self.bytes += entry.bytes;
        self.insert(delivery.number, entry);
    }

    pub fn remove(&mut self, number: u64) {
        if let Some(entry) = self.take(number) {
            self.bytes -= entry.bytes;
            if self.receivers.get(&entry.receiver).is_some_and(|receiver| receiver.due.is_empty()) {
                self.receivers.remove(&entry.receiver);
            }
        }
    }

    fn insert(&mut self, number: u64, entry: Entry) {
        let receiver = self.receivers.entry(Arc::clone(&entry.receiver)).or_default();
        let before = receiver.due.first().copied();
        receiver.due.insert((entry.due, number));
        let after = receiver.due.first().copied();
        reorder(&mut self.order, &entry.receiver, before, after);
        self.entries.insert(number, entry);
    }

    /// Removes an entry, and leaves its receiver and the count of bytes.
    fn take(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        if let Some(receiver) = self.receivers.get_mut(&entry.receiver) {
            let before = receiver.due.first().copied();
            receiver.due.remove(&(entry.due, number));
            reorder(&mut self.order, &entry.receiver, before, receiver.due.first().copied());
        }
        Some(entry)
    }

    /// Returns whether `claim` would find a delivery.
    pub fn has_claimable(&self, claim: &DeliveryClaim, now: StoreTime) -> bool {
        claim.limit > 0 && self.due_receivers(now).any(|receiver| (claim.capacity)(receiver) > 0)
    }

    fn due_receivers(&self, now: StoreTime) -> impl Iterator<Item = &Arc<str>> {
        self.order.iter().take_while(move |(due, _)| *due <= now).map(|(_, receiver)| receiver)
    }

    /// Claims deliveries that are due, and returns their numbers and fences. Receivers whose latest
    /// claim is the longest ago come first, so that one with many deliveries does not hold up the
    /// others.
    pub fn claim(&mut self, claim: &DeliveryClaim, now: StoreTime) -> Vec<(u64, u64)> {
        let candidates = self.due_receivers(now).map(|receiver| (receiver, (claim.capacity)(receiver)));
        let mut candidates: Vec<(u64, usize, Arc<str>)> = candidates
            .filter(|(_, capacity)| *capacity > 0)
            .map(|(name, capacity)| (self.receivers[name].claimed, capacity, Arc::clone(name)))
            .collect();
        candidates.sort_unstable();
        let mut claimed = Vec::new();
        for (_, capacity, name) in candidates {
            let left = claim.limit - claimed.len();
            let due = self.receivers[&name].due.iter().take_while(|(due, _)| *due <= now);
            let numbers: Vec<u64> = due.map(|(_, number)| *number).take(capacity.min(left)).collect();
            for number in numbers {
                claimed.push((number, self.lease(number, now.after(claim.lease))));
            }
            if claimed.len() == claim.limit {
                break;
            }
        }
        claimed
    }

    fn lease(&mut self, number: u64, until: StoreTime) -> u64 {
        self.claims += 1;
        let fence = self.claims;
        if let Some(entry) = self.take(number) {
            let name = Arc::clone(&entry.receiver);
            self.insert(number, Entry { due: until, fence, ..entry });
            if let Some(receiver) = self.receivers.get_mut(&name) {
                receiver.claimed = fence;
            }
        }
        fence
    }

    /// Returns whether this is the latest claim of the delivery.
    pub fn is_claimed(&self, number: u64, fence: u64) -> bool {
        fence > 0 && self.entries.get(&number).is_some_and(|entry| entry.fence == fence)
    }

    /// Takes the claims of an earlier outbox, for a store that was away for a while.
    pub fn keep_claims(&mut self, earlier: &Outbox) {
        self.claims = self.claims.max(earlier.claims);
        for (number, held) in earlier.entries.iter().filter(|(_, entry)| entry.fence > 0) {
            if let Some(entry) = self.take(*number) {
                self.insert(*number, Entry { due: held.due, fence: held.fence, ..entry });
            }
        }
    }

    /// Returns when a delivery is due that is not due yet at `after`; of any, if that is `None`.
    pub fn next_due(&self, after: Option<StoreTime>) -> Option<StoreTime> {
        let next = match after {
            None => self.order.first(),
            Some(after) => self.order.range((StoreTime(after.0.saturating_add(1)), "".into())..).next(),
        };
        next.map(|(due, _)| *due)
    }

    pub fn count(&self) -> usize {
        self.entries.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Moves a receiver whose first delivery has changed.
fn reorder(
    order: &mut BTreeSet<(StoreTime, Arc<str>)>,
    receiver: &Arc<str>,
    before: Option<(StoreTime, u64)>,
    after: Option<(StoreTime, u64)>,
) {
    if before != after {
        if let Some((due, _)) = before {
            order.remove(&(due, Arc::clone(receiver)));
        }
        if let Some((due, _)) = after {
            order.insert((due, Arc::clone(receiver)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::job::State;
    use crate::jobs::webhooks::Webhook;
    use crate::policy::plan::parse_model_name;
    use std::time::{Duration, SystemTime};

    fn delivery(number: u64, receiver: &str, due: u64) -> Delivery {
        Delivery {
            number,
            job: "job".into(),
            webhook: Webhook { url: receiver.into(), receiver: receiver.into() },
            state: State::Succeeded,
            model: parse_model_name("m").unwrap(),
            ended_at: SystemTime::UNIX_EPOCH,
            created: StoreTime(0),
            due: StoreTime(due),
            attempts: 0,
            last_error: None,
            fence: 0,
        }
    }

    fn claim(limit: usize) -> DeliveryClaim {
        DeliveryClaim { limit, lease: Duration::from_millis(100), capacity: Arc::new(|_| 2) }
    }

    #[test]
    fn claims_are_kept_while_the_store_is_away() {
        let load = || {
            let mut outbox = Outbox::default();
            outbox.put(&delivery(1, "a", 5));
            outbox.put(&delivery(2, "b", 6));
            outbox
        };
        let mut outbox = load();
        let claimed = outbox.claim(&claim(9), StoreTime(5));
        assert_eq!(claimed, [(1, 1)], "the other is not due");
        let mut again = load();
        again.keep_claims(&outbox);
        assert!(again.is_claimed(1, 1) && !again.is_claimed(2, 0));
        assert_eq!(again.next_due(None), Some(StoreTime(6)));
        assert_eq!(again.next_due(Some(StoreTime(6))), Some(StoreTime(105)));
        assert_eq!(again.claim(&claim(9), StoreTime(6)), [(2, 2)], "no claim has a number twice");
    }

    #[test]
    fn nothing_is_left_of_what_is_removed() {
        let mut outbox = Outbox::default();
        for number in 0..5 {
            outbox.put(&delivery(number, "a", number));
        }
        assert!(!outbox.has_claimable(&claim(0), StoreTime(9)));
        assert!(outbox.has_claimable(&claim(1), StoreTime(9)));
        assert_eq!(outbox.claim(&claim(9), StoreTime(9)).len(), 2, "the capacity of the receiver");
        assert_eq!(outbox.claim(&claim(1), StoreTime(9)).len(), 1);
        // One is put back earlier than its lease ends.
        outbox.put(&delivery(0, "a", 3));
        for number in 0..5 {
            assert_eq!(outbox.count(), 5 - number as usize);
            outbox.remove(number);
            outbox.remove(number);
        }
        assert_eq!((outbox.bytes(), outbox.next_due(None)), (0, None));
        assert!(outbox.receivers.is_empty() && outbox.order.is_empty());
    }
}
