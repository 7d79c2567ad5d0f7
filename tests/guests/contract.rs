//! Tests the contract of streaming models, rule by rule. Behaviour under load is tested in
//! `streaming_faults`, calls between models in `streaming_calls`.

use crate::support::streaming::{Stream, ask, at_once, elements, leave_again_and_again, repeat, request};
use crate::support::{Host, Setup, eventually, exposition, jobs, never_seen, plugin, replace};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn none() -> Value {
    json!({})
}

fn deed(name: &str) -> Value {
    request(&[0, 0], 0, json!({"do": name, "at": 1}))
}

/// Opens a stream that has sent its first response and waits before the second.
fn waiting(host: &Host) -> Stream {
    let mut stream = Stream::open(host.http, &request(&[0, 60_000], 0, none()), "*/*");
    stream.part().unwrap().expect("the first response");
    stream
}

/// Checks that the host serves as before and that no earlier call is still in flight.
fn unharmed(host: &Host) {
    host.wait_for_idle("cpu");
    assert_eq!(elements(&ask(host, &request(&[0, 1], 1, none()))), [100, 101]);
    host.wait_for_idle("cpu");
}

fn replicas(host: &Host) -> Vec<Value> {
    host.policy()["plugins"]["repeat"]["replicas"].as_array().expect("the replicas").clone()
}

fn state(host: &Host) -> String {
    replicas(host)[0]["state"].as_str().expect("a state").to_owned()
}

/// Returns whether the model is ready; all readiness routes must agree.
fn is_ready(host: &Host) -> bool {
    let told = ["/v2/models/repeat/ready", "/v2/health/ready", "/ready"].map(|path| host.get(path).status);
    assert!(told == [200; 3] || told == [503; 3], "they disagree: {told:?}");
    told == [200; 3]
}

fn wait_for_ready(host: &Host, ready: bool) {
    let ask = || {
        // While readiness changes, two routes may disagree, so only one is polled.
        let status = host.get("/v2/models/repeat/ready").status;
        ((status == 200) == ready).then_some(())
    };
    eventually(&format!("ready = {ready}"), ask, || host.log());
}

/// Swaps the plugin to a new generation with `lines` as its configuration.
fn swap(host: &Host, lines: &str) -> Value {
    let manifest = std::fs::read_to_string(host.path("hostler.toml")).unwrap();
    let manifest = manifest.split("[plugins.repeat.config]").next().unwrap();
    let manifest = format!("{manifest}\n[plugins.repeat.config]\n{lines}\n");
    replace(&host.path("hostler.toml"), manifest.as_bytes());
    host.admin_post("/admin/reload").json()
}

#[test]
fn fifty_requests_wait_side_by_side_in_one_instance() {
    let host = repeat("", "");
    let (answers, took) = at_once(&host, 50, &request(&[0], 400, none()));
    assert!(answers.iter().all(|(status, lines)| *status == 200 && elements(lines) == [100]), "{answers:?}");
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(took < Duration::from_secs(15), "one after the other they take 20 s: {took:?}");
    assert_eq!(replicas(&host).len(), 1);
}

#[test]
fn a_short_request_sent_after_a_long_one_answers_first() {
    let host = repeat("", "");
    let mut long = Stream::open(host.http, &request(&[0, 600_000], 0, none()), "*/*");
    long.part().unwrap().expect("it has begun");
    let short = Stream::open(host.http, &request(&[200], 0, none()), "*/*");
    assert_eq!(short.rest().len(), 1);
    drop(long);
    host.wait_for_idle("cpu");
}

#[test]
fn models_with_exactly_one_response_wait_side_by_side_too() {
    let host = repeat("config = { single = \"1\" }", "");
    let body = request(&[400], 0, none()).to_string();
    let started = Instant::now();
    let threads: Vec<_> = (0..30)
        .map(|_| {
            let (mut client, body) = (host.client(), body.clone());
            std::thread::spawn(move || client.post("/predict", body))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap().result(), json!({"OUT": [100], "IDX": [0]}));
    }
    assert!(started.elapsed() < Duration::from_secs(10), "one after the other they take 12 s");
    // No response, or a second one, is the plugin's fault.
    let two = host.post("/predict", request(&[0, 0], 0, none()).to_string());
    two.refused(500, "failed", &["failed with unsupported", "exactly one response"]);
    let empty = host.post("/predict", request(&[], 0, none()).to_string());
    empty.refused(500, "failed", &["without a response"]);
}

