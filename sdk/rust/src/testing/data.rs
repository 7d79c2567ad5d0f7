//! What a host of a test contains, and the host that is in use on a thread.

use super::calls::{ModelHandle, RegisteredModel};
use super::clock::Timers;
use super::metrics::Metrics;
use super::request::RequestData;
use super::state::State;
use crate::bindings::logging::Level;
use crate::{Error, Tensor, http};
use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

/// A line that the plugin wrote with the functions of [`log`](crate::log).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How important the line is.
    pub level: Level,
    /// The context, which the functions of [`log`](crate::log) leave empty.
    pub context: String,
    /// The text.
    pub message: String,
}

/// Answers HTTP requests.
pub(super) type Server = Box<dyn FnMut(&http::Request) -> Result<http::Response, Error>>;

#[derive(Default)]
pub(crate) struct HostData {
    pub config: BTreeMap<String, String>,
    pub assets: BTreeMap<String, Vec<u8>>,
    pub log: Vec<LogLine>,
    pub early_answer: Option<Vec<Tensor>>,
    pub state: State,
    pub metrics: Metrics,
    pub(super) models: BTreeMap<(String, String), RegisteredModel>,
    pub(super) server: Option<Server>,
    pub(super) timers: Timers,
    /// The request that calls and waits belong to.
    pub(super) request: Option<Arc<Mutex<RequestData>>>,
    pub(super) requests_created: u64,
    /// The values of each `InstanceCell`, by its address and type.
    cells: HashMap<(usize, TypeId), &'static (dyn Any + Send + Sync)>,
}

pub(super) type SharedHost = Rc<RefCell<HostData>>;

thread_local! {
    /// The hosts of this thread. The last one is in use.
    static HOSTS: RefCell<Vec<SharedHost>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn install(host: &SharedHost) {
    HOSTS.with_borrow_mut(|hosts| hosts.push(Rc::clone(host)));
}

pub(super) fn uninstall(host: &SharedHost) {
    // The list is gone if the thread ends.
    let _ = HOSTS.try_with(|hosts| hosts.borrow_mut().retain(|other| !Rc::ptr_eq(other, host)));
}

/// Calls a function with the host in use. Returns `None` if this thread has none.
pub(crate) fn try_with_host<R>(use_it: impl FnOnce(&mut HostData) -> R) -> Option<R> {
    let host = HOSTS.with_borrow(|hosts| hosts.last().map(Rc::clone))?;
    let mut host = host.borrow_mut();
    Some(use_it(&mut host))
}

/// Calls a function with the host in use. Panics if this thread has none.
pub(crate) fn with_host<R>(what: &str, use_it: impl FnOnce(&mut HostData) -> R) -> R {
    try_with_host(use_it).unwrap_or_else(|| {
        panic!(
            "{what} was used without a host: create `hostler_plugin::testing::Host` at the start of the test, on the \
             same thread, and keep it in a variable until the end"
        )
    })
}

impl HostData {
    pub fn asset(&self, name: &str) -> Result<&Vec<u8>, Error> {
        self.assets.get(name).ok_or_else(|| {
            let known = self.assets.keys().map(String::as_str).collect::<Vec<_>>().join("\", \"");
            Error::not_found(format!("no asset \"{name}\"; the host of this test has \"{known}\""))
        })
    }

    /// Returns a model that the plugin may call.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<ModelHandle, Error> {
        let of_name = || self.models.iter().filter(|((model, _), _)| model == name);
        let versions = || of_name().map(|((_, version), _)| version.as_str()).collect::<Vec<_>>().join(", ");
        let found = match version {
            Some(version) => of_name().find(|((_, other), _)| other == version),
            None if of_name().count() > 1 => {
                return Err(Error::not_found(format!(
                    "model \"{name}\" has the versions {}; the host of this test has no routing rule: name a version",
                    versions()
                )));
            }
            None => of_name().next(),
        };
        let Some(((model, version), registered)) = found else {
            let known = self.models.keys().map(|(model, version)| format!("{model}:{version}"));
            return Err(Error::not_found(match version {
                Some(version) if of_name().next().is_some() => {
                    format!("model \"{name}\" has no version \"{version}\"; versions: {}", versions())
                }
                _ => {
                    let known = known.collect::<Vec<_>>().join(", ");
                    format!("no model \"{name}\"; models of this test: {known}; add it with `Host::model`")
                }
            }));
        };
        let is_streaming = registered.is_streaming;
        Ok(ModelHandle { model: model.clone(), version: version.clone(), is_streaming })
    }

    pub fn cell(&self, address: usize, type_id: TypeId) -> Option<&'static (dyn Any + Send + Sync)> {
        self.cells.get(&(address, type_id)).copied()
    }

    pub fn set_cell(&mut self, address: usize, type_id: TypeId, value: &'static (dyn Any + Send + Sync)) {
        self.cells.insert((address, type_id), value);
    }
}

/// Answers an HTTP request of the plugin.
pub(crate) fn answer_http(request: &http::Request) -> Result<http::Response, Error> {
    let server = with_host("http::fetch", |host| host.server.take());
    let Some(mut server) = server else {
        let (method, url) = (&request.method, &request.url);
        return Err(Error::unsupported(format!(
            "{method} {url}: the host of this test allows no server; add one with `Host::http`"
        )));
    };
    let response = server(request);
    with_host("http::fetch", |host| host.server = Some(server));
    response
}
