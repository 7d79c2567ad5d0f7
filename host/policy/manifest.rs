//! The manifest as written: `hostler.toml`, its keys, their units, and nothing checked but the types.
//!
//! Spans are kept where a later check may complain. What a missing key means is said in `plan`.

mod faults;
pub mod pipelines;

use super::diagnostic::Diagnostics;
use super::secret::PluginConfig;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
pub use toml::Spanned;

type Named<T> = BTreeMap<Spanned<String>, T>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    pub server: Server,
    pub executors: Named<Executor>,
    pub plugins: Named<Plugin>,
    pub models: Named<Model>,
    pub pipelines: Named<pipelines::Pipeline>,
    pub policy: Named<Spanned<String>>,
    pub routing: Named<Routing>,
    pub reload: Reload,
    pub files: Files,
    pub jobs: Jobs,
}

/// `[server]`. Read at start; a change needs a restart and a reload says so.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address of the public listener.
    pub http: Option<String>,
    /// Address of the gRPC listener; without it there is none.
    pub grpc: Option<String>,
    /// Address of the admin listener: policy, reload, metrics.
    pub admin: Option<String>,
    /// The ONNX Runtime library, libonnxruntime.so.
    pub onnxruntime: Option<PathBuf>,
    /// Threads that serve connections.
    pub io_threads: Option<usize>,
    pub max_connections: Option<usize>,
    /// Names under which the host may be asked, besides `localhost` and addresses.
    pub allowed_hosts: Option<Vec<String>>,
    /// Origins whose pages may ask and read the answers.
    pub allowed_origins: Option<Vec<String>>,
    pub max_body_mb: Option<usize>,
    pub max_header_kb: Option<usize>,
    /// Time in which a client must have sent its headers.
    pub header_timeout_ms: Option<u64>,
    /// Time in which a client must have sent its body.
    pub body_timeout_ms: Option<u64>,
    /// Bytes that the host holds for all clients together.
    pub max_buffered_mb: Option<usize>,
    /// A request that arrives more slowly is given up; 0 is no minimum.
    pub min_bytes_per_s: Option<u64>,
    /// Time in which a client must take some of its answer.
    pub write_timeout_ms: Option<u64>,
    /// Deadline of requests for which nobody set one.
    pub timeout_ms: Option<u64>,
    /// The latest deadline that a caller may ask for.
    pub max_timeout_ms: Option<u64>,
    /// On SIGTERM: time to serve on as not ready before the listeners close.
    pub drain_delay_ms: Option<u64>,
    /// Then: time in which requests may finish.
    pub drain_timeout_ms: Option<u64>,
    /// One JSON line per request on stdout.
    pub access_log: Option<bool>,
    /// Plugin instances alive at once.
    pub plugin_instances: Option<u32>,
    /// The most that a plugin's memory_mb may be.
    pub plugin_memory_mb_max: Option<usize>,
    /// Where compiled plugins are kept.
    pub cache_dir: Option<PathBuf>,
    pub cache_mb: Option<u64>,
    /// `none` or `explicit`: whether clients may load and unload models.
    pub model_control: Option<String>,
}

/// `[executors.<name>]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Executor {
    /// `thread-pool`, `onnx`, `triton`, `custom` or `pipeline`.
    pub kind: Option<Spanned<String>>,
    pub workers: Option<Spanned<usize>>,
    pub queue: Option<Spanned<usize>>,
    /// `cpu`, `cuda` or `cuda:<index>`.
    pub device: Option<Spanned<String>>,
    /// Copies of each model: runs of one model at the same time.
    pub sessions: Option<Spanned<usize>>,
    /// Threads of one run.
    pub intra_threads: Option<Spanned<usize>>,
    /// Kind `custom`: a plugin in the role `executor`.
    pub plugin: Option<Spanned<String>>,
    /// Kind `custom`: the executor that the plugin stands before.
    pub inner: Option<Spanned<String>>,
    /// Kind `custom`: `fail` or `inner`, where a call's guest trapped or overran.
    pub on_failure: Option<Spanned<String>>,
    /// Kinds `custom` and `triton`: OS threads that guests and calls share.
    pub threads: Option<Spanned<usize>>,
    /// Kind `triton`: where its gRPC is, such as `127.0.0.1:8001`.
    pub url: Option<Spanned<String>>,
    /// Kind `triton`: connections that calls are spread over.
    pub channels: Option<Spanned<usize>>,
    pub connect_timeout_ms: Option<Spanned<u64>>,
    /// Kind `triton`: silence after which a connection with calls in flight is asked whether it lives.
    pub keepalive_ms: Option<Spanned<u64>>,
    /// Kind `triton`: the most that a request or an answer may have.
    pub max_message_mb: Option<Spanned<usize>>,
    pub tls: Option<Spanned<Tls>>,
}

/// `tls` of an executor of kind `triton`: files in PEM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Who may sign the remote's certificate; without it, those that this machine trusts.
    pub ca: Option<Spanned<PathBuf>>,
    /// This side's certificate, with `key`.
    pub cert: Option<Spanned<PathBuf>>,
    pub key: Option<Spanned<PathBuf>>,
    /// The name in the remote's certificate, where the url has another.
    pub domain: Option<String>,
}

