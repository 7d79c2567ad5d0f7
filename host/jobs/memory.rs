//! Jobs in memory: bounded and fast, but lost when the process ends.

use super::job::{Job, State, Status};
use super::store::{Bounds, Change, Filter, JobStore, Page};
use crate::error::{Error, Result};
use crate::executor::BoxFuture;
use crate::lock::LockUnpoisoned;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

#[derive(Default)]
pub struct MemoryStore(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// In order of creation.
    jobs: BTreeMap<u64, Job>,
    numbers: HashMap<Arc<str>, u64>,
    expiry: BTreeSet<(SystemTime, u64)>,
    bytes: usize,
    last: u64,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock_unpoisoned()
    }
}

impl JobStore for MemoryStore {
    fn create(&self, jobs: Vec<Job>, bounds: Bounds) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.lock().create(jobs, bounds) })
    }

    fn read<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Job>>> {
        Box::pin(async move { Ok(self.lock().get(id).map(|(_, job)| job.clone())) })
    }

    fn update<'a>(
        &'a self,
        id: &'a str,
        revision: u64,
        status: Status,
        bounds: Bounds,
    ) -> BoxFuture<'a, Result<Change>> {
        Box::pin(async move { self.lock().update(id, revision, status, bounds) })
    }

    fn list<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move { Ok(self.lock().list(filter)) })
    }

    fn delete<'a>(&'a self, id: &'a str, revision: u64) -> BoxFuture<'a, Result<Change>> {
        Box::pin(async move {
            let mut inner = self.lock();
            Ok(match inner.get(id) {
                Some((number, job)) if job.revision == revision => {
                    inner.remove(number);
                    Change::Done
                }
                _ => Change::Stale,
            })
        })
    }

    fn expire(&self, now: SystemTime) -> BoxFuture<'_, Result<Vec<State>>> {
        Box::pin(async move { Ok(self.lock().expire(now)) })
    }
}

impl Inner {
    fn get(&self, id: &str) -> Option<(u64, &Job)> {
        let number = *self.numbers.get(id)?;
        Some((number, self.jobs.get(&number)?))
    }

    fn create(&mut self, jobs: Vec<Job>, bounds: Bounds) -> Result<()> {
        let bytes: usize = jobs.iter().map(Job::bytes).sum();
        let mb = bounds.bytes >> 20;
        if jobs.len() > bounds.jobs {
            let message = format!("{} jobs at once; the store holds at most {}", jobs.len(), bounds.jobs);
            return Err(Error::too_large(message));
        }
        if bytes > bounds.bytes {
            return Err(Error::too_large(format!("{bytes} bytes of jobs; the store holds at most {mb} MB")));
        }
        let (fits_count, fits_bytes) =
            (self.jobs.len() + jobs.len() <= bounds.jobs, self.bytes + bytes <= bounds.bytes);
        if !fits_count || !fits_bytes {
            let full = match fits_count {
                false => format!("{} of {} jobs", self.jobs.len(), bounds.jobs),
                true => format!("{} of {mb} MB", self.bytes >> 20),
            };
            return Err(Error::overloaded(format!(
                "the job store is full: {full}, {} jobs have ended; delete those whose results were fetched, \
                 wait until they expire, or raise capacity or store_mb under [jobs]",
                self.expiry.len()
            )));
        }
        for job in jobs {
            self.last += 1;
            self.bytes += job.bytes();
            self.numbers.insert(Arc::clone(&job.id), self.last);
            self.jobs.insert(self.last, job);
        }
        Ok(())
    }

    fn update(&mut self, id: &str, revision: u64, status: Status, bounds: Bounds) -> Result<Change> {
        let Some((number, old)) = self.get(id).filter(|(_, job)| job.revision == revision) else {
            return Ok(Change::Stale);
        };
        let mut job = Job { revision: revision + 1, status, ..old.clone() };
        if job.status.state.is_final() {
            job.input = None;
        }
        let (before, after) = (old.bytes(), job.bytes());
        let new_result = job.status.result.as_ref().filter(|_| old.status.result.is_none());
        if let Some(result) = new_result
            && self.bytes - before + after > bounds.bytes
        {
            return Err(Error::too_large(format!(
                "the result of {} bytes does not fit into the job store, where {} of {} MB are in use; delete \
                 ended jobs, or raise store_mb under [jobs]",
                result.len(),
                self.bytes >> 20,
                bounds.bytes >> 20
            )));
        }
        let (old_expiry, new_expiry) = (old.status.expires_at, job.status.expires_at);
        if let Some(at) = old_expiry {
            self.expiry.remove(&(at, number));
        }
        if let Some(at) = new_expiry {
            self.expiry.insert((at, number));
        }
        self.bytes = self.bytes - before + after;
        self.jobs.insert(number, job);
        Ok(Change::Done)
    }

