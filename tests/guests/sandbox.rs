//! Tests the sandbox: a misbehaving plugin fails its own request only. The error names plugin,
//! model and cause, the log has the guest's own message, and the same process serves the next
//! request as before.

use crate::support::slow::setup;
use crate::support::{Answer, Client, Host, eventually, is_deceptive};
use serde_json::{Value, json};

/// Each plugin with fresh and with reused instances; those named `brisk` have short timeouts.
const MANIFEST: &str = r#"
[plugins.fresh]
path = "hostile.wasm"
memory_mb = 256
result_mb = 16
log_kb = 4

[plugins.reused]
path = "hostile.wasm"
memory_mb = 256
result_mb = 16
log_kb = 4
instances = "reused"

[plugins.fresh-brisk]
path = "hostile.wasm"
timeout_ms = 200

[plugins.reused-brisk]
path = "hostile.wasm"
timeout_ms = 200
instances = "reused"

[models.fresh]
plugin = "fresh"
transformer = "fresh"

[models.reused]
plugin = "reused"
transformer = "reused"

[models.fresh-brisk]
plugin = "fresh-brisk"
transformer = "fresh-brisk"

[models.reused-brisk]
plugin = "reused-brisk"
transformer = "reused-brisk"
"#;

fn start() -> Host {
    setup(MANIFEST).env("HOSTLER_LOG_FORMAT", "json").start()
}

fn ask(client: &mut Client, id: &str, model: &str, parameters: &Value) -> Answer {
    let body = json!({"model": model, "data": {"a": 1}, "parameters": parameters}).to_string();
    client.request("POST", "/predict", &[("x-request-id", id)], body.as_bytes())
}

/// Returns the log with everything written before this call. A marker line, written last, shows
/// that it is complete.
fn whole_log(host: &Host) -> String {
    let mark = format!("mark-{:?}", std::time::Instant::now());
    let mark: String = mark.chars().filter(char::is_ascii_alphanumeric).collect();
    ask(&mut host.client(), &mark, "fresh", &json!({"do": "error", "kind": "failed"}));
    host.wait_for_log(&[&mark]);
    host.log()
}

/// Returns the fields of all log lines of this request.
fn log_of(log: &str, id: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["fields"].clone()).filter(|fields| fields["request"] == id).collect()
}

struct Misdeed {
    name: &'static str,
    /// Runs on the plugins named `*-brisk` instead of the others.
    brisk: bool,
    parameters: Value,
    status: u16,
    kind: &'static str,
    /// Part of the message to the client; `{p}` is the name of the plugin.
    message: &'static str,
    /// Parts of the detail in the log; empty if nothing failed inside the guest.
    detail: &'static [&'static str],
    /// The instance is discarded.
    trapped: bool,
}

