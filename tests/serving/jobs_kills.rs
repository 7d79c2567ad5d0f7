//! Hosts that are killed at random moments, while clients submit, cancel and fetch jobs: no job
//! that was accepted is lost, and nothing that a client was told is taken back.

use crate::support::jobs::{FINAL, show};
use crate::support::{Client, Host, Setup, is_soak, plugin};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MANIFEST: &str = "[models.hostile]\nplugin = \"hostile\"\n[plugins.hostile]\npath = \"hostile.wasm\"\n\
    [stores.main]\nkind = \"redb\"\ndir = \"kept\"\n[jobs]\nstore = \"main\"\nconcurrency = 4\ncapacity = 1000000\n\
    store_mb = 4096\nresult_ttl_s = 86400\n";

/// What clients were told.
#[derive(Default)]
struct Told {
    /// The text that each accepted job returns.
    accepted: BTreeMap<String, String>,
    cancelled: BTreeSet<String>,
    fetched: BTreeSet<String>,
}

type Shared = Arc<Mutex<Told>>;

fn submit(address: SocketAddr, told: &Shared, round: usize) {
    let mut client = Client::new(address);
    for number in 0.. {
        let text = format!("{round}-{number}");
        let body = json!({"model": "hostile", "data": [text]}).to_string();
        match client.try_request("POST", "/predict/async", &[], body.as_bytes()) {
            Err(_) => return,
            Ok(answer) if answer.status == 202 => {
                let id = answer.json()["job_id"].as_str().expect("an id").to_owned();
                told.lock().unwrap().accepted.insert(id, text);
            }
            Ok(_) => {}
        }
    }
}

/// Asks for random jobs until the host is gone; `note` sees each answer.
fn ask(
    address: SocketAddr,
    told: &Shared,
    seed: u64,
    request: impl Fn(&str) -> (&'static str, String),
    note: impl Fn(&str, u16, &[u8]),
) {
    let (mut client, mut random) = (Client::new(address), fastrand::Rng::with_seed(seed));
    loop {
        let id = {
            let told = told.lock().unwrap();
            let place = random.usize(..told.accepted.len().max(1));
            told.accepted.keys().nth(place).cloned()
        };
        // A job that does not exist keeps the connection busy until there is one that does.
        let id = id.unwrap_or_else(|| "none".to_owned());
        let (method, path) = request(&id);
        match client.try_request(method, &path, &[], b"") {
            Err(_) => return,
            Ok(answer) => note(&id, answer.status, &answer.body),
        }
    }
}

/// Starts the clients of one life of a host.
fn clients(host: &Host, told: &Shared, round: usize) -> Vec<std::thread::JoinHandle<()>> {
    let address = host.http;
    let [submitting, cancelling, fetching] = [(); 3].map(|()| Arc::clone(told));
    let seed = round as u64;
    vec![
        std::thread::spawn(move || submit(address, &submitting, round)),
        std::thread::spawn(move || {
            let path = |id: &str| ("POST", format!("/jobs/{id}/cancel"));
            ask(address, &cancelling, seed, path, |id, status, _| {
                if status == 200 {
                    assert!(
                        cancelling.lock().unwrap().cancelled.insert(id.to_owned()),
                        "cancelled twice: {id}"
                    );
                }
            });
        }),
        std::thread::spawn(move || {
            let path = |id: &str| ("GET", format!("/jobs/{id}/result"));
            ask(address, &fetching, seed + 1, path, |id, status, body| {
                let told = &mut *fetching.lock().unwrap();
                if status == 200 {
                    let result: Value = serde_json::from_slice(body).expect("JSON");
                    assert_eq!(result, json!({"data": [told.accepted[id]]}), "{id}");
                    told.fetched.insert(id.to_owned());
                }
            });
        }),
    ]
}

#[test]
fn no_accepted_job_is_lost_whenever_the_host_is_killed() {
    let kills = if is_soak() { 100 } else { 3 };
    let mut random = fastrand::Rng::with_seed(7);
    let setup = Setup::new(MANIFEST).file("hostile.wasm", plugin("hostile"));
    let told = Shared::default();
    for round in 0..kills {
        let mut host = Setup::at(setup.dir.path()).start();
        let clients = clients(&host, &told, round);
        // The moment is random, not an event that is waited for.
        std::thread::sleep(Duration::from_millis(random.u64(20..200)));
        host.signal("KILL");
        host.wait();
        clients.into_iter().for_each(|client| client.join().expect("a client found no fault"));
    }
    let host = Setup::at(setup.dir.path()).start();
    let told = &*told.lock().unwrap();
    assert!(told.accepted.len() > kills, "{} jobs were accepted", told.accepted.len());
    let (mut states, mut interruptions) = (BTreeMap::<String, usize>::new(), 0);
    for (id, text) in &told.accepted {
        let mut job = show(&host, id);
        while !FINAL.contains(&job["state"].as_str().expect("a state")) {
            job = host.get(&format!("/jobs/{id}?wait_ms=10000")).json();
        }
        let state = job["state"].as_str().expect("a state");
        match state {
            "succeeded" => assert_eq!(job["result"], json!({"data": [text]}), "{job}"),
            "cancelled" => assert!(!told.fetched.contains(id), "it had a result: {job}"),
            // The cancel may have been made without an answer; three kills may have hit one job.
            _ => assert_eq!((state, &job["interruptions"]), ("failed", &json!(3)), "{job}"),
        }
        assert!(state == "cancelled" || !told.cancelled.contains(id), "its cancel was answered: {job}");
        interruptions += job["interruptions"].as_u64().expect("a number");
        *states.entry(state.to_owned()).or_default() += 1;
    }
    let direct = host.predict("hostile", json!(["a"])).result();
    assert_eq!(direct, json!({"data": ["a"]}), "results are those of direct requests");
    println!(
        "| kills | accepted | cancels answered | results fetched before | interruptions | final states | lost |"
    );
    println!("|---|---|---|---|---|---|---|");
    println!(
        "| {kills} | {} | {} | {} | {interruptions} | {states:?} | 0 |",
        told.accepted.len(),
        told.cancelled.len(),
        told.fetched.len()
    );
}
