//! Checks executors of kind `triton`, and the models of their remotes.

use super::bounds::{CALLS_MAX, WORKERS_MAX};
use super::executor_plan::{ExecutorKind, ExecutorPlan, TlsPlan};
use super::model_plan::SourcePlan;
use super::planner::Planner;
use crate::config::cores;
use crate::executor::TritonConfig;
use crate::input_file::FileKind;
use crate::policy::manifest::{self, Spanned};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Concurrent calls. A waiting call costs little here, and the remote has a queue of its own.
const WORKERS: usize = 128;

/// Connections. One could carry all calls at once. A second halves the calls that wait behind a
/// large tensor.
const CHANNELS: usize = 2;
const CHANNELS_MAX: usize = 64;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Enough for the largest HTTP body by default, and for answers that are larger than their request.
const MESSAGE_MB: usize = 256;

/// gRPC limits the length of a message to 4 GiB, and Triton to 2 GiB.
const MESSAGE_MB_MAX: usize = 2047;

impl Planner<'_> {
    pub(super) fn triton(
        &mut self,
        key: &Spanned<String>,
        table: &manifest::Executor,
    ) -> Option<ExecutorPlan> {
        let name = key.get_ref().as_str();
        self.no_workers(name, table);
        self.no_custom(name, table);
        let Some(url) = &table.url else {
            let message = format!("executor \"{name}\" is of kind triton and has no url");
            self.hinted(key.span(), message, "add url = \"127.0.0.1:8001\", the address of Triton's gRPC");
            return None;
        };
        let of_executor = format!("executor \"{name}\": ");
        let timeout = self.ms(&of_executor, "connect_timeout_ms", table.connect_timeout_ms.as_ref());
        let keepalive = self.ms(&of_executor, "keepalive_ms", table.keepalive_ms.as_ref());
        let config = TritonConfig {
            url: self.url(name, url, table.tls.is_some())?,
            workers: self.at_least_one(name, "workers", &table.workers, WORKERS, CALLS_MAX),
            threads: self.at_least_one(name, "threads", &table.threads, cores(), WORKERS_MAX),
            channels: self.at_least_one(name, "channels", &table.channels, CHANNELS, CHANNELS_MAX),
            connect_timeout: timeout.unwrap_or(CONNECT_TIMEOUT),
            keepalive,
            message_bytes_max: self.at_least_one(
                name,
                "max_message_mb",
                &table.max_message_mb,
                MESSAGE_MB,
                MESSAGE_MB_MAX,
            ) << 20,
        };
        let tls = match &table.tls {
            Some(tls) => Some(self.tls(name, tls)?.into()),
            None => config.url.starts_with("https:").then(Box::<TlsPlan>::default),
        };
        Some(ExecutorPlan::Triton { config, tls })
    }

    /// Returns the address with its scheme. gRPC ignores whatever follows the authority.
    fn url(&mut self, name: &str, url: &Spanned<String>, tls: bool) -> Option<String> {
        let written = url.get_ref().as_str();
        let (scheme, authority) = match written.split_once("://") {
            None if tls => ("https", written),
            None => ("http", written),
            Some((scheme, authority)) => (scheme, authority.trim_end_matches('/')),
        };
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
        let refused = match scheme {
            "http" if tls => Some(("has tls and a url with http://", "write https://, or no scheme")),
            "http" | "https" if has_port && !authority.contains(['/', '@', ' ', '?']) => None,
            "http" | "https" => Some(("has a url that is not host:port", "write url = \"127.0.0.1:8001\"")),
            _ => Some(("has a url of an unknown scheme", "write host:port, http:// or https:// before it")),
        };
        if let Some((fault, hint)) = refused {
            self.hinted(url.span(), format!("executor \"{name}\" {fault}"), hint);
            return None;
        }
        Some(format!("{scheme}://{authority}"))
    }

    fn tls(&mut self, name: &str, tls: &Spanned<manifest::Tls>) -> Option<TlsPlan> {
        let what = format!("executor \"{name}\": tls");
        let table = tls.get_ref();
        let faults = self.faults.len();
        let ca = table.ca.as_ref().and_then(|path| self.file(&what, path, FileKind::Tls));
        let identity = match (&table.cert, &table.key) {
            (Some(cert), Some(key)) => {
                self.file(&what, cert, FileKind::Tls).zip(self.file(&what, key, FileKind::Tls))
            }
            (None, None) => None,
            _ => {
                let message = format!("{what} has only one of cert and key");
                self.hinted(tls.span(), message, "a certificate and its key go together");
                None
            }
        };
        (self.faults.len() == faults).then(|| TlsPlan { ca, identity, domain: table.domain.clone() })
    }

    /// Reads the source of a model whose executor is of kind `triton`, or has an inner one of that
    /// kind.
    pub(super) fn remote_source(
        &mut self,
        what: &str,
        key: &Spanned<String>,
        table: &manifest::Model,
        executor: &str,
    ) -> Option<SourcePlan> {
        let Some(remote) = &table.remote else {
            let (has, span, instead) = match (&table.plugin, &table.path) {
                (Some(plugin), _) => ("a plugin", plugin.span(), "thread-pool, such as \"cpu\""),
                (None, Some(path)) => ("a file", path.span(), "onnx or thread-pool"),
                (None, None) => ("neither a path nor a plugin nor a remote", key.span(), "onnx"),
            };
            let message = format!(
                "{what} has {has}, and executor \"{executor}\", of kind triton, runs models of a remote only"
            );
            let hint =
                format!("add remote = {{ name = \"<name there>\" }}, or name an executor of kind {instead}");
            self.hinted(span, message, hint);
            return None;
        };
        if let Some(plugin) = &table.plugin {
            self.plugin_and_remote(what, plugin, remote);
            return None;
        }
        let manifest::Remote { name, version } = remote.get_ref();
        if name.get_ref().is_empty() {
            self.fault(name.span(), format!("{what}: the name of the remote model is empty"));
            return None;
        }
        let reference = match &table.path {
            Some(path) => Some(self.onnx_file(what, table, path)?),
            None => None,
        };
        Some(SourcePlan::Remote { name: name.get_ref().clone(), version: version.clone(), reference })
    }

    pub(super) fn plugin_and_remote(
        &mut self,
        what: &str,
        plugin: &Spanned<String>,
        remote: &Spanned<manifest::Remote>,
    ) {
        let message = format!("{what} has both a plugin and a remote; it can have one");
        let hint = format!(
            "to move it between them, make two versions, one with plugin = \"{}\", one with remote = {{ name = \"{}\" \
             }}, and a routing rule",
            plugin.get_ref(),
            remote.get_ref().name.get_ref()
        );
        self.hinted(remote.span(), message, hint);
    }

    /// Reports a model that exists only at a remote, on an executor that has no remote.
    pub(super) fn remote_elsewhere(
        &mut self,
        what: &str,
        remote: &Spanned<manifest::Remote>,
        executor: Option<(&str, ExecutorKind)>,
    ) {
        // A missing executor was reported already.
        let Some((executor, kind)) = executor else { return };
        let kind = kind.as_str();
        let message = format!(
            "{what} has a remote only, and executor \"{executor}\", of kind {kind}, runs models itself"
        );
        let hint = "name an executor of kind triton under [policy], or add path = \"<file>.onnx\"";
        self.hinted(remote.span(), message, hint);
    }

    /// Returns the executor of a remote model that names none: the only one of kind `triton`.
    pub(super) fn only_triton(
        &mut self,
        what: &str,
        remote: &Spanned<manifest::Remote>,
        executors: &BTreeMap<Arc<str>, ExecutorPlan>,
    ) -> Option<Arc<str>> {
        let of_kind = executors.iter().filter(|(_, plan)| plan.kind() == ExecutorKind::Triton);
        let names: Vec<&Arc<str>> = of_kind.map(|(name, _)| name).collect();
        match names[..] {
            [only] => return Some(Arc::clone(only)),
            [] => {
                let hint =
                    "add a table such as\n[executors.remote]\nkind = \"triton\"\nurl = \"127.0.0.1:8001\"";
                let message = format!("{what} has a remote, and there is no executor of kind triton");
                self.hinted(remote.span(), message, hint);
            }
            _ => {
                let names: Vec<&str> = names.iter().map(|name| &***name).collect();
                let message = format!("{what} has a remote, and [policy] does not say on which executor");
                self.hinted(remote.span(), message, format!("of kind triton are: {}", names.join(", ")));
            }
        }
        None
    }
}
