//! What a component provides and needs, read from its type: roles, imports and the version of the
//! contract.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use wasmparser::{Parser, Payload};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

/// The version of `wit/hostler.wit`.
pub const CONTRACT_VERSION: &str = "0.1.0";

const PACKAGE: &str = "hostler:plugin/";

/// The package of `wit/async`, which has the same version.
const CONCURRENT_PACKAGE: &str = "hostler:concurrent/";

/// Whether a component needs the engine for streaming models: it imports or exports an interface of
/// their package. It is not compiled yet, so this reads its outermost imports and exports.
pub(super) fn is_concurrent(wasm: &[u8]) -> bool {
    let package = CONCURRENT_PACKAGE.as_bytes();
    // Most components do not contain the name at all.
    wasm.windows(package.len()).any(|window| window == package) && has_concurrent_interface(wasm)
}

/// Reads up to the first byte that is not understood: the compiler reports that. Keeps nothing, so
/// a component with millions of imports costs no memory here.
fn has_concurrent_interface(wasm: &[u8]) -> bool {
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let is_found = match payload {
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => {
                depth += 1;
                false
            }
            Ok(Payload::End(_)) if depth > 0 => {
                depth -= 1;
                false
            }
            Ok(Payload::ComponentImportSection(section)) if depth == 0 => section
                .into_iter()
                .map_while(Result::ok)
                .any(|import| import.name.name.starts_with(CONCURRENT_PACKAGE)),
            Ok(Payload::ComponentExportSection(section)) if depth == 0 => section
                .into_iter()
                .map_while(Result::ok)
                .any(|export| export.name.name.starts_with(CONCURRENT_PACKAGE)),
            Ok(_) => false,
            Err(_) => return false,
        };
        if is_found {
            return true;
        }
    }
    false
}

/// What a plugin can be, as determined by the interface that it exports.
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

/// The names of a component's imports and exports: read from its type in the compiler process,
/// checked by the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interface {
    pub imports: Vec<Import>,
    pub exports: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Import {
    pub name: String,
    /// Types are not code: they come with the interfaces that use them.
    pub is_type: bool,
}

/// Maximum imports, and exports, of one plugin; plugins in use have up to 40.
const NAMES_MAX: usize = 1000;

const NAME_BYTES_MAX: usize = 512;

impl Interface {
    /// Reads the interface of a component. Only for the compiler process: this walks types of any
    /// size.
    pub fn of(engine: &wasmtime::Engine, component: &Component) -> Self {
        let ty = component.component_type();
        // One more than allowed shows that there are too many.
        let imports = ty.imports(engine).take(NAMES_MAX + 1).map(|(name, item)| Import {
            name: name.to_owned(),
            is_type: matches!(item.ty, ComponentItem::Type(_)),
        });
        let exports = ty.exports(engine).take(NAMES_MAX + 1).map(|(name, _)| name.to_owned());
        Interface { imports: imports.collect(), exports: exports.collect() }
    }

    /// Checks that the interface is small enough to work with. The error says why not.
    pub fn check(&self) -> std::result::Result<(), String> {
        for (what, count) in [("imports", self.imports.len()), ("exports", self.exports.len())] {
            if count > NAMES_MAX {
                return Err(format!("it has more than {NAMES_MAX} {what}"));
            }
        }
        let names = self.imports.iter().map(|import| &import.name).chain(&self.exports);
        match names.map(String::len).max() {
            Some(bytes) if bytes > NAME_BYTES_MAX => Err(format!(
                "it imports or exports a name of {bytes} bytes; at most {NAME_BYTES_MAX} are read"
            )),
            _ => Ok(()),
        }
    }
}

/// The parts of a component's type that are reported.
#[derive(Clone, Debug)]
pub struct ComponentInfo {
    pub roles: Vec<Role>,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

impl ComponentInfo {
    /// Derives the roles of a component from its names. Fails if this host cannot run it.
    pub(super) fn read(interface: Interface, concurrent: bool) -> Result<Self> {
        let has = |role: &Role| {
            let wanted = format!("{}{role}@", role.package());
            interface.exports.iter().any(|export| export.strip_prefix(&wanted).is_some_and(compatible))
        };
        let roles = Role::ALL.into_iter().filter(has).collect();
        let given = given_interfaces(concurrent);
        let missing: Vec<String> = interface
            .imports
            .iter()
            .filter(|import| !import.is_type && !given.contains(&without_patch(&import.name)))
            .map(|import| import.name.clone())
            .collect();
        let imports = interface.imports.into_iter().map(|import| import.name).collect();
        let info = ComponentInfo { roles, imports, exports: interface.exports };
        info.check(&missing).map(|()| info)
    }

