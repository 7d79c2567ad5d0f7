//! The keys under `[plugins.shadow.config]`, which `docs/reference/executors/shadow.md` describes.

use hostler_plugin::{Error, config};
use std::sync::OnceLock;
use std::time::Duration;

pub struct Settings {
    /// The model that is called as well; `None` is the requested model.
    pub model: Option<String>,
    pub version: String,
    /// From 0 to 1.
    pub share: f64,
    pub tolerance: f64,
    pub timeout: Duration,
    pub max_in_flight: u32,
}

impl Settings {
    /// Returns the settings, which are read once per instance.
    pub fn get() -> Result<&'static Settings, Error> {
        static SETTINGS: OnceLock<Result<Settings, Error>> = OnceLock::new();
        SETTINGS.get_or_init(Settings::read).as_ref().map_err(Error::clone)
    }

    fn read() -> Result<Settings, Error> {
        let version = config::get("version")?;
        Ok(Settings {
            model: config::get("model")?,
            version: version
                .ok_or_else(|| Error::failed("config \"version\" is missing: which to shadow?"))?,
            share: config::number("share_percent", 100.0, 0.0..=100.0)? / 100.0,
            tolerance: config::number("tolerance", 0.0, 0.0..=f64::MAX)?,
            timeout: Duration::from_millis(config::number("timeout_ms", 1_000, 1..=600_000)?),
            max_in_flight: config::number("max_in_flight", 8, 1..=500)?,
        })
    }
}
