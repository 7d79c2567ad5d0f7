//! Tests streaming models under load and with faults: many concurrent calls, clients that
//! disconnect, guests that ignore cancellation, trap or spin, and instances that are replaced.

use crate::support::streaming::{
    Stream, ask, at_once, connect, elements, leave_again_and_again, repeat, request, send,
};
use crate::support::{Host, Usage, eventually, is_soak, replace};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn none() -> Value {
    json!({})
}

fn deed(name: &str) -> Value {
    request(&[0, 0], 0, json!({"do": name, "at": 1}))
}

/// Returns `many` in a soak, `few` otherwise.
fn rounds(few: usize, many: usize) -> usize {
    if is_soak() { many } else { few }
}

/// Checks that the host serves as before and that no earlier call is still in flight.
fn unharmed(host: &Host) {
    host.wait_for_idle("cpu");
    assert_eq!(elements(&ask(host, &request(&[0, 1], 1, none()))), [100, 101]);
    host.wait_for_idle("cpu");
}

/// Waits until threads, files and memory are back at their earlier numbers.
fn nothing_grew(host: &Host, before: Usage) {
    let as_before = || {
        let after = host.usage();
        let few = after.threads <= before.threads && after.files <= before.files + 4;
        (few && after.rss_kb < before.rss_kb + (64 << 10)).then(|| println!("{before:?}, then {after:?}"))
    };
    eventually("all being given back", as_before, || format!("{before:?} {:?}", host.usage()));
}

fn instances(host: &Host) -> f64 {
    host.metric("hostler_plugin_instances{plugin=\"repeat\"}")
}

#[test]
fn a_thousand_requests_wait_in_one_instance() {
    let host = repeat("", "");
    let (answers, took) = at_once(&host, 1000, &request(&[], 50, none()));
    assert!(answers.iter().all(|(status, lines)| *status == 200 && lines.is_empty()));
    println!("1,000 waits of 50 ms: {took:?}");
    assert!(took < Duration::from_secs(25), "one after the other they take 50 s: {took:?}");
    assert_eq!(instances(&host), 1.0);
    unharmed(&host);
}

#[test]
fn fifty_streams_go_on_side_by_side() {
    let host = repeat("", "");
    let (answers, took) = at_once(&host, 50, &request(&[50; 20], 0, none()));
    let wanted: Vec<i64> = (100..120).collect();
    assert!(answers.iter().all(|(_, lines)| elements(lines) == wanted));
    println!("50 streams of 20 responses 50 ms apart: {took:?}");
    assert!(took < Duration::from_secs(25), "one after the other they take 50 s: {took:?}");
}

#[test]
fn who_leaves_frees_the_place_even_if_the_guest_takes_no_notice() {
    let host = repeat("grace_ms = 50\nmax_in_flight = 8", "");
    let mut before = None;
    for name in ["hang", "stay", "none"] {
        leave_again_and_again(&host, name, rounds(8, 400));
        unharmed(&host);
        // Memory that the first rounds allocated stays, so it counts as the baseline.
        before.get_or_insert_with(|| host.usage());
    }
    nothing_grew(&host, before.expect("set by the first one"));
}

#[test]
fn instances_full_of_stranded_calls_are_replaced() {
    let host = repeat("grace_ms = 1", "");
    for _ in 0..3 {
        for _ in 0..100 {
            let mut left = Stream::open(host.http, &deed("hang"), "*/*");
            left.part().unwrap().expect("the first response");
        }
        host.wait_for_idle("cpu");
    }
    unharmed(&host);
    host.wait_for_log(&["too many abandoned calls"]);
    eventually("the old instance being gone", || (instances(&host) == 1.0).then_some(()), || host.log());
    unharmed(&host);
}

#[test]
fn a_timeout_of_the_plugin_ends_the_stream_with_an_error() {
    let host = repeat("timeout_ms = 200", "");
    let lines = ask(&host, &request(&[0, 600_000], 0, none()));
    assert_eq!((elements(&lines), &lines[1]["error"]["kind"]), (vec![100], &json!("deadline")));
    let mut body = request(&[0, 30_000], 0, none());
    body["timeout_ms"] = json!(50);
    let lines = ask(&host, &body);
    assert_eq!((elements(&lines), &lines[1]["error"]["kind"]), (vec![100], &json!("deadline")));
    unharmed(&host);
}

