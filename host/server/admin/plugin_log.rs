//! `/admin/plugins/<name>/log`: the last lines that a plugin has written, and those to come.

use super::query::Query;
use super::state::Admin;
use crate::access::{Requester, Verb};
use crate::error::{Error, Result, did_you_mean};
use crate::plugin::{LaterLines, LogLine};
use crate::server::http::{self, Reply};
use crate::timestamp::seconds;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

/// The longest that one request may wait for a line: shorter than the timeouts of most proxies.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Returns the lines after `after`. If there is none, waits for one for up to `wait_ms`.
pub(super) async fn reply(
    admin: &Admin,
    requester: &Requester,
    plugin: &str,
    query: Option<&str>,
) -> Result<Reply> {
    let query = Query::parse(query, &["after", "wait_ms"])?;
    let after = query.number("after")?;
    let wait = Duration::from_millis(query.number("wait_ms")?.unwrap_or(0)).min(WAIT_MAX);
    let tail = admin.engine.log_tail(plugin).ok_or_else(|| {
        let policy = admin.public.router.policy();
        let name: String = plugin.chars().take(80).collect();
        let hint = did_you_mean(&name, policy.content.plan.plugins.keys().map(|name| &**name));
        Error::not_found(format!("no plugin \"{name}\" is loaded{hint}"))
    })?;
    let mut found = tail.after(after);
    // Beyond the limit, callers ask again instead: they must not take all connections.
    let permit = admin.log_waits.try_acquire().ok().filter(|_| !wait.is_zero());
    if found.lines.is_empty() && permit.is_some() {
        let _ = tokio::time::timeout(wait, tail.wait(found.newest)).await;
        // The rules may have changed meanwhile.
        requester.require(Verb::Admin, None)?;
        found = tail.after(after);
    }
    let LaterLines { lines, lost, newest } = found;
    let lines: Vec<Value> = lines.iter().map(entry).collect();
    Ok(http::json_of(StatusCode::OK, &json!({"lines": lines, "next": newest, "lost": lost})))
}

fn entry(line: &LogLine) -> Value {
    let LogLine { number, at, level, request, text } = line;
    json!({"seq": number, "at": seconds(*at), "level": level, "request": request.as_deref(), "text": text})
}
