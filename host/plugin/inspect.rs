//! What a component has and needs, read from its type: roles, imports, the contract's version.

use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fmt;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

/// The version of `wit/hostler.wit`.
pub const CONTRACT_VERSION: &str = "0.1.0";

const PACKAGE: &str = "hostler:plugin/";

/// The package of `wit/async`, in the same version.
const CONCURRENT_PACKAGE: &str = "hostler:concurrent/";

/// Whether a component needs the engine for calls that wait side by side: the names of its imports and exports
/// stand in it as they are. Asked before it is compiled.
pub(super) fn is_concurrent(wasm: &[u8]) -> bool {
    let name = CONCURRENT_PACKAGE.as_bytes();
    wasm.windows(name.len()).any(|window| window == name)
}

/// What a plugin can be, by the interface that it exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Transformer,
    Model,
    Executor,
    StreamingModel,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Transformer, Role::Model, Role::Executor, Role::StreamingModel];

    fn package(self) -> &'static str {
        match self {
            Role::StreamingModel => CONCURRENT_PACKAGE,
            _ => PACKAGE,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Transformer => "transformer",
            Role::Model => "model",
            Role::Executor => "executor",
            Role::StreamingModel => "streaming-model",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The type of a component, as far as a reader wants to know.
#[derive(Clone, Debug)]
pub struct Anatomy {
    pub roles: Vec<Role>,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

impl Anatomy {
    pub(super) fn of(engine: &wasmtime::Engine, component: &Component) -> Self {
        let ty = component.component_type();
        let names = |items: &mut dyn Iterator<Item = &str>| items.map(str::to_owned).collect::<Vec<_>>();
        let imports = names(&mut ty.imports(engine).map(|(name, _)| name));
        let exports = names(&mut ty.exports(engine).map(|(name, _)| name));
        let has = |role: &Role| {
            let wanted = format!("{}{role}@", role.package());
            exports.iter().any(|export| export.strip_prefix(&wanted).is_some_and(compatible))
        };
        Anatomy { roles: Role::ALL.into_iter().filter(has).collect(), imports, exports }
    }

    /// Whether its synchronous roles may wait for others: it imports what calls models or servers.
    pub(super) fn waits(&self) -> bool {
        let calls = ["callables@", "models@", "http@"].map(|interface| format!("{PACKAGE}{interface}"));
        self.imports.iter().any(|import| calls.iter().any(|name| import.starts_with(name)))
    }

    /// Refuses what this host cannot run, with the versions or the imports that do not fit.
    pub(super) fn check(
        &self,
        given: &BTreeSet<String>,
        engine: &wasmtime::Engine,
        component: &Component,
    ) -> Result<()> {
        let ours = |name: &&String| [PACKAGE, CONCURRENT_PACKAGE].iter().any(|ours| name.starts_with(ours));
        for name in self.imports.iter().chain(&self.exports).filter(ours) {
            let Some((interface, version)) = name.split_once('@') else { continue };
            if !compatible(version) {
                return Err(Error::unsupported(format!(
                    "built against {interface}@{version}, but this host has {CONTRACT_VERSION}; \
                     build it again with the contract that `hostler wit` writes"
                )));
            }
        }
        let missing = Self::missing_imports(given, engine, component);
        if missing.is_empty() {
            return Ok(());
        }
        let why = missing.iter().find_map(|name| Self::why_not(name)).unwrap_or_default();
        let missing = missing.join(", ");
        Err(Error::unsupported(format!("imports what this host does not give: {missing}{why}")))
    }

    /// More to say of an interface that is not given.
    fn why_not(interface: &str) -> Option<&'static str> {
        let ours = |name: &str| interface.split_once('@').is_some_and(|(interface, _)| interface == name);
        let http = ours("hostler:plugin/http") || ours("hostler:concurrent/http");
        if http {
            Some(" (a streaming-model asks by hostler:concurrent/http, all others by hostler:plugin/http)")
        } else if interface.starts_with("wasi:http") {
            Some(
                " (plugins have no network; HTTP is hostler:plugin/http, to servers that the manifest allows)",
            )
        } else {
            None
        }
    }

    fn missing_imports(
        given: &BTreeSet<String>,
        engine: &wasmtime::Engine,
        component: &Component,
    ) -> Vec<String> {
        let ty = component.component_type();
        ty.imports(engine)
            .filter(|(name, item)| match item.ty {
                // Types are not code: they come with the interfaces that use them.
                ComponentItem::Type(_) => false,
                _ => !given.contains(&without_patch(name)),
            })
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// Says what a component without the wanted role has instead.
    pub(super) fn lacks(&self, role: Role) -> Error {
        let has = if self.roles.is_empty() {
            let exports =
                if self.exports.is_empty() { "nothing".to_owned() } else { self.exports.join(", ") };
            format!("it has none of Hostler's roles (it exports {exports})")
        } else {
            let roles: Vec<_> = self.roles.iter().map(|role| role.as_str()).collect();
            format!("its role is {}", roles.join(" and "))
        };
        Error::invalid(format!(
            "needs the role {role} (export {}{role}@{CONTRACT_VERSION}), but {has}",
            role.package()
        ))
    }
}

/// Whether a plugin of this version of the contract runs on this host: 0.1.x on 0.1.y.
fn compatible(version: &str) -> bool {
    without_patch(&format!("@{version}")) == without_patch(&format!("@{CONTRACT_VERSION}"))
}

/// `wasi:io/poll@0.2.6` and `@0.2.0` are the same interface to a linker, as far as names go.
fn without_patch(name: &str) -> String {
    match name.rsplit_once('@') {
        Some((_, version)) if version.contains('-') => name.to_owned(),
        Some((interface, version)) => {
            let mut parts = version.split('.');
            let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{interface}@{major}.{minor}")
        }
        None => name.to_owned(),
    }
}

/// The interfaces that plugins may import, in the form that `missing_imports` compares.
pub(super) fn given_interfaces(concurrent: bool) -> BTreeSet<String> {
    let own: &[&str] = match concurrent {
        // What blocks its caller would block all that wait beside it.
        true => &["hostler:concurrent/sinks", "hostler:concurrent/clock", "hostler:concurrent/models"],
        false => &["hostler:plugin/callables", "hostler:plugin/models"],
    };
    let http: &[&str] = match concurrent {
        true => &["hostler:concurrent/http", "hostler:plugin/http-types"],
        false => &["hostler:plugin/http", "hostler:plugin/http-types"],
    };
    let own = own.iter().chain(http).map(|name| format!("{name}@{CONTRACT_VERSION}"));
    let ours = ["types", "assets", "state", "metrics"]
        .map(|name| format!("{PACKAGE}{name}@{CONTRACT_VERSION}"))
        .into_iter()
        .chain(own);
    let drafts = ["wasi:logging/logging@0.1.0-draft", "wasi:config/store@0.2.0-rc.1"].map(str::to_owned);
    let wasi = [
        "cli/environment",
        "cli/exit",
        "cli/stderr",
        "cli/stdin",
        "cli/stdout",
        "cli/terminal-input",
        "cli/terminal-output",
        "cli/terminal-stderr",
        "cli/terminal-stdin",
        "cli/terminal-stdout",
        "clocks/monotonic-clock",
        "clocks/wall-clock",
        "filesystem/preopens",
        "filesystem/types",
        "io/error",
        "io/poll",
        "io/streams",
        "random/insecure",
        "random/insecure-seed",
        "random/random",
        "sockets/instance-network",
        "sockets/ip-name-lookup",
        "sockets/network",
        "sockets/tcp",
        "sockets/tcp-create-socket",
        "sockets/udp",
        "sockets/udp-create-socket",
    ]
    .map(|name| format!("wasi:{name}@0.2.0"));
    ours.chain(drafts).chain(wasi).map(|name| without_patch(&name)).collect()
}