#[test]
fn responses_come_after_those_of_requests_that_came_later_and_have_ended() {
    let host = repeat("", "");
    let mut first = Stream::open(host.http, &request(&[0, 600], 0, none()), "*/*");
    first.part().unwrap().expect("the first response");
    for _ in 0..3 {
        assert_eq!(elements(&ask(&host, &request(&[0, 0], 0, none()))), [100, 101]);
    }
    let (second, came) = first.part().unwrap().expect("the second response");
    assert!(second.contains("101") && came >= Duration::from_millis(600), "{second}");
    assert!(ask(&host, &request(&[], 10, none())).is_empty(), "a request may have none");
}

#[test]
fn an_error_closes_its_own_stream_and_no_other() {
    let host = repeat("", "");
    let mut other = Stream::open(host.http, &request(&[0, 300], 0, none()), "*/*");
    other.part().unwrap().expect("the first response");
    // An error before the first response has its own status; a later one ends the stream.
    let refused = Stream::open(host.http, &request(&[0, 0], 0, json!({"do": "fail", "at": 0})), "*/*");
    assert_eq!(refused.status, 500);
    assert!(refused.lines()[0]["error"]["message"].as_str().unwrap().contains("asked to fail"));
    let lines = ask(&host, &deed("fail"));
    assert_eq!((elements(&lines), &lines[1]["error"]["plugin"]), (vec![100], &json!("repeat")));
    assert_eq!(other.lines().len(), 1);
}

#[test]
fn calls_go_to_the_instance_with_the_fewest_and_over_the_cap_of_all_they_are_refused() {
    let host = repeat("max_in_flight = 2\nreplicas = 2", "");
    let mut open: Vec<Stream> = Vec::new();
    for most in [1, 1, 2, 2] {
        open.push(waiting(&host));
        let in_flight: Vec<u64> =
            replicas(&host).iter().map(|replica| replica["in_flight"].as_u64().unwrap()).collect();
        assert_eq!(
            (in_flight.iter().sum::<u64>(), *in_flight.iter().max().unwrap()),
            (open.len() as u64, most)
        );
    }
    let refused = Stream::open(host.http, &request(&[0], 0, none()), "*/*");
    assert_eq!(refused.status, 429);
    assert!(refused.lines()[0]["error"]["message"].as_str().unwrap().contains("max_in_flight"));
    // A lost instance fails its own calls and no others.
    open.truncate(2);
    eventually(
        "room",
        || (host.executor("cpu")["inflight"] == 2).then_some(()),
        || format!("{:?}", replicas(&host)),
    );
    ask(&host, &deed("trap"));
    let lost = open.into_iter().map(|mut stream| stream.part()).filter(|part| match part {
        Ok(Some((line, _))) => line.contains("the instance crashed while serving another request"),
        other => panic!("{other:?}"),
    });
    assert_eq!(lost.take(1).count(), 1);
}

#[test]
fn what_is_cancelled_is_stopped_even_if_the_guest_takes_no_notice() {
    let host = repeat("grace_ms = 50\nmax_in_flight = 8", "");
    for name in ["hang", "stay", "none"] {
        // One more than `max_in_flight`.
        leave_again_and_again(&host, name, 9);
    }
    unharmed(&host);
}

#[test]
fn a_second_cancel_and_one_after_the_end_change_nothing() {
    let host = repeat("config = { single = \"1\" }", "");
    let id = jobs::submit(&host, &request(&[60_000], 0, none()));
    host.wait_for_policy("the job running", |policy| policy["executors"]["cpu"]["inflight"] == 1);
    assert_eq!(jobs::cancel(&host, &id).status, 200);
    jobs::ended(&host, &id, "cancelled");
    assert_eq!(jobs::cancel(&host, &id).status, 409);
    host.wait_for_idle("cpu");
    let id = jobs::submit(&host, &request(&[0], 0, none()));
    let ended = jobs::ended(&host, &id, "succeeded");
    assert_eq!(jobs::cancel(&host, &id).status, 409);
    assert_eq!(jobs::show(&host, &id)["result"], ended["result"]);
}

