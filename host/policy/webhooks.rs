//! Webhooks as a policy allows them: the plan, and the client that sends them.

use super::plan::WebhooksPlan;
use crate::error::{Error, Result};
use crate::outbound::{Client, parse_url};

pub struct Webhooks {
    pub plan: WebhooksPlan,
    pub client: Client,
}

impl Webhooks {
    /// `ca` contains certificates in PEM, trusted in addition to those that this machine trusts.
    pub(super) fn new(plan: WebhooksPlan, ca: Option<&[u8]>) -> Result<Self> {
        let client = Client::new(plan.limits.clone(), ca)?;
        Ok(Webhooks { plan, client })
    }

    /// Checks the URL of a webhook. Returns the receiver that it leads to: its scheme, host and
    /// port. Says nothing about other receivers, which are the operator's business.
    pub fn receiver(&self, url: &str) -> Result<String> {
        let (origin, _) = parse_url(url)?;
        if self.plan.limits.allow.iter().any(|allowed| allowed.allows(&origin)) {
            return Ok(origin.to_string());
        }
        Err(Error::invalid(format!(
            "webhooks to {origin} are not allowed; an operator can add \"{origin}\" to allow_hosts of [jobs.webhooks]"
        )))
    }
}
