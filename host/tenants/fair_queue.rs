//! Divides a resource between tenants by start-time fair queueing.
//!
//! Each tenant has a lane. A lane has a virtual time, which what it is served moves forward by cost
//! over weight, and the lane that is behind the others is served next. A tenant that was away comes
//! back at the time of the others: it does not save up service, and it does not escape what it has
//! used in advance.

use slab::Slab;
use smallvec::SmallVec;
use std::num::NonZeroU32;

/// Virtual time of one unit of cost at weight 1.
const UNIT: u64 = 1 << 20;

/// What is served at once counts as no more than this.
const COST_MAX: u64 = 1 << 24;

/// From this many lanes on, empty ones are removed when another one is needed: first those that
/// are not ahead of the others, then all.
const LANES_MANY: usize = 64;
const LANES_MAX: usize = 256;

/// What a tenant has in the queue.
pub trait Lane: Default {
    fn is_empty(&self) -> bool;
}

/// Lanes by the keys of tenants.
pub struct FairQueue<K, L> {
    entries: Slab<Entry<K, L>>,
    /// The virtual time: the start of what was served last.
    now: u64,
}

struct Entry<K, L> {
    key: K,
    weight: NonZeroU32,
    /// The virtual time at which what it is served next starts.
    start: u64,
    lane: L,
}

impl<K, L> Default for FairQueue<K, L> {
    fn default() -> Self {
        FairQueue { entries: Slab::new(), now: 0 }
    }
}

impl<K: PartialEq + Clone, L: Lane> FairQueue<K, L> {
    /// Returns the index of a tenant's lane. It is valid until the next call of this function.
    pub fn enter(&mut self, key: &K, weight: NonZeroU32) -> usize {
        let known = self.entries.iter().find(|(_, entry)| entry.key == *key).map(|(index, _)| index);
        if let Some(index) = known {
            self.entries[index].weight = weight;
            self.rejoin(index);
            return index;
        }
        if self.entries.len() >= LANES_MANY {
            let now = self.now;
            self.entries.retain(|_, entry| !entry.lane.is_empty() || entry.start > now);
        }
        if self.entries.len() >= LANES_MAX {
            self.entries.retain(|_, entry| !entry.lane.is_empty());
        }
        self.insert(key.clone(), weight)
    }

    /// Adds a lane that stays until `remove`, for owners of a queue that never call `enter`.
    pub fn insert(&mut self, key: K, weight: NonZeroU32) -> usize {
        self.entries.insert(Entry { key, weight, start: self.now, lane: L::default() })
    }

    pub fn remove(&mut self, index: usize) {
        self.entries.remove(index);
    }

    /// Must be called before something is added to a lane: one that was empty comes back at the
    /// time of the others.
    pub fn rejoin(&mut self, index: usize) {
        let (now, entry) = (self.now, &mut self.entries[index]);
        if entry.lane.is_empty() {
            entry.start = entry.start.max(now);
        }
    }

    pub fn set_weight(&mut self, index: usize, weight: NonZeroU32) {
        self.entries[index].weight = weight;
    }

    pub fn lane(&self, index: usize) -> &L {
        &self.entries[index].lane
    }

    pub fn lane_mut(&mut self, index: usize) -> &mut L {
        &mut self.entries[index].lane
    }

    pub fn key(&self, index: usize) -> &K {
        &self.entries[index].key
    }

    pub fn weight(&self, index: usize) -> NonZeroU32 {
        self.entries[index].weight
    }

    /// Returns the lanes that are not empty, by their index.
    pub fn lanes(&self) -> impl Iterator<Item = (usize, &L)> {
        let lanes = self.entries.iter().map(|(index, entry)| (index, &entry.lane));
        lanes.filter(|(_, lane)| !lane.is_empty())
    }

