//! Tests the last-good copy: a restart with bad files serves it, a host that is killed while making
//! a copy keeps the previous one, and nothing else in the state folder is touched.

use crate::support::{Host, Setup, churn, eventually, model, replace};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn with_fallback(setup: Setup, state: &Path) -> Setup {
    let state = state.to_str().expect("UTF-8");
    setup.arg("--fallback").arg("last-good").arg("--state-dir").arg(state)
}

/// Returns the host's folder for its only manifest.
fn own_folder(state: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(state.join("hostler-last-good")).ok()?;
    folders.flatten().map(|folder| folder.path()).next()
}

fn copies(state: &Path) -> usize {
    let entries = std::fs::read_dir(own_folder(state).expect("the folder")).expect("its entries").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("copy-")).count()
}

/// Returns the record of the current copies.
fn current(state: &Path) -> Option<String> {
    std::fs::read_to_string(own_folder(state)?.join("current")).ok()
}

fn wait_for_copy(state: &Path, host: &Host) -> String {
    eventually("the copy", || current(state), || host.log())
}

fn wait_for_another_copy(state: &Path, host: &Host, before: &str) {
    eventually("another copy", || current(state).filter(|now| now != before), || host.log());
}

fn plus_setup() -> Setup {
    Setup::new("[models.plus]\npath = \"plus.onnx\"\n").file("plus.onnx", model("plus1"))
}

fn plus(host: &Host) -> f64 {
    host.predict("plus", json!([1.0])).result()["y"][0].as_f64().expect("a number")
}

fn swap(host: &Host, to: &str) {
    replace(&host.path("plus.onnx"), &std::fs::read(model(to)).expect("the model"));
}

#[test]
fn the_last_good_copy_survives_a_restart_with_bad_files() {
    let state = tempfile::tempdir().unwrap();
    let risk = |host: &Host| host.predict("bankchurn", churn::low_risk()).result()["risk"].clone();
    let mut host = with_fallback(churn::setup(""), state.path()).start();
    wait_for_copy(state.path(), &host);
    host.signal("TERM");
    host.wait();

    for (name, content) in
        [("hostler.toml", &b"[modles]\n"[..]), ("churn.wasm", b"junk"), ("model.onnx", b"junk")]
    {
        let dir = host.setup.dir.path();
        let original = std::fs::read(dir.join(name)).unwrap();
        replace(&dir.join(name), content);
        let broken = Setup::at(dir);
        assert!(Setup::at(dir).try_start().is_err(), "{name}: without the flag a bad file ends the start");
        let again = with_fallback(broken, state.path()).start();
        assert_eq!(risk(&again), "low", "{name}");
        let policy = again.policy();
        assert_eq!(
            (policy["stale"].as_bool(), policy["last_reload"]["outcome"].as_str()),
            (Some(true), Some("fallback"))
        );
        assert!(!policy["last_reload"]["errors"][0].as_str().unwrap().is_empty());
        // Fixed files go live without another restart.
        replace(&dir.join(name), &original);
        again.wait_for_policy("files that are good again", |policy| policy["stale"] == false);
        assert_eq!(risk(&again), "low", "{name}");
    }
}

#[test]
fn nothing_else_in_the_state_folder_is_touched() {
    let state = tempfile::tempdir().unwrap();
    let theirs = ["files/a", "previous/b", "next/c", "notes.txt"];
    for name in theirs {
        replace(&state.path().join(name), b"theirs");
    }
    let mut host = with_fallback(plus_setup(), state.path()).start();
    let mut last = wait_for_copy(state.path(), &host);
    replace(&own_folder(state.path()).unwrap().join("notes.txt"), b"theirs");
    for to in ["plus2", "plus1", "plus2"] {
        swap(&host, to);
        wait_for_another_copy(state.path(), &host, &last);
        last = current(state.path()).unwrap();
    }
    assert_eq!(host.admin_post("/admin/policy/rollback").status, 200);
    wait_for_another_copy(state.path(), &host, &last);
    host.signal("TERM");
    host.wait();
    for name in theirs {
        assert_eq!(std::fs::read(state.path().join(name)).unwrap(), b"theirs", "{name}");
    }
    assert_eq!(std::fs::read(own_folder(state.path()).unwrap().join("notes.txt")).unwrap(), b"theirs");
    assert_eq!(copies(state.path()), 1, "what no longer counts is removed");
}

#[test]
fn a_host_that_is_killed_at_any_moment_leaves_a_copy() {
    let state = tempfile::tempdir().unwrap();
    let first = with_fallback(plus_setup(), state.path()).start();
    let dir = first.setup.dir.path().to_owned();
    wait_for_copy(state.path(), &first);
    let manifest = std::fs::read(dir.join("hostler.toml")).unwrap();
    let mut host = with_fallback(Setup::at(&dir), state.path()).start();
    for (round, to) in ["plus2", "plus1", "plus2"].into_iter().enumerate() {
        let generation = host.generation();
        swap(&host, to);
        // The host starts to make the copy now, so that the kill interrupts some copies.
        host.wait_for_generation(generation + 1);
        host.signal("KILL");
        host.wait();
        replace(&dir.join("hostler.toml"), b"[modles]\n");
        let fallback = with_fallback(Setup::at(&dir), state.path()).start();
        assert!([2.0, 3.0].contains(&plus(&fallback)), "round {round}");
        drop(fallback);
        replace(&dir.join("hostler.toml"), &manifest);
        host = with_fallback(Setup::at(&dir), state.path()).start();
    }
}

#[test]
fn a_host_without_a_place_for_the_copy_says_so() {
    let setup = plus_setup().arg("--fallback").arg("last-good").env("HOME", "").env("XDG_STATE_HOME", "");
    let host = setup.start();
    host.wait_for_log(&["no last-good copy can be kept", "XDG_STATE_HOME", "HOME", "--state-dir"]);
    assert_eq!(plus(&host), 2.0);
}

#[test]
fn a_copy_that_others_can_write_is_not_served() {
    let state = tempfile::tempdir().unwrap();
    let mut host = with_fallback(plus_setup(), state.path()).start();
    wait_for_copy(state.path(), &host);
    host.signal("TERM");
    host.wait();
    let own = own_folder(state.path()).unwrap();
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o777)).unwrap();
    replace(&host.path("hostler.toml"), b"[modles]\n");
    let log =
        with_fallback(Setup::at(host.setup.dir.path()), state.path()).try_start().err().expect("no start");
    assert!(log.contains("cannot use the last-good copy") && log.contains("chmod go-w"), "{log}");
}

#[test]
fn the_copy_of_an_earlier_version_is_still_read() {
    let state = tempfile::tempdir().unwrap();
    let setup = plus_setup();
    let below = |name: &str| {
        let path = setup.path(name);
        state.path().join("files").join(path.strip_prefix("/").expect("absolute"))
    };
    for name in ["hostler.toml", "plus.onnx"] {
        replace(&below(name), &std::fs::read(setup.path(name)).unwrap());
    }
    std::fs::set_permissions(state.path().join("files"), std::fs::Permissions::from_mode(0o700)).unwrap();
    replace(&setup.path("hostler.toml"), b"[modles]\n");
    let host = with_fallback(Setup::at(setup.dir.path()), state.path()).start();
    assert_eq!(plus(&host), 2.0);
}
