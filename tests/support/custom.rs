//! Custom executors in front of a model with faults: the manifest, load until a number of answers,
//! and counters.

use super::load::{Load, Outcome, Shot};
use super::{Answer, Host, Setup, eventually, plugin};
use serde_json::json;

/// Creates a setup with the model `asked` on a custom executor whose guest is the plugin `executor`
/// with this config, and the same model as `plain` on `cpu`. Both models use the plugin `faulty`,
/// whose config is `faults`.
pub fn setup(executor: &str, config: &str, faults: &str) -> Setup {
    setup_with(executor, config, faults, "")
}

/// Like `setup`, with more lines at the end of the manifest.
pub fn setup_with(executor: &str, config: &str, faults: &str, more: &str) -> Setup {
    let manifest = format!(
        "[executors.cpu]\nworkers = 64\n\n[executors.custom]\nkind = \"custom\"\nplugin = \"{executor}\"\n\
         inner = \"cpu\"\nworkers = 128\n\n[plugins.{executor}]\npath = \"{executor}.wasm\"\n\
         instances = \"reused\"\n\n[plugins.{executor}.config]\n{config}\n\n[plugins.faulty]\n\
         path = \"faulty.wasm\"\ninstances = \"reused\"\ntimeout_ms = 120000\n\n[plugins.faulty.config]\n{faults}\n\n\
         [models.asked]\nplugin = \"faulty\"\n\n[models.plain]\nplugin = \"faulty\"\n\n[policy]\n\
         asked = \"custom\"\nplain = \"cpu\"\n\n{more}\n"
    );
    Setup::new(&manifest)
        .file(&format!("{executor}.wasm"), plugin(executor))
        .file("faulty.wasm", plugin("faulty"))
}

/// Returns a request with one number, which the model returns unchanged unless its config says
/// otherwise.
pub fn shot(model: &str) -> Shot {
    Shot::predict(model, &json!([1.0]))
}

/// Returns the value of a plugin's event counter.
pub fn events(host: &Host, plugin: &str, name: &str) -> u64 {
    host.metric(&format!("hostler_plugin_events_total{{name=\"{name}\",plugin=\"{plugin}\"}}")) as u64
}

/// Returns the number of requests answered with 200.
pub fn answered(host: &Host, model: &str) -> u64 {
    host.metric(&format!("hostler_requests_total{{code=\"200\",model=\"{model}\",version=\"1\"}}")) as u64
}

/// Puts load on `model` until it has given this many more answers, whatever their status.
pub fn load(
    host: &Host,
    model: &str,
    connections: usize,
    answers: u64,
    judge: impl Fn(&Answer) -> Option<String> + Send + Sync + 'static,
) -> Outcome {
    let until = all_answers(host, model) + answers;
    let load = Load::start(host.http, connections, shot(model), None, judge);
    let enough = || (all_answers(host, model) >= until).then_some(());
    eventually(&format!("{answers} answers of {model}"), enough, || host.log());
    load.stop()
}

/// Returns the number of requests answered, whatever their status.
pub fn all_answers(host: &Host, model: &str) -> u64 {
    let codes = [200, 429, 500, 503, 504];
    let sample = |code| format!("hostler_requests_total{{code=\"{code}\",model=\"{model}\",version=\"1\"}}");
    codes.iter().map(|code| host.metric(&sample(code)) as u64).sum()
}

/// A judge for `Load`: returns a description of an answer that is not 200 with the same number.
pub fn is_right(answer: &Answer) -> Option<String> {
    let right = answer.status == 200 && answer.json()["result"]["y"] == json!([1.0]);
    (!right).then(|| format!("{} {}", answer.status, answer.text()))
}
