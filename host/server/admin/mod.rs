//! The admin listener: the policy, reloads, rollbacks and metrics. It is on a loopback address
//! unless the manifest names another.

mod jobs;
mod pipelines;

use super::api::Api;
use super::audit::Auditor;
use super::callers::Callers;
use super::cross_site::{CrossSite, Sensitivity};
use super::http::{self, Reply, RequestBody};
use super::metrics_page;
use super::service::Service;
use crate::access::{Requester, Verb};
use crate::error::{Error, Result};
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::plugin::{DrainTimeout, Engine, ReplicaStatus};
use crate::policy::Reloader;
use crate::policy::record::ReloadOutcome;
use crate::router::Router;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::SystemTime;

const PIPELINES: &str = "/admin/pipelines/";

/// Everything that the admin listener serves.
pub struct Admin {
    pub router: Arc<Router>,
    pub metrics: Arc<Metrics>,
    pub reloader: Arc<Reloader>,
    pub engine: Arc<Engine>,
    pub jobs: Arc<Jobs>,
    pub cross_site: CrossSite,
    pub callers: Callers,
    pub auditor: Auditor,
}

impl Service for Admin {
    async fn answer(&self, request: Request<RequestBody>) -> Reply {
        // The body is unused, and is kept until the reply is made.
        let (mut head, body) = request.into_parts();
        if self.callers.must_admit()
            && let Err(error) = admit(&self.callers, &mut head, &body)
        {
            self.metrics.requests.errors.with_label_values(&[error.kind().as_str()]).inc();
            return Api::of(head.uri.path()).error_reply(&error);
        }
        let (method, path) = (&head.method, head.uri.path());
        let (get, post) = (http::is_get(method), method == Method::POST);
        let sensitivity = match path {
            "/health" | "/metrics" => Sensitivity::Open,
            _ => Sensitivity::Controls,
        };
        if let Err(error) = self.cross_site.check(&head, sensitivity) {
            self.metrics.requests.errors.with_label_values(&[error.kind().as_str()]).inc();
            return Api::of(path).error_reply(&error);
        }
        let requester = self.callers.requester(&head.extensions);
        let actor = || self.auditor.actor(&requester, body.connection(), &head.headers, None);
        match path {
            "/admin/policy" if get => http::json_of(StatusCode::OK, &self.policy()),
            "/admin/reload" if post => {
                let dry_run = match head.uri.query() {
                    None | Some("" | "dry_run=false") => false,
                    Some("dry_run=true" | "dry_run") => true,
                    Some(other) => {
                        let message = format!("the query \"{other}\" is not known; write dry_run=true");
                        return http::error_reply(&Error::invalid(message), "");
                    }
                };
                if !dry_run && let Err(error) = self.auditor.record(actor(), "reload", String::new()).await {
                    return http::error_reply(&error, "");
                }
                self.reload(dry_run, operator(&head, &requester)).await
            }
            "/admin/policy/rollback" if post => {
                let generation = match generation(head.uri.query()) {
                    Ok(generation) => generation,
                    Err(error) => return http::error_reply(&error, ""),
                };
                let target = generation.map(|generation| format!("generation {generation}"));
                let rolled_back = async {
                    self.auditor.record_rollback(actor(), target.unwrap_or_default()).await?;
                    self.reloader.rollback(operator(&head, &requester), generation).await
                };
                match rolled_back.await {
                    Ok(record) => http::json_of(StatusCode::OK, &record),
                    Err(error) => http::error_reply(&error, ""),
                }
            }
            "/admin/policy/promote" if post => {
                let promoted = async {
                    self.auditor.record(actor(), "promote", String::new()).await?;
                    self.reloader.promote(operator(&head, &requester)).await
                };
                match promoted.await {
                    Ok(record) => http::json_of(StatusCode::OK, &record),
                    Err(error) => http::error_reply(&error, ""),
                }
            }
            "/admin/jobs/reset" if post => {
                match self.auditor.record(actor(), "reset_jobs", String::new()).await {
                    Ok(()) => jobs::reset(&self.jobs).await,
                    Err(error) => http::error_reply(&error, ""),
                }
            }
            "/admin/jobs/purge" if post => {
                let operator = operator(&head, &requester);
                jobs::purge(&self.jobs, head.uri.query(), &operator, &self.auditor, actor()).await
            }
            "/admin/pipelines" if get => {
                http::json_of(StatusCode::OK, &pipelines::list(&self.router.policy()))
            }
            path if get && path.starts_with(PIPELINES) => {
                let query = head.uri.query().unwrap_or_default();
                pipelines::reply(&self.router.policy(), &path[PIPELINES.len()..], query)
            }
            "/metrics" if get => metrics_page::reply(&self.metrics, &self.router),
            "/health" if get => http::health(),
            "/admin/policy" | "/admin/pipelines" | "/metrics" | "/health" => http::method_not_allowed("GET"),
            path if path.starts_with(PIPELINES) => http::method_not_allowed("GET"),
            "/admin/reload"
            | "/admin/policy/rollback"
            | "/admin/policy/promote"
            | "/admin/jobs/reset"
            | "/admin/jobs/purge" => http::method_not_allowed("POST"),
            path => http::error_reply(&Error::not_found(format!("no route {method} {path}")), ""),
        }
    }
}

