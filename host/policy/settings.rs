//! The `[server]` and `[reload]` tables, with their defaults filled in.

use super::diagnostic::{Diagnostic, Diagnostics};
use super::manifest;
use super::milliseconds::{MS_MAX, milliseconds};
use super::rollout_settings::{CanarySettings, GuardSettings, whole};
use super::tls_settings::TlsSettings;
use super::trace_settings;
use crate::config::proxies::Proxies;
use crate::config::{EngineConfig, ListenAddress, TraceSettings};
use hyper::header::HeaderName;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the process serves. A running process does not change it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub http: ListenAddress,
    pub grpc: Option<ListenAddress>,
    pub admin: ListenAddress,
    pub onnxruntime: Option<PathBuf>,
    pub io_threads: usize,
    pub limits: Limits,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub access_log: bool,
    /// Whether clients may load and unload models.
    pub model_control: bool,
    pub access: Access,
    pub tls: TlsSettings,
    /// The file of access rules. Without it, everything is allowed.
    pub access_rules: Option<PathBuf>,
    /// The file of the audit log. Without it, no acts are recorded.
    pub audit_log: Option<PathBuf>,
    /// Proxies whose word about their clients is taken.
    pub proxies: Proxies,
    /// The header in which they name the tenant of a request.
    pub tenant_header: Option<HeaderName>,
    /// Without it, nothing is traced.
    pub traces: Option<TraceSettings>,
    pub engine: EngineConfig,
}

/// Which web pages may call the host, and under which names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// Names besides `localhost` and addresses, in lower case; `*` is any. `None` is the default.
    pub hosts: Option<Vec<String>>,
    /// Origins, in the form that browsers send.
    pub origins: Vec<String>,
}

/// What one client may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub max_connections: usize,
    pub max_body_bytes: usize,
    pub max_header_bytes: usize,
    pub header_timeout: Duration,
    /// How long an HTTP/1.1 connection may be open without a request.
    pub idle_timeout: Duration,
    pub body_timeout: Duration,
    /// Bytes that the host holds for all clients together: requests that arrive or run, and
    /// answers.
    pub max_buffered_bytes: usize,
    /// A request that arrives more slowly is aborted.
    pub min_bytes_per_s: u64,
    /// An answer is aborted if its client takes nothing of it for this long.
    pub write_timeout: Duration,
    pub default_timeout: Duration,
    pub max_timeout: Duration,
}

