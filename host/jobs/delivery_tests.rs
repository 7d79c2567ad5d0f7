//! What every store must do with deliveries, tried on each store of this machine.

use super::contract_tests::{ROOMY, change, create, create_one, fail, id, new_job, on_each, read};
use super::durable::{DurableStore, FolderDisk};
use super::examples::LONG;
use super::job::{Job, Spec, State};
use super::webhooks::{Delivery, DeliveryClaim, DeliveryOutcome, DeliveryState, Settlement, Webhook};
use super::{Change, JobStore, NewJob};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

fn with_webhook(name: &str, receiver: &str) -> NewJob {
    let webhook = Webhook { url: format!("{receiver}/hook").into(), receiver: receiver.into() };
    let new = new_job(name, "m", 10);
    NewJob { spec: Arc::new(Spec { webhook: Some(webhook), ..(*new.spec).clone() }), ..new }
}

/// Creates a job with a webhook and ends it.
async fn ended_with_webhook(store: &dyn JobStore, name: &str, receiver: &str) -> Job {
    create(store, vec![with_webhook(name, receiver)], ROOMY).await.unwrap();
    let job = read(store, name).await;
    assert_eq!(fail(store, &job, LONG).await, Change::Done);
    read(store, name).await
}

async fn deliveries(store: &dyn JobStore, limit: usize, lease: Duration) -> Vec<Delivery> {
    let capacity: super::ReceiverCapacity = Arc::new(|_| 1);
    store.claim_deliveries(DeliveryClaim { limit, lease, capacity }).await.unwrap()
}

async fn settle(store: &dyn JobStore, claimed: &Delivery, outcome: DeliveryOutcome) -> Change {
    let (number, fence, attempts) = (claimed.number, claimed.fence, claimed.attempts + 1);
    store.settle_delivery(Settlement { number, fence, attempts, outcome }).await.unwrap()
}

#[tokio::test]
async fn the_end_of_a_job_adds_a_delivery_that_outlives_it() {
    on_each(async |store| {
        create(store, vec![with_webhook("a", "http://r")], ROOMY).await.unwrap();
        assert!(deliveries(store, 9, LONG).await.is_empty(), "the job has not ended");
        let job = read(store, "a").await;
        fail(store, &job, Duration::ZERO).await;
        assert_eq!(store.expire(10).await.unwrap(), 1);
        assert!(store.usage().bytes > 0, "deliveries take room");
        let claimed = deliveries(store, 9, LONG).await;
        assert_eq!((claimed.len(), &claimed[0].job, claimed[0].state), (1, &job.id, State::Failed));
        assert_eq!(&*claimed[0].webhook.url, "http://r/hook");
        assert_eq!(store.next_delivery(None), store.next_delivery(Some(store.now())), "it is claimed");
        // Its number is not used for another job meanwhile.
        assert!(create_one(store, "b").await.number > job.number);
        store.delete(id("b"), 1).await.unwrap();
        assert_eq!(settle(store, &claimed[0], DeliveryOutcome::Delivered).await, Change::Done);
        assert_eq!(settle(store, &claimed[0], DeliveryOutcome::Delivered).await, Change::Stale);
        assert_eq!((store.usage().deliveries, store.usage().bytes, store.next_delivery(None)), (0, 0, None));
    })
    .await;
}

#[tokio::test]
async fn a_job_shows_its_delivery_and_gets_one_only() {
    on_each(async |store| {
        let job = ended_with_webhook(store, "a", "http://r").await;
        // The end of the work is recorded later, which is no second end of the job.
        assert_eq!(change(store, &job, job.status.clone(), None, ROOMY).await.unwrap(), Change::Done);
        assert_eq!(store.usage().deliveries, 1);
        let first = deliveries(store, 9, LONG).await.remove(0);
        let retry = DeliveryOutcome::Retry { error: "busy".into(), due: store.now() };
        assert_eq!(settle(store, &first, retry.clone()).await, Change::Done);
        let shown = read(store, "a").await;
        let delivery = shown.delivery.clone().expect("an attempt was made");
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Pending, 1));
        assert_eq!((delivery.last_error.as_deref(), shown.revision), (Some("busy"), job.revision + 2));
        let second = deliveries(store, 9, LONG).await.remove(0);
        assert_eq!((second.attempts, second.last_error.as_deref()), (1, Some("busy")));
        assert_eq!(settle(store, &first, retry).await, Change::Stale, "another claim was made");
        let failed = DeliveryOutcome::Failed { error: "gone".into() };
        assert_eq!(settle(store, &second, failed).await, Change::Done);
        let delivery = read(store, "a").await.delivery.expect("two attempts were made");
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Failed, 2));
        assert_eq!(delivery.last_error.as_deref(), Some("gone"));
        assert_eq!(store.usage().deliveries, 0);
        create_one(store, "b").await;
        fail(store, &read(store, "b").await, LONG).await;
        assert_eq!(store.usage().deliveries, 0, "it has no webhook");
    })
    .await;
}

#[tokio::test]
async fn a_delivery_whose_claim_lapses_is_due_again_and_receivers_take_turns() {
    on_each(async |store| {
        for name in ["a", "b", "c"] {
            ended_with_webhook(store, name, "http://one").await;
        }
        ended_with_webhook(store, "d", "http://two").await;
        let lapsed = deliveries(store, 1, Duration::ZERO).await.remove(0);
        let names = async |limit| {
            let claimed = deliveries(store, limit, LONG).await;
            claimed.into_iter().map(|delivery| delivery.job).collect::<Vec<_>>()
        };
        assert_eq!(lapsed.job, id("a"));
        assert_eq!(names(1).await, [id("d")], "the other receiver is served first");
        let mut rest = Vec::new();
        for _ in 0..3 {
            rest.extend(names(9).await);
        }
        rest.sort_unstable();
        assert_eq!(rest, [id("a"), id("b"), id("c")], "there is room for one at a time");
        assert!(names(9).await.is_empty());
        assert_eq!(settle(store, &lapsed, DeliveryOutcome::Delivered).await, Change::Stale);
    })
    .await;
}

#[tokio::test]
async fn the_number_of_a_job_with_a_delivery_is_not_used_again_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        let store =
            DurableStore::start(Arc::new(FolderDisk::new(folder.path().join("jobs"))), Handle::current())
                .unwrap();
        // The one before may still be letting go of the folder.
        let mut ready = store.ready();
        while store.opened().await.is_some() {
            ready.changed().await.unwrap();
        }
        store
    };
    let store = open().await;
    let job = ended_with_webhook(&store, "a", "http://r").await;
    store.delete(Arc::clone(&job.id), job.revision).await.unwrap();
    store.close().await;
    drop(store);
    let store = open().await;
    assert!(create_one(&store, "b").await.number > job.number);
    let claimed = deliveries(&store, 9, LONG).await;
    assert_eq!((claimed.len(), &claimed[0].job), (1, &job.id));
    store.close().await;
}
