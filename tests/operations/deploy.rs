//! What is shipped beside the binary fits it: alert rules, the dashboard, the unit of systemd.

use crate::support::root;
use std::collections::BTreeSet;
use std::process::Command;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the names of the host's metrics in a text, without the endings of histograms.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_name = |one: char| one.is_ascii_alphanumeric() || one == '_';
    let words = text.split(|one| !is_name(one)).filter(|word| word.starts_with("hostler_"));
    let whole = |word: &str| {
        let endings = ["_bucket", "_sum", "_count"];
        let bare = endings.iter().find_map(|ending| word.strip_suffix(ending));
        bare.unwrap_or(word).to_owned()
    };
    words.map(whole).collect()
}

#[test]
fn alerts_and_the_dashboard_use_metrics_that_there_are() {
    let sources = ["host/metrics", "host/output"].map(|folder| std::fs::read_dir(root().join(folder)));
    let sources = sources.into_iter().flat_map(|files| files.expect("a folder").flatten());
    let known: BTreeSet<String> =
        sources.flat_map(|file| metrics(&std::fs::read_to_string(file.path()).expect("text"))).collect();
    for path in ["deploy/prometheus/alerts.yml", "deploy/grafana/hostler.json"] {
        let used = metrics(&read(path));
        assert!(used.len() > 20, "{path}: {used:?}");
        let unknown: Vec<&String> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{path} uses {unknown:?}, which the host does not have");
    }
}

#[test]
fn alert_rules_fire_when_they_should_and_are_quiet_otherwise() {
    let Some(promtool) = std::env::var_os("HOSTLER_PROMTOOL") else {
        assert!(std::env::var_os("CI").is_none(), "HOSTLER_PROMTOOL is not set: run `cargo xtask test`");
        eprintln!("skipped: HOSTLER_PROMTOOL is not set; `cargo xtask test` sets it");
        return;
    };
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let mut command = Command::new(&promtool);
        let output =
            command.args(args).current_dir(root().join("deploy/prometheus")).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn the_unit_does_not_forbid_what_the_host_needs() {
    let unit = read("deploy/systemd/hostler.service");
    let settings: Vec<&str> = unit.lines().filter(|line| !line.starts_with('#')).collect();
    let has = |setting: &str| settings.iter().any(|line| line.starts_with(setting));
    assert!(!has("MemoryDenyWriteExecute"), "compiled plugins are written to memory and executed");
    for setting in
        ["NoNewPrivileges=yes", "ProtectSystem=strict", "SystemCallFilter=", "CapabilityBoundingSet="]
    {
        assert!(has(setting), "{setting}");
    }
}