impl Settings {
    /// Reads `[server]` of a manifest, for a command that needs to know where a host listens. Reads
    /// no other file.
    pub fn read(path: &Path, text: &str) -> Result<Self, Box<Diagnostics>> {
        let manifest = manifest::Manifest::parse(path, text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::from_manifest(&manifest.server, folder)
            .map_err(|fault| Box::new(Diagnostics::new(path, text, vec![fault])))
    }

    /// Checks `[server]`. Relative paths are relative to `folder`. Defaults are defined here and
    /// nowhere else.
    pub fn from_manifest(server: &manifest::Server, folder: &Path) -> Result<Self, Diagnostic> {
        let parsed = |key: &str, value: &str| {
            value.parse::<ListenAddress>().map_err(|hint| {
                Diagnostic::new(format!("[server] {key} = \"{value}\" is not an address")).hint(hint)
            })
        };
        let address = |key: &str, value: &Option<String>, default: &str| {
            parsed(key, value.as_deref().unwrap_or(default))
        };
        let ms = |value: Option<u64>, default: u64| milliseconds(value.unwrap_or(default));
        let path = |value: &Option<PathBuf>| value.as_ref().map(|path| folder.join(path));
        let within = |key: &str, value: Option<usize>, default: usize, most: usize| match value {
            Some(0) => Err(Diagnostic::new(format!("[server] {key} must be at least 1"))),
            Some(value) if value > most => {
                Err(Diagnostic::new(format!("[server] {key} must be at most {most}")))
            }
            value => Ok(value.unwrap_or(default)),
        };
        let positive = |key: &str, value: Option<usize>, default: usize| {
            let most = match key {
                "io_threads" => 1024,
                "max_connections" => 1 << 20,
                "max_header_kb" => 16 << 10,
                "plugin_memory_mb_max" => 4096,
                "max_buffered_mb" => 1 << 20,
                // `max_body_mb`, which is the only other key.
                _ => 2047,
            };
            within(key, value, default, most)
        };
        for (key, value) in [
            ("timeout_ms", server.timeout_ms),
            ("max_timeout_ms", server.max_timeout_ms),
            ("header_timeout_ms", server.header_timeout_ms),
            ("idle_timeout_ms", server.idle_timeout_ms),
            ("body_timeout_ms", server.body_timeout_ms),
            ("write_timeout_ms", server.write_timeout_ms),
        ] {
            within(key, value.map(|ms| ms as usize), 1, MS_MAX as usize)?;
        }
        for (key, value, most) in [
            ("drain_delay_ms", server.drain_delay_ms, MS_MAX),
            ("drain_timeout_ms", server.drain_timeout_ms, MS_MAX),
            ("plugin_instances", server.plugin_instances.map(u64::from), 65_536),
            ("cache_mb", server.cache_mb, 1 << 30),
            ("min_bytes_per_s", server.min_bytes_per_s, 1 << 30),
        ] {
            if value.is_some_and(|value| value > most) {
                return Err(Diagnostic::new(format!("[server] {key} must be at most {most}")));
            }
        }
        // Enough for an image, or for a batch of a thousand rows as JSON.
        let max_body_mb = positive("max_body_mb", server.max_body_mb, 16)?;
        let max_buffered_mb = positive("max_buffered_mb", server.max_buffered_mb, 256.max(8 * max_body_mb))?;
        if max_buffered_mb < max_body_mb {
            return Err(Diagnostic::new(format!(
                "[server] max_buffered_mb is {max_buffered_mb}, which is less than one body may have: max_body_mb is \
                 {max_body_mb}"
            ))
            .hint("write at least max_body_mb, better eight times as much"));
        }
        let engine = EngineConfig::default();
        let memory_mb =
            positive("plugin_memory_mb_max", server.plugin_memory_mb_max, engine.memory_bytes_max >> 20)?;
        Ok(Settings {
            http: address("http", &server.http, "127.0.0.1:8000")?,
            grpc: server.grpc.as_deref().map(|value| parsed("grpc", value)).transpose()?,
            // Clients of the admin listener can reload and roll back, so the default is loopback.
            admin: address("admin", &server.admin, "127.0.0.1:8002")?,
            onnxruntime: path(&server.onnxruntime),
            io_threads: positive("io_threads", server.io_threads, crate::config::cores())?,
            limits: Limits {
                max_connections: positive("max_connections", server.max_connections, 4096)?,
                max_body_bytes: max_body_mb << 20,
                max_header_bytes: positive("max_header_kb", server.max_header_kb, 64)?
                    .saturating_mul(1 << 10),
                header_timeout: ms(server.header_timeout_ms, 60_000),
                // Proxies keep idle connections for 60 s. The side that sends requests should be
                // the first to close, or it sends one on a connection that is being closed.
                idle_timeout: ms(server.idle_timeout_ms, 75_000),
                body_timeout: ms(server.body_timeout_ms, 30_000),
                max_buffered_bytes: max_buffered_mb << 20,
                // No client would wait for a network that is slower than this.
                min_bytes_per_s: server.min_bytes_per_s.unwrap_or(1024),
                write_timeout: ms(server.write_timeout_ms, 30_000),
                default_timeout: ms(server.timeout_ms, 30_000),
                max_timeout: ms(server.max_timeout_ms, 600_000),
            },
            drain_delay: ms(server.drain_delay_ms, 0),
            drain_timeout: ms(server.drain_timeout_ms, 30_000),
            access_log: server.access_log.unwrap_or(true),
            model_control: model_control(server)?,
            access: access(server)?,
            tls: TlsSettings::from_manifest(server, folder)?,
            access_rules: path(&server.access_rules),
            audit_log: path(&server.audit_log),
            proxies: proxies(server)?,
            tenant_header: tenant_header(server)?,
            traces: trace_settings::from_manifest(server, folder)?,
            engine: EngineConfig {
                instances: server.plugin_instances.unwrap_or(engine.instances).max(1),
                memory_bytes_max: memory_mb.saturating_mul(1 << 20),
                cache_dir: path(&server.cache_dir).or(engine.cache_dir),
                cache_bytes_max: server
                    .cache_mb
                    .map_or(engine.cache_bytes_max, |mb| mb.saturating_mul(1 << 20)),
                ..engine
            },
        })
    }
}

/// Adds the place in the manifest to a fault of `[server]`, whose message begins with its key.
pub fn placed(fault: Diagnostic, text: &str) -> Diagnostic {
    let key = fault.message.strip_prefix("[server] ").and_then(|rest| rest.split(' ').next());
    let span = key.and_then(|key| {
        let manifest = toml::de::DeTable::parse(text).ok()?;
        let server = manifest.get_ref().get("server")?.get_ref().as_table()?;
        let (key, _) = server.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(key.span())
    });
    match span {
        Some(span) => fault.at(span),
        None => fault,
    }
}

fn model_control(server: &manifest::Server) -> Result<bool, Diagnostic> {
    match server.model_control.as_deref() {
        // A client that may load and unload models can take a model away from all others.
        None | Some("none") => Ok(false),
        Some("explicit") => Ok(true),
        Some(other) => Err(Diagnostic::new(format!("[server] model_control = \"{other}\" is not known"))
            .hint("write \"none\" or \"explicit\"")),
    }
}

fn access(server: &manifest::Server) -> Result<Access, Diagnostic> {
    let host = |text: &String| match text.strip_suffix('.').unwrap_or(text) {
        "*" => Ok("*".to_owned()),
        name if is_host(name) => Ok(name.to_ascii_lowercase()),
        _ => Err(Diagnostic::new(format!(
            "[server] allowed_hosts has \"{text}\", which is not the name of a host"
        ))
        .hint("write the name alone, such as \"models.example.org\", or \"*\" for any")),
    };
    let origin = |text: &String| {
        let (scheme, place) = text.split_once("://").unwrap_or_default();
        let (name, port) = place.rsplit_once(':').filter(|_| !place.ends_with(']')).unwrap_or((place, "1"));
        let is_address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let is_place = is_host(name) || is_address.is_some_and(|name| name.parse::<Ipv6Addr>().is_ok());
        if matches!(scheme, "http" | "https") && is_place && port.parse::<u16>().is_ok() {
            return Ok(without_default_port(&text.to_ascii_lowercase()).to_owned());
        }
        Err(Diagnostic::new(format!("[server] allowed_origins has \"{text}\", which is not an origin")).hint(
            "write scheme, name and, where it is not the scheme's own, port, such as \"https://app.example.org\"; each \
             origin is named by itself",
        ))
    };
    Ok(Access {
        hosts: server.allowed_hosts.as_ref().map(|hosts| hosts.iter().map(host).collect()).transpose()?,
        origins: server.allowed_origins.iter().flatten().map(origin).collect::<Result<_, _>>()?,
    })
}

fn proxies(server: &manifest::Server) -> Result<Proxies, Diagnostic> {
    let network = |text: &String| {
        text.parse().map_err(|hint: &str| {
            Diagnostic::new(format!("[server] trusted_proxies has \"{text}\", which is not a network"))
                .hint(hint)
        })
    };
    server.trusted_proxies.iter().flatten().map(network).collect::<Result<_, _>>().map(Proxies)
}

fn tenant_header(server: &manifest::Server) -> Result<Option<HeaderName>, Diagnostic> {
    let Some(written) = &server.tenant_header else { return Ok(None) };
    let name = HeaderName::try_from(written.as_str()).map_err(|_| {
        Diagnostic::new(format!("[server] tenant_header = \"{written}\" is not the name of a header"))
            .hint("write a name such as \"x-tenant\"")
    })?;
    const TAKEN: [&str; 9] = [
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "host",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "x-request-id",
    ];
    if TAKEN.contains(&name.as_str()) {
        let message = format!("[server] tenant_header = \"{written}\" is a header with a meaning of its own");
        return Err(Diagnostic::new(message).hint("write a name such as \"x-tenant\""));
    }
    if server.trusted_proxies.as_ref().is_none_or(Vec::is_empty) {
        let message = "[server] tenant_header is set without trusted_proxies, so nobody may send it";
        return Err(Diagnostic::new(message).hint(
            "write the addresses of the proxies that set it, such as trusted_proxies = [\"10.0.0.0/8\"]",
        ));
    }
    Ok(Some(name))
}

fn is_host(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.split('.').all(is_part)
}

/// Removes the scheme's default port, which browsers omit.
fn without_default_port(origin: &str) -> &str {
    let port = if origin.starts_with("https:") { ":443" } else { ":80" };
    origin.strip_suffix(port).unwrap_or(origin)
}

/// When files are read, and how a new policy is introduced.
#[derive(Clone, Debug, PartialEq)]
pub struct ReloadSettings {
    /// Whether changes go live automatically; otherwise only when an operator reloads.
    pub watch: bool,
    pub quiet: Duration,
    /// The longest wait for a file that keeps changing.
    pub quiet_max: Duration,
    pub poll: Duration,
    /// Time for ONNX Runtime to load one session of a model.
    pub model_load_timeout: Duration,
    /// Without a guard, nothing is rolled back automatically.
    pub guard: Option<GuardSettings>,
    pub canary: Option<CanarySettings>,
}

impl ReloadSettings {
    pub fn from_manifest(reload: &manifest::Reload) -> Result<Self, Diagnostic> {
        const TABLE: &str = "[reload]";
        let watch = match reload.mode.as_ref().map(|mode| mode.get_ref().as_str()) {
            None | Some("watch") => true,
            Some("manual") => false,
            Some(other) => {
                let span = reload.mode.as_ref().map(manifest::Spanned::span).unwrap_or_default();
                return Err(Diagnostic::new(format!("[reload] mode = \"{other}\" is not known"))
                    .at(span)
                    .hint("write \"watch\" or \"manual\""));
            }
        };
        let canary = reload.canary.as_ref().map(CanarySettings::from_manifest).transpose()?;
        let guard = reload.guard.as_ref().map(GuardSettings::from_manifest).transpose()?;
        Ok(ReloadSettings {
            watch,
            // Long enough for a program that writes a file in pieces, and short for a person.
            quiet: milliseconds(whole(TABLE, "quiet_ms", &reload.quiet_ms, 50, 0..=60_000)?),
            // Long enough for most copies, and short enough for a change of another file that
            // waits.
            quiet_max: milliseconds(whole(TABLE, "quiet_max_ms", &reload.quiet_max_ms, 5_000, 0..=MS_MAX)?),
            poll: milliseconds(whole(TABLE, "poll_ms", &reload.poll_ms, 2_000, 0..=MS_MAX)?.max(10)),
            model_load_timeout: milliseconds(whole(
                TABLE,
                "model_load_timeout_ms",
                &reload.model_load_timeout_ms,
                300_000,
                1..=MS_MAX,
            )?),
            // A canary is of no use unless it is judged.
            guard: guard.or_else(|| canary.as_ref().map(|_| GuardSettings::default())),
            canary,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_outlast_those_of_proxies() {
        let settings = Settings::read(Path::new("hostler.toml"), "").ok().unwrap();
        assert_eq!(settings.limits.idle_timeout, Duration::from_secs(75));
        assert_eq!(settings.limits.header_timeout, Duration::from_secs(60));
    }
}