fn misdeeds() -> Vec<Misdeed> {
    const BACKTRACE: &str = "wasm backtrace";
    let trap = |name, parameters: Value, message, detail| Misdeed {
        name,
        brisk: false,
        parameters,
        status: 500,
        kind: "failed",
        message,
        detail,
        trapped: true,
    };
    let wrong = |name, parameters: Value, status, kind, message| Misdeed {
        name,
        brisk: false,
        parameters,
        status,
        kind,
        message,
        detail: &[],
        trapped: false,
    };
    let late = |name, detail| Misdeed {
        brisk: true,
        status: 504,
        kind: "deadline",
        ..trap(name, json!({"do": name, "at": "predict"}), "plugin \"{p}\" was stopped after ", detail)
    };
    let result = "plugin \"{p}\" passed more than result_mb = 16 to the host in one call";
    let words = &["the request asked for this panic", BACKTRACE];
    let not_json = "plugin \"{p}\" returned invalid JSON";
    vec![
        late("spin", &["interrupt", BACKTRACE]),
        late("sleep", &["interrupt"]),
        trap(
            "a trap before",
            json!({"do": "trap", "at": "preprocess"}),
            "plugin \"{p}\" panicked or aborted",
            words,
        ),
        trap("a trap", json!({"do": "trap", "at": "predict"}), "plugin \"{p}\" panicked or aborted", words),
        trap(
            "a trap after",
            json!({"do": "trap", "at": "postprocess"}),
            "plugin \"{p}\" panicked or aborted",
            words,
        ),
        trap(
            "a memory bomb",
            json!({"do": "bomb"}),
            "plugin \"{p}\" exceeded memory_mb = 256",
            &["memory allocation of", BACKTRACE],
        ),
        trap(
            "a recursion",
            json!({"do": "recurse"}),
            "plugin \"{p}\" trapped: stack overflow",
            &["call stack exhausted", BACKTRACE],
        ),
        trap(
            "an overflow of its own stack",
            json!({"do": "overflow"}),
            "plugin \"{p}\" trapped: out of bounds memory access; this is often an overflow of the stack that the \
             linker has set: end a recursion that goes too deep, or build the plugin with a larger stack \
             (-zstack-size=BYTES; the default of Rust is 1048576)",
            &["out of bounds memory access", BACKTRACE],
        ),
        trap("a huge tensor", json!({"do": "huge-answer", "at": "predict"}), result, &[BACKTRACE]),
        trap("a huge answer", json!({"do": "huge-answer", "at": "postprocess"}), result, &[]),
        trap(
            "an exit",
            json!({"do": "exit"}),
            "plugin \"{p}\" exited with code 1 during a call",
            &["Exited with i32 exit status 1"],
        ),
        trap(
            "a million handles",
            json!({"do": "handles"}),
            "plugin \"{p}\" exceeded handles = 4096",
            &[BACKTRACE],
        ),
        trap("a hundred long names", json!({"do": "names"}), result, &[BACKTRACE]),
        trap(
            "a big note",
            json!({"do": "big-note"}),
            "plugin \"{p}\" failed: set a note of 2097152 bytes; at most 1048576 are allowed",
            &[BACKTRACE],
        ),
        wrong(
            "a bad tensor",
            json!({"do": "bad-tensor"}),
            500,
            "failed",
            "plugin \"{p}\": a host call failed with invalid_input: tensor \"bad\": FP32 of shape [2,2] needs 16 bytes, got 12",
        ),
        wrong("NaN", json!({"do": "nan"}), 500, "failed", not_json),
        wrong("half a JSON", json!({"do": "not-json"}), 500, "failed", not_json),
        wrong(
            "a tensor that the model does not take",
            json!({"do": "wrong-outputs", "at": "preprocess"}),
            500,
            "failed",
            "plugin \"{p}\": preprocess: no input \"surprise\"; inputs: \"data\"",
        ),
        wrong(
            "an output that was not announced",
            json!({"do": "wrong-outputs", "at": "predict"}),
            500,
            "failed",
            "plugin \"{p}\" returned the output \"surprise\" (FP32 [1,3]), which its metadata does not declare",
        ),
    ]
}

#[test]
fn each_misdeed_costs_one_request_and_is_explained() {
    let host = start();
    let mut client = host.client();
    for misdeed in misdeeds() {
        for instances in ["fresh", "reused"] {
            let plugin = if misdeed.brisk { format!("{instances}-brisk") } else { instances.to_owned() };
            let name = format!("{} ({plugin})", misdeed.name);
            // Twice: the second round would show a broken reused instance that was not discarded.
            for round in 0..2 {
                let id = format!("{}-{plugin}-{round}", misdeed.name.replace(' ', "-"));
                let traps = format!("hostler_plugin_traps_total{{plugin=\"{plugin}\"}}");
                let before = host.metric(&traps);
                let answer = ask(&mut client, &id, &plugin, &misdeed.parameters);

                assert_eq!(answer.status, misdeed.status, "{name}: {}", answer.text());
                let error = answer.error();
                let expected = misdeed.message.replace("{p}", &plugin);
                assert!(error["message"].as_str().unwrap().starts_with(&expected), "{name}: {error}");
                assert_eq!(error["kind"], misdeed.kind, "{name}: {error}");
                assert_eq!(error["plugin"], plugin.as_str(), "{name}: {error}");
                assert_eq!(error["model"], format!("{plugin}:1"), "{name}: {error}");
                assert_eq!(error["request_id"], id.as_str(), "{name}: {error}");

                let trapped = f64::from(u8::from(misdeed.trapped));
                assert_eq!(host.metric(&traps) - before, trapped, "{name}");
                if misdeed.kind != "invalid_input" {
                    explained_in_the_log(&host, &id, &misdeed);
                }
                let next = ask(&mut client, "next", &plugin, &json!({"do": "ok"}));
                assert_eq!(next.result(), json!({"a": 1}), "{name}: the next request");
            }
        }
    }
    for (plugin, expected) in [("fresh", 0.0), ("fresh-brisk", 0.0), ("reused", 2.0), ("reused-brisk", 2.0)] {
        let instances = host.metric(&format!("hostler_plugin_instances{{plugin=\"{plugin}\"}}"));
        // One reused instance per role stays in the pool for the next call.
        assert_eq!(instances, expected, "{plugin}");
    }
}

