//! How jobs end from outside: by their clients, by shutdown of the host, and by faults of what they
//! depend on.

use crate::support::eventually;
use crate::support::jobs::{
    attempts, cancel, ended, kept, millis, outcomes, released, show, sleep, submit, wait_for,
};
use crate::support::slow::{ENDLESS, deed, rounds, rounds_for, serve};
use serde_json::json;

#[test]
fn a_job_that_waits_is_cancelled_and_never_runs() {
    let host = serve("[jobs]\nconcurrency = 1\n");
    let calls = "hostler_plugin_calls_total{plugin=\"hostile\"}";
    let first = submit(&host, &sleep(20_000));
    wait_for(&host, &first, "the first to run", |job| job["state"] == "running");
    let second = submit(&host, &deed("hostile", "ok"));
    wait_for(&host, &second, "the second to wait", |job| job["state"] == "pending");
    let third = submit(&host, &deed("hostile", "ok"));
    let before = host.metric(calls);
    let answer = cancel(&host, &second);
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("cancelled")), "{}", answer.text());
    let job = show(&host, &second);
    assert_eq!((&job["attempts"], &job["error"]["kind"]), (&json!(0), &json!("cancelled")), "{job}");
    cancel(&host, &first);
    ended(&host, &third, "succeeded");
    assert_eq!(host.metric(calls) - before, 1.0, "only the third has run");
}

#[test]
fn cancel_works_in_the_middle_of_an_attempt_and_frees_its_worker() {
    let host = serve("[executors.cpu]\nworkers = 1\n[executors.onnx]\nworkers = 1\n");
    for (executor, body) in
        [("cpu", deed("hostile", "spin")), ("cpu", sleep(60_000)), ("onnx", rounds(ENDLESS))]
    {
        let id = submit(&host, &crate::support::jobs::job(body, &json!({"max_attempts": 5})));
        wait_for(&host, &id, "the job to run", |job| job["state"] == "running");
        host.wait_for_policy("its work", |policy| policy["executors"][executor]["busy"] == 1);
        let answer = cancel(&host, &id);
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("cancelled")), "{}", answer.text());
        host.wait_for_idle(executor);
        let job = released(&host, &id);
        assert_eq!(outcomes(&job), ["cancelled"], "it is not retried: {job}");
        assert_eq!(job["error"]["message"], "the job was cancelled");
        assert_eq!(host.access_log(&id)["status"], 499);
    }
    assert_eq!(host.metric("hostler_job_attempts_total{outcome=\"cancelled\"}"), 3.0);
    assert_eq!((kept(&host, "cancelled"), kept(&host, "running")), (3.0, 0.0));
}

#[test]
fn a_cancelled_attempt_that_cannot_stop_yet_keeps_its_slot() {
    let host = serve("[executors.onnx]\nworkers = 1\n[jobs]\nconcurrency = 1\n");
    let id = submit(&host, &json!({"model": "huge", "data": {"n": [4096]}}));
    let other = submit(&host, &deed("hostile", "ok"));
    wait_for(&host, &id, "the job to run", |job| job["state"] == "running");
    host.wait_for_policy("its work", |policy| policy["executors"]["onnx"]["busy"] == 1);
    // The one large node of the graph starts a little later, and cannot be stopped.
    std::thread::sleep(millis(300));
    assert_eq!(cancel(&host, &id).status, 200);
    let other = ended(&host, &other, "succeeded");
    assert_eq!(host.executor("onnx")["busy"], 0, "the slot was given on before the worker was free");
    let job = show(&host, &id);
    let freed = attempts(&job)[0]["ended_at"].as_f64().expect("its work has ended");
    assert!(freed <= other["started_at"].as_f64().unwrap(), "{job}\n{other}");
    host.wait_for_idle("onnx");
}

#[test]
fn what_has_ended_is_not_cancelled_and_what_has_not_is_not_deleted() {
    let host = serve("");
    let running = submit(&host, &sleep(60_000));
    let path = format!("/jobs/{running}");
    let refused = host.client().request("DELETE", &path, &[], b"");
    refused.refused(409, "invalid_input", &["it has not ended; cancel it first"]);
    assert!(["pending", "running"].contains(&refused.json()["state"].as_str().unwrap()));
    assert_eq!(cancel(&host, &running).status, 200);
    for (body, state) in [
        (deed("hostile", "ok"), "succeeded"),
        (deed("hostile", "trap"), "failed"),
        (crate::support::jobs::job(deed("hostile", "spin"), &json!({"max_runtime_ms": 50})), "timeout"),
        (sleep(60_000), "cancelled"),
    ] {
        let id = submit(&host, &body);
        if state == "cancelled" {
            assert_eq!(cancel(&host, &id).status, 200);
        }
        ended(&host, &id, state);
        let refused = cancel(&host, &id);
        let error = refused.refused(409, "invalid_input", &["it has ended already", state]);
        assert_eq!((&refused.json()["state"], &refused.json()["job_id"]), (&json!(state), &json!(id)));
        assert_eq!(error["request_id"].as_str().unwrap().len(), 32);
    }
}

