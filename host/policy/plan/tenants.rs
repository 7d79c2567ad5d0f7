//! Checks `[tenants]`.

use super::bounds::CALLS_MAX;
use super::planner::Planner;
use super::tenants_plan::{TenantPlan, TenantsPlan};
use crate::policy::manifest::{self, Manifest, Spanned};
use crate::tenants::{self, Rate, TenantLimits};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The table of all tenants without one.
const OTHERS: &str = "*";

const WEIGHT_MAX: u32 = 1000;

/// Tables, each with time series of its own.
const TENANTS_MAX: usize = 1000;

const PER_S_MAX: f64 = 1e9;

impl Planner<'_> {
    pub(super) fn tenants(&mut self, manifest: &Manifest) -> TenantsPlan {
        let mut plan = TenantsPlan::default();
        let mut callers: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
        let is_identified = manifest.server.access_rules.is_some() || manifest.server.tenant_header.is_some();
        if let Some((name, _)) = manifest.tenants.iter().next().filter(|_| !is_identified) {
            // Nobody would notice that no limit is enforced.
            self.hinted(
                name.span(),
                "[tenants] has no effect: nothing tells callers apart".to_owned(),
                "set access_rules, or tenant_header and trusted_proxies, under [server]",
            );
        }
        for (name, table) in &manifest.tenants {
            let of = format!("[tenants.\"{}\"] ", name.get_ref());
            let limits = self.tenant_limits(&of, table);
            if name.get_ref() == OTHERS {
                if let Some(caller) = table.callers.first() {
                    let message = format!("{of}has callers, but it is for every tenant without a table");
                    self.hinted(caller.span(), message, "remove callers, or name the tenant");
                }
                plan.others = limits;
                continue;
            }
            if let Err(why) = tenants::check_name(name.get_ref()) {
                self.hinted(
                    name.span(),
                    format!("[tenants] \"{}\" {why}", name.get_ref()),
                    tenants::NAME_HINT,
                );
            }
            let name: Arc<str> = name.get_ref().as_str().into();
            let mut own = Vec::new();
            for caller in &table.callers {
                let text: Arc<str> = caller.get_ref().as_str().into();
                if text.split_once(':').is_none_or(|(kind, rest)| {
                    rest.is_empty()
                        || rest.contains('*')
                        || !matches!(kind, "key" | "user" | "group" | "cert")
                }) && *text != *"anonymous"
                {
                    let message = format!("{of}callers has \"{text}\", which is not the name of a caller");
                    self.hinted(
                        caller.span(),
                        message,
                        "write key:NAME, user:NAME, group:NAME, cert:NAME, or anonymous",
                    );
                }
                if let Some(other) = callers.insert(Arc::clone(&text), Arc::clone(&name))
                    && other != name
                {
                    let message = format!("{of}callers has \"{text}\", which is a caller of \"{other}\"");
                    self.hinted(caller.span(), message, "name a caller in one table");
                }
                own.push(text);
            }
            plan.named.insert(name, TenantPlan { callers: own, limits });
        }
        if let Some((name, _)) = manifest.tenants.iter().nth(TENANTS_MAX) {
            let count = manifest.tenants.len();
            let message = format!("[tenants] has {count} tables; at most {TENANTS_MAX} are possible");
            self.hinted(name.span(), message, "set limits for many tenants in [tenants.\"*\"]");
        }
        plan
    }

    fn tenant_limits(&mut self, of: &str, table: &manifest::Tenant) -> TenantLimits {
        let requests = (&table.requests_per_s, "requests_per_s", &table.burst_requests, "burst_requests");
        let rows = (&table.rows_per_s, "rows_per_s", &table.burst_rows, "burst_rows");
        let [requests, rows] = [requests, rows].map(|(per_s, per_s_key, burst, burst_key)| {
            let Some(per_s) = per_s else {
                if let Some(burst) = burst {
                    self.hinted(
                        burst.span(),
                        format!("{of}{burst_key} is set without {per_s_key}"),
                        format!("set {per_s_key}, or remove {burst_key}"),
                    );
                }
                return None;
            };
            let per_s = self.rate(of, per_s_key, per_s, 0.001);
            // One second's worth, and at least one unit.
            let burst = burst.as_ref().map_or(per_s.max(1.0), |burst| self.rate(of, burst_key, burst, 1.0));
            Some(Rate { per_s, burst })
        });
        let weight = self.number(of, "weight", table.weight.as_ref(), 1, 1..=WEIGHT_MAX);
        let in_flight = table.max_in_flight.as_ref();
        let mb = table.max_in_flight_mb.as_ref();
        TenantLimits {
            weight: NonZeroU32::new(weight).unwrap_or(NonZeroU32::MIN),
            requests,
            rows,
            max_in_flight: in_flight.map(|max| self.number(of, "max_in_flight", Some(max), 1, 1..=CALLS_MAX)),
            max_in_flight_bytes: mb
                .map(|mb| self.number(of, "max_in_flight_mb", Some(mb), 1, 1..=1 << 20) << 20),
        }
    }

    fn rate(&mut self, of: &str, key: &str, written: &Spanned<f64>, least: f64) -> f64 {
        self.number(of, key, Some(written), least, least..=PER_S_MAX)
    }
}
