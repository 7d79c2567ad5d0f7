//! The host of a test: what a manifest says, and what the plugin did.

use super::calls::{Answer, RegisteredModel, Reply};
use super::clock::{current_time, move_to};
use super::data::{HostData, LogLine, SharedHost, install, uninstall};
use super::request::RequestData;
use crate::bindings::types::copies;
use crate::{Callable, Error, Request, Tensor, http};
use std::cell::RefMut;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The host of a test, in use on this thread until it is dropped. See the [module](super).
///
/// Functions that take `self` say what the manifest would say; the others show what the plugin did.
pub struct Host(SharedHost);

impl Default for Host {
    fn default() -> Host {
        Host::new()
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host(time {:?})", self.get().timers.now)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        uninstall(&self.0);
    }
}

impl Host {
    /// Creates a host without configuration, assets, models and servers, and uses it on this
    /// thread.
    pub fn new() -> Host {
        let host = SharedHost::default();
        install(&host);
        Host(host)
    }

    fn get(&self) -> RefMut<'_, HostData> {
        self.0.borrow_mut()
    }

    /// Sets a key under `[plugins.<name>.config]`.
    pub fn config(self, key: &str, value: &str) -> Host {
        self.get().config.insert(key.into(), value.into());
        self
    }

    /// Adds a file under `[plugins.<name>.assets]`.
    pub fn asset(self, name: &str, data: impl Into<Vec<u8>>) -> Host {
        self.get().assets.insert(name.into(), data.into());
        self
    }

    /// Adds a model that the plugin may call. The closure answers each call, at once. A version may
    /// follow the name: `simple:2`; the default is `1`.
    pub fn model(
        self,
        name: &str,
        mut answer: impl FnMut(&[Tensor]) -> Result<Vec<Tensor>, Error> + 'static,
    ) -> Host {
        self.replies(name, move |inputs| Reply::new(answer(inputs)))
    }

    /// Like [`model`](Self::model); the [`Reply`] also says when the answer arrives, or that the
    /// call is not admitted.
    pub fn replies(self, name: &str, answer: impl FnMut(&[Tensor]) -> Reply + 'static) -> Host {
        self.register(name, false, Box::new(answer))
    }

    /// Adds a model with 0..n responses that the plugin may call.
    ///
    /// ```
    /// use hostler_plugin::testing::{Host, Reply};
    /// use hostler_plugin::{models, tensor};
    ///
    /// let n = |n: i32| Ok(vec![tensor::int32("n", &[1], &[n])?]);
    /// let host = Host::new().streaming_model("count", move |_| Reply::responses([n(1), n(2)]));
    /// let call = models::get("count", None).unwrap().start(&[]).unwrap();
    /// assert_eq!(call.responses().count(), 2);
    /// # drop(host);
    /// ```
    pub fn streaming_model(self, name: &str, answer: impl FnMut(&[Tensor]) -> Reply + 'static) -> Host {
        self.register(name, true, Box::new(answer))
    }

    fn register(self, name: &str, is_streaming: bool, answer: Answer) -> Host {
        let (model, version) = name.split_once(':').unwrap_or((name, "1"));
        let registered = RegisteredModel { is_streaming, answer: Some(answer), calls: Vec::new() };
        self.get().models.insert((model.into(), version.into()), registered);
        self
    }

    /// Answers the HTTP requests of the plugin.
    ///
    /// ```
    /// use hostler_plugin::{http, testing::Host};
    ///
    /// let host = Host::new().http(|request| match request.url.as_str() {
    ///     "https://users.internal/7" => Ok(http::Response::new(200, "[1, 2]")),
    ///     _ => Ok(http::Response::new(404, "")),
    /// });
    /// let response = http::fetch(http::Request::get("https://users.internal/7")).unwrap();
    /// assert_eq!(response.text().unwrap(), "[1, 2]");
    /// # drop(host);
    /// ```
    pub fn http(self, answer: impl FnMut(&http::Request) -> Result<http::Response, Error> + 'static) -> Host {
        self.get().server = Some(Box::new(answer));
        self
    }

    /// Sets `state_kb`, the bound of the state in KiB. The default is 1024.
    pub fn state_kb(self, kb: usize) -> Host {
        self.get().state.bytes_max = kb << 10;
        self
    }

    /// Creates a request without parameters, note and deadline, and makes it the current one: calls
    /// and waits belong to it, and end with it.
    pub fn request(&self) -> Request {
        let mut host = self.get();
        host.requests_created += 1;
        host.early_answer = None;
        let data = RequestData {
            id: format!("request-{}", host.requests_created),
            model: "model".into(),
            version: "1".into(),
            ..RequestData::default()
        };
        let data = Arc::new(Mutex::new(data));
        host.request = Some(Arc::clone(&data));
        Request(data)
    }

    /// Returns a model of this host, for `submit` of an [`Executor`](crate::Executor). Panics if
    /// there is none with this name.
    pub fn callable(&self, name: &str) -> Callable {
        let (model, version) = match name.split_once(':') {
            Some((model, version)) => (model, Some(version)),
            None => (name, None),
        };
        match self.get().model(model, version) {
            Ok(handle) => Callable::new(crate::bindings::callables::Callable(handle)),
            Err(error) => panic!("{}", error.message),
        }
    }

    /// Returns the inputs of each call to a model, in the order of the calls. Empty if the model
    /// was not called or does not exist.
    pub fn calls(&self, name: &str) -> Vec<Vec<Tensor>> {
        let (model, version) = name.split_once(':').unwrap_or((name, "1"));
        let host = self.get();
        let model = host.models.get(&(model.to_owned(), version.to_owned()));
        model.map_or_else(Vec::new, |model| model.calls.iter().map(copies).collect())
    }

    /// Returns what the current request was answered with by [`answer`](crate::answer).
    pub fn early_answer(&self) -> Option<Vec<Tensor>> {
        self.get().early_answer.as_ref().map(copies)
    }

    /// Returns the lines that the plugin wrote with the functions of [`log`](crate::log).
    pub fn log(&self) -> Vec<LogLine> {
        self.get().log.clone()
    }

    /// Returns what [`metrics::count`](crate::metrics::count) has added up under a name.
    pub fn events(&self, name: &str) -> u64 {
        self.get().metrics.event(name)
    }

    /// Returns what [`metrics::set`](crate::metrics::set) has set last under a name.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.get().metrics.value(name)
    }

    /// Returns the value of a [`Counter`](crate::metrics::Counter) for these values of its labels.
    /// `None` if it was never changed.
    pub fn counter(&self, name: &str, labels: &[&str]) -> Option<f64> {
        self.get().metrics.series_value(name, labels)
    }

    /// Returns the value of a [`Gauge`](crate::metrics::Gauge) for these values of its labels.
    /// `None` if it was never changed.
    pub fn gauge(&self, name: &str, labels: &[&str]) -> Option<f64> {
        self.get().metrics.series_value(name, labels)
    }

    /// Returns all observations of a [`Histogram`](crate::metrics::Histogram) for these values of
    /// its labels, in their order.
    pub fn observations(&self, name: &str, labels: &[&str]) -> Vec<f64> {
        self.get().metrics.observations(name, labels)
    }

    /// Returns the time on the host's clock since the host was created.
    pub fn time(&self) -> Duration {
        self.get().timers.now
    }

    /// Moves the clock of the host in use by `time`, for example past the time to live of a value.
    pub fn advance(&self, time: Duration) {
        move_to(current_time().saturating_add(time));
    }
}
