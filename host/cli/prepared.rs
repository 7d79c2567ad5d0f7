//! A request that is ready to run on a loaded manifest, once or many times.

use super::loaded::Loaded;
use super::request_file::Request;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::policy::{CaseOptions, Route, RouteQuery};
use crate::predict::{Response, StepLog};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) struct Prepared<'a> {
    pub loaded: Loaded,
    pub route: Arc<Route>,
    request: &'a Request,
    timeout: Duration,
}

impl<'a> Prepared<'a> {
    /// `command` is the id of the request in the log.
    pub fn new(loaded: Loaded, request: &'a Request, command: &str) -> Result<Self> {
        let query = RouteQuery { request_id: command, header: &|_| None };
        let route = loaded.content.resolve(&request.model, request.version.as_deref(), &query)?;
        let route = Arc::clone(route);
        let limits = &loaded.content.plan.settings.limits;
        let timeout =
            request.timeout.into_iter().chain(route.timeout).min().unwrap_or(limits.default_timeout);
        let timeout = timeout.min(limits.max_timeout);
        Ok(Prepared { loaded, route, request, timeout })
    }

    /// Makes one call, and returns its time and its responses.
    pub fn call(&self, steps: Option<Arc<StepLog>>) -> Result<(Duration, Vec<Response>)> {
        let Prepared { loaded, route, request, timeout } = self;
        let options = CaseOptions {
            parameters: &request.parameters,
            timeout: *timeout,
            cancel: &Cancel::default(),
            steps,
        };
        let began = Instant::now();
        let responses =
            loaded.runtime.block_on(route.responses(&loaded.content, &request.content, options))?;
        Ok((began.elapsed(), responses))
    }
}

/// Times of calls, in the order of their length.
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Times(times)
    }

    /// Returns the time below which a share of the calls were, in microseconds; `None` without
    /// calls.
    pub fn percentile_us(&self, share: f64) -> Option<f64> {
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).map(|time| time.as_secs_f64() * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = Times::new((1..=100).rev().map(Duration::from_micros).collect());
        let rounded = |share| times.percentile_us(share).map(f64::round);
        assert_eq!((rounded(0.0), rounded(0.5), rounded(1.0)), (Some(1.0), Some(51.0), Some(100.0)));
        assert_eq!(Times::new(Vec::new()).percentile_us(0.5), None);
    }
}
