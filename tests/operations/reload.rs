//! Tests reloads: when files change, the policy is swapped live and as a whole, and no request
//! fails.

use crate::support::churn::{loud as loud_churn, low_risk};
use crate::support::load::one_of;
use crate::support::load::{Load, Shot};
use crate::support::{Answer, Host, Setup, churn, eventually, model, never_seen, plugin, replace};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

fn risk(host: &Host) -> String {
    host.predict("bankchurn", low_risk()).result()["risk"].as_str().unwrap().to_owned()
}

fn plus(host: &Host) -> f64 {
    host.predict("plus", json!([1.0])).result()["y"][0].as_f64().unwrap()
}

fn plus_setup() -> Setup {
    Setup::new("[models.plus]\npath = \"plus.onnx\"\n").file("plus.onnx", model("plus1"))
}

#[test]
fn a_new_plugin_goes_live_and_one_log_line_says_so() {
    let host = churn::setup("").start();
    assert_eq!(risk(&host), "low");
    replace(&host.path("churn.wasm"), &loud_churn());
    let policy = host.wait_for_generation(2);
    assert_eq!(risk(&host), "LOW");
    let reload = &policy["last_reload"];
    assert_eq!(reload["outcome"], "applied");
    assert_eq!(reload["trigger"], "watch");
    assert!(reload["changes"][0].as_str().unwrap().starts_with("plugin \"churn\": file "), "{reload}");
    assert!(reload["phases_ms"]["plugins"].as_f64().unwrap() > 0.0);
    let line = host.wait_for_log(&[
        "generation=2",
        "outcome=\"applied\"",
        "phases_ms",
        "plugin \\\"churn\\\": file",
    ]);
    assert!(line.contains(policy["digest"].as_str().unwrap()), "{line}");
    assert_eq!(host.get("/models").json()["generation"], 2);
    assert_eq!(host.metric("hostler_policy_generation"), 2.0);
}