    fn list(&self, filter: &Filter) -> Page {
        let fits = |job: &Job| {
            filter.state.is_none_or(|state| job.status.state == state)
                && filter.model.as_deref().is_none_or(|model| *job.spec.model.name == *model)
        };
        let older = self.jobs.range(..filter.after.unwrap_or(u64::MAX)).rev();
        let mut found = older.filter(|(_, job)| fits(job)).peekable();
        let (mut jobs, mut last) = (Vec::new(), None);
        while jobs.len() < filter.limit
            && let Some((number, job)) = found.next()
        {
            jobs.push(job.clone());
            last = Some(*number);
        }
        Page { jobs, next: last.filter(|_| found.peek().is_some()) }
    }

    fn expire(&mut self, now: SystemTime) -> Vec<State> {
        let mut states = Vec::new();
        while let Some(&(at, number)) = self.expiry.first().filter(|(at, _)| *at <= now) {
            self.expiry.remove(&(at, number));
            states.extend(self.remove(number).map(|job| job.status.state));
        }
        states
    }

    fn remove(&mut self, number: u64) -> Option<Job> {
        let job = self.jobs.remove(&number)?;
        self.numbers.remove(&job.id);
        self.bytes -= job.bytes();
        if let Some(at) = job.status.expires_at {
            self.expiry.remove(&(at, number));
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::jobs::job::{Budgets, End, Spec};
    use crate::policy::plan::parse_model_name;
    use crate::predict::JsonText;
    use std::time::Duration;

    const ROOMY: Bounds = Bounds { jobs: 100, bytes: 1 << 20 };
    const TTL: Duration = Duration::from_secs(60);

    fn job(id: &str, model: &str, input_bytes: usize) -> Job {
        let spec = Spec {
            model: parse_model_name(model).unwrap(),
            parameters: Vec::new(),
            budgets: Budgets { max_attempts: 1, max_runtime: None, max_total_runtime: TTL },
            created_at: SystemTime::UNIX_EPOCH,
            request_id: "request".into(),
        };
        let input = format!("\"{}\"", "x".repeat(input_bytes - 2));
        Job::new(id.into(), spec, JsonText::parse(input.into()).unwrap())
    }

    fn ended(end: End, now: SystemTime) -> Status {
        let mut status = Status::new();
        status.end(end, now, TTL);
        status
    }

    fn failed(now: SystemTime) -> Status {
        ended(End::Failed(Error::failed("x")), now)
    }

    async fn ids(store: &MemoryStore, filter: Filter) -> (Vec<String>, Option<u64>) {
        let page = store.list(&filter).await.unwrap();
        (page.jobs.iter().map(|job| job.id.to_string()).collect(), page.next)
    }

    #[tokio::test]
    async fn of_two_changes_from_one_revision_the_first_wins() {
        let (store, now) = (MemoryStore::default(), SystemTime::now());
        store.create(vec![job("a", "m", 10)], ROOMY).await.unwrap();
        let mut pending = Status::new();
        pending.queue();
        assert_eq!(store.update("a", 1, pending, ROOMY).await.unwrap(), Change::Done);
        assert_eq!(store.update("a", 1, failed(now), ROOMY).await.unwrap(), Change::Stale);
        let kept = store.read("a").await.unwrap().unwrap();
        assert_eq!((kept.status.state, kept.revision, kept.input.is_some()), (State::Pending, 2, true));
        assert_eq!(store.update("a", 2, failed(now), ROOMY).await.unwrap(), Change::Done);
        assert!(store.read("a").await.unwrap().unwrap().input.is_none(), "nobody needs it any more");
        assert_eq!(store.update("b", 1, failed(now), ROOMY).await.unwrap(), Change::Stale);
        assert_eq!(store.delete("a", 2).await.unwrap(), Change::Stale);
        assert_eq!(store.delete("a", 3).await.unwrap(), Change::Done);
        assert!(store.read("a").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn all_or_none_are_created_within_the_bounds() {
        let (store, now) = (MemoryStore::default(), SystemTime::now());
        let bounds = Bounds { jobs: 3, bytes: 1 << 20 };
        store.create(vec![job("a", "m", 10), job("b", "m", 10)], bounds).await.unwrap();
        let error = store.create(vec![job("c", "m", 10), job("d", "m", 10)], bounds).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Overloaded);
        assert!(error.message().contains("2 of 3 jobs, 0 jobs have ended"), "{error}");
        assert!(store.read("c").await.unwrap().is_none());
        let four = (0..4).map(|n| job(&n.to_string(), "m", 10)).collect();
        assert_eq!(store.create(four, bounds).await.unwrap_err().kind(), Kind::TooLarge, "it never fits");

        let large = Bounds { jobs: 100, bytes: 100_000 };
        store.create(vec![job("e", "m", 60_000)], large).await.unwrap();
        let error = store.create(vec![job("f", "m", 60_000)], large).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Overloaded, "{error}");
        // An ended job releases the bytes of its input.
        store.update("e", 1, failed(now), large).await.unwrap();
        store.create(vec![job("f", "m", 60_000)], large).await.unwrap();
    }

    #[tokio::test]
    async fn a_result_that_does_not_fit_is_refused_and_every_other_end_is_not() {
        let (store, now) = (MemoryStore::default(), SystemTime::now());
        let bounds = Bounds { jobs: 10, bytes: 10_000 };
        store.create(vec![job("a", "m", 1_000)], bounds).await.unwrap();
        let result = ended(End::Succeeded(vec![b' '; 20_000].into()), now);
        let error = store.update("a", 1, result, bounds).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        let long = Error::failed("x".repeat(15_000));
        let change = store.update("a", 1, ended(End::Failed(long), now), bounds).await.unwrap();
        assert_eq!(change, Change::Done);
    }

    #[tokio::test]
    async fn what_has_ended_expires_and_leaves_nothing() {
        let (store, now) = (MemoryStore::default(), SystemTime::now());
        store.create(vec![job("a", "m", 10), job("b", "m", 10)], ROOMY).await.unwrap();
        store.update("a", 1, failed(now), ROOMY).await.unwrap();
        assert!(store.expire(now + TTL - Duration::from_millis(1)).await.unwrap().is_empty());
        assert_eq!(store.expire(now + TTL).await.unwrap(), [State::Failed]);
        assert!(store.expire(now + TTL * 1000).await.unwrap().is_empty(), "b has not ended");
        store.delete("b", 1).await.unwrap();
        let inner = store.lock();
        assert_eq!((inner.bytes, inner.jobs.len(), inner.numbers.len(), inner.expiry.len()), (0, 0, 0, 0));
    }

    #[tokio::test]
    async fn pages_hold_still_while_jobs_come_and_go() {
        let store = MemoryStore::default();
        for n in 0..6 {
            let model = if n % 2 == 0 { "even" } else { "odd" };
            store.create(vec![job(&n.to_string(), model, 10)], ROOMY).await.unwrap();
        }
        let page = |after| Filter { after, limit: 2, ..Filter::default() };
        let (first, next) = ids(&store, page(None)).await;
        assert_eq!(first, ["5", "4"]);
        store.create(vec![job("6", "even", 10)], ROOMY).await.unwrap();
        // One is the last of the page, the other is still to come.
        store.delete("4", 1).await.unwrap();
        store.delete("2", 1).await.unwrap();
        let (second, next) = ids(&store, page(next)).await;
        assert_eq!((second, next.is_some()), (vec!["3".to_owned(), "1".to_owned()], true));
        assert_eq!(ids(&store, page(next)).await, (vec!["0".to_owned()], None));
        let even = Filter { model: Some("even".into()), limit: 10, ..Filter::default() };
        assert_eq!(ids(&store, even).await, (vec!["6".to_owned(), "0".to_owned()], None));
        let none = Filter { state: Some(State::Running), limit: 10, ..Filter::default() };
        assert_eq!(ids(&store, none).await, (vec![], None));
    }
}