/// `remote` of a model: its name and version where it runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    pub name: Spanned<String>,
    /// Without it, the only version there.
    pub version: Option<String>,
}

/// `[plugins.<name>]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    pub path: Spanned<PathBuf>,
    /// The file counts only when it has this digest.
    pub sha256: Option<Spanned<String>>,
    pub memory_mb: Option<Spanned<usize>>,
    pub timeout_ms: Option<Spanned<u64>>,
    /// `fresh`, `reused` or `shared`.
    pub instances: Option<Spanned<String>>,
    /// Megabytes that one call may hand to the host.
    pub result_mb: Option<Spanned<usize>>,
    pub handles: Option<Spanned<usize>>,
    /// Megabytes that one instance may hold in the host.
    pub held_mb: Option<Spanned<usize>>,
    /// The same of all instances together.
    pub held_total_mb: Option<Spanned<usize>>,
    pub log_kb: Option<Spanned<usize>>,
    /// Kilobytes that the plugin may keep across requests.
    pub state_kb: Option<Spanned<usize>>,
    /// Calls after which a reused instance is replaced.
    pub calls_max: Option<Spanned<u64>>,
    /// Shared instances beside each other.
    pub replicas: Option<Spanned<usize>>,
    /// Calls in flight in one shared instance.
    pub max_in_flight: Option<Spanned<usize>>,
    /// How long a shared instance may compute in one go.
    pub turn_ms: Option<Spanned<u64>>,
    /// How long a call may take to return after nobody waits for it.
    pub grace_ms: Option<Spanned<u64>>,
    /// How long calls may take to end when their plugin is replaced.
    pub drain_ms: Option<Spanned<u64>>,
    /// Seconds of processor time to compile it.
    pub compile_s: Option<Spanned<u64>>,
    /// Megabytes of memory to compile it.
    pub compile_mb: Option<Spanned<usize>>,
    #[serde(default)]
    pub config: PluginConfig,
    #[serde(default)]
    pub assets: BTreeMap<String, Spanned<PathBuf>>,
    /// The servers that it may ask.
    pub http: Option<Spanned<Http>>,
}

/// `[plugins.<name>.http]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// `[http://|https://]host[:port]`, or `*.example.org` for the host.
    pub allow_hosts: Vec<Spanned<String>>,
    /// From a call to the end of its answer.
    pub timeout_ms: Option<Spanned<u64>>,
    /// Of a request and of an answer.
    pub max_body_kb: Option<Spanned<usize>>,
    /// Calls of one call into the plugin.
    pub max_calls: Option<Spanned<u32>>,
    /// Calls under way.
    pub max_in_flight: Option<Spanned<usize>>,
    /// Certificates that are trusted beside the machine's own, in PEM.
    pub ca_file: Option<Spanned<PathBuf>>,
}

/// `[models."<name>:<version>"]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// An ONNX file.
    pub path: Option<Spanned<PathBuf>>,
    /// A plugin in the role `model`.
    pub plugin: Option<Spanned<String>>,
    /// A model where an executor of kind `triton` asks.
    pub remote: Option<Spanned<Remote>>,
    /// A graph of models, `[pipelines.<name>]`.
    pub pipeline: Option<Spanned<String>>,
    /// The model file counts only when it has this digest.
    pub sha256: Option<Spanned<String>>,
    /// The same for its external data, by their path relative to the model's folder.
    pub data_sha256: BTreeMap<String, Spanned<String>>,
    /// A plugin in the role `transformer`.
    pub transformer: Option<Spanned<String>>,
    pub timeout_ms: Option<Spanned<u64>>,
    /// Rows that one run may have, of as many requests. 1 is off.
    pub max_batch_size: Option<Spanned<usize>>,
    /// How long a request may wait for others to share its run.
    pub max_queue_delay_us: Option<Spanned<u64>>,
    /// Output to a text file with a name for each of its elements, one a line.
    pub labels: BTreeMap<String, Spanned<PathBuf>>,
    /// A call that has sent nothing may run again when its instance was lost to another one.
    pub idempotent: bool,
    /// Sample requests with expected answers, run before the model goes live.
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    pub file: Spanned<PathBuf>,
    /// Numbers may differ by this much.
    pub tolerance: Option<Spanned<f64>>,
}

/// `[routing.<model>]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// Version to weight; the share is the weight over the sum.
    pub weights: Spanned<BTreeMap<String, u32>>,
    /// `request-id` or `header:<name>`: what keeps a caller on one version.
    pub by: Option<Spanned<String>>,
}

/// `[reload]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// `watch` or `manual`.
    pub mode: Option<Spanned<String>>,
    /// A file must be quiet for this long before it is read.
    pub quiet_ms: Option<Spanned<u64>>,
    /// A file that keeps changing is waited for at most this long.
    pub quiet_max_ms: Option<Spanned<u64>>,
    /// Files are looked at this often even if no event came.
    pub poll_ms: Option<Spanned<u64>>,
    /// Time for ONNX Runtime to load one session of a model.
    pub model_load_timeout_ms: Option<Spanned<u64>>,
    pub guard: Option<Guard>,
    pub canary: Option<Canary>,
}

