//! Options, ratios and verdicts of `bench --against`.

use super::*;

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn cell(cpu_us: f64, requests_per_s: f64, failed: u64) -> Cell {
    Cell {
        target: "plain",
        connections: CONNECTIONS,
        requests_per_s,
        p50_us: 1.0,
        p99_us: 1.0,
        failed,
        cpu_us,
        rss_mb: 1.0,
        health_p99_us: 1.0,
        health_failed: 0,
    }
}

/// Returns 20 pairs of a build that uses `cpu` times the CPU and answers `rate` times the
/// requests. The A/A ratio varies by `noise`.
fn measured(cpu: f64, rate: f64, noise: f64, failed: u64) -> Measured {
    let mut measured = Measured::new("plain");
    for pair in 0..20 {
        let same = if pair % 2 == 0 { 1.0 + noise } else { 1.0 / (1.0 + noise) };
        measured.add(
            (cell(20.0, 1000.0, 0), cell(20.0 * cpu, 1000.0 * rate, failed)),
            (cell(20.0, 1000.0, 0), cell(20.0 * same, 1000.0 / same, 0)),
        );
    }
    measured
}

fn options(args: &str) -> Options {
    parse(&words(args)).expect("good arguments")
}

#[test]
fn fewer_than_twenty_pairs_are_refused_unless_it_is_only_a_look() {
    assert_eq!(options("--against a").pairs, 20);
    assert_eq!(options("--rounds 30 --against a").pairs, 30);
    assert_eq!(options("--against a --quick").pairs, 2);
    assert_eq!(options("--against a --quick --rounds 3").pairs, 3);
    let cases = [
        ("--against a --rounds 19", "--quick"),
        (
            "--against a --only nothing",
            "rows: plain, reused, fresh, batched, passed, calls-shared, waits, plain-grpc",
        ),
        ("--against a --only", "rows: plain"),
        ("--against", "needs a path"),
        ("--against a --batching", "unexpected argument \"--batching\""),
    ];
    for (args, expected) in cases {
        let error = parse(&words(args)).map(|_| ()).expect_err(args).to_string();
        assert!(error.contains(expected), "{args}: {error}");
    }
}

#[test]
fn what_is_no_program_is_refused_with_the_reason() {
    let folder = std::env::temp_dir();
    let cases = [
        (folder.join("no-such-hostler"), "No such file"),
        (folder.clone(), "not a file"),
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"), "not executable"),
    ];
    for (path, expected) in cases {
        let error = check_program(&path).expect_err("refused").to_string();
        assert!(error.contains(expected) && error.contains("target/release/hostler"), "{error}");
    }
}

#[test]
fn the_verdict_is_by_either_measure_and_by_failures() {
    let judge = |measured: Measured| {
        let options = options("--against a");
        let text = report(&options, "- machine\n", std::slice::from_ref(&measured));
        (text, verdict(&options, &[measured]).map_err(|error| error.to_string()))
    };
    let (text, fine) = judge(measured(1.02, 0.99, 0.0, 0));
    assert!(text.contains("| plain | CPU us/request | 20.0 | 20.4 | 1.020 (1.020–1.020) |"), "{text}");
    assert!(text.contains("| 1.000 (1.000–1.000) | 0 | within 3 % |") && fine.is_ok(), "{text}");
    let (text, noisy) = judge(measured(1.05, 0.99, 0.06, 0));
    assert!(text.contains("within A/A") && noisy.is_ok(), "{text}");
    let (text, dearer) = judge(measured(1.05, 1.0, 0.0, 0));
    let dearer = dearer.expect_err("5 % more CPU");
    assert!(
        text.contains("over 3 %") && dearer.contains("plain: CPU us/request over 3 %: 1.050"),
        "{dearer}"
    );
    let (_, slower) = judge(measured(1.0, 0.9, 0.0, 0));
    assert!(slower.expect_err("a tenth fewer answers").contains("requests/s over 3 %: 1.111"));
    let (text, failed) = judge(measured(0.5, 2.0, 0.0, 1));
    assert!(text.contains("requests failed") && failed.expect_err("failures").contains("20 requests failed"));
}
