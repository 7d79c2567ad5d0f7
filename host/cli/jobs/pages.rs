//! Lists jobs, page by page.

use super::arguments::Which;
use crate::cli::client::HostClient;
use crate::error::{Error, Result};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

/// The most jobs of one page.
const PAGE_MAX: u64 = 1000;

/// A query without `?`, such as `state=failed&model=m`.
#[derive(Clone, Default)]
pub struct Query(String);

impl Query {
    pub fn of(which: &Which) -> Self {
        let Which { state, model, version, created_after, created_before } = which;
        let mut query = Query::default();
        for (name, value) in [
            ("state", state),
            ("model", model),
            ("version", version),
            ("created_after", created_after),
            ("created_before", created_before),
        ] {
            if let Some(value) = value {
                query.add(name, value);
            }
        }
        query
    }

    pub fn add(&mut self, name: &str, value: &str) {
        let separator = if self.0.is_empty() { "" } else { "&" };
        self.0 = format!("{}{separator}{name}={}", self.0, encoded(value));
    }

    /// Returns the path with this query.
    pub fn on(&self, path: &str) -> String {
        if self.0.is_empty() { path.to_owned() } else { format!("{path}?{}", self.0) }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Encodes a text for a path or a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Returns `1 job`, or another number of jobs.
pub fn counted(jobs: u64) -> String {
    if jobs == 1 { "1 job".to_owned() } else { format!("{jobs} jobs") }
}

/// The pages of a list.
pub struct Pages {
    query: Query,
    left: u64,
    after: Option<String>,
    is_begun: bool,
}

impl Pages {
    /// At most `limit` jobs in all.
    pub fn new(query: Query, limit: u64) -> Self {
        Pages { query, left: limit, after: None, is_begun: false }
    }

    /// Returns whether the host has more jobs than were asked for.
    pub fn has_more(&self) -> bool {
        self.after.is_some()
    }

    /// Returns the next jobs of the list; `None` at its end or limit.
    pub async fn next(&mut self, client: &mut HostClient) -> Result<Option<Vec<Value>>> {
        #[derive(Deserialize)]
        struct Page {
            jobs: Vec<Value>,
            next: Option<String>,
        }
        if self.left == 0 || (self.is_begun && self.after.is_none()) {
            return Ok(None);
        }
        let mut query = self.query.clone();
        query.add("limit", &self.left.min(PAGE_MAX).to_string());
        if let Some(after) = &self.after {
            query.add("after", after);
        }
        let Page { mut jobs, next } = client.get_json(&query.on("/jobs")).await?;
        if next.is_some() && next == self.after {
            let address = client.address();
            return Err(Error::failed(format!("{address} repeats a page of the list of jobs without end")));
        }
        jobs.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= jobs.len() as u64;
        self.after = next;
        self.is_begun = true;
        Ok(Some(jobs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_query_are_encoded() {
        let mut query = Query::default();
        assert_eq!(query.on("/jobs"), "/jobs");
        query.add("model", "a&b=c ü");
        query.add("created_after", "2026-11-30T17:25:42+01:00");
        assert_eq!(
            query.on("/jobs"),
            "/jobs?model=a%26b%3Dc%20%C3%BC&created_after=2026%2D11%2D30T17%3A25%3A42%2B01%3A00"
        );
    }
}
