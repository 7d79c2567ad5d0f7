//! The workers of a pool that have nothing to do, and which of them is woken.
//!
//! Whoever became idle last is woken first: its memory is warm, and the others sleep on. While enough are on their way,
//! nobody else is woken, for each looks at the queue when it comes, and wakes the next if it leaves work there. On busy
//! cores, where coming takes a while, this spares most of the wake-ups of a burst, and with them what costs most.

pub(super) struct Idle {
    /// Workers that sleep, in the order in which they became idle.
    asleep: Vec<usize>,
    /// Workers that were woken and have not looked at the queue yet.
    coming: usize,
    coming_max: usize,
}

impl Idle {
    pub fn new(cores: usize) -> Self {
        // On many cores, a burst is not to wait for one after the other.
        Idle { asleep: Vec::new(), coming: 0, coming_max: (cores / 2).max(1) }
    }

    /// Workers that could take work.
    pub fn len(&self) -> usize {
        self.asleep.len() + self.coming
    }

    /// Of these, those that were woken.
    pub fn coming(&self) -> usize {
        self.coming
    }

    /// Which worker to wake for work that waits.
    pub fn next(&mut self) -> Option<usize> {
        if self.coming >= self.coming_max {
            return None;
        }
        let worker = self.asleep.pop()?;
        self.coming += 1;
        Some(worker)
    }

    pub fn sleeps(&mut self, worker: usize) {
        self.asleep.push(worker);
    }

    /// It looks at the queue, woken or by itself.
    pub fn came(&mut self, worker: usize) {
        match self.asleep.iter().position(|asleep| *asleep == worker) {
            Some(place) => drop(self.asleep.remove(place)),
            None => self.coming -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_sleep_is_woken_first_and_few_at_once() {
        let mut idle = Idle::new(2);
        assert_eq!(idle.next(), None);
        (0..3).for_each(|worker| idle.sleeps(worker));
        assert_eq!((idle.next(), idle.next()), (Some(2), None), "one is on its way");
        assert_eq!(idle.len(), 3);
        idle.came(2);
        assert_eq!((idle.next(), idle.len()), (Some(1), 2));
        idle.came(0);
        assert_eq!(idle.len(), 1, "0 came by itself, 1 is still on its way");
        idle.came(1);
        assert_eq!((idle.next(), idle.len()), (None, 0));
        let mut idle = Idle::new(16);
        (0..16).for_each(|worker| idle.sleeps(worker));
        assert_eq!((0..16).filter(|_| idle.next().is_some()).count(), 8);
    }
}