#[test]
fn a_bad_file_is_refused_the_old_serves_and_mending_it_goes_live() {
    let good = loud_churn();
    let cases: [(&str, Vec<u8>); 4] = [
        ("not a component", good[..good.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("not WebAssembly", b"hello".to_vec()),
        ("core WebAssembly module", b"\0asm\x01\0\0\0".to_vec()),
    ];
    let host = churn::setup("").start();
    for (reason, content) in cases {
        let before = host.policy()["last_reload"]["at"].as_f64();
        std::fs::write(host.path("churn.wasm"), &content).unwrap();
        let policy = host.wait_for_policy(reason, |policy| {
            policy["last_reload"]["at"].as_f64() > before && policy["last_reload"]["outcome"] == "rejected"
        });
        let error = policy["last_reload"]["errors"][0].as_str().unwrap();
        assert!(error.contains("plugin \"churn\"") && error.contains(reason), "{reason}: {error}");
        assert_eq!((policy["stale"].as_bool(), policy["generation"].as_u64()), (Some(true), Some(1)));
        assert_eq!(risk(&host), "low");
    }
    assert_eq!(host.metric("hostler_policy_stale"), 1.0);
    std::fs::write(host.path("churn.wasm"), &good).unwrap();
    host.wait_for_generation(2);
    assert_eq!(risk(&host), "LOW");
    assert_eq!(host.metric("hostler_policy_stale"), 0.0);
}

#[test]
fn going_back_to_the_old_content_after_a_bad_one_is_no_longer_stale() {
    let host = plus_setup().start();
    replace(&host.path("plus.onnx"), b"junk");
    host.wait_for_outcome("rejected");
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus1")).unwrap());
    let policy = host.wait_for_outcome("unchanged");
    assert_eq!((policy["stale"].as_bool(), policy["generation"].as_u64()), (Some(false), Some(1)));
}

#[test]
fn a_broken_manifest_is_refused_with_its_line() {
    let host = plus_setup().start();
    replace(&host.path("hostler.toml"), b"[models.plus]\npath = 3\n");
    let policy = host.wait_for_outcome("rejected");
    let error = policy["last_reload"]["errors"][0].as_str().unwrap();
    assert!(error.contains("hostler.toml:2:8"), "{error}");
    assert_eq!(plus(&host), 2.0);
}

#[test]
fn a_second_version_without_a_rule_is_refused_and_the_printed_lines_mend_it() {
    let host = plus_setup().file("plus2.onnx", model("plus2")).start();
    let manifest = "[models.\"plus:1\"]\npath = \"plus.onnx\"\n[models.\"plus:2\"]\npath = \"plus2.onnx\"\n";
    replace(&host.path("hostler.toml"), manifest.as_bytes());
    let policy = host.wait_for_outcome("rejected");
    let error = policy["last_reload"]["errors"][0].as_str().unwrap().to_owned();
    let lines = error.split("; add\n").nth(1).unwrap_or_else(|| panic!("no lines to add in {error}"));
    assert_eq!(lines, "[routing.plus]\nweights = { 1 = 100, 2 = 0 }");
    replace(&host.path("hostler.toml"), format!("{manifest}{lines}\n").as_bytes());
    host.wait_for_generation(2);
    assert_eq!(plus(&host), 2.0);
}

#[test]
fn rollback_is_instant_and_holds_until_the_files_change() {
    let host = plus_setup().start();
    let second = std::fs::read(model("plus2")).unwrap();
    replace(&host.path("plus.onnx"), &second);
    host.wait_for_generation(2);
    assert_eq!(plus(&host), 3.0);

    let record = host.admin_post("/admin/policy/rollback");
    assert_eq!((record.status, record.json()["outcome"].as_str()), (200, Some("rolled_back")));
    assert_eq!(plus(&host), 2.0);
    assert_eq!(host.generation(), 3);
    assert_eq!(host.policy()["stale"], true);
    assert_eq!(host.admin_post("/admin/policy/rollback").status, 400, "there is nothing before it");

    // The same content stays refused, even after a dry run, and the reason is kept.
    assert_eq!(host.admin_post("/admin/reload?dry_run=true").json()["outcome"], "would_apply");
    replace(&host.path("plus.onnx"), &second);
    let policy = host.wait_for_outcome("refused");
    let why = policy["last_reload"]["errors"][0].as_str().unwrap();
    let part = "the files of generation 2, which was rolled back; change them, or reload";
    assert!(why.contains(part), "{why}");
    assert_eq!(plus(&host), 2.0);

    // An operator's reload overrides the refusal, and so does a change of the files.
    assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "applied");
    assert_eq!(plus(&host), 3.0);
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus1")).unwrap());
    host.wait_for_generation(5);
    assert_eq!(plus(&host), 2.0);
}

#[test]
fn manual_mode_waits_for_the_operator_and_a_dry_run_changes_nothing() {
    let manifest = "[models.plus]\npath = \"plus.onnx\"\n[reload]\nmode = \"manual\"\npoll_ms = 10\n";
    let host = Setup::new(manifest).file("plus.onnx", model("plus1")).start();
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus2")).unwrap());
    let dry = host.admin_post("/admin/reload?dry_run=true");
    assert_eq!((dry.status, dry.json()["outcome"].as_str()), (200, Some("would_apply")));
    assert!(
        dry.json()["changes"][0].as_str().unwrap().starts_with("model \"plus:1\": file "),
        "{}",
        dry.text()
    );
    assert_eq!((host.generation(), plus(&host)), (1, 2.0));
    assert_eq!(host.policy()["last_reload"]["trigger"], "start");

    assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "applied");
    assert_eq!((host.generation(), plus(&host)), (2, 3.0));
    assert_eq!(host.admin_post("/admin/reload").json()["outcome"], "unchanged");

    replace(&host.path("plus.onnx"), b"junk");
    let bad = host.admin_post("/admin/reload");
    assert_eq!((bad.status, bad.json()["outcome"].as_str()), (409, Some("rejected")));
    assert_eq!(plus(&host), 3.0);
}

#[test]
fn a_pinned_file_is_pending_until_it_has_its_digest() {
    let host = plus_setup().start();
    let second = std::fs::read(model("plus2")).unwrap();
    let digest = hostler::policy::files::hex_digest(&second);
    let manifest = format!("[models.plus]\npath = \"plus.onnx\"\nsha256 = \"{digest}\"\n");
    replace(&host.path("hostler.toml"), manifest.as_bytes());
    let policy = host.wait_for_outcome("pending");
    let waits = policy["last_reload"]["errors"][0].as_str().unwrap();
    assert!(waits.contains("plus.onnx") && waits.contains(&digest), "{waits}");
    assert_eq!(plus(&host), 2.0);
    replace(&host.path("plus.onnx"), &second);
    host.wait_for_generation(2);
    assert_eq!(plus(&host), 3.0);
}