    pub fn lanes_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.entries.iter_mut().map(|(_, entry)| &mut entry.lane).filter(|lane| !lane.is_empty())
    }

    /// Returns the lanes that are not empty in the order in which they are served: the one that is
    /// furthest behind comes first.
    pub fn order(&self) -> SmallVec<[usize; 8]> {
        let mut order: SmallVec<[usize; 8]> = self.lanes().map(|(index, _)| index).collect();
        if order.len() > 1 {
            order.sort_by_key(|index| self.entries[*index].start);
        }
        order
    }

    /// Returns the first of these lanes in the order in which they are served.
    pub fn first_of(&self, lanes: impl Iterator<Item = usize>) -> Option<usize> {
        lanes.min_by_key(|index| self.entries[*index].start)
    }

    /// Accounts for what a lane is served in its turn.
    pub fn charge(&mut self, index: usize, cost: usize) {
        self.now = self.now.max(self.entries[index].start);
        self.owe(index, cost);
    }

    /// Accounts for what a lane is served out of turn. It does not move the time of the others.
    pub fn owe(&mut self, index: usize, cost: usize) {
        let entry = &mut self.entries[index];
        let time = (cost as u64).min(COST_MAX) * UNIT / u64::from(entry.weight.get());
        entry.start = entry.start.saturating_add(time.max(1));
    }

    /// Returns the lanes in the order in which units of cost would be served from now on, each as
    /// often as it has such units.
    pub fn upcoming(&self, units: impl Fn(&L) -> usize) -> impl Iterator<Item = usize> {
        let mut lanes: Vec<(u64, usize, usize)> =
            self.lanes().map(|(index, lane)| (self.entries[index].start, index, units(lane))).collect();
        let cost = |index: usize| (UNIT / u64::from(self.entries[index].weight.get())).max(1);
        std::iter::from_fn(move || {
            lanes.retain(|(_, _, units)| *units > 0);
            let (start, index, units) = lanes.iter_mut().min_by_key(|(start, ..)| *start)?;
            *start += cost(*index);
            *units -= 1;
            Some(*index)
        })
    }

    /// Forgets who is ahead: nothing is queued, and nothing is being served.
    pub fn reset(&mut self) {
        self.now = 0;
        self.entries.iter_mut().for_each(|(_, entry)| entry.start = 0);
    }

    /// Returns the lane with the most of what is limited for its weight, if a newcomer is to take
    /// its place: the newcomer's own one if no other has more. `held` counts what a lane has, and
    /// `newcomer` has one more.
    pub fn most_over_share(&self, newcomer: usize, held: impl Fn(&L) -> usize) -> usize {
        // Compared by multiplication: a / b > c / d.
        let mut most = newcomer;
        let load = |index: usize| {
            let entry = &self.entries[index];
            let own = usize::from(index == newcomer);
            ((held(&entry.lane) + own) as u128, u128::from(entry.weight.get()))
        };
        for (index, _) in &self.entries {
            let ((count, weight), (most_count, most_weight)) = (load(index), load(most));
            if count * most_weight > most_count * weight {
                most = index;
            }
        }
        most
    }
}