    /// Whether calls of its synchronous roles may wait: it imports an interface that calls models
    /// or servers.
    pub(super) fn may_wait(&self) -> bool {
        let calls = ["callables@", "models@", "http@"].map(|interface| format!("{PACKAGE}{interface}"));
        self.imports.iter().any(|import| calls.iter().any(|name| import.starts_with(name)))
    }

    /// Whether a model declares which of its inputs are optional.
    pub(super) fn has_optional_inputs(&self) -> bool {
        let wanted = format!("{PACKAGE}optional-inputs@");
        self.exports.iter().any(|export| export.strip_prefix(&wanted).is_some_and(compatible))
    }

    /// Refuses a component that this host cannot run. The error names the versions or imports that
    /// do not fit.
    fn check(&self, missing: &[String]) -> Result<()> {
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
        if missing.is_empty() {
            return Ok(());
        }
        let why = missing.iter().find_map(|name| Self::why_not(name)).unwrap_or_default();
        let missing = missing.join(", ");
        Err(Error::unsupported(format!("imports what this host does not provide: {missing}{why}")))
    }

    /// Returns an explanation for an interface that the host does not provide.
    fn why_not(interface: &str) -> Option<&'static str> {
        let ours = |name: &str| interface.split_once('@').is_some_and(|(interface, _)| interface == name);
        let http = ours("hostler:plugin/http") || ours("hostler:concurrent/http");
        if http {
            Some(" (a streaming-model uses hostler:concurrent/http, all other roles use hostler:plugin/http)")
        } else if interface.starts_with("wasi:http") {
            Some(
                " (plugins have no network; HTTP is hostler:plugin/http, to servers that the manifest allows)",
            )
        } else {
            None
        }
    }

    /// Returns the error for a component without `role`, which says what the component has instead.
    pub(super) fn lacks(&self, role: Role) -> Error {
        let has = if self.roles.is_empty() {
            let exports =
                if self.exports.is_empty() { "nothing".to_owned() } else { self.exports.join(", ") };
            format!("it has none of Hostler's roles (it exports {exports})")
        } else {
            let roles: Vec<_> = self.roles.iter().map(|role| role.as_str()).collect();
            let key = |role: &Role| match role {
                Role::Transformer => "transformer = \"…\" under [models.…]",
                Role::Model | Role::StreamingModel => "plugin = \"…\" under [models.…]",
                Role::Executor => "plugin = \"…\" under [executors.…], of the kind custom",
            };
            let keys: Vec<_> = self.roles.iter().map(key).collect();
            let (roles, keys) = (roles.join(" and "), keys.join(" and "));
            format!("its role is {roles}, which the manifest names with {keys}")
        };
        Error::invalid(format!(
            "needs the role {role} (export {}{role}@{CONTRACT_VERSION}), but {has}",
            role.package()
        ))
    }
}

/// Whether a plugin built against this version of the contract runs on this host: 0.1.x on 0.1.y.
fn compatible(version: &str) -> bool {
    without_patch(&format!("@{version}")) == without_patch(&format!("@{CONTRACT_VERSION}"))
}

/// Removes the patch version: by name, `wasi:io/poll@0.2.6` and `@0.2.0` are the same interface to
/// a linker.
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

/// Returns the interfaces that plugins may import, in the form of `without_patch`.
fn given_interfaces(concurrent: bool) -> BTreeSet<String> {
    let own: &[&str] = match concurrent {
        // An interface that blocks its caller would block all concurrent calls.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streaming_model_is_told_by_its_interfaces_and_not_by_its_texts() {
        let component = |text: &str| wat::parse_str(format!("(component {text})")).expect("it is WAT");
        let interface = "hostler:concurrent/clock@0.1.0";
        assert!(is_concurrent(&component(&format!("(import \"{interface}\" (instance))"))));
        let exported = format!("(instance $i) (export \"{interface}\" (instance $i))");
        assert!(is_concurrent(&component(&exported)));
        // The documentation of an interface, as componentizers keep it.
        assert!(!is_concurrent(&component(&format!("(@custom \"docs\" \"like {interface}\")"))));
        let inner = format!("(component (import \"{interface}\" (instance)))");
        assert!(!is_concurrent(&component(&inner)), "a part that nobody instantiates");
        assert!(!is_concurrent(b"hostler:concurrent/"));
        let cut = &component(&format!("(import \"{interface}\" (instance))"))[..20];
        assert!(!is_concurrent(cut));
    }
}
