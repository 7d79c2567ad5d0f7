//! Pipelines as jobs: the progress of their steps, and `keep = "steps"`: a job that was interrupted
//! goes on behind its last finished step.

use crate::support::jobs::{cancel, ended, job, show, submit, wait_for};
use crate::support::store::Store;
use crate::support::{Host, Setup, eventually, model, plugin, replace};
use serde_json::{Value, json};

const STEPS: usize = 10;

/// Returns a manifest with jobs in a folder, a plugin that may call `store`, and more tables.
fn manifest(store: &Store, tables: &str) -> String {
    format!(
        "[stores.main]\nkind = \"redb\"\ndir = \"kept\"\n[jobs]\nstore = \"main\"\nconcurrency = 20\n\
         [models.fetch]\nplugin = \"fetch\"\n[plugins.fetch]\npath = \"fetch.wasm\"\n\
         [plugins.fetch.http]\nallow_hosts = [\"http://{}\"]\ntimeout_ms = 600000\n{tables}",
        store.address
    )
}

/// Returns a pipeline of ten steps; each calls the URL that the one before was told.
fn chain(keep: &str) -> String {
    let mut tables = format!(
        "[models.chain]\npipeline = \"chain\"\n[pipelines.chain]\n{keep}outputs = {{ body = \"s10.body\" }}\n"
    );
    for step in 1..=STEPS {
        let url = if step == 1 { "input.url".to_owned() } else { format!("s{:02}.body", step - 1) };
        tables +=
            &format!("[pipelines.chain.steps.s{step:02}]\nmodel = \"fetch\"\nin = {{ url = \"{url}\" }}\n");
    }
    tables
}

fn setup(store: &Store, tables: &str) -> Setup {
    Setup::new(&manifest(store, tables)).file("fetch.wasm", plugin("fetch"))
}

fn killed(mut host: Host) -> Host {
    host.signal("KILL");
    host.wait();
    let dir = host.setup.dir.path().to_owned();
    let setup = std::mem::replace(&mut host.setup, Setup::at(&dir));
    drop(host);
    setup.start()
}

/// Submits a job whose step `blocked` waits until the host is killed.
fn blocked(host: &Host, store: &Store, number: usize, blocked: usize) -> String {
    let url = store.url(&format!("/walk/{number}/1/{blocked}"));
    let budgets = json!({"max_runtime_ms": 600_000, "max_total_runtime_ms": 600_000});
    submit(host, &job(json!({"model": "chain", "data": [url]}), &budgets))
}

fn wait_for_request(host: &Host, store: &Store, path: &str) {
    let wanted = format!("GET {path}");
    let asked = || store.asked().contains(&wanted).then_some(());
    eventually(path, asked, || format!("{:?}\n{}", store.asked(), host.log()));
}

/// Returns the states of the steps of a job, with the number of their runs and of reused outputs.
fn steps(job: &Value) -> Vec<(String, u64, u64)> {
    let steps = job["steps"].as_array().unwrap_or_else(|| panic!("no steps: {job}"));
    let number = |value: &Value| value.as_u64().expect("a number");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    steps.iter().map(|step| (text(&step["state"]), number(&step["runs"]), number(&step["reused"]))).collect()
}

#[test]
fn the_steps_of_a_job_are_shown_while_it_runs() {
    let store = Store::start();
    let host = setup(&store, &chain("")).start();
    let id = blocked(&host, &store, 1, 3);
    wait_for_request(&host, &store, "/walk/1/3/3");
    let running = show(&host, &id);
    let states: Vec<String> = steps(&running).into_iter().map(|(state, ..)| state).collect();
    let expected = [&["succeeded", "succeeded", "running"][..], &["pending"; 7]].concat();
    assert_eq!(states, expected, "{running}");
    assert_eq!(running["steps"][0]["step"], "chain.s01");
    cancel(&host, &id);
    let states: Vec<String> = steps(&show(&host, &id)).into_iter().map(|(state, ..)| state).collect();
    let expected = [&["succeeded", "succeeded", "cancelled"][..], &["pending"; 7]].concat();
    assert_eq!(states, expected);
    // A model that is no pipeline has no steps.
    let plain = submit(&host, &json!({"model": "fetch", "data": [store.url("/users/1")]}));
    assert_eq!(ended(&host, &plain, "succeeded").get("steps"), None);
}