#[test]
fn a_cancel_that_races_the_end_has_one_outcome() {
    let host = serve("");
    let rounds = rounds(rounds_for(&host, millis(3)));
    let (mut cancelled, mut late) = (0, 0);
    for index in 0..120 {
        let id = submit(&host, &rounds);
        std::thread::sleep(millis(index % 12));
        let answer = cancel(&host, &id);
        let said = answer.json()["state"].as_str().unwrap().to_owned();
        match (answer.status, said.as_str()) {
            (200, "cancelled") => cancelled += 1,
            (409, "succeeded") => late += 1,
            _ => panic!("{}", answer.text()),
        }
        let job = released(&host, &id);
        assert_eq!(job["state"], said, "{job}");
        assert_eq!(job.get("result").is_some(), said == "succeeded", "{job}");
    }
    eprintln!("{cancelled} cancelled, {late} too late");
    let ended = |state: &str| host.metric(&format!("hostler_jobs_total{{state=\"{state}\"}}"));
    assert_eq!((ended("cancelled"), ended("succeeded")), (f64::from(cancelled), f64::from(late)));
    assert_eq!((kept(&host, "cancelled"), kept(&host, "succeeded")), (f64::from(cancelled), f64::from(late)));
    assert_eq!(["pending", "running"].map(|state| kept(&host, state)), [0.0; 2]);
    host.wait_for_idle("onnx");
}

#[test]
fn a_signal_lets_running_jobs_finish_and_names_those_that_are_lost() {
    let mut host = serve("[jobs]\nconcurrency = 1\n");
    let running = submit(&host, &sleep(2000));
    wait_for(&host, &running, "the job to run", |job| job["state"] == "running");
    let waiting = submit(&host, &deed("hostile", "ok"));
    // Clients that long-poll a job are told how it ended.
    let mut polls: Vec<_> = [&running, &waiting]
        .map(|id| {
            let mut client = host.client();
            client.begin("GET", &format!("/jobs/{id}?wait_ms=30000"), &[], b"").unwrap();
            client
        })
        .into();
    host.wait_for_policy("both polls", |_| host.metric("hostler_http_connections") >= 2.0);
    host.signal("TERM");
    let job = polls[1].receive().unwrap().json();
    assert_eq!(job["state"], "cancelled", "{job}");
    assert!(job["error"]["message"].as_str().unwrap().contains("the host stopped"), "{job}");
    assert_eq!(polls[0].receive().unwrap().json()["state"], "succeeded");
    assert_eq!(host.wait().code(), Some(1), "a job was lost: {}", host.log());
    host.wait_for_log(&["jobs were lost", "pending=1", "running=0"]);
    assert_eq!(host.access_log(&running)["status"], 200);
}

#[test]
fn jobs_that_outlast_the_drain_are_cancelled_and_counted() {
    for second_signal in [false, true] {
        let drain = if second_signal { 20_000 } else { 300 };
        let mut host = serve(&format!("[server]\ndrain_timeout_ms = {drain}\n"));
        let id = submit(&host, &deed("hostile", "spin"));
        wait_for(&host, &id, "the job to run", |job| job["state"] == "running");
        host.signal("TERM");
        if second_signal {
            host.wait_for_log(&["draining"]);
            host.signal("TERM");
        }
        assert_eq!(host.wait().code(), Some(1), "{}", host.log());
        host.wait_for_log(&["jobs were lost", "pending=0", "running=1"]);
    }
}

#[test]
fn a_host_whose_jobs_have_ended_stops_cleanly() {
    let mut host = serve("");
    ended(&host, &submit(&host, &deed("hostile", "ok")), "succeeded");
    host.signal("TERM");
    assert_eq!(host.wait().code(), Some(0), "{}", host.log());
    host.wait_for_log(&["ended jobs and their results were discarded", "kept=1"]);
    host.wait_for_log(&["drained"]);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_submission_leaves_no_job_without_an_end() {
    let host = serve("[jobs]\ncapacity = 10000\n");
    let body = json!({"model": "hostile", "items": vec![json!({"data": ["a"]}); 200]}).to_string();
    for _ in 0..10 {
        let mut client = host.client();
        client.begin("POST", "/predict/async/batch", &[], body.as_bytes()).unwrap();
        client.leave();
    }
    // One last job whose client stays connected: when it has ended, the submissions before it have
    // been processed.
    ended(&host, &submit(&host, &deed("hostile", "ok")), "succeeded");
    let unfinished = || ["pending", "running"].iter().map(|state| kept(&host, state)).sum::<f64>();
    eventually("all jobs to end", || (unfinished() == 0.0).then_some(()), || host.log());
}
