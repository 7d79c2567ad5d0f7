//! How long each part of a reload took.

use std::time::Duration;

#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Reading and checking the manifest, and the digests of all files.
    pub plan: Duration,
    /// Compiling and linking plugins.
    pub plugins: Duration,
    /// Loading models.
    pub models: Duration,
    /// Sample requests.
    pub checks: Duration,
}

impl Phases {
    /// Returns names and milliseconds.
    pub fn in_ms(&self) -> [(&'static str, f64); 4] {
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e4).round() / 10.0;
        [
            ("plan", ms(self.plan)),
            ("plugins", ms(self.plugins)),
            ("models", ms(self.models)),
            ("checks", ms(self.checks)),
        ]
    }
}
