//! `[server]` as written.

use super::tls::ServerTls;
use super::traces::ServerTraces;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `[server]`. Read at start. A change needs a restart, and a reload reports that.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address of the public listener.
    pub http: Option<String>,
    /// Address of the gRPC listener. Without an address there is none.
    pub grpc: Option<String>,
    /// Address of the admin listener: policy, reload, metrics.
    pub admin: Option<String>,
    /// The ONNX Runtime library, libonnxruntime.so.
    pub onnxruntime: Option<PathBuf>,
    /// Threads that serve connections.
    pub io_threads: Option<usize>,
    pub max_connections: Option<usize>,
    /// Names under which clients may call the host, besides `localhost` and addresses.
    pub allowed_hosts: Option<Vec<String>>,
    /// Origins whose pages may send requests and read the answers.
    pub allowed_origins: Option<Vec<String>>,
    pub max_body_mb: Option<usize>,
    pub max_header_kb: Option<usize>,
    /// Time in which a client must have sent its headers.
    pub header_timeout_ms: Option<u64>,
    /// Time for which a connection of HTTP/1.1 may be idle.
    pub idle_timeout_ms: Option<u64>,
    /// Time in which a client must have sent its body.
    pub body_timeout_ms: Option<u64>,
    /// Memory that the host holds for all clients together.
    pub max_buffered_mb: Option<usize>,
    /// A request that arrives more slowly is aborted; 0 means no minimum.
    pub min_bytes_per_s: Option<u64>,
    /// Time in which a client must take some of its answer.
    pub write_timeout_ms: Option<u64>,
    /// Deadline of requests that set none.
    pub timeout_ms: Option<u64>,
    /// The latest deadline that a client may ask for.
    pub max_timeout_ms: Option<u64>,
    /// On SIGTERM: time to continue serving, as not ready, before the listeners close.
    pub drain_delay_ms: Option<u64>,
    /// Then: time in which requests may finish.
    pub drain_timeout_ms: Option<u64>,
    /// One JSON line per request on stdout.
    pub access_log: Option<bool>,
    /// Plugin instances that may exist at once.
    pub plugin_instances: Option<u32>,
    /// The upper bound of a plugin's memory_mb.
    pub plugin_memory_mb_max: Option<usize>,
    /// The folder of compiled plugins.
    pub cache_dir: Option<PathBuf>,
    pub cache_mb: Option<u64>,
    /// `none` or `explicit`: whether clients may load and unload models.
    pub model_control: Option<String>,
    /// The file of access rules. Without it, everything is allowed.
    pub access_rules: Option<PathBuf>,
    /// The file of the audit log. Without it, no acts are recorded.
    pub audit_log: Option<PathBuf>,
    /// Networks of proxies whose word about their clients is taken.
    pub trusted_proxies: Option<Vec<String>>,
    /// The header in which these proxies name the tenant of a request.
    pub tenant_header: Option<String>,
    pub tls: Option<ServerTls>,
    pub traces: Option<ServerTraces>,
}

impl Server {
    /// Whether clients may load and unload models.
    pub fn is_explicit(&self) -> bool {
        self.model_control.as_deref() == Some("explicit")
    }

    /// Returns the keys that are set, with their values as text.
    pub fn entries(&self) -> BTreeMap<&'static str, String> {
        let mut entries = BTreeMap::new();
        macro_rules! list {
            ($($key:ident),* $(,)?) => {
                // The keys are listed only once, so that a new one cannot be forgotten.
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
            idle_timeout_ms,
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
            access_rules,
            audit_log,
            trusted_proxies,
            tenant_header,
            tls,
            traces,
        );
        entries
    }
}
