//! Administration: the handlers under `/admin`, for operators' programs and for the page.

use super::endpoint::AdminEndpoint;
use super::query::Query;
use super::state::Admin;
use super::{jobs, pipelines, plugin_log, policy, reloads, status};
use crate::access::Requester;
use crate::error::{Error, Result};
use crate::policy::record::ReloadOutcome;
use crate::server::connection::Connection;
use crate::server::http::{self, Reply};
use hyper::StatusCode;
use hyper::http::request::Parts;

/// Answers a request of a caller who may administer the host. `path` begins with `/admin`.
pub(in crate::server) async fn answer(
    admin: &Admin,
    head: &Parts,
    connection: &Connection,
    path: &str,
) -> Reply {
    let Some(endpoint) = AdminEndpoint::parse(path) else {
        let path: String = path.chars().take(200).collect();
        return http::error_reply(&Error::not_found(format!("no route {} {path}", head.method)), "");
    };
    let allowed = endpoint.method();
    if !(head.method == allowed || allowed == "GET" && http::is_get(&head.method)) {
        return http::method_not_allowed(allowed);
    }
    let answered = dispatch(admin, head, connection, endpoint).await;
    answered.unwrap_or_else(|error| http::error_reply(&error, ""))
}

async fn dispatch(
    admin: &Admin,
    head: &Parts,
    connection: &Connection,
    endpoint: AdminEndpoint<'_>,
) -> Result<Reply> {
    let (public, query) = (&admin.public, head.uri.query());
    let requester = admin.callers.requester(&head.extensions);
    let actor = || public.auditor.actor(&requester, connection, &head.headers, None);
    let operator = || operator(head, &requester);
    match endpoint {
        AdminEndpoint::Policy => Ok(http::json_of(StatusCode::OK, &policy::policy(admin))),
        AdminEndpoint::Status => Ok(http::json_of(StatusCode::OK, &status::status(admin))),
        AdminEndpoint::Reloads => reloads::reply(&public.reloader, query),
        AdminEndpoint::Reload => {
            let is_dry_run = Query::parse(query, &["dry_run"])?.flag("dry_run")?;
            if !is_dry_run {
                public.auditor.record(actor(), "reload", String::new()).await?;
            }
            reload(admin, is_dry_run, operator()).await
        }
        AdminEndpoint::Rollback => {
            let generation = Query::parse(query, &["generation"])?.number("generation")?;
            public.auditor.record_rollback(actor(), of(generation)).await?;
            let record = public.reloader.rollback(operator(), generation).await?;
            Ok(http::json_of(StatusCode::OK, &record))
        }
        AdminEndpoint::Promote => {
            let generation = Query::parse(query, &["generation"])?.number("generation")?;
            public.auditor.record(actor(), "promote", of(generation)).await?;
            Ok(http::json_of(StatusCode::OK, &public.reloader.promote(operator(), generation).await?))
        }
        AdminEndpoint::Pipelines => {
            Ok(http::json_of(StatusCode::OK, &pipelines::list(&public.router.policy())))
        }
        AdminEndpoint::Pipeline(name) => {
            pipelines::reply(&public.router.policy(), &http::decode_segment(name)?, query)
        }
        AdminEndpoint::PluginLog(name) => {
            plugin_log::reply(admin, &requester, &http::decode_segment(name)?, query).await
        }
        AdminEndpoint::ResetJobs => {
            public.auditor.record(actor(), "reset_jobs", String::new()).await?;
            jobs::reset(&public.jobs).await
        }
        AdminEndpoint::PurgeJobs => {
            jobs::purge(&public.jobs, query, &operator(), &public.auditor, actor()).await
        }
    }
}

/// Reloads the files. Returns 200 if they are live (or would be), 409 if they were refused.
async fn reload(admin: &Admin, is_dry_run: bool, operator: String) -> Result<Reply> {
    use ReloadOutcome::{Applied, RollingOut, Unchanged, WouldApply};
    let record = admin.public.reloader.reload(is_dry_run, operator).await?;
    let is_good = matches!(record.outcome, Applied | Unchanged | WouldApply | RollingOut);
    Ok(http::json_of(if is_good { StatusCode::OK } else { StatusCode::CONFLICT }, &record))
}

/// Returns the target of an act on a generation, for the audit log.
fn of(generation: Option<u64>) -> String {
    generation.map_or_else(String::new, |generation| format!("generation {generation}"))
}

/// Returns the name that the operator's client gives itself, for the record of a change.
fn operator(head: &Parts, requester: &Requester) -> String {
    if requester.is_restricted() {
        return requester.owner().to_string();
    }
    let named = http::header(&head.headers, "x-operator").filter(|name| !name.is_empty());
    let agent = || http::header(&head.headers, "user-agent");
    named.or_else(agent).map_or_else(|| "unknown".into(), |name| name.chars().take(80).collect())
}
