//! Host memory that guests keep alive: tensors behind their handles, and results of calls that wait
//! to be read. It is counted per instance against `held_mb`, and for all instances of a plugin
//! together against `held_total_mb`.
//!
//! Linear memory (`memory_mb`) and values in `state` (`state_kb`) have limits of their own and are
//! not counted here.

use crate::config::PluginLimits;
use crate::error::{Error, Kind, Result};
use crate::predict::Budget;
use prometheus::IntGauge;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// An instance adds charges of at least this size to the plugin's sum immediately, and the rest
/// when its call ends: all workers share the sum, and most tensors are small.
const CHARGE_STEP_BYTES: usize = 64 << 10;

/// The memory that all instances of a plugin hold.
pub(super) struct PluginRetained {
    name: Arc<str>,
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Shared by all generations of the plugin.
    gauge: IntGauge,
}

impl PluginRetained {
    pub fn new(name: Arc<str>, limits: &PluginLimits, gauge: IntGauge) -> Arc<Self> {
        Arc::new(PluginRetained {
            name,
            bytes: AtomicUsize::new(0),
            bytes_max: limits.held_total_bytes,
            gauge,
        })
    }

    /// Whether the plugin holds so much that instances should not keep anything beyond their calls.
    pub fn is_short(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.bytes_max / 2
    }
}

/// The memory that one instance holds. Shared with the responses to its calls, which arrive on
/// other threads.
pub(super) struct InstanceRetained {
    plugin: Arc<PluginRetained>,
    bytes: AtomicUsize,
    bytes_max: usize,
    /// How much of it is already in the plugin's sum.
    charged: AtomicUsize,
    /// Whether a host call was refused because of it.
    refused: AtomicBool,
}

impl InstanceRetained {
    pub fn new(plugin: &Arc<PluginRetained>, limits: &PluginLimits) -> Arc<Self> {
        let (bytes, charged, refused) = Default::default();
        let (plugin, bytes_max) = (Arc::clone(plugin), limits.held_bytes);
        Arc::new(InstanceRetained { plugin, bytes, bytes_max, charged, refused })
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether a host call was refused because of what the instance holds.
    pub fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts bytes that are held already, regardless of the limits.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Brings the plugin's sum up to date.
    pub fn settle(&self) {
        let now = self.bytes.load(Ordering::Relaxed);
        if now == self.charged.load(Ordering::Relaxed) {
            return;
        }
        let before = self.charged.swap(now, Ordering::Relaxed);
        // Wrapping, because the difference may be negative; the sum is not.
        self.plugin.bytes.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        self.plugin.gauge.add(now as i64 - before as i64);
    }

    /// Whether the instance should end with its call, so that what it holds is freed. This is the
    /// case from half of its limit: a guest that leaks is replaced before one of its host calls is
    /// refused.
    pub fn is_over(&self) -> bool {
        let bytes = self.bytes();
        bytes > self.bytes_max / 2 || (bytes > 0 && self.plugin.is_short())
    }
}

impl Budget for InstanceRetained {
    fn charge(&self, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mb = |bytes: usize| bytes.div_ceil(1 << 20);
        let name = &self.plugin.name;
        if before.saturating_add(bytes) > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.refused.store(true, Ordering::Relaxed);
            let (held, more, limit) = (mb(before), mb(bytes), self.bytes_max >> 20);
            let message = format!(
                "plugin \"{name}\": an instance holds {held} MiB of tensors and results, and {more} MiB more would exceed \
                 held_mb = {limit}; drop tensors that are no longer needed, or raise held_mb"
            );
            return Err(Error::new(Kind::TooLarge, message).plugin(&**name));
        }
        if bytes >= CHARGE_STEP_BYTES {
            self.settle();
            let all = self.plugin.bytes.load(Ordering::Relaxed);
            if all > self.plugin.bytes_max {
                self.release(bytes);
                self.settle();
                let (all, limit) = (mb(all), self.plugin.bytes_max >> 20);
                let message = format!(
                    "plugin \"{name}\": its instances would hold {all} MiB of tensors and results together and exceed \
                     held_total_mb = {limit}; send fewer requests at once, or raise held_total_mb"
                );
                return Err(Error::new(Kind::Overloaded, message).plugin(&**name));
            }
        }
        Ok(())
    }

    fn release(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        if bytes >= CHARGE_STEP_BYTES {
            self.settle();
        }
    }
}

impl Drop for InstanceRetained {
    fn drop(&mut self) {
        *self.bytes.get_mut() = 0;
        self.settle();
    }
}