#[test]
fn a_job_goes_on_behind_its_last_finished_step() {
    let store = Store::start();
    let host = setup(&store, &chain("keep = \"steps\"\n")).start();
    let ids: Vec<String> = (1..=STEPS).map(|step| blocked(&host, &store, step, step)).collect();
    for step in 1..=STEPS {
        wait_for_request(&host, &store, &format!("/walk/{step}/{step}/{step}"));
    }
    let host = killed(host);
    for (number, id) in (1..=STEPS).zip(&ids) {
        let job = ended(&host, id, "succeeded");
        for (step, (state, runs, reused)) in (1..=STEPS).zip(steps(&job)) {
            let is_kept = step < number;
            let expected = ("succeeded".to_owned(), u64::from(!is_kept), u64::from(is_kept));
            assert_eq!((state, runs, reused), expected, "job {number}, step {step}: {job}");
            let path = format!("GET /walk/{number}/{step}/{number}");
            let times = store.asked().iter().filter(|asked| **asked == path).count();
            assert_eq!(times, if step == number { 2 } else { 1 }, "{path}");
        }
    }
    assert_eq!(host.metric("hostler_job_steps_reused_total"), 45.0);
    // What was kept is dropped at the end: only the results count.
    let bytes = host.metric("hostler_job_store_bytes");
    assert!(bytes < 80_000.0, "{bytes}");
}

#[test]
fn without_keep_all_steps_run_again() {
    let store = Store::start();
    let host = setup(&store, &chain("")).start();
    let id = blocked(&host, &store, 1, 4);
    wait_for_request(&host, &store, "/walk/1/4/4");
    let host = killed(host);
    let job = ended(&host, &id, "succeeded");
    assert!(steps(&job).iter().all(|step| *step == ("succeeded".to_owned(), 1, 0)), "{job}");
}

/// A chain of three models, with a step in between that waits until the host is killed.
const MIXED: &str = r#"
[models.first]
path = "first.onnx"
[models.second]
path = "second.onnx"
[models.third]
path = "third.onnx"
[models.mixed]
pipeline = "mixed"
[pipelines.mixed]
keep = "steps"
max_visits = 100
outputs = { y = "third.y" }
[pipelines.mixed.steps.first]
model = "first"
in = { x = "input.x" }
[pipelines.mixed.steps.second]
model = "second"
in = { x = "first.y" }
[pipelines.mixed.steps.wait]
model = "fetch"
in = { url = "input.url" }
after = ["second"]
[pipelines.mixed.steps.third]
model = "third"
in = { x = "second.y" }
after = ["wait"]
"#;

/// Interrupts a job in the step `wait`, changes a file or a text of the manifest, and returns the
/// result and which steps were reused: `first`, `second`, `wait`, `third`.
fn interrupted(change: impl FnOnce(&Host)) -> (Value, Vec<bool>) {
    interrupted_with("", change)
}

fn interrupted_with(more: &str, change: impl FnOnce(&Host)) -> (Value, Vec<bool>) {
    let store = Store::start();
    let setup = setup(&store, &format!("{MIXED}{more}")).file("pass.wasm", plugin("pass"));
    let host = ["first", "second", "third"]
        .iter()
        .fold(setup, |setup, name| setup.file(&format!("{name}.onnx"), model("plus1")))
        .start();
    let data = json!({"x": [1.0], "url": [store.url("/walk/1/1/1")]});
    let budgets = json!({"max_runtime_ms": 600_000, "max_total_runtime_ms": 600_000});
    let id = submit(&host, &job(json!({"model": "mixed", "data": data}), &budgets));
    wait_for_request(&host, &store, "/walk/1/1/1");
    change(&host);
    let host = killed(host);
    let job = ended(&host, &id, "succeeded");
    let reused = |name: &str| {
        let steps = job["steps"].as_array().expect("steps");
        let step = steps.iter().find(|step| step["step"] == format!("mixed.{name}")).expect("the step");
        step["reused"] == 1
    };
    let reused = ["first", "second", "wait", "third"].map(reused).to_vec();
    (job["result"]["y"].clone(), reused)
}

