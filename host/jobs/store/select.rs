//! Chooses the jobs of a page with the index alone: a store reads only the records that it returns.
//!
//! Pages go from the newest job to the oldest, by number. A page begins below the number at which
//! the previous one ended, so jobs that are added or removed in between shift nothing.

use super::index::{Index, JobTimes, micros};
use super::interface::{Cursor, Filter, Purged};
use crate::error::{Error, Result};
use crate::jobs::job::{Job, State};

/// The most jobs of the index that one page looks at. The index finds states and models, but looks
/// at each job for times, and is locked meanwhile.
const EXAMINED_MAX: usize = 10_000;

/// The jobs of a page.
#[derive(Debug)]
pub(in crate::jobs) struct Selection {
    pub numbers: Vec<u64>,
    /// Where the next page begins; `None` on the last page.
    pub next: Option<Cursor>,
}

impl Selection {
    pub fn counted(self) -> Purged {
        Purged { jobs: self.numbers.len(), next: self.next }
    }
}

/// Selects a page of jobs. Without times in the filter it has as many as the limit and the store
/// allow.
///
/// # Errors
/// `invalid` if the cursor is not one of this store.
pub(in crate::jobs) fn select(index: &Index, filter: &Filter) -> Result<Selection> {
    page(index, filter, &filter.states)
}

/// Like `select`, without jobs that have not ended.
pub(in crate::jobs) fn select_ended(index: &Index, filter: &Filter) -> Result<Selection> {
    let is_wanted = |state: &State| filter.states.is_empty() || filter.states.contains(state);
    let ended: Vec<State> =
        State::ALL.into_iter().filter(|state| state.is_final()).filter(is_wanted).collect();
    if ended.is_empty() {
        return Ok(Selection { numbers: Vec::new(), next: None });
    }
    page(index, filter, &ended)
}

fn page(index: &Index, filter: &Filter, states: &[State]) -> Result<Selection> {
    let below = filter.after.as_ref().map_or(Ok(u64::MAX), number_of)?;
    let bounds = TimeBounds::of(filter);
    let mut candidates = index.list(below, states, filter.model.as_deref(), filter.version.as_deref());
    let (mut numbers, mut last) = (Vec::new(), None);
    for number in candidates.by_ref().take(EXAMINED_MAX) {
        last = Some(number);
        if bounds.as_ref().is_none_or(|bounds| index.times(number).is_some_and(|times| bounds.have(times))) {
            numbers.push(number);
        }
        if numbers.len() >= filter.limit {
            break;
        }
    }
    let next = last.filter(|_| candidates.next().is_some());
    Ok(Selection { numbers, next: next.map(|number| Cursor(number.to_string())) })
}

/// The times of a filter, in microseconds since 1970.
struct TimeBounds {
    created_from: u64,
    created_before: Option<u64>,
    ended_before: Option<u64>,
}

impl TimeBounds {
    /// Returns `None` if the filter has no times.
    fn of(filter: &Filter) -> Option<Self> {
        let Filter { created_after, created_before, ended_before, .. } = filter;
        [created_after, created_before, ended_before].into_iter().any(Option::is_some).then(|| TimeBounds {
            created_from: created_after.map_or(0, micros),
            created_before: created_before.map(micros),
            ended_before: ended_before.map(micros),
        })
    }

    fn have(&self, times: JobTimes) -> bool {
        times.created >= self.created_from
            && self.created_before.is_none_or(|before| times.created < before)
            && self.ended_before.is_none_or(|before| times.ended < before)
    }
}

fn number_of(cursor: &Cursor) -> Result<u64> {
    cursor.0.parse().map_err(|_| {
        let shown: String = cursor.0.chars().take(80).collect();
        Error::invalid(format!("after is \"{shown}\"; it must be the `next` of a page")).field("after")
    })
}