#[test]
fn a_call_to_a_model_ends_when_its_handle_is_dropped() {
    let manifest = "[plugins.repeat]\npath = \"repeat.wasm\"\n\n[models.repeat]\nplugin = \"repeat\"\n\n\
                    [models.inner]\nplugin = \"repeat\"\n";
    let host = Setup::new(manifest).file("repeat.wasm", plugin("repeat")).start();
    let body = request(&[0, 60_000], 60_000, json!({"through": "inner", "take": 1}));
    let mut outer = Stream::open(host.http, &body, "*/*");
    outer.part().unwrap().expect("the first response");
    host.wait_for_policy("the outer call alone", |policy| policy["executors"]["cpu"]["inflight"] == 1);
    drop(outer);
    unharmed(&host);
}

#[test]
fn a_slow_reader_slows_its_guest_down() {
    let host = repeat("timeout_ms = 60000", "");
    let reader = Stream::open(host.http, &request(&[0, 0], 0, json!({"do": "flood", "at": 1})), "*/*");
    let sent = || host.metric("hostler_plugin_gauge_sent{plugin=\"repeat\"}");
    let last = std::cell::Cell::new(-1.0);
    // Buffers between guest and reader are bounded: once they are full, nothing more is sent.
    let stands_still = || {
        std::thread::sleep(Duration::from_millis(50));
        let now = sent();
        (last.replace(now) == now && now > 0.0).then_some(now)
    };
    let full = eventually("the guest waiting", stands_still, || host.log());
    unharmed_beside(&host);
    // The kernel has buffered much on both sides, and accepts more only once much of it has been
    // read.
    let reader = std::cell::RefCell::new(reader);
    let goes_on = || {
        (0..1000).for_each(|_| drop(reader.borrow_mut().part().unwrap().expect("more responses")));
        (sent() > full).then_some(())
    };
    eventually("the guest going on", goes_on, || format!("{full} sent"));
    drop(reader);
    unharmed(&host);
}

/// Checks that other requests are served while one waits.
fn unharmed_beside(host: &Host) {
    assert_eq!(elements(&ask(host, &request(&[0, 1], 1, none()))), [100, 101]);
}

#[test]
fn finalize_comes_after_the_drain_and_what_did_not_end_is_named() {
    let host = repeat("drain_ms = 300", "[plugins.repeat.config]\nmeter = \"1\"\n");
    let called = |place: &str| {
        let samples = exposition::read(&host.get("/metrics").text());
        let of = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get("place").is_some_and(|p| p == place)
        };
        let calls = samples.iter().filter(|((name, labels), _)| name.ends_with("calls_total") && of(labels));
        calls.map(|(_, value)| value).sum::<f64>()
    };
    let mut long = waiting(&host);
    // The first generation is kept for a rollback while it is the previous one, so swap twice.
    for offset in [1, 2] {
        swap(&host, &format!("meter = \"1\"\noffset = \"{offset}\""));
    }
    let (last, came) = long.part().unwrap().expect("an error at the end");
    assert!(last.contains("unavailable") && last.contains("did not end within 300 ms"), "{last}");
    assert!(came >= Duration::from_millis(300));
    eventually("finalize", || (called("finalize") == 1.0).then_some(()), || host.log());
    host.wait_for_log(&["calls ended by force", "repeat"]);
    let undrained = host.policy()["undrained"].clone();
    assert_eq!(
        (&undrained[0]["plugin"], &undrained[0]["calls"]),
        (&json!("repeat"), &json!(1)),
        "{undrained}"
    );
    assert_eq!(undrained[0]["requests"].as_array().unwrap().len(), 1);
    assert_eq!((called("initialize"), called("execute")), (3.0, 1.0));
    unharmed_but_for(&host, 2);
}

fn unharmed_but_for(host: &Host, offset: i64) {
    host.wait_for_idle("cpu");
    assert_eq!(elements(&ask(host, &request(&[0], 0, none()))), [100 + offset]);
}

#[test]
fn finalize_is_called_when_the_host_stops_and_has_a_limit() {
    let mut host = repeat("timeout_ms = 200\nconfig = { finalize_ms = \"600000\" }", "");
    unharmed(&host);
    host.signal("TERM");
    assert!(host.wait().success());
    host.wait_for_log(&["finalize did not return"]);
}

