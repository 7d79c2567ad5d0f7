//! Tests the queue of a worker pool: turns of tenants, batches, begun work, evictions.

use super::job::Job;
use super::queue::{Eviction, Queue};
use crate::error::Result;
use crate::executor::batching::Batching;
use crate::executor::call::{Call, Precedence, STREAM_BUFFER};
use crate::executor::callable::{BoxFuture, CallProfile, Callable};
use crate::executor::sink::Sink;
use crate::predict::{
    CallContext, Datatype, Metadata, Payload, Priority, Responses, Tensor, TensorSpec, channel,
};
use crate::tenants::{TenantShare, test_share};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A model of rows that is never called.
struct Uncalled(Metadata);

impl Callable for Uncalled {
    fn metadata(&self) -> &Metadata {
        &self.0
    }

    fn profile(&self) -> CallProfile {
        CallProfile::Blocking
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn call<'a>(
        &'a self,
        _: &'a Arc<CallContext>,
        _: Vec<Tensor>,
        _: &'a mut Sink,
    ) -> BoxFuture<'a, Result<Option<Vec<Tensor>>>> {
        unreachable!("the queue runs nothing")
    }
}

struct Fixture {
    queue: Queue,
    callable: Arc<dyn Callable>,
    batching: Option<Batching>,
    /// Kept, so that no job counts as abandoned.
    responses: Vec<Responses>,
    now: Instant,
}

impl Fixture {
    fn new(batching: Option<Batching>) -> Self {
        let spec = TensorSpec {
            name: "x".into(),
            datatype: Datatype::Uint8,
            shape: [-1].as_slice().into(),
            optional: false,
        };
        let metadata = Metadata { inputs: vec![spec], outputs: Vec::new(), streaming: false };
        let callable = Arc::new(Uncalled(metadata));
        Fixture { queue: Queue::default(), callable, batching, responses: Vec::new(), now: Instant::now() }
    }

    fn job(
        &mut self,
        tenant: &TenantShare,
        id: &str,
        rows: i64,
        priority: u64,
        precedence: Precedence,
    ) -> Job {
        let mut context = CallContext::new(id.into(), "m".into(), "1".into(), None);
        context.tenant = tenant.clone();
        context.priority = Priority::asked(priority);
        let context = Arc::new(context);
        let data = vec![0; rows as usize].into();
        let tensor = Tensor::new("x", Datatype::Uint8, [rows].into_iter().collect(), data).unwrap();
        let call = Call {
            context: Arc::clone(&context),
            input: Payload::Tensors(vec![tensor]),
            transformer: None,
            callable: Arc::clone(&self.callable),
            batching: self.batching,
            runs: None,
            precedence,
        };
        let (sender, responses) = channel(context, STREAM_BUFFER);
        self.responses.push(responses);
        self.now += Duration::from_micros(1);
        Job::call(call, sender, self.now)
    }

    fn push(&mut self, tenant: &TenantShare, id: &str, rows: i64) {
        let job = self.job(tenant, id, rows, 0, Precedence::New);
        self.queue.push(job.into());
    }

    /// Takes all jobs, as runs of one worker, and returns their ids.
    fn runs(&mut self) -> Vec<Vec<String>> {
        let mut runs = Vec::new();
        while let Ok(job) = self.queue.next(true) {
            let mut jobs = vec![job];
            if let Some(batching) = self.batching {
                self.queue.join(&mut jobs, batching, 0);
            }
            runs.push(jobs.iter().map(|job| job.context().id.to_string()).collect());
        }
        runs
    }
}

/// Counts the ids that begin with this letter.
fn count(ids: &[String], letter: char) -> usize {
    ids.iter().filter(|id| id.starts_with(letter)).count()
}

#[test]
fn workers_are_divided_by_weight_and_rows() {
    for (rows, expected) in [((1, 1), 10), ((3, 1), 4)] {
        let mut fixture = Fixture::new(None);
        let (a, b) = (test_share("a", 1), test_share("b", 3));
        for number in 0..40 {
            fixture.push(&a, &format!("a{number}"), rows.0);
        }
        for number in 0..40 {
            fixture.push(&b, &format!("b{number}"), rows.1);
        }
        let order = fixture.runs().concat();
        assert!(
            order[..40].len() == 40 && count(&order[..40], 'a').abs_diff(expected) <= 1,
            "{rows:?} {order:?}"
        );
        assert_eq!(order.len(), 80);
    }
}

#[test]
fn tenants_share_batches_by_weight() {
    let mut fixture = Fixture::new(Some(Batching { max_size: 8, max_delay: Duration::ZERO }));
    let (a, b) = (test_share("a", 1), test_share("b", 3));
    for number in 0..24 {
        fixture.push(&a, &format!("a{number}"), 1);
    }
    for number in 0..24 {
        fixture.push(&b, &format!("b{number}"), 1);
    }
    let runs = fixture.runs();
    assert!(runs.iter().all(|run| run.len() == 8), "{runs:?}");
    for run in &runs[..4] {
        assert_eq!((count(run, 'a'), count(run, 'b')), (2, 6), "{runs:?}");
    }
    // A large batch request of one tenant does not keep the other one out of its runs.
    let calls: Vec<Job> =
        (0..32).map(|number| fixture.job(&a, &format!("a{number}"), 1, 0, Precedence::New)).collect();
    fixture.queue.push(std::collections::VecDeque::from(calls).into());
    for number in 0..6 {
        fixture.push(&b, &format!("b{number}"), 1);
    }
    assert_eq!(count(&fixture.runs()[0], 'b'), 6);
}