fn edit(host: &Host, from: &str, to: &str) {
    let path = host.path("hostler.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    replace(&path, text.replace(from, to).as_bytes());
}

#[test]
fn a_changed_step_runs_again_with_all_behind_it() {
    let swap = |host: &Host, name: &str| {
        replace(&host.path(&format!("{name}.onnx")), &std::fs::read(model("plus2")).unwrap());
    };
    assert_eq!(interrupted(|_| {}), (json!([4.0]), vec![true, true, false, false]));
    assert_eq!(interrupted(|host| swap(host, "second")), (json!([5.0]), vec![true, false, false, false]));
    assert_eq!(interrupted(|host| swap(host, "first")), (json!([5.0]), vec![false; 4]));
    // What is behind the interrupted step does not matter for those before it.
    assert_eq!(interrupted(|host| swap(host, "third")), (json!([5.0]), vec![true, true, false, false]));
    // The graph itself.
    let other = |host: &Host| edit(host, "max_visits = 100", "max_visits = 101");
    assert_eq!(interrupted(other), (json!([4.0]), vec![false; 4]));
}

#[test]
fn the_next_attempt_of_one_process_reuses_steps_too() {
    let store = Store::start();
    // The sixth step is not answered in the first attempt.
    let tables = chain("keep = \"steps\"\n").replace("steps.s06]\n", "steps.s06]\ntimeout_ms = 4000\n");
    let host = setup(&store, &tables).start();
    let url = store.url("/walk/1/1/6");
    let budgets = json!({"max_runtime_ms": 600_000, "max_total_runtime_ms": 600_000, "max_attempts": 2});
    let id = submit(&host, &job(json!({"model": "chain", "data": [url]}), &budgets));
    let job = ended(&host, &id, "succeeded");
    let reused: u64 = steps(&job).iter().map(|(.., reused)| reused).sum();
    assert_eq!((&job["attempts"], reused), (&json!(2), 5), "{job}");
}

#[test]
fn faults_of_keep_are_told_with_their_place() {
    let store = Store::start();
    for (keep, part) in [
        ("keep = \"all\"\n", "keep = \"all\" is not known"),
        ("keep = \"steps\"\nstreaming = true\n", "cannot run as a job"),
    ] {
        let log = setup(&store, &chain(keep)).try_start().err().expect("no start");
        assert!(log.contains(part) && log.contains("hostler.toml"), "{log}");
    }
    let host = setup(&store, &chain("keep = \"steps\"\n")).start();
    // Steps of a request that is no job are kept nowhere.
    let answer = host.predict("chain", json!([store.url("/walk/2/1/0")]));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let waiting =
        submit(&host, &job(json!({"model": "chain", "data": ["x"]}), &json!({"run_after_ms": 60_000})));
    wait_for(&host, &waiting, "no steps yet", |job| job.get("steps").is_none());
    cancel(&host, &waiting);
}

#[test]
fn behind_a_custom_executor_every_change_of_the_policy_counts() {
    let custom = "[executors.wrapped]\nkind = \"custom\"\nplugin = \"pass\"\ninner = \"onnx\"\n\
        [plugins.pass]\npath = \"pass.wasm\"\n[policy]\nfirst = \"wrapped\"\n";
    assert_eq!(interrupted_with(custom, |_| {}).1, [true, true, false, false]);
    // Its plugin could call the model that changes.
    let swap = |host: &Host| replace(&host.path("third.onnx"), &std::fs::read(model("plus2")).unwrap());
    assert_eq!(interrupted_with(custom, swap).1, [false; 4]);
}

/// A loop over a nested pipeline, whose only step calls a server, and a step after it that waits.
const LOOP: &str = r#"
[models.ask]
pipeline = "ask"
[pipelines.ask]
keep = "steps"
outputs = { status = "call.status" }
[pipelines.ask.steps.call]
model = "fetch"
in = { url = "input.url" }
[models.poll]
pipeline = "poll"
[pipelines.poll]
keep = "steps"
outputs = { status = "repeat.status" }
[pipelines.poll.steps.repeat]
model = "ask"
in = { url = "input.url" }
loop = { while = "max(self.status) == 200", max = 3, at_max = "go-on" }
"#;

#[test]
fn each_round_of_a_loop_asks_again() {
    let store = Store::start();
    let host = setup(&store, LOOP).start();
    let id = submit(&host, &json!({"model": "poll", "data": [store.url("/users/1")]}));
    ended(&host, &id, "succeeded");
    assert_eq!(store.asked(), ["GET /users/1"; 3]);
}