#[test]
fn a_trapped_instance_is_replaced_at_once_and_ready_says_so() {
    let host = repeat("turn_ms = 20", "");
    for name in ["trap", "spin"] {
        assert_eq!(ask(&host, &deed(name))[1]["error"]["kind"], "failed");
        assert_eq!(elements(&ask(&host, &request(&[0], 0, none()))), [100]);
        assert!(is_ready(&host));
    }
    assert_eq!((&replicas(&host)[0]["lost"], &*state(&host)), (&json!(2), "ready"));
}

#[test]
fn a_model_that_says_no_is_refused_before_admission_until_it_says_yes() {
    let host = repeat("config = { unready = \"3\" }", "");
    assert!(!is_ready(&host));
    assert_eq!(state(&host), "not ready");
    let reason = host.get("/ready").json()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("plugin \"repeat\"") && reason.contains("not ready"), "{reason}");
    let refused = Stream::open(host.http, &request(&[0], 0, none()), "*/*");
    assert_eq!(refused.status, 503);
    let error = refused.lines()[0]["error"].clone();
    assert_eq!((&error["kind"], &error["plugin"]), (&json!("unavailable"), &json!("repeat")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("it reports that it is not ready"), "{error}");
    wait_for_ready(&host, true);
    unharmed(&host);
    // A replica that becomes unready while a call is in flight finishes that call.
    let mut stream = Stream::open(host.http, &request(&[0, 2500], 0, none()), "*/*");
    stream.part().unwrap().expect("the first response");
    ask(&host, &request(&[0], 0, json!({"do": "tire", "asks": 1})));
    wait_for_ready(&host, false);
    wait_for_ready(&host, true);
    assert_eq!(stream.rest().len(), 1);
}

#[test]
fn a_trap_or_a_loop_in_ready_costs_the_instance_as_any_other() {
    let host = repeat("turn_ms = 50", "");
    for (name, part) in [("ready-trap", "panicked"), ("ready-spin", "turn_ms")] {
        let beside = waiting(&host);
        ask(&host, &request(&[0], 0, json!({"do": name})));
        let lines = beside.lines();
        let message = lines[0]["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("the instance crashed during this request") && message.contains(part),
            "{message}"
        );
        assert_eq!(lines[0]["error"]["kind"], "unavailable");
        unharmed(&host);
        assert!(is_ready(&host));
    }
}

#[test]
fn restarts_back_off_and_end_in_a_quarantine_that_a_reload_or_a_new_file_lifts() {
    let host = repeat("", "");
    let quarantined = || {
        let trap = || {
            let answer = Stream::open(host.http, &request(&[0], 0, json!({"do": "trap"})), "*/*");
            let state = state(&host);
            assert!(["ready", "restarting", "quarantined"].contains(&&*state), "{state} {}", answer.status);
            (state == "quarantined").then_some(())
        };
        let until = Instant::now() + crate::support::PATIENCE;
        while trap().is_none() {
            assert!(Instant::now() < until, "{}", host.log());
        }
        assert!(!is_ready(&host));
        let refused = Stream::open(host.http, &request(&[0], 0, none()), "*/*");
        assert_eq!(refused.status, 503);
        let message = refused.lines()[0]["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("it is quarantined") && message.contains("panicked"), "{message}");
        assert!(replicas(&host)[0]["reason"].as_str().unwrap().contains("panicked"));
    };
    quarantined();
    assert_eq!(replicas(&host)[0]["lost"], json!(8));
    host.wait_for_log(&["replica restarting"]);
    host.wait_for_log(&["replica quarantined"]);
    host.admin_post("/admin/reload");
    wait_for_ready(&host, true);
    unharmed(&host);
    quarantined();
    let file = std::fs::read(host.path("repeat.wasm")).unwrap();
    replace(&host.path("repeat.wasm"), &never_seen(&file, 1));
    host.wait_for_generation(2);
    wait_for_ready(&host, true);
    unharmed(&host);
}

#[test]
fn an_initialize_that_fails_fails_the_load_and_the_old_version_serves_on() {
    let host = repeat("", "");
    let record = swap(&host, "good_starts = \"0\"");
    assert_eq!(record["outcome"], "rejected", "{record}");
    let error = record["errors"][0].as_str().unwrap();
    assert!(error.contains("plugin \"repeat\"") && error.contains("initialize: no start is left"), "{error}");
    assert!(is_ready(&host));
    assert_eq!(elements(&ask(&host, &request(&[0], 0, none()))), [100]);
}