#[test]
fn begun_work_comes_first_within_its_tenant_only() {
    let mut fixture = Fixture::new(None);
    let (a, b) = (test_share("a", 1), test_share("b", 1));
    for number in 0..4 {
        fixture.push(&a, &format!("a-new{number}"), 1);
        fixture.push(&b, &format!("b-new{number}"), 1);
    }
    for number in 0..4 {
        let since = fixture.now;
        let job = fixture.job(&a, &format!("a-begun{number}"), 1, 9, Precedence::Started(since));
        fixture.queue.push(job.into());
    }
    assert_eq!((fixture.queue.len(), fixture.queue.started_len()), (8, 4));
    let order = fixture.runs().concat();
    let begun: Vec<_> = order.iter().filter(|id| id.starts_with('a')).take(4).collect();
    assert!(begun.iter().all(|id| id.contains("begun")), "{order:?}");
    assert_eq!(count(&order[..8], 'b'), 4, "the other tenant has its share: {order:?}");
    assert_eq!((fixture.queue.len(), fixture.queue.started_len()), (0, 0));
}

#[test]
fn a_full_queue_evicts_the_newest_of_the_tenant_most_over_its_share() {
    let mut fixture = Fixture::new(None);
    let (flood, quiet) = (test_share("flood", 1), test_share("quiet", 1));
    let since = fixture.now;
    let begun = fixture.job(&flood, "flood-begun", 1, 0, Precedence::Started(since));
    fixture.queue.push(begun.into());
    for number in 0..3 {
        fixture.push(&flood, &format!("flood{number}"), 1);
    }
    let mut evicted = Vec::new();
    for id in ["quiet0", "quiet1", "quiet2"] {
        let job = fixture.job(&quiet, id, 1, 0, Precedence::New);
        match fixture.queue.evict_for(job.into()) {
            Eviction::Of(admission) => evicted.push(admission.front().unwrap().context().id.to_string()),
            Eviction::Refused(_) => evicted.push(format!("{id} itself")),
        }
    }
    assert_eq!(evicted, ["flood2", "quiet1 itself", "quiet2 itself"], "2 and 1, then 2 and 2");
    // Of two threads, the one that came first may be second at the queue. It evicts nobody.
    let mut fixture = Fixture::new(None);
    let early = fixture.job(&flood, "early", 1, 0, Precedence::New);
    fixture.push(&flood, "late", 1);
    assert!(matches!(fixture.queue.evict_for(early.into()), Eviction::Refused(_)));
    // Of a batch request, what has not run is evicted, and not for the host's own work.
    let mut fixture = Fixture::new(None);
    let calls: Vec<Job> =
        (0..4).map(|number| fixture.job(&flood, &format!("flood{number}"), 1, 0, Precedence::New)).collect();
    fixture.queue.push(std::collections::VecDeque::from(calls).into());
    assert!(fixture.queue.next(true).is_ok_and(|job| &*job.context().id == "flood0"));
    fixture.push(&flood, "newest", 1);
    let job = fixture.job(&TenantShare::default(), "own", 1, 0, Precedence::New);
    assert!(matches!(fixture.queue.evict_for(job.into()), Eviction::Refused(_)));
    let job = fixture.job(&quiet, "quiet", 1, 0, Precedence::New);
    let Eviction::Of(evicted) = fixture.queue.evict_for(job.into()) else { panic!("it is below its share") };
    let rest: Vec<_> = evicted.into_jobs().map(|job| job.context().id.to_string()).collect();
    assert_eq!(rest, ["flood1", "flood2", "flood3"], "they wait behind what was new when the first one ran");
}

#[test]
fn priorities_order_a_tenant_and_not_the_others() {
    let mut fixture = Fixture::new(None);
    let (a, b) = (test_share("a", 1), test_share("b", 1));
    for (tenant, id, priority) in
        [(&a, "a-last", 9), (&a, "a-usual", 5), (&a, "a-first", 1), (&b, "b-last", 9), (&b, "b-first", 1)]
    {
        let job = fixture.job(tenant, id, 1, priority, Precedence::New);
        fixture.queue.push(job.into());
    }
    assert_eq!(fixture.runs().concat(), ["a-first", "b-first", "a-usual", "b-last", "a-last"]);
    // What has waited for long comes before a higher priority that is new.
    let old = fixture.job(&a, "old", 1, 9, Precedence::New);
    fixture.queue.push(old.into());
    fixture.now += Duration::from_secs(3);
    let new = fixture.job(&a, "new", 1, 1, Precedence::New);
    fixture.queue.push(new.into());
    assert_eq!(fixture.runs().concat(), ["old", "new"]);
}