/// Returns the last line of a call that does `name`, the answers of a hundred concurrent calls, and
/// the time until a call succeeds again.
fn beside(host: &Host, name: &str, waiting: &Value) -> (Value, Vec<(u16, Vec<Value>)>, Duration) {
    let mut open: Vec<_> = (0..100).map(|_| connect(host.http).unwrap()).collect();
    let started = Instant::now();
    open.iter_mut().for_each(|stream| send(stream, waiting, "*/*").unwrap());
    host.wait_for_policy("a hundred that wait", |policy| policy["executors"]["cpu"]["inflight"] == 100);
    let own = ask(host, &deed(name)).pop().expect("an error at the end");
    let lost = Instant::now();
    assert_eq!(elements(&ask(host, &request(&[0], 0, none()))), [100]);
    let restored = lost.elapsed();
    let answer = |stream| {
        let stream = Stream::receive(stream, started).expect("an answer");
        (stream.status, stream.lines())
    };
    (own, open.into_iter().map(answer).collect(), restored)
}

#[test]
fn a_lost_instance_costs_those_beside_it_a_clear_error() {
    let host = repeat("turn_ms = 20", "");
    for (name, part) in [("trap", "panicked"), ("spin", "turn_ms")] {
        let (own, others, restored) = beside(&host, name, &request(&[60_000], 0, none()));
        println!("{name}: served again after {restored:?}");
        assert_eq!(own["error"]["kind"], "failed", "{own}");
        assert!(own["error"]["message"].as_str().unwrap().contains(part), "{own}");
        for (status, lines) in others {
            assert_eq!(status, 503, "{lines:?}");
            let message = lines[0]["error"]["message"].as_str().unwrap();
            assert!(
                message.contains("the instance crashed while serving another request")
                    && message.contains(part),
                "{message}"
            );
        }
        unharmed(&host);
    }
}

#[test]
fn idempotent_requests_that_have_sent_nothing_run_again() {
    let host = repeat("turn_ms = 20", "idempotent = true");
    for name in ["trap", "spin"] {
        let (own, others, _) = beside(&host, name, &request(&[1000], 0, none()));
        assert_eq!(own["error"]["kind"], "failed", "{own}");
        assert!(
            others.iter().all(|(status, lines)| *status == 200 && elements(lines) == [100]),
            "{others:?}"
        );
        unharmed(&host);
    }
}

#[test]
fn round_after_round_leaves_nothing_behind() {
    let host = repeat("turn_ms = 20", "");
    let mut before = host.usage();
    for round in 0..rounds(20, 1000) {
        for name in ["trap", "spin"] {
            assert_eq!(ask(&host, &deed(name))[1]["error"]["kind"], "failed");
            unharmed(&host);
        }
        if round == 5 {
            before = host.usage();
        }
    }
    nothing_grew(&host, before);
    assert_eq!(instances(&host), 1.0);
    assert!(!host.log().contains("replica restarting"), "{}", host.log());
}

#[test]
fn swaps_break_no_stream_and_mix_none() {
    let host = repeat("", "");
    let manifest = std::fs::read_to_string(host.path("hostler.toml")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let body = request(&[10; 10], 0, none());
    let open: Vec<_> = (0..rounds(20, 200))
        .map(|_| {
            let (stop, address, body) = (Arc::clone(&stop), host.http, body.clone());
            std::thread::spawn(move || {
                let mut streams = 0;
                while !stop.load(Ordering::Relaxed) {
                    let lines = Stream::open(address, &body, "*/*").lines();
                    let elements = elements(&lines);
                    // All elements are from one version.
                    let first = *elements.first().unwrap_or_else(|| panic!("{lines:?}"));
                    assert_eq!(elements, (first..first + 10).collect::<Vec<_>>(), "{lines:?}");
                    streams += 1;
                }
                streams
            })
        })
        .collect();
    for swap in 1..=rounds(20, 200) {
        let config = format!("{manifest}\n[plugins.repeat.config]\noffset = \"{}\"\n", swap * 1000);
        replace(&host.path("hostler.toml"), config.as_bytes());
        let answer = host.admin_post("/admin/reload");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    stop.store(true, Ordering::Relaxed);
    let streams: usize = open.into_iter().map(|thread| thread.join().expect("no stream broke")).sum();
    println!("{streams} streams through {} swaps", rounds(20, 200));
    unharmed_but_for(&host, rounds(20, 200) as i64 * 1000);
    // The live version and the previous one.
    eventually("old instances being gone", || (instances(&host) <= 2.0).then_some(()), || host.log());
}

fn unharmed_but_for(host: &Host, offset: i64) {
    host.wait_for_idle("cpu");
    assert_eq!(elements(&ask(host, &request(&[0], 0, none()))), [100 + offset]);
}
