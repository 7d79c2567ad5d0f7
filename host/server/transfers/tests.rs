//! The budget without sockets: what counts, what is refused, what is aborted.

use super::budget::{IDLE, SMALL_BYTES, YOUNG};
use super::pace::Pace;
use super::*;
use crate::metrics::Metrics;
use crate::policy::manifest::Server;
use crate::policy::settings::Settings;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const MB: usize = 1 << 20;

fn transfers() -> Arc<Transfers> {
    let server = Server { max_buffered_mb: Some(16), ..Server::default() };
    let limits = Settings::from_manifest(&server, Path::new("")).unwrap().limits;
    Transfers::new(limits, Arc::new(Metrics::new()))
}

/// Notes whether it was aborted.
#[derive(Default)]
struct Ended(AtomicBool);

impl Abort for Ended {
    fn abort(&self) {
        self.0.store(true, Relaxed);
    }
}

fn answer(transfers: &Arc<Transfers>) -> (Arc<Transfer>, Arc<Ended>) {
    let ended = Arc::new(Ended::default());
    (Transfer::answer(transfers, Arc::clone(&ended) as Arc<dyn Abort>, None), ended)
}

/// Makes the pace of all transfers begin this long ago.
fn age(transfers: &Transfers, by: Duration) {
    let now = Instant::now();
    for (_, entry) in &mut transfers.table().entries {
        entry.pace = Pace::new(now.checked_sub(by).expect("the machine runs for longer"));
    }
}

fn used(transfers: &Transfers) -> usize {
    transfers.used.load(Relaxed)
}

#[test]
fn a_request_counts_until_its_last_part_is_dropped() {
    let transfers = transfers();
    let mut receiving = Receiving::new(&transfers);
    receiving.try_hold(MB, Some(2 * MB)).unwrap();
    receiving.try_hold(2 * MB - 1, Some(2 * MB)).unwrap();
    let body = receiving.finish(vec![7; 2 * MB].into());
    let part = body.slice(5..9);
    drop(body);
    assert_eq!((used(&transfers), &part[..]), (2 * MB - 1, &[7; 4][..]));
    drop(part);
    assert_eq!(used(&transfers), 0);
    assert!(transfers.table().entries.is_empty());
    assert_eq!(transfers.metrics.transfers.buffered_bytes.get(), 0);
}

#[test]
fn what_is_full_refuses_large_requests_and_keeps_a_reserve_for_small_ones() {
    let transfers = transfers();
    let mut first = Receiving::new(&transfers);
    first.try_hold(16 * MB, None).unwrap();
    // The first transfer has just begun, so it is not slow.
    let mut large = Receiving::new(&transfers);
    let error = large.try_hold(SMALL_BYTES + 1, None).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Overloaded);
    assert!(error.message().contains("holds 16 MB"), "{error}");
    let mut small: Vec<_> = (0..16).map(|_| Receiving::new(&transfers)).collect();
    small.iter_mut().for_each(|small| small.try_hold(SMALL_BYTES, None).unwrap());
    assert!(Receiving::new(&transfers).try_hold(1, Some(1)).is_err(), "the reserve is used up as well");
    drop(small);
    drop(first);
    large.try_hold(SMALL_BYTES + 1, None).unwrap();
    drop(large);
    assert_eq!(used(&transfers), 0);
}

#[test]
fn the_slowest_transfer_makes_room_and_what_is_fast_or_at_work_stays() {
    let transfers = transfers();
    let mut at_work = Receiving::new(&transfers);
    at_work.try_hold(4 * MB, None).unwrap();
    let at_work = at_work.finish(Bytes::from(vec![0; 4 * MB]));
    let (fast, fast_ended) = answer(&transfers);
    let fast_hold = fast.hold(4 * MB);
    let (slow, slow_ended) = answer(&transfers);
    let slow_hold = slow.hold(4 * MB);
    let (slower, slower_ended) = answer(&transfers);
    let slower_hold = slower.hold(4 * MB);
    std::thread::sleep(YOUNG.max(IDLE));
    age(&transfers, Duration::from_secs(1));
    fast.moved(64 * MB);
    slow.moved(1000);
    slower.moved(100);

    let mut new = Receiving::new(&transfers);
    new.try_hold(4 * MB, None).unwrap();
    let ended = |ended: &Ended| ended.0.load(Relaxed);
    assert!(ended(&slower_ended) && !ended(&slow_ended) && !ended(&fast_ended));
    assert_eq!(used(&transfers), 16 * MB, "what was aborted holds nothing any more");
    drop(slower_hold);
    assert_eq!(used(&transfers), 16 * MB, "and gives nothing back a second time");

    let (large, _) = answer(&transfers);
    let large_hold = large.hold(8 * MB);
    assert!(ended(&slow_ended) && !ended(&fast_ended));
    assert_eq!(used(&transfers), 20 * MB, "an answer is in memory already, whether it fits or not");
    assert!(Receiving::new(&transfers).try_hold(4 * MB, None).is_err());
    drop((slow_hold, fast_hold, large_hold, at_work, new));
    assert_eq!(used(&transfers), 0);
    let aborted = transfers.metrics.transfers.aborted.with_label_values(&["answer", "limit"]);
    assert_eq!(aborted.get(), 2);
}

#[tokio::test]
async fn a_slow_request_is_told_so() {
    let transfers = transfers();
    let mut receiving = Receiving::new(&transfers);
    receiving.try_hold(1000, Some(MB)).unwrap();
    let waiting = receiving.unless_aborted(std::future::pending::<()>());
    let swept = async {
        age(&transfers, Duration::from_secs(6));
        transfers.sweep();
    };
    let (waited, ()) = tokio::join!(waiting, swept);
    let error = waited.unwrap_err();
    assert_eq!((error.kind(), error.field_name()), (crate::error::Kind::Deadline, Some("body")));
    assert!(error.message().contains("less than 1024 bytes/s"), "{error}");
    assert_eq!(used(&transfers), 0);
}

#[test]
fn an_answer_that_is_not_taken_is_given_up() {
    let transfers = transfers();
    let (transfer, ended) = answer(&transfers);
    let hold = transfer.hold(MB);
    age(&transfers, transfers.stall_max().saturating_sub(Duration::from_secs(1)));
    transfers.sweep();
    assert!(!ended.0.load(Relaxed));
    transfers.drain();
    transfers.table().swept = None;
    transfers.sweep();
    assert!(ended.0.load(Relaxed), "while the host drains it has less time");
    drop(hold);
    assert_eq!(used(&transfers), 0);
}

#[tokio::test]
async fn an_answer_counts_until_its_last_piece_is_sent() {
    let transfers = transfers();
    let (transfer, _) = answer(&transfers);
    let mut outgoing = Outgoing::new(&transfer, MB, vec![1; MB].into());
    let pieces: Vec<Bytes> = std::iter::from_fn(|| outgoing.next()).collect();
    assert_eq!((pieces.len(), outgoing.remaining()), (MB / PIECE_BYTES, 0));
    assert_eq!(pieces.concat(), vec![1; MB]);
    let is_sent = |outgoing: &Outgoing| {
        let waker = futures_util::task::noop_waker();
        outgoing.poll_sent(&mut std::task::Context::from_waker(&waker)).is_ready()
    };
    assert!(!is_sent(&outgoing));
    drop(pieces);
    assert!(is_sent(&outgoing) && used(&transfers) == MB);
    drop(outgoing);
    assert_eq!(used(&transfers), 0);
    assert_eq!(transfer.state.moved.load(Relaxed), MB as u64);
}