#[test]
fn what_fails_its_checks_does_not_go_live() {
    let manifest =
        "[models.plus]\npath = \"plus.onnx\"\nchecks = [{ file = \"checks.json\", tolerance = 0.5 }]\n";
    let setup = Setup::new(manifest).file("plus.onnx", model("plus1"));
    let host = setup.text("checks.json", "[{\"data\": [1.0], \"expect\": {\"y\": [2.25]}}]").start();
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus2")).unwrap());
    let policy = host.wait_for_outcome("rejected");
    let error = policy["last_reload"]["errors"][0].as_str().unwrap();
    assert!(error.contains("model \"plus:1\"") && error.contains("checks.json[0]"), "{error}");
    assert!(error.contains("result.y[0]: expected 2.25, got 3.0"), "{error}");
    assert_eq!(plus(&host), 2.0);
    // Changed expectations of a check change the content.
    replace(&host.path("checks.json"), b"[{\"data\": [1.0], \"expect\": {\"y\": [3]}}]");
    host.wait_for_generation(2);
    assert_eq!(plus(&host), 3.0);
}

#[test]
fn an_asset_is_part_of_its_plugin() {
    let host = churn::setup("").start();
    let before = host.predict("bankchurn", low_risk()).result();
    let scaling = std::fs::read_to_string(host.path("scaling.json")).unwrap();
    let mut changed: Value = serde_json::from_str(&scaling).unwrap();
    changed["mean"][1] = json!(-50.0);
    replace(&host.path("scaling.json"), changed.to_string().as_bytes());
    let policy = host.wait_for_generation(2);
    let change = policy["last_reload"]["changes"][0].as_str().unwrap();
    assert!(change.starts_with("plugin \"churn\": assets.scaling "), "{change}");
    assert_ne!(host.predict("bankchurn", low_risk()).result(), before);
}

#[test]
fn keys_that_need_a_restart_are_named() {
    let host = plus_setup().start();
    let manifest = "[server]\nmax_body_mb = 3\n[models.plus]\npath = \"plus.onnx\"\ntimeout_ms = 100\n";
    replace(&host.path("hostler.toml"), manifest.as_bytes());
    let policy = host.wait_for_generation(2);
    let warning = policy["last_reload"]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("max_body_mb is read at start only"), "{warning}");
}

#[test]
fn workers_that_a_reload_starts_have_the_same_priority_as_the_first() {
    let host = plus_setup().start();
    let manifest = "[models.plus]\npath = \"plus.onnx\"\n[policy]\nplus = \"later\"\n[executors.later]\nkind = \"onnx\"\nworkers = 1\n";
    replace(&host.path("hostler.toml"), manifest.as_bytes());
    host.wait_for_generation(2);
    // A thread sets its name and priority only after it has started, so this is polled.
    let nice = |name: &str| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
        let mut stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        let stat = stats.find(|stat| stat.contains(&format!("({name})")))?;
        stat.rsplit(')').next()?.split_whitespace().nth(16)?.parse::<i32>().ok()
    };
    eventually(
        "both",
        || (nice("later-0") == Some(5) && nice("onnx-0") == Some(5)).then_some(()),
        || format!("later-0 {:?}, onnx-0 {:?}", nice("later-0"), nice("onnx-0")),
    );
}

#[test]
fn links_that_are_swapped_are_followed() {
    // The layout of Kubernetes mounts: plus.onnx -> ..data/plus.onnx, and ..data -> one of two
    // folders.
    let setup = plus_setup().file("a/plus.onnx", model("plus1")).file("b/plus.onnx", model("plus2"));
    std::fs::remove_file(setup.path("plus.onnx")).unwrap();
    std::os::unix::fs::symlink("a", setup.path("..data")).unwrap();
    std::os::unix::fs::symlink("..data/plus.onnx", setup.path("plus.onnx")).unwrap();
    let host = setup.start();
    assert_eq!(plus(&host), 2.0);
    std::os::unix::fs::symlink("b", host.path("..data_tmp")).unwrap();
    std::fs::rename(host.path("..data_tmp"), host.path("..data")).unwrap();
    host.wait_for_generation(2);
    assert_eq!(plus(&host), 3.0);
}

#[test]
fn a_deleted_file_leaves_the_old_policy() {
    let host = plus_setup().start();
    std::fs::remove_file(host.path("plus.onnx")).unwrap();
    let policy = host.wait_for_outcome("rejected");
    assert!(policy["last_reload"]["errors"][0].as_str().unwrap().contains("plus.onnx"));
    assert_eq!(plus(&host), 2.0);
    replace(&host.path("plus.onnx"), &std::fs::read(model("plus2")).unwrap());
    host.wait_for_generation(2);
}

