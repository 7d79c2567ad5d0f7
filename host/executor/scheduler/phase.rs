//! The phases of a guest task as a pure table: which phase follows on which event, and what must be
//! done.
//!
//! [`guest_task`](super::guest_task) consults this table, under the lock of the task's lease, at
//! every step. The reasons are in `docs/decisions/guest-tasks.md`.

/// The phase of a guest task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// In the queue of its workers, or about to be put there.
    #[default]
    Queued,
    /// A worker polls it. `woken`: its waker was called since that poll began.
    Polled { woken: bool },
    /// Its worker runs a call for it, between two polls. `woken`: its waker was called since the
    /// call began.
    Calling { woken: bool },
    /// It waits, and holds no worker.
    Parked,
    /// It continues without a worker, to its end.
    Detached,
    /// It has returned.
    Completed,
}

/// What happens to a guest task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A worker took it from the queue.
    Dispatched,
    /// A poll returned pending, and the guest wants its worker to run a call.
    CallRequested,
    /// That call has returned.
    CallReturned,
    /// A poll returned pending, and there is no call to run.
    Suspended,
    /// A poll returned ready.
    Returned,
    /// Its waker was called.
    Woken,
    /// No worker takes it: the pool refused it, or none came in time.
    Unserved,
}

/// What must be done after a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Poll the guest.
    Poll,
    /// Run the call that it requested.
    RunCall,
    /// Stop the call that runs for it, if the deadline has passed.
    CheckCall,
    /// Keep it until it is woken.
    Park,
    /// Put it into the queue of its workers.
    Requeue,
    /// Let it continue without a worker, on threads for waiting tasks.
    Detach,
    /// Send its answer.
    Answer,
}

/// Where a guest task continues after it was suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    /// In the queue of its workers, once it is woken.
    OnWorkers,
    /// Without a worker, immediately: it belongs to another executor.
    Detached,
}

impl Phase {
    /// Returns true if the task holds a worker.
    #[cfg(test)]
    fn holds_worker(self) -> bool {
        matches!(self, Phase::Polled { .. } | Phase::Calling { .. })
    }

