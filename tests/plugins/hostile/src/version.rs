//! A bad version of the plugin: faults that its config enables in every prediction, for all
//! requests. `fail_percent` fails this share of the calls, `slow_ms` is the time that each call
//! takes.

use hostler_plugin::{Error, Request, config};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

pub fn misbehave(request: &Request) -> Result<(), Error> {
    if let Some(ms) = number("slow_ms")? {
        std::thread::sleep(Duration::from_millis(ms));
    }
    match number("fail_percent")? {
        // The hasher's keys are random in each instance.
        Some(percent) if RandomState::new().hash_one(request.id()) % 100 < percent => {
            Err(Error::failed("this version fails some of its calls"))
        }
        _ => Ok(()),
    }
}

fn number(key: &str) -> Result<Option<u64>, Error> {
    let Some(text) = config::get(key)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Error::failed(format!("config \"{key}\" is no whole number")))
}