/// Refuses those who may not do this.
fn admit(callers: &Callers, head: &mut Parts, body: &RequestBody) -> Result<()> {
    let verb = match head.uri.path() {
        "/health" => return Ok(()),
        "/metrics" => Verb::Metrics,
        _ => Verb::Admin,
    };
    callers.admit(verb, &head.headers, &mut head.extensions, body.connection())
}

impl Admin {
    /// Reloads the files. Returns 200 if they are live (or would be), 409 if they were refused.
    async fn reload(&self, dry_run: bool, operator: String) -> Reply {
        match self.reloader.reload(dry_run, operator).await {
            Ok(record) => {
                use ReloadOutcome::{Applied, RollingOut, Unchanged, WouldApply};
                let good = matches!(record.outcome, Applied | Unchanged | WouldApply | RollingOut);
                http::json_of(if good { StatusCode::OK } else { StatusCode::CONFLICT }, &record)
            }
            Err(error) => http::error_reply(&error, ""),
        }
    }

    fn policy(&self) -> Value {
        let report = self.reloader.report();
        let policy = self.router.policy();
        let executors: serde_json::Map<String, Value> = policy
            .content
            .executors
            .iter()
            .map(|(name, executor)| {
                let status = executor.status();
                let value = json!({
                    "kind": executor.kind(),
                    "workers": status.workers,
                    "busy": status.busy,
                    "overdue": status.overdue,
                    "inflight": status.inflight,
                    "queue_length": status.queue_length,
                    "queue_capacity": status.queue_capacity,
                });
                (name.to_string(), value)
            })
            .collect();
        let routes: serde_json::Map<String, Value> = policy
            .content
            .models()
            .flat_map(|(_, model)| model.versions.values())
            .map(|route| (route.name.to_string(), route.executor.name().into()))
            .collect();
        let mut value = serde_json::to_value(&report).expect("invariant: a report has string keys");
        value["executors"] = executors.into();
        value["routes"] = routes.into();
        let plugins: serde_json::Map<String, Value> = policy
            .content
            .shared_plugins()
            .map(|plugin| {
                let replicas: Vec<Value> = plugin.replicas().map(replica).collect();
                (plugin.name().to_string(), json!({"replicas": replicas}))
            })
            .collect();
        value["plugins"] = plugins.into();
        value["undrained"] = self.drain_timeouts();
        value
    }

    /// Lists the calls that were ended because they outlived the drain of a replaced plugin.
    fn drain_timeouts(&self) -> Value {
        let entry = |ended: &DrainTimeout| {
            let at = ended.at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |at| at.as_secs_f64());
            json!({"plugin": &*ended.plugin, "at": at, "calls": ended.calls, "requests": ended.requests})
        };
        self.engine.drain_timeouts().list().iter().map(entry).collect()
    }
}

/// Reads the generation that a rollback must restore.
fn generation(query: Option<&str>) -> Result<Option<u64>, Error> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let number = query.strip_prefix("generation=").and_then(|number| number.parse().ok());
    let message = format!("the query \"{query}\" is not known; write generation=<number>");
    number.map(Some).ok_or_else(|| Error::invalid(message))
}

fn replica(status: ReplicaStatus) -> Value {
    let ReplicaStatus { state, in_flight, lost, reason } = status;
    json!({"state": state, "in_flight": in_flight, "lost": lost, "reason": reason})
}

/// Returns the name that the operator's client gives itself, for the record of a change.
fn operator(head: &Parts, requester: &Requester) -> String {
    if requester.is_restricted() {
        return requester.owner().to_string();
    }
    let named = http::header(&head.headers, "x-operator");
    let agent = || http::header(&head.headers, "user-agent");
    named.or_else(agent).map_or_else(|| "unknown".into(), |name| name.chars().take(80).collect())
}
