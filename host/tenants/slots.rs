//! Shares of slots that are taken at once or not at all: without a queue, nothing can be evicted
//! from them, so a part stays free for tenants that have none.

use super::metrics::Refused;
use super::share::TenantShare;
use crate::lock::LockUnpoisoned;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// When a tenant that has its share of slots should try again.
pub const SHARE_TIME: Duration = Duration::from_secs(1);

/// How long a tenant counts as active after its last slot, or its last refusal.
const ACTIVE_FOR: Duration = Duration::from_secs(1);

/// How long a part of the slots stays free for a tenant that was here.
const RESERVED_FOR: Duration = Duration::from_secs(60);

/// The part that stays free.
const RESERVE_DIVISOR: usize = 8;

/// Tenants that are remembered.
const HOLDERS_MAX: usize = 64;

/// Who holds how many of a number of slots.
#[derive(Default)]
pub struct SharedSlots {
    holders: Mutex<Vec<Holder>>,
}

struct Holder {
    key: Arc<str>,
    weight: NonZeroU32,
    held: usize,
    seen: Instant,
}

/// A slot that counts as a tenant's until this is dropped.
pub struct TenantSlot(Option<Box<(Arc<SharedSlots>, Arc<str>)>>);

impl SharedSlots {
    /// Takes one of `slots` for a tenant, if it may have one more while `free` are free. All slots
    /// are a tenant's if there is no other. Calls of no tenant are not limited.
    pub fn take(
        self: &Arc<Self>,
        share: &TenantShare,
        slots: usize,
        free: usize,
        now: Instant,
    ) -> Option<TenantSlot> {
        let slot = self.take_if_free(share, slots, free, now);
        if slot.is_none() {
            share.count(Refused::Share);
        }
        slot
    }

    /// Does the same, and counts no refusal.
    pub fn take_if_free(
        self: &Arc<Self>,
        share: &TenantShare,
        slots: usize,
        free: usize,
        now: Instant,
    ) -> Option<TenantSlot> {
        let Some(key) = share.key() else { return Some(TenantSlot(None)) };
        let mut holders = self.holders.lock_unpoisoned();
        let own = enter(&mut holders, &key, share.weight, now);
        if !may_take(&holders, own, slots, free, now) {
            return None;
        }
        holders[own].held += 1;
        Some(TenantSlot(Some(Box::new((Arc::clone(self), key)))))
    }

    /// Takes a slot for work that has begun, which is not refused.
    pub fn take_started(self: &Arc<Self>, share: &TenantShare, now: Instant) -> TenantSlot {
        let Some(key) = share.key() else { return TenantSlot(None) };
        let mut holders = self.holders.lock_unpoisoned();
        let own = enter(&mut holders, &key, share.weight, now);
        holders[own].held += 1;
        TenantSlot(Some(Box::new((Arc::clone(self), key))))
    }
}

impl Drop for TenantSlot {
    fn drop(&mut self) {
        let Some((slots, key)) = self.0.as_deref() else { return };
        let mut holders = slots.holders.lock_unpoisoned();
        if let Some(holder) = holders.iter_mut().find(|holder| holder.key == *key) {
            holder.held = holder.held.saturating_sub(1);
        }
    }
}

fn may_take(holders: &[Holder], own: usize, slots: usize, free: usize, now: Instant) -> bool {
    if holders.len() == 1 {
        return free > 0;
    }
    let is_active =
        |holder: &&Holder| holder.held > 0 || now.saturating_duration_since(holder.seen) < ACTIVE_FOR;
    let active = holders.iter().filter(is_active);
    let weights: usize = active.map(|holder| holder.weight.get() as usize).sum();
    let Holder { held, weight, .. } = &holders[own];
    let reserve = (slots / RESERVE_DIVISOR).max(1).min(slots.saturating_sub(1));
    let is_alone = weights <= weight.get() as usize;
    let fair = (slots * weight.get() as usize).div_ceil(weights.max(1));
    // Beyond its share, it leaves a part to the others.
    free > reserve || !is_alone && *held < fair && free > 0
}

/// Returns the index of a tenant.
fn enter(holders: &mut Vec<Holder>, key: &Arc<str>, weight: NonZeroU32, now: Instant) -> usize {
    holders.retain(|holder| {
        let is_recent = now.saturating_duration_since(holder.seen) < RESERVED_FOR;
        holder.held > 0 || is_recent || holder.key == *key
    });
    if let Some(own) = holders.iter().position(|holder| holder.key == *key) {
        let holder = &mut holders[own];
        (holder.weight, holder.seen) = (weight, now);
        return own;
    }
    if holders.len() >= HOLDERS_MAX {
        holders.retain(|holder| holder.held > 0);
    }
    holders.push(Holder { key: Arc::clone(key), weight, held: 0, seen: now });
    holders.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenants::test_share;

    struct Fixture {
        slots: Arc<SharedSlots>,
        taken: Vec<TenantSlot>,
    }

    impl Fixture {
        /// Takes as many of 16 slots as it may, and returns their number.
        fn fill(&mut self, share: &TenantShare, now: Instant) -> usize {
            let before = self.taken.len();
            while let Some(slot) = self.slots.take(share, 16, 16 - self.taken.len(), now) {
                self.taken.push(slot);
            }
            self.taken.len() - before
        }

        fn give_back(&mut self, share: &TenantShare) {
            let name = share.key().unwrap();
            let is_own = |slot: &TenantSlot| slot.0.as_deref().is_some_and(|(_, key)| *key == name);
            let index = self.taken.iter().position(is_own).unwrap();
            self.taken.remove(index);
        }
    }

    #[test]
    fn a_tenant_alone_has_all_and_leaves_a_part_to_those_that_were_here() {
        let (a, b, now) = (test_share("a", 1), test_share("b", 3), Instant::now());
        let mut fixture = Fixture { slots: Arc::default(), taken: Vec::new() };
        assert_eq!(fixture.fill(&a, now), 16);
        assert_eq!(fixture.fill(&b, now), 0, "nothing is free");
        fixture.taken.clear();
        let later = now + Duration::from_secs(5);
        assert_eq!(fixture.fill(&a, later), 14, "an eighth stays free");
        assert_eq!(fixture.fill(&b, later), 2);
        // What is given back goes to the one below its share.
        for _ in 0..5 {
            fixture.give_back(&a);
            assert_eq!((fixture.fill(&a, later), fixture.fill(&b, later)), (0, 1));
        }
        fixture.taken.clear();
        let much_later = later + Duration::from_secs(120);
        assert_eq!(fixture.fill(&a, much_later), 16, "the others are forgotten");
    }

    #[test]
    fn calls_of_no_tenant_are_not_limited() {
        let slots = Arc::<SharedSlots>::default();
        assert!(slots.take(&TenantShare::default(), 1, 0, Instant::now()).is_some());
        assert!(slots.holders.lock_unpoisoned().is_empty());
    }
}
