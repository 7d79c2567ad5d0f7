//! `examples/jobs`: its client is killed with its host, and the next run collects every result.

use crate::support::{Host, Setup, eventually, example, root};
use std::process::{Child, Command, Output, Stdio};

const COUNT: usize = 200;

fn setup() -> Setup {
    let manifest = std::fs::read_to_string(example("jobs/hostler.toml")).unwrap();
    let manifest = manifest.replace("../bankchurn/model.onnx", "model.onnx");
    Setup::new(&manifest).file("model.onnx", example("bankchurn/model.onnx"))
}

fn client(host: &Host) -> Child {
    Command::new("python3")
        .arg(root().join("examples/jobs/client.py"))
        .args(["--host", &host.http.to_string(), "--run", "test", "--count", &COUNT.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 starts")
}

fn jobs(host: &Host) -> f64 {
    let states = ["pending", "running", "succeeded", "failed", "cancelled", "timeout"];
    states.iter().map(|state| host.metric(&format!("hostler_jobs{{state=\"{state}\"}}"))).sum()
}

#[test]
fn the_client_of_the_example_collects_every_result() {
    let setup = setup();
    let mut host = Setup::at(setup.dir.path()).start();
    let mut first = client(&host);
    eventually("some jobs", || (jobs(&host) >= 20.0).then_some(()), || host.log());
    first.kill().unwrap();
    first.wait().unwrap();
    host.signal("KILL");
    host.wait();
    let host = Setup::at(setup.dir.path()).start();
    let Output { status, stdout, stderr } = client(&host).wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{out}{err}");
    assert_eq!(out, format!("submitted {COUNT} jobs\ncollected {COUNT} results\n"));
    assert_eq!(jobs(&host), COUNT as f64, "no job was submitted twice");
}