/// `[reload.guard]`: when a new policy is rolled back by itself.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    pub watch_ms: Option<Spanned<u64>>,
    pub min_requests: Option<Spanned<u64>>,
    pub max_fault_rate: Option<Spanned<f64>>,
    pub max_latency_ratio: Option<Spanned<f64>>,
    pub latency_floor_ms: Option<Spanned<f64>>,
}

/// `[reload.canary]`: how a new policy takes over, step by step.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Canary {
    /// Percent of the requests.
    pub steps: Option<Spanned<Vec<f64>>>,
    pub step_ms: Option<Spanned<u64>>,
    /// `request-id` or `header:<name>`: what keeps a caller on one side.
    pub by: Option<Spanned<String>>,
    /// A stage before: copies of requests, whose answers nobody gets.
    pub shadow_ms: Option<Spanned<u64>>,
    pub shadow_share: Option<Spanned<f64>>,
    pub shadow_tolerance: Option<Spanned<f64>>,
    pub max_difference_rate: Option<Spanned<f64>>,
}

/// `[files]`: how large a file of each kind may be.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    pub max_model_mb: Option<Spanned<u64>>,
    pub max_external_data_mb: Option<Spanned<u64>>,
    pub max_plugin_mb: Option<Spanned<u64>>,
    pub max_asset_mb: Option<Spanned<u64>>,
    pub max_check_mb: Option<Spanned<u64>>,
    pub max_labels_mb: Option<Spanned<u64>>,
}

/// `[jobs]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    /// Jobs kept at once, ended ones included.
    pub capacity: Option<Spanned<usize>>,
    /// Inputs and results kept at once.
    pub store_mb: Option<Spanned<usize>>,
    /// Jobs that may have an attempt at once.
    pub concurrency: Option<Spanned<usize>>,
    /// Time for which an ended job is kept.
    pub result_ttl_s: Option<Spanned<u64>>,
    /// The most attempts that a caller may ask for.
    pub max_attempts: Option<Spanned<u32>>,
    /// Time from submission to the end, where the caller does not say.
    pub total_runtime_ms: Option<Spanned<u64>>,
    /// The longest that a caller may ask for.
    pub max_total_runtime_ms: Option<Spanned<u64>>,
}

impl Server {
    /// The keys that are set, with their values as text.
    pub fn entries(&self) -> BTreeMap<&'static str, String> {
        let mut entries = BTreeMap::new();
        macro_rules! list {
            ($($key:ident),* $(,)?) => {
                // Named here and nowhere else, so that a new key cannot be forgotten.
                let Server { $($key),* } = self;
                $(entries.extend($key.as_ref().map(|value| (stringify!($key), format!("{value:?}"))));)*
            };
        }
        list!(
            http,
            grpc,
            admin,
            onnxruntime,
            io_threads,
            max_connections,
            allowed_hosts,
            allowed_origins,
            max_body_mb,
            max_header_kb,
            header_timeout_ms,
            body_timeout_ms,
            max_buffered_mb,
            min_bytes_per_s,
            write_timeout_ms,
            timeout_ms,
            max_timeout_ms,
            drain_delay_ms,
            drain_timeout_ms,
            access_log,
            plugin_instances,
            plugin_memory_mb_max,
            cache_dir,
            cache_mb,
            model_control,
        );
        entries
    }
}

impl Manifest {
    /// Reads a manifest's text. The first fault of form ends it; those of meaning come in `plan`, together.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Box<Diagnostics>> {
        toml::from_str(text)
            .map_err(|error| Box::new(Diagnostics::new(path, text, vec![faults::explain(&error, text)])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Manifest::parse(Path::new("hostler.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn faults_of_form_name_the_place_and_the_mend() {
        for (text, expected) in [
            (
                "[executors.cpu]\nmax_workers = 8\n",
                &["hostler.toml:2:1", "unknown key \"max_workers\"", "did you mean \"workers\"?"][..],
            ),
            (
                "[executors.onnx]\nworkers = \"eight\"\n",
                &["hostler.toml:2:11", "wrong type: string \"eight\", expected a whole number", "^^^^^^^"],
            ),
            ("[policy]\necho:v1 = \"gpu\"\n", &["hostler.toml:2:", "write \"echo:v1\""]),
            ("[models.echo:v1]\nplugin = \"echo\"\n", &["hostler.toml:1:", "write \"echo:v1\""]),
            ("[plugins.a]\n", &["the key \"path\" is missing", "hostler.toml:1:1"]),
            ("[modles.a]\n", &["unknown key \"modles\"", "did you mean \"models\"?"]),
        ] {
            let shown = fault(text);
            for part in expected {
                assert!(shown.contains(part), "{text}\n{shown}\nlacks {part}");
            }
        }
    }
}
