//! Repeats a call after an error that may be temporary. Pauses grow and are partly random, the
//! request's deadline applies, and a budget over all requests prevents retries from overloading a
//! model that is down.

mod settings;

use hostler_plugin::{Callable, Error, Executor, Request, Tensor, metrics, random, sleep};
use settings::Settings;
use std::time::Duration;

struct Retry;

hostler_plugin::export!(Retry: executor);

impl Executor for Retry {
    fn submit(request: &Request, inputs: Vec<Tensor>, model: &Callable) -> Result<Vec<Tensor>, Error> {
        let settings = Settings::get()?;
        settings.budget.earn();
        for attempt in 1.. {
            let error = match model.call(&inputs) {
                Err(error) if settings.kinds.contains(&error.kind) => error,
                outcome => return outcome,
            };
            if attempt >= settings.attempts {
                metrics::count("retries_exhausted", 1);
                return Err(error);
            }
            let pause = settings.pause(attempt, random::fraction());
            if request.time_left().is_some_and(|left| pause >= Duration::from_millis(left)) {
                metrics::count("retries_out_of_time", 1);
                return Err(error);
            }
            if !settings.budget.take() {
                metrics::count("budget_denied", 1);
                return Err(error);
            }
            metrics::count("retries", 1);
            sleep(pause);
        }
        unreachable!("invariant: the loop ends at the last attempt")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostler_plugin::ErrorKind;
    use hostler_plugin::testing::Host;

    /// Returns a host whose model fails with this kind a number of times, and then answers.
    fn host(kind: ErrorKind, failures: usize) -> Host {
        let mut calls = 0;
        Host::new().config("backoff_ms", "100").model("m", move |_| {
            calls += 1;
            if calls <= failures { Err(Error::of(kind, "not now")) } else { Ok(Vec::new()) }
        })
    }

    fn submit(host: &Host) -> Result<Vec<Tensor>, Error> {
        Retry::submit(&host.request(), Vec::new(), &host.callable("m"))
    }

    #[test]
    fn a_call_that_fails_for_now_is_made_again_after_growing_pauses() {
        let host = host(ErrorKind::Unavailable, 2);
        submit(&host).unwrap();
        assert_eq!((host.calls("m").len(), host.events("retries")), (3, 2));
        // Half of each pause is chance: 50 to 100 ms, and 100 to 200 ms.
        assert!((150..=300).contains(&host.time().as_millis()), "{:?}", host.time());
    }

    #[test]
    fn the_last_attempt_and_an_error_that_stays_are_returned() {
        let one = host(ErrorKind::Failed, 9).config("attempts", "2");
        assert_eq!(submit(&one).unwrap_err().message, "not now");
        assert_eq!((one.calls("m").len(), one.events("retries_exhausted")), (2, 1));
        let other = host(ErrorKind::InvalidInput, 9);
        assert_eq!(submit(&other).unwrap_err().kind, ErrorKind::InvalidInput);
        assert_eq!(other.calls("m").len(), 1);
    }

    #[test]
    fn there_is_no_pause_beyond_the_deadline_and_no_retry_beyond_the_budget() {
        let host = host(ErrorKind::Overloaded, 99).config("budget_reserve", "1");
        let request = host.request().with_timeout(Duration::from_millis(40));
        assert!(Retry::submit(&request, Vec::new(), &host.callable("m")).is_err());
        assert_eq!((host.events("retries_out_of_time"), host.time()), (1, Duration::ZERO));
        assert!(submit(&host).is_err() && submit(&host).is_err());
        assert_eq!((host.events("retries"), host.events("budget_denied")), (1, 2));
    }

    #[test]
    fn settings_that_are_wrong_fail_the_request() {
        let host = host(ErrorKind::Failed, 0).config("attempts", "none");
        let expected = "config \"attempts\": expected a number from 1 to 100, got \"none\"";
        assert_eq!(submit(&host).unwrap_err().message, expected);
    }
}