/// Checks that one log line names the request, the model and the plugin, with the guest's message
/// and its location.
fn explained_in_the_log(host: &Host, id: &str, misdeed: &Misdeed) {
    let find = || log_of(&host.log(), id).into_iter().find(|fields| fields["kind"] == misdeed.kind);
    let line = eventually(&format!("a line about {id}"), find, || host.log());
    let detail = line["detail"].as_str().unwrap_or_default();
    for part in misdeed.detail {
        assert!(detail.contains(part), "{id}: the detail lacks {part:?}: {line:#}");
    }
    assert_eq!(line["model"], json!(format!("{}:1", line["plugin"].as_str().unwrap())), "{line:#}");
}

#[test]
fn an_error_that_a_plugin_returns_is_its_answer() {
    let host = start();
    let mut client = host.client();
    for (kind, status, expected) in [
        ("invalid-input", 400, "invalid_input"),
        ("not-found", 404, "not_found"),
        ("unsupported", 501, "unsupported"),
        ("too-large", 413, "too_large"),
        ("overloaded", 429, "overloaded"),
        ("unavailable", 503, "unavailable"),
        ("deadline", 504, "deadline"),
        ("cancelled", 499, "cancelled"),
        ("failed", 500, "failed"),
    ] {
        for (at, plugin) in [("preprocess", "fresh"), ("predict", "reused"), ("postprocess", "fresh")] {
            let parameters = json!({"do": "error", "kind": kind, "at": at});
            let answer = ask(&mut client, "error", plugin, &parameters);
            assert_eq!(answer.status, status, "{kind} {at}: {}", answer.text());
            let error = answer.error();
            assert_eq!(error["kind"], expected, "{kind} {at}: {error}");
            assert!(error["message"].as_str().unwrap().contains("as asked"), "{kind} {at}: {error}");
            assert_eq!((&error["plugin"], &error["model"]), (&json!(plugin), &json!(format!("{plugin}:1"))));
            let field = if kind == "invalid-input" { json!("data.field") } else { Value::Null };
            assert_eq!(error["field"], field, "{kind} {at}: {error}");
            let retry = answer.header("retry-after").is_some();
            assert_eq!(retry, kind == "overloaded", "{kind} {at}: {:?}", answer.headers);
        }
    }
    for plugin in ["fresh", "reused"] {
        let traps = host.metric(&format!("hostler_plugin_traps_total{{plugin=\"{plugin}\"}}"));
        assert_eq!(traps, 0.0, "{plugin}: an error is a value");
    }
}

#[test]
fn what_an_instance_has_survived_is_not_blamed_later() {
    let host = start();
    let mut client = host.client();
    let answer = ask(&mut client, "greedy", "reused", &json!({"do": "greedy"}));
    assert_eq!(answer.result(), json!({"a": 1}), "it was refused memory and does without");
    let answer = ask(&mut client, "trap", "reused", &json!({"do": "trap"}));
    assert_eq!(answer.error()["message"], "plugin \"reused\" panicked or aborted");
}

#[test]
fn a_long_error_is_cut() {
    let host = start();
    let answer = ask(&mut host.client(), "long", "fresh", &json!({"do": "huge-error", "at": "predict"}));
    assert_eq!(answer.status, 500);
    let message = answer.error()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("xxxx") && message.len() <= (16 << 10) + 3, "{} bytes", message.len());
    let log = whole_log(&host);
    assert!(log.len() < 40_000, "{} bytes of log", log.len());
    assert_eq!(host.access_log("long")["error"], message);
}

/// 1 MB, 250 times what `log_kb` allows. Each line on stdout costs the host microseconds.
const FLOOD_LINES: u64 = 10_000;

#[test]
fn log_output_is_capped_and_belongs_to_its_request() {
    let host = start();
    let mut client = host.client();
    for plugin in ["fresh", "reused"] {
        for flood in ["log-flood", "print-flood"] {
            // Twice: the budget is per call, not per instance.
            for round in 0..2 {
                let id = format!("{flood}-{plugin}-{round}");
                let parameters = json!({"do": flood, "at": "predict", "count": FLOOD_LINES});
                let answer = ask(&mut client, &id, plugin, &parameters);
                assert_eq!(answer.result(), json!({"a": 1}), "{id}");
                let lines = log_of(&whole_log(&host), &id);
                let (cut, said): (Vec<_>, Vec<_>) = lines
                    .iter()
                    .map(|line| line["message"].as_str().unwrap())
                    .partition(|line| line.contains("plugin log truncated: more than log_kb in one call"));
                let bytes: usize = said.iter().map(|line| line.len()).sum();
                assert_eq!(cut.len(), 1, "{id}: said once");
                // The lines have a hundred bytes; trailing spaces are not logged.
                assert!((35..=41).contains(&said.len()) && bytes <= 4096, "{id}: {bytes} bytes, {said:?}");
                assert!(lines.iter().all(|line| line["plugin"] == plugin), "{id}");
            }
        }
    }
}