/// Swaps files under load; every answer must be from the old or the new version.
fn swap_under_load(
    host: &Host,
    shot: Shot,
    judge: impl Fn(&Answer) -> Option<String> + Send + Sync + 'static,
    swaps: u64,
    mut swap: impl FnMut(&Path, u64),
) {
    let load = Load::start(host.http, 20, shot, None, judge);
    let first = host.generation();
    for number in 0..swaps {
        swap(host.setup.dir.path(), number);
        host.wait_for_generation(first + number + 1);
    }
    let outcome = load.stop();
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert!(outcome.answers > 100, "{} answers", outcome.answers);
}

#[test]
fn swapping_a_plugin_under_load_fails_no_request() {
    for instances in ["fresh", "reused"] {
        let host = churn::setup(&format!("instances = \"{instances}\"")).start();
        let versions = [std::fs::read(plugin("churn")).unwrap(), loud_churn()];
        let judge = one_of("risk", [json!("low"), json!("LOW")]);
        swap_under_load(&host, Shot::predict("bankchurn", &low_risk()), judge, 12, |dir, number| {
            // Every other pair of swaps has content that the host has never seen.
            let version = &versions[usize::from(number % 2 == 0)];
            let content = if number % 4 < 2 { version.clone() } else { never_seen(version, number as u8) };
            replace(&dir.join("churn.wasm"), &content);
        });
    }
}

#[test]
fn swapping_a_model_file_under_load_fails_no_request() {
    let host = plus_setup().start();
    let versions = [model("plus1"), model("plus2")].map(|path| std::fs::read(path).unwrap());
    let judge = one_of("y", [json!([2.0]), json!([3.0])]);
    swap_under_load(&host, Shot::predict("plus", &json!([1.0])), judge, 20, |dir, number| {
        replace(&dir.join("plus.onnx"), &versions[usize::from(number % 2 == 0)]);
    });
}

#[test]
fn moving_a_model_between_executors_under_load_fails_no_request() {
    let host = plus_setup().start();
    let judge = one_of("y", [json!([2.0]), json!([2.0])]);
    swap_under_load(&host, Shot::predict("plus", &json!([1.0])), judge, 20, |dir, number| {
        let executor = ["cpu", "onnx", "mine"][number as usize % 3];
        let manifest = format!(
            "[models.plus]\npath = \"plus.onnx\"\n[policy]\nplus = \"{executor}\"\n[executors.mine]\nkind = \"onnx\"\nworkers = {}\n",
            number + 1
        );
        replace(&dir.join("hostler.toml"), manifest.as_bytes());
    });
}

#[test]
fn a_file_that_is_written_slowly_in_place_is_read_whole() {
    let host = churn::setup("").start();
    let judge = one_of("risk", [json!("low"), json!("LOW")]);
    let load = Load::start(host.http, 4, Shot::predict("bankchurn", &low_risk()), None, judge);
    let content = loud_churn();
    let mut file = std::fs::File::create(host.path("churn.wasm")).unwrap();
    for piece in content.chunks(content.len() / 20) {
        std::io::Write::write_all(&mut file, piece).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    host.wait_for_generation(2);
    assert_eq!(risk(&host), "LOW");
    assert_eq!(load.stop().faults, Vec::<String>::new());
}

#[test]
fn old_generations_are_let_go() {
    let host = plus_setup().start();
    let versions = [model("plus1"), model("plus2")].map(|path| std::fs::read(path).unwrap());
    let swap = |number: usize| {
        replace(&host.path("plus.onnx"), &versions[number % 2]);
        host.wait_for_generation(number as u64 + 1);
        assert!(host.get("/health").status == 200);
    };
    (1..=10).for_each(swap);
    let early = host.usage();
    (11..=60).for_each(swap);
    // The last connection may still be closing.
    let let_go =
        || Some(host.usage()).filter(|late| late.threads <= early.threads && late.files <= early.files);
    let late = eventually("as few threads and files", let_go, || format!("{early:?} {:?}", host.usage()));
    assert!(late.rss_kb < early.rss_kb + (64 << 10), "{early:?} {late:?}");
    let generations = host.policy()["generations"].as_array().unwrap().len();
    assert_eq!(generations, 2, "live and previous");
}