impl<K: PartialEq + Clone, L: Lane> FairQueue<Option<K>, L> {
    /// Returns the lane that loses what it would be served last, so that a newcomer gets a place in
    /// a full queue; `None` if the newcomer is refused. `own` is the newcomer's lane. `held` counts
    /// what a lane has, and `last` returns the priority of what it would be served last: a smaller
    /// one comes first.
    ///
    /// The lane without a key has the host's own work, which takes nobody's place. Within a lane,
    /// age does not count: a request that has come a moment earlier may be here a moment later.
    pub fn giving_way<P: Ord>(
        &self,
        own: usize,
        newcomer: P,
        held: impl Fn(&L) -> usize,
        last: impl Fn(&L) -> Option<P>,
    ) -> Option<usize> {
        let most = self.most_over_share(own, held);
        let last = last(self.lane(most))?;
        let gives_way = if most == own { last > newcomer } else { self.key(own).is_some() };
        gives_way.then_some(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    impl Lane for VecDeque<usize> {
        fn is_empty(&self) -> bool {
            VecDeque::is_empty(self)
        }
    }

    type Queue = FairQueue<&'static str, VecDeque<usize>>;

    fn weight(weight: u32) -> NonZeroU32 {
        NonZeroU32::new(weight).unwrap()
    }

    fn push(queue: &mut Queue, key: &'static str, of: u32, cost: usize) {
        let index = queue.enter(&key, weight(of));
        queue.lane_mut(index).push_back(cost);
    }

    fn pop(queue: &mut Queue) -> Option<&'static str> {
        let index = *queue.order().first()?;
        let cost = queue.lane_mut(index).pop_front()?;
        queue.charge(index, cost);
        Some(*queue.key(index))
    }

    #[test]
    fn service_is_divided_by_weight_and_cost() {
        for (costs, expected) in [((1, 1), (250, 750)), ((5, 1), (62, 938)), ((1, 5), (625, 375))] {
            let mut queue = Queue::default();
            for _ in 0..1000 {
                push(&mut queue, "one", 1, costs.0);
                push(&mut queue, "three", 3, costs.1);
            }
            let served: Vec<_> = (0..1000).filter_map(|_| pop(&mut queue)).collect();
            let one = served.iter().filter(|name| **name == "one").count();
            assert!(one.abs_diff(expected.0) <= 2, "{costs:?}: {one}, {expected:?}");
        }
    }

    #[test]
    fn who_comes_back_is_served_at_once_and_saves_nothing_up() {
        let mut queue = Queue::default();
        for _ in 0..100 {
            push(&mut queue, "flood", 1, 1);
        }
        for _ in 0..50 {
            pop(&mut queue);
        }
        for _ in 0..10 {
            push(&mut queue, "quiet", 1, 1);
        }
        let served: Vec<_> = (0..10).filter_map(|_| pop(&mut queue)).collect();
        assert!(served[..2].contains(&"quiet"), "{served:?}");
        assert_eq!(served.iter().filter(|name| **name == "quiet").count(), 5);
    }

    #[test]
    fn leaving_the_queue_does_not_help_a_tenant_that_is_ahead() {
        let mut queue = Queue::default();
        // One at a time, always back before the next turn.
        let mut one = 0;
        for _ in 0..100 {
            push(&mut queue, "flood", 3, 1);
        }
        push(&mut queue, "one", 1, 1);
        for _ in 0..80 {
            if pop(&mut queue) == Some("one") {
                one += 1;
                push(&mut queue, "one", 1, 1);
            }
        }
        assert!((19..=21).contains(&one), "{one}");
        // An idle host forgets it.
        while pop(&mut queue).is_some() {}
        queue.reset();
        push(&mut queue, "flood", 3, 1);
        push(&mut queue, "one", 1, 1);
        let starts: Vec<u64> = queue.entries.iter().map(|(_, entry)| entry.start).collect();
        assert_eq!(starts[0], starts[1]);
    }

    #[test]
    fn the_lane_most_over_its_share_gives_way() {
        let mut queue = Queue::default();
        for (key, of, count) in [("small", 1, 2), ("large", 4, 7)] {
            (0..count).for_each(|_| push(&mut queue, key, of, 1));
        }
        let newcomer = queue.enter(&"new", weight(1));
        assert_eq!(*queue.key(queue.most_over_share(newcomer, VecDeque::len)), "small");
        let large = queue.enter(&"large", weight(4));
        assert_eq!(*queue.key(queue.most_over_share(large, VecDeque::len)), "large", "8 / 4 is no less");
        let small = queue.enter(&"small", weight(1));
        assert_eq!(queue.most_over_share(small, VecDeque::len), small);
    }

    #[test]
    fn tenants_that_were_here_once_take_no_memory() {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let mut queue = FairQueue::<String, VecDeque<usize>>::default();
        for number in 0..10_000 {
            let index = queue.enter(&format!("{}{number}", NAMES[number % 4]), weight(1));
            queue.lane_mut(index).push_back(1);
            queue.lane_mut(index).pop_front();
            queue.charge(index, 1);
        }
        assert!(queue.entries.len() <= LANES_MAX, "{}", queue.entries.len());
    }
}