#[test]
fn a_plugin_cannot_forge_the_log() {
    let host = setup(MANIFEST).start();
    let answer = ask(&mut host.client(), "forge", "fresh", &json!({"do": "forge", "at": "predict"}));
    assert_eq!(answer.result(), json!({"a": 1}));
    let parameters = json!({"do": "forged-error", "at": "predict"});
    let failed = ask(&mut host.client(), "forge-error", "fresh", &parameters);
    assert!(failed.error()["message"].as_str().unwrap().contains("\n2026-01-01T00:00:00Z ERROR forged"));
    let log = whole_log(&host);
    let forged: Vec<&str> = log.lines().filter(|line| line.contains("forged")).collect();
    // Two lines each of the log, stdout and stderr, two that the SDK logs, and the error.
    assert_eq!(forged.len(), 9, "{log}");
    for line in forged {
        assert!(line.contains("plugin=\"fresh\"") && line.contains("request=\"forge"), "{line}");
        assert!(!line.starts_with("2026-01-01") && !line.contains(is_deceptive), "{line:?}");
    }
    assert!(log.contains(r"forged \u{202e}\u{2066}\u{2028}\u{85}\u{7f}"), "{log}");
    host.access_log("forge-error");
    let lines = host.stdout().join("\n");
    assert!(lines.contains(r"forged \u202e\u2066\u2028"), "{lines}");
    assert!(!lines.contains(|one| one != '\n' && is_deceptive(one)), "{lines:?}");
}

#[test]
fn json_lines_of_the_log_are_json_whatever_a_plugin_writes() {
    let host = start();
    for deed in ["forge", "forged-error"] {
        ask(&mut host.client(), "forge", "fresh", &json!({"do": deed, "at": "predict"}));
    }
    let log = whole_log(&host);
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        assert!(!line.contains(is_deceptive), "{line:?}");
    }
    let messages: Vec<Value> =
        log_of(&log, "forge").into_iter().map(|fields| fields["message"].clone()).collect();
    let text = "\u{1b}[31mforged \u{202e}\u{2066}\u{2028}\u{85}\u{7f}";
    assert!(messages.iter().any(|message| message.as_str().is_some_and(|line| line.contains(text))), "{log}");
}

#[test]
fn a_plugin_sees_nothing_of_the_machine() {
    let host = setup(MANIFEST).env("SECRET", "hostler").start();
    let parameters = json!({"do": "snoop", "address": host.http.to_string()});
    for plugin in ["fresh", "reused"] {
        let answer = ask(&mut host.client(), "snoop", plugin, &parameters);
        let expected = json!({
            "environment": 0, "arguments": 0, "input": 0,
            "list": false, "read": false, "write": false,
            "connect": false, "listen": false, "udp": false, "names": false,
        });
        assert_eq!(answer.result(), expected, "{plugin}");
    }
}

#[test]
fn misdeeds_leave_nothing_behind() {
    let manifest = MANIFEST.replace("memory_mb = 256", "memory_mb = 32");
    let host = setup(&manifest).start();
    let misdeeds = misdeeds();
    let ask = |client: &mut Client, index: usize| {
        let misdeed = &misdeeds[index % misdeeds.len()];
        let instances = if index.is_multiple_of(2) { "fresh" } else { "reused" };
        let plugin = if misdeed.brisk { format!("{instances}-brisk") } else { instances.to_owned() };
        (misdeed, ask(client, "round", &plugin, &misdeed.parameters))
    };
    // Warm-up: fills the pools of slots and instances and makes every worker work. The answers are
    // ignored, because under this load the time of each call is unpredictable.
    std::thread::scope(|scope| {
        for first in 0..8 {
            let (host, ask) = (&host, &ask);
            scope.spawn(move || {
                let mut client = host.client();
                (first..first + 75).for_each(|index| drop(ask(&mut client, index)));
            });
        }
    });
    let mut client = host.client();
    let mut look = || {
        for index in 0..300 {
            let (misdeed, answer) = ask(&mut client, index);
            assert_eq!(answer.status, misdeed.status, "{}: {}", misdeed.name, answer.text());
        }
        // Calls that were answered at their deadline end shortly afterwards.
        host.wait_for_idle("cpu");
        host.usage()
    };
    let before = look();
    let looks = [look(), look(), look()];
    eprintln!("before {before:?}, after 300, 600 and 900 rounds {looks:?}");
    let after = &looks[2];
    assert_eq!((after.threads, after.files), (before.threads, before.files));
    let growth_kb = before.growth_kb(&looks);
    // The allocator keeps some freed pages: what a leak would hold is far more.
    assert!(growth_kb < 64 << 10, "grew by {growth_kb} kB");
}
