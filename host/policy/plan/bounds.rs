//! Checks that numbers of the manifest are within bounds.
//!
//! A number that is far too large is a mistake, and would cost memory or threads.

use super::planner::Planner;
use crate::input_file::FileLimits;
use crate::policy::manifest::{self, Spanned};
use crate::policy::milliseconds::{MS_MAX, milliseconds};
use std::cmp::Ordering;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Threads of one executor.
pub(super) const WORKERS_MAX: usize = 1024;

/// Calls of one executor that wait for another thread or a remote.
pub(super) const CALLS_MAX: usize = 65_536;

/// Slots in one queue.
pub(super) const QUEUE_MAX: usize = 1 << 20;

/// Copies of one model, and threads of one run.
pub(super) const SESSIONS_MAX: usize = 256;

/// The limit of WebAssembly's 32-bit memories.
pub(super) const MEMORY_MB_MAX: usize = 4096;

impl Planner<'_> {
    /// Returns the number of a key, or its default. A number out of bounds is a fault. Messages
    /// show `table` before the key.
    pub(super) fn number<N: Copy + Display + PartialOrd>(
        &mut self,
        table: &str,
        key: &str,
        written: Option<&Spanned<N>>,
        default: N,
        bounds: RangeInclusive<N>,
    ) -> N {
        let Some(written) = written else { return default };
        let number = *written.get_ref();
        if number.partial_cmp(bounds.start()).is_none_or(Ordering::is_lt) {
            self.fault(written.span(), format!("{table}{key} must be at least {}", bounds.start()));
        } else if number > *bounds.end() {
            self.fault(written.span(), format!("{table}{key} must be at most {}", bounds.end()));
        } else {
            return number;
        }
        default
    }

    /// Returns the duration of a key if it is set. It is at least 1 ms.
    pub(super) fn ms(&mut self, table: &str, key: &str, written: Option<&Spanned<u64>>) -> Option<Duration> {
        let ms = self.number(table, key, Some(written?), 1, 1..=MS_MAX);
        Some(milliseconds(ms))
    }

    /// Does the same for a duration that may be 0.
    pub(super) fn ms_or_none(
        &mut self,
        table: &str,
        key: &str,
        written: Option<&Spanned<u64>>,
    ) -> Option<Duration> {
        let ms = self.number(table, key, Some(written?), 0, 0..=MS_MAX);
        Some(milliseconds(ms))
    }

    /// Checks `[files]`.
    pub(super) fn file_limits(&mut self, table: &manifest::Files) -> FileLimits {
        let default = FileLimits::default();
        let mut bytes = |key: &str, written: &Option<Spanned<u64>>, default: u64, most_mb: u64| {
            self.number("[files] ", key, written.as_ref(), default >> 20, 1..=most_mb) << 20
        };
        FileLimits {
            // An ONNX file is a protobuf message, which must be smaller than 2 GiB.
            model: bytes("max_model_mb", &table.max_model_mb, default.model, 2047),
            external_data: bytes(
                "max_external_data_mb",
                &table.max_external_data_mb,
                default.external_data,
                1 << 20,
            ),
            plugin: bytes("max_plugin_mb", &table.max_plugin_mb, default.plugin, 2047),
            asset: bytes("max_asset_mb", &table.max_asset_mb, default.asset, 16 << 10),
            check: bytes("max_check_mb", &table.max_check_mb, default.check, 2047),
            labels: bytes("max_labels_mb", &table.max_labels_mb, default.labels, 2047),
        }
    }
}
