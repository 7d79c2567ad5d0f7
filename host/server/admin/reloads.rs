//! `/admin/reloads`: the records of the latest reloads.

use super::query::Query;
use crate::error::{Error, Result};
use crate::policy::Reloader;
use crate::policy::record::{RECORDS_MAX, Record};
use crate::server::http::{self, Reply};
use hyper::StatusCode;
use serde_json::json;

/// Returns the latest records, the newest first; as many as `limit` of the query says.
pub(super) fn reply(reloader: &Reloader, query: Option<&str>) -> Result<Reply> {
    let limit = match Query::parse(query, &["limit"])?.number("limit")? {
        None => RECORDS_MAX,
        Some(limit) => usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=RECORDS_MAX).contains(limit))
            .ok_or_else(|| Error::invalid(format!("limit must be from 1 to {RECORDS_MAX}")).field("limit"))?,
    };
    let records = reloader.records(limit);
    let records: Vec<&Record> = records.iter().map(|record| &**record).collect();
    Ok(http::json_of(StatusCode::OK, &json!({"reloads": records})))
}