/// Returns whether the job is still in one of these states, for lists that are read after the
/// index. Without states, every job is.
pub(in crate::jobs) fn is_in(job: &Job, states: &[State]) -> bool {
    states.is_empty() || states.contains(&job.status.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::examples::{self, spec};
    use crate::jobs::job::{Spec, Status};
    use crate::jobs::store_time::StoreTime;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    const JOBS: u64 = 60_000;

    /// Every job of the index is one second older than the next, and every hundredth failed a
    /// minute after it was created.
    fn job(number: u64) -> Job {
        let created_at = SystemTime::UNIX_EPOCH + Duration::from_secs(number);
        let spec = Spec { created_at, ..spec(&format!("m{}:{}", number % 3, number % 7)) };
        let mut status = Status::new(StoreTime(0), StoreTime(u64::MAX));
        if number.is_multiple_of(100) {
            status.state = State::Failed;
            status.ended_at = Some(created_at + Duration::from_secs(60));
            status.expires = Some(StoreTime(u64::MAX));
        }
        Job { spec: Arc::new(spec), status, ..examples::job(number) }
    }

    fn index() -> Index {
        let mut index = Index::default();
        (1..=JOBS).for_each(|number| index.put(&job(number)));
        index
    }

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// Walks all pages. Returns the numbers in order, and how many pages there were.
    fn walk(index: &Index, mut filter: Filter) -> (Vec<u64>, usize) {
        let (mut numbers, mut pages) = (Vec::new(), 0);
        loop {
            let page = select(index, &filter).unwrap();
            assert!(page.numbers.len() <= filter.limit, "{page:?}");
            // All numbers are taken, so what a page has examined lies between the cursors.
            let end = page.next.as_ref().map_or(0, |next| number_of(next).unwrap());
            let begin = filter.after.as_ref().map_or(JOBS + 1, |after| number_of(after).unwrap());
            if filter.states.is_empty() && filter.model.is_none() {
                assert!(begin - end <= EXAMINED_MAX as u64 + 1, "{begin} to {end}");
            }
            numbers.extend(page.numbers);
            pages += 1;
            filter.after = page.next;
            if filter.after.is_none() {
                return (numbers, pages);
            }
        }
    }

    #[test]
    fn a_page_selects_only_jobs_that_fit_and_looks_at_a_bounded_number() {
        let index = index();
        let all = || (1..=JOBS).rev();
        let failed = vec![State::Failed];
        for (filter, expected, pages) in [
            (Filter { limit: 1000, ..Filter::default() }, all().collect::<Vec<_>>(), 60),
            (
                Filter { states: failed.clone(), limit: 100, ..Filter::default() },
                all().filter(|n| n % 100 == 0).collect(),
                6,
            ),
            (
                Filter { states: vec![State::Running, State::Timeout], limit: 100, ..Filter::default() },
                Vec::new(),
                1,
            ),
            (
                Filter { model: Some("m1".into()), limit: 1000, ..Filter::default() },
                all().filter(|n| n % 3 == 1).collect(),
                20,
            ),
            (
                Filter {
                    states: vec![State::Pending, State::Failed],
                    model: Some("m1".into()),
                    version: Some("5".into()),
                    limit: 1000,
                    ..Filter::default()
                },
                all().filter(|n| n % 3 == 1 && n % 7 == 5).collect(),
                3,
            ),
            (
                Filter {
                    model: Some("m1".into()),
                    version: Some("9".into()),
                    limit: 10,
                    ..Filter::default()
                },
                Vec::new(),
                1,
            ),
            // Few match, and they are the oldest: each page looks at its share.
            (
                Filter { created_before: at(4), limit: 100, ..Filter::default() },
                vec![3, 2, 1],
                JOBS as usize / EXAMINED_MAX,
            ),
            // None match.
            (
                Filter { created_after: at(JOBS + 1), limit: 100, ..Filter::default() },
                Vec::new(),
                JOBS as usize / EXAMINED_MAX,
            ),
            (
                Filter { created_after: at(JOBS - 2), limit: 100, ..Filter::default() },
                vec![JOBS, JOBS - 1, JOBS - 2],
                JOBS as usize / EXAMINED_MAX,
            ),
            // The state is found by the index, so six hundred jobs are looked at.
            (Filter { states: failed, ended_before: at(260), limit: 100, ..Filter::default() }, vec![100], 1),
            // Jobs that have not ended did not end before any time.
            (
                Filter { ended_before: at(260), limit: 100, ..Filter::default() },
                vec![100],
                JOBS as usize / EXAMINED_MAX,
            ),
        ] {
            assert_eq!(walk(&index, filter.clone()), (expected, pages), "{filter:?}");
        }
    }

    #[test]
    fn pages_skip_and_repeat_nothing_while_jobs_come_and_go() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..50 {
            let mut index = Index::default();
            (1..=300).for_each(|number| index.put(&job(number)));
            let mut filter = Filter { limit: random.usize(1..40), ..Filter::default() };
            match random.u8(0..4) {
                0 => filter.states = vec![State::Pending, State::Failed],
                1 => filter.model = Some("m2".into()),
                2 => filter.created_after = at(random.u64(1..300)),
                _ => {}
            }
            let fits = |number: &u64| {
                let times = JobTimes { created: number * 1_000_000, ended: u64::MAX };
                (filter.model.is_none() || number % 3 == 2)
                    && TimeBounds::of(&filter).is_none_or(|bounds| bounds.have(times))
            };
            let mut stay: BTreeSet<u64> = (1..=300).filter(&fits).collect();
            let (mut seen, mut last) = (Vec::new(), 300);
            let mut page_filter = filter.clone();
            loop {
                let page = select(&index, &page_filter).unwrap();
                seen.extend(page.numbers);
                page_filter.after = page.next;
                if page_filter.after.is_none() {
                    break;
                }
                for _ in 0..random.usize(0..10) {
                    let gone = random.u64(1..=300);
                    index.remove(gone);
                    stay.remove(&gone);
                    last += 1;
                    index.put(&job(last));
                }
            }
            assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "each job once, newest first: {seen:?}");
            assert!(seen.iter().all(|number| *number <= 300 && fits(number)), "{seen:?}");
            assert!(stay.iter().all(|number| seen.contains(number)), "{seen:?} lacks one of {stay:?}");
        }
    }

    #[test]
    fn only_jobs_that_have_ended_are_selected_for_a_purge() {
        let mut index = Index::default();
        (1..=300).for_each(|number| index.put(&job(number)));
        let selected = |states: &[State]| {
            let filter = Filter { states: states.to_vec(), limit: 10, ..Filter::default() };
            select_ended(&index, &filter).unwrap().numbers
        };
        assert_eq!(selected(&[]), [300, 200, 100]);
        assert_eq!(selected(&[State::Pending, State::Failed]), [300, 200, 100]);
        assert_eq!(selected(&[State::Pending]), [0; 0]);
    }
}