    /// Returns the phase that follows, and what must be done. `None` if the event cannot happen in
    /// this phase.
    pub fn on(self, event: Event, resume: Resume) -> Option<(Phase, Action)> {
        Some(match (self, event) {
            (Phase::Queued, Event::Dispatched) => (Phase::Polled { woken: false }, Action::Poll),
            (Phase::Queued, Event::Unserved) => (Phase::Detached, Action::Detach),

            (Phase::Polled { .. }, Event::Woken) => (Phase::Polled { woken: true }, Action::Nothing),
            // The guest is polled again after the call, which covers any wake-up before it.
            (Phase::Polled { .. }, Event::CallRequested) => {
                (Phase::Calling { woken: false }, Action::RunCall)
            }
            (Phase::Polled { .. }, Event::Returned) => (Phase::Completed, Action::Answer),
            (Phase::Polled { woken }, Event::Suspended) => match (resume, woken) {
                (Resume::Detached, _) => (Phase::Detached, Action::Detach),
                (Resume::OnWorkers, true) => (Phase::Queued, Action::Requeue),
                (Resume::OnWorkers, false) => (Phase::Parked, Action::Park),
            },

            (Phase::Calling { .. }, Event::Woken) => (Phase::Calling { woken: true }, Action::CheckCall),
            (Phase::Calling { .. }, Event::CallReturned) => (Phase::Polled { woken: false }, Action::Poll),

            (Phase::Parked, Event::Woken) => (Phase::Queued, Action::Requeue),

            // A waker may be called at any time. A task in the queue or without a worker will be
            // polled anyway.
            (Phase::Queued | Phase::Detached | Phase::Completed, Event::Woken) => (self, Action::Nothing),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet, VecDeque};

    const EVENTS: [Event; 7] = [
        Event::Dispatched,
        Event::CallRequested,
        Event::CallReturned,
        Event::Suspended,
        Event::Returned,
        Event::Woken,
        Event::Unserved,
    ];

    fn is_final(phase: Phase) -> bool {
        matches!(phase, Phase::Detached | Phase::Completed)
    }

    /// Returns every phase that can be reached from the first one, with its transitions.
    fn reachable(resume: Resume) -> HashMap<Phase, Vec<(Event, Phase, Action)>> {
        let (mut found, mut open) = (HashMap::new(), VecDeque::from([Phase::default()]));
        while let Some(phase) = open.pop_front() {
            if found.contains_key(&phase) {
                continue;
            }
            let follow = |event| phase.on(event, resume).map(|(next, action)| (event, next, action));
            let transitions: Vec<_> = EVENTS.into_iter().filter_map(follow).collect();
            open.extend(transitions.iter().map(|(_, next, _)| *next));
            found.insert(phase, transitions);
        }
        found
    }

    #[test]
    fn every_transition_keeps_the_promises_of_a_guest_task() {
        for resume in [Resume::OnWorkers, Resume::Detached] {
            let table = reachable(resume);
            for (&phase, transitions) in &table {
                for &(event, next, action) in transitions {
                    let at = format!("{phase:?} on {event:?} -> {next:?}, {action:?}");
                    // The action fits the next phase.
                    let expected: &[Action] = match next {
                        Phase::Queued => &[Action::Requeue, Action::Nothing],
                        Phase::Polled { .. } => &[Action::Poll, Action::Nothing],
                        Phase::Calling { .. } => &[Action::RunCall, Action::CheckCall],
                        Phase::Parked => &[Action::Park],
                        Phase::Detached => &[Action::Detach, Action::Nothing],
                        Phase::Completed => &[Action::Answer, Action::Nothing],
                    };
                    assert!(expected.contains(&action), "{at}");
                    assert!(next == phase || action != Action::Nothing || phase.holds_worker(), "{at}");
                    // After the end, only wake-ups can happen, and they have no effect.
                    assert!(!is_final(phase) || (event == Event::Woken && next == phase), "{at}");
                    // A worker is taken by dispatch only.
                    assert!(
                        phase.holds_worker() || !next.holds_worker() || event == Event::Dispatched,
                        "{at}"
                    );
                }
                assert!(phase.on(Event::Woken, resume).is_some(), "a waker can be called in {phase:?}");
            }
        }
    }

    /// A wake-up that no poll follows would be lost: after it the guest is in the queue, about to
    /// be polled, or done.
    #[test]
    fn no_wake_up_is_lost() {
        for resume in [Resume::OnWorkers, Resume::Detached] {
            for phase in reachable(resume).into_keys() {
                // All transitions from here to the next poll, without another wake-up.
                let (woken, _) = phase.on(Event::Woken, resume).expect("a waker can be called");
                let (mut seen, mut open) = (HashSet::new(), vec![woken]);
                while let Some(phase) = open.pop() {
                    assert_ne!(phase, Phase::Parked, "parked with a wake-up");
                    if !seen.insert(phase) {
                        continue;
                    }
                    for event in EVENTS.into_iter().filter(|event| *event != Event::Woken) {
                        match phase.on(event, resume) {
                            // The guest is polled and sees what it was woken for.
                            None | Some((_, Action::Poll | Action::Answer | Action::Detach)) => {}
                            Some((next, _)) => open.push(next),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_phase_leads_to_the_end() {
        for resume in [Resume::OnWorkers, Resume::Detached] {
            let table = reachable(resume);
            for &start in table.keys() {
                let (mut seen, mut open) = (HashSet::new(), vec![start]);
                while let Some(phase) = open.pop() {
                    if seen.insert(phase) {
                        open.extend(table[&phase].iter().map(|(_, next, _)| *next));
                    }
                }
                assert!(seen.iter().any(|phase| is_final(*phase)), "{start:?} leads nowhere");
            }
            // A task of another executor never waits for that executor's workers again.
            assert_eq!(table.contains_key(&Phase::Parked), resume == Resume::OnWorkers);
        }
    }
}
