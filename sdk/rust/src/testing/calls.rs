//! The models that a plugin calls in a test. Closures answer for them.

use super::clock::{current_time, end_of_request};
use super::data::with_host;
use crate::bindings::types::copies;
use crate::{Error, ErrorKind, Tensor};
use std::collections::VecDeque;
use std::time::Duration;

type CallResult = Result<Vec<Tensor>, Error>;

pub(super) type Answer = Box<dyn FnMut(&[Tensor]) -> Reply>;

pub(super) struct RegisteredModel {
    pub is_streaming: bool,
    /// `None` while it runs.
    pub answer: Option<Answer>,
    /// The inputs of each call.
    pub calls: Vec<Vec<Tensor>>,
}

/// What a model answers to one call, and when.
///
/// ```
/// use hostler_plugin::testing::{Host, Reply};
/// use hostler_plugin::{Error, models};
/// use std::time::Duration;
///
/// let time = Duration::from_millis(20);
/// let host = Host::new().replies("slow", move |_| Reply::new(Ok(vec![])).after(time));
/// let host = host.replies("full", |_| Reply::refused(Error::failed("at capacity")));
/// models::get("slow", None).unwrap().call(&[]).unwrap();
/// assert_eq!(host.time(), time);
/// assert!(models::get("full", None).unwrap().start(&[]).is_err());
/// ```
#[derive(Debug)]
pub struct Reply {
    responses: Vec<CallResult>,
    refusal: Option<Error>,
    delay: Duration,
    interval: Duration,
}

impl Reply {
    /// Answers with one response or an error.
    pub fn new(response: Result<Vec<Tensor>, Error>) -> Reply {
        Reply::responses([response])
    }

    /// Answers with any number of responses, for a streaming model. They end at the first error.
    pub fn responses(responses: impl IntoIterator<Item = Result<Vec<Tensor>, Error>>) -> Reply {
        let responses = responses.into_iter().collect();
        Reply { responses, refusal: None, delay: Duration::ZERO, interval: Duration::ZERO }
    }

    /// Does not admit the call: `start` fails with this error, and so does `call`.
    pub fn refused(error: Error) -> Reply {
        Reply { refusal: Some(error), ..Reply::responses([]) }
    }

    /// Delays the first response by `time`, on the host's clock.
    pub fn after(mut self, time: Duration) -> Reply {
        self.delay = time;
        self
    }

    /// Sets the time between two responses, and between the last one and the end.
    pub fn every(mut self, time: Duration) -> Reply {
        self.interval = time;
        self
    }
}

/// A model that the plugin has looked up.
#[derive(Clone, Debug)]
pub(crate) struct ModelHandle {
    pub model: String,
    pub version: String,
    pub is_streaming: bool,
}

impl ModelHandle {
    /// Refuses a streaming model where exactly one response is expected.
    pub fn one_response(&self) -> Result<(), Error> {
        if !self.is_streaming {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "model \"{}:{}\" returns any number of responses; start a call and read its responses one at a time",
            self.model, self.version
        )))
    }

    pub fn start(&self, inputs: Vec<Tensor>, timeout: Option<Duration>) -> Result<CallInFlight, Error> {
        if let Some((end, error)) = end_of_request()
            && end <= current_time()
        {
            return Err(error);
        }
        let mut answer = self.registered(|model| {
            model.calls.push(copies(&inputs));
            model.answer.take()
        });
        let Some(running) = &mut answer else {
            let name = format!("\"{}:{}\"", self.model, self.version);
            return Err(Error::failed(format!("recursive model call: {name} -> {name}")));
        };
        let reply = running(&inputs);
        self.registered(|model| model.answer = answer);
        CallInFlight::new(self.clone(), reply, timeout)
    }

    fn registered<R>(&self, use_it: impl FnOnce(&mut RegisteredModel) -> R) -> R {
        with_host("a call to a model", |host| {
            let model = host.models.get_mut(&(self.model.clone(), self.version.clone()));
            use_it(model.expect("a model must be called with the host of the test that looked it up"))
        })
    }
}

/// A call that has started. All its responses are known already, with their times.
#[derive(Debug)]
pub(crate) struct CallInFlight {
    model: ModelHandle,
    responses: VecDeque<(Duration, CallResult)>,
    ends_at: Duration,
    was_taken: bool,
}

impl CallInFlight {
    fn new(model: ModelHandle, reply: Reply, timeout: Option<Duration>) -> Result<Self, Error> {
        let Reply { responses, refusal, delay, interval } = reply;
        if let Some(error) = refusal {
            return Err(error);
        }
        let now = current_time();
        let mut at = now.saturating_add(delay);
        let mut timed = VecDeque::new();
        for response in responses {
            let response =
                response.map(|outputs| outputs.into_iter().map(|output| output.of_a_model()).collect());
            timed.push_back((at, response));
            at = at.saturating_add(interval);
        }
        // The one response of a model is its end; a streaming model ends after its last response.
        let ends_at = match timed.back() {
            Some((last, _)) if !model.is_streaming => *last,
            _ => at,
        };
        let mut call = CallInFlight { model, responses: timed, ends_at, was_taken: false };
        let name = format!("model \"{}:{}\"", call.model.model, call.model.version);
        let timeout = timeout.map(|timeout| {
            let message = format!("{name} did not answer within {timeout:?}");
            (now.saturating_add(timeout), Error::of(ErrorKind::Deadline, message))
        });
        let end = timeout.into_iter().chain(end_of_request()).min_by_key(|(at, _)| *at);
        if let Some((at, error)) = end {
            call.end_by(at, error);
        }
        Ok(call)
    }

    /// Replaces what happens after a time with an error at that time.
    fn end_by(&mut self, time: Duration, error: Error) {
        if self.ends_at > time {
            self.responses.retain(|(at, _)| *at <= time);
            self.responses.push_back((time, Err(error)));
            self.ends_at = time;
        }
    }

    /// Returns when the next response or the end arrives.
    pub fn next_at(&self) -> Duration {
        self.responses.front().map_or(self.ends_at, |(at, _)| *at)
    }

    /// Returns the next response if it has arrived.
    pub fn next(&mut self) -> Option<CallResult> {
        if self.next_at() > current_time() {
            return None;
        }
        self.was_taken = true;
        let (_, response) = self.responses.pop_front()?;
        if response.is_err() {
            self.responses.clear();
            self.ends_at = current_time();
        }
        Some(response)
    }

    /// Returns the outcome, once, if it has arrived.
    pub fn outcome(&mut self) -> Option<CallResult> {
        if self.was_taken || self.next_at() > current_time() {
            return None;
        }
        if let Err(error) = self.model.one_response() {
            self.was_taken = true;
            return Some(Err(error));
        }
        let next = self.next();
        self.was_taken = true;
        Some(next.unwrap_or_else(|| Err(Error::failed("the model returned no response"))))
    }

    /// Returns the outcome of a call that was waited for.
    pub fn only(&mut self) -> CallResult {
        self.outcome().unwrap_or_else(|| match end_of_request() {
            Some((_, error)) => Err(error),
            None => Err(Error::failed("the outcome of this call was already taken")),
        })
    }
}
