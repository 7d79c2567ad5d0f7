//! The path of a request through the host, the same for every protocol: resolve, deadline, submit,
//! account.
//!
//! A [`RequestScope`] begins when a request is decoded far enough to be named. It ends with one
//! count, one line in the access log, and one line in the host's log if the request failed.

mod accounting;
mod authority;
mod call_options;

pub use authority::Authority;
pub use call_options::CallOptions;

use crate::access::Requester;
use crate::error::{Error, Kind, Result};
use crate::executor::{Call, Precedence, request_rows};
use crate::metrics::Metrics;
use crate::policy::guard_counters::CallOutcome;
use crate::policy::settings::Limits;
use crate::policy::{
    Copy, InUse, KeptRequest, LivePolicy, Policy, Route, RouteQuery, SelectedPolicy, Shadow,
};
use crate::predict::{
    BatchResponses, CallContext, MemoryBudget, Payload, Response, Responses, Service, TraceLink,
};
use crate::tenants::{TenantAccount, TenantGuard, TenantRegistry};
use crate::traces::{Attributes, TraceParent, TraceState, Tracer};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The headers of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The current version of the header has 55 bytes. Longer values are ignored.
const TRACEPARENT_BYTES_MAX: usize = 128;

pub struct Router {
    live: Arc<LivePolicy>,
    metrics: Arc<Metrics>,
    access_log: bool,
    limits: Limits,
    tenants: TenantRegistry,
    /// Without it, nothing is traced.
    tracer: Option<Arc<Tracer>>,
}

impl Router {
    pub fn new(
        live: Arc<LivePolicy>,
        metrics: Arc<Metrics>,
        access_log: bool,
        limits: Limits,
        tracer: Option<Arc<Tracer>>,
    ) -> Self {
        Router { live, metrics, access_log, limits, tenants: TenantRegistry::default(), tracer }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn policy(&self) -> Arc<Policy> {
        self.live.snapshot()
    }

    /// Returns what serves now: the live policy, and the candidate of a rollout if there is one.
    pub fn contents(&self) -> Vec<Arc<crate::policy::PolicyContent>> {
        self.live.contents()
    }

    /// Returns the memory budget for decoding one request.
    pub fn budget(&self) -> MemoryBudget {
        MemoryBudget::new(self.limits.max_body_bytes)
    }

    /// Returns the trace that a request belongs to, and begins its span if it is traced.
    fn trace(&self, header: &dyn Fn(&str) -> Option<String>, started: Instant) -> TraceLink {
        let parent = header(TRACEPARENT).filter(|trace| trace.len() <= TRACEPARENT_BYTES_MAX);
        let state = || header(TRACESTATE).and_then(|state| TraceState::of(&state));
        let span = self.tracer.as_ref().and_then(|tracer| tracer.begin(parent.as_deref(), state, started));
        match parent {
            None => TraceLink::new(None, None, span),
            // What is not valid is passed on as it is, without a state.
            Some(parent) => {
                let state = TraceParent::parse(&parent).and_then(|_| state());
                TraceLink::new(Some(parent.into()), state.map(|state| state.0), span)
            }
        }
    }

    /// Admits a request before there is a scope for it. The scope takes the guard.
    ///
    /// # Errors
    /// `overloaded` if its tenant has reached a limit.
    pub fn admit(&self, requester: &Requester) -> Result<Option<Arc<TenantGuard>>> {
        self.account(requester).map(|account| account.admit(Instant::now()).map(Arc::new)).transpose()
    }

    /// Returns the name of a requester's tenant; empty if there is none.
    pub fn tenant(&self, requester: &Requester) -> Arc<str> {
        name_of(self.account(requester).as_ref())
    }

    /// Returns the tenant of a requester, with its limits by the live policy.
    fn account(&self, requester: &Requester) -> Option<TenantAccount> {
        self.tenants.find(&self.policy().content.tenants, &requester.tenant_names())
    }

    /// Begins a request with the policy snapshot that it uses to its end. `header` returns the
    /// headers that a canary's rule may use.
    pub fn begin(
        self: &Arc<Self>,
        id: Arc<str>,
        protocol: &'static str,
        authority: Authority,
        header: &dyn Fn(&str) -> Option<String>,
    ) -> RequestScope {
        let SelectedPolicy { policy, shadow } = self.live.pick(&RouteQuery { request_id: &id, header });
        let started = Instant::now();
        let trace = self.trace(header, started);
        let headers = policy.content.sticky_headers();
        let headers = headers.filter_map(|name| Some((name.to_owned(), header(name)?))).collect();
        let account = self.tenants.find(&policy.content.tenants, &authority.tenant_names());
        RequestScope {
            headers,
            account,
            guard: None,
            router: Arc::clone(self),
            policy,
            shadow,
            copy: None,
            batch: false,
            id,
            authority,
            trace,
            protocol,
            started,
            route: None,
            queue_wait: Duration::ZERO,
            service: Service::default(),
            ended: false,
            is_shortened: false,
            kept: Vec::new(),
        }
    }
}

/// Returns the name of a tenant; empty if there is none.
fn name_of(account: Option<&TenantAccount>) -> Arc<str> {
    account.map_or_else(Arc::default, |account| Arc::clone(account.tenant.name()))
}

/// Returns the rows of an input, as limits and shares of tenants count them.
pub fn rows(route: &Route, input: &Payload) -> usize {
    request_rows(route.callable.metadata(), route.transformer.is_some(), input)
}

/// Refuses a streaming model where only one response is possible.
pub fn refuse_streaming(route: &Route) -> Result<()> {
    if !route.is_streaming() {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "model \"{}\" returns any number of responses to a request; send it to POST /predict/stream",
        route.name
    )))
}

/// One request, from its name to its answer or the end of its stream.
pub struct RequestScope {
    router: Arc<Router>,
    policy: Arc<Policy>,
    shadow: Option<Arc<Shadow>>,
    /// A copy that runs on a candidate after the caller is answered.
    copy: Option<(Copy, Payload)>,
    /// Each item is counted separately.
    batch: bool,
    id: Arc<str>,
    authority: Authority,
    /// The tenant and its limits; `None` where callers are not told apart.
    account: Option<TenantAccount>,
    /// Set once the tenant's limits have admitted the request.
    guard: Option<Arc<TenantGuard>>,
    trace: TraceLink,
    /// Headers that routing rules use, for the models that are called on the way.
    headers: Arc<[(String, String)]>,
    protocol: &'static str,
    started: Instant,
    route: Option<InUse>,
    queue_wait: Duration,
    service: Service,
    ended: bool,
    /// The caller requested less time than the operator allows for this route.
    is_shortened: bool,
    /// By item, requests that the guard may repeat on the previous version.
    kept: Vec<Option<KeptRequest>>,
}

impl RequestScope {
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub fn generation(&self) -> u64 {
        self.policy.generation
    }

    /// Returns the digest of the policy that the request uses.
    pub fn policy_digest(&self) -> &str {
        &self.policy.content.plan.digest
    }

    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Lets the request begin earlier, for a protocol whose requests are named only once they were
    /// read. Deadlines and durations count from there.
    pub fn since(mut self, started: Instant) -> Self {
        self.started = started;
        self.trace.since(started);
        self
    }

    /// Takes the guard of a request that `Router::admit` has admitted.
    pub fn admitted(mut self, guard: Option<Arc<TenantGuard>>) -> Self {
        self.guard = guard;
        self
    }

    /// Admits the request within the limits of its tenant. Does nothing if it was admitted. Called
    /// by `resolve`; earlier calls save the work of reading a request that is refused.
    ///
    /// # Errors
    /// `overloaded` if its tenant has reached a limit.
    pub fn admit(&mut self) -> Result<()> {
        if let (None, Some(account)) = (&self.guard, &self.account)
            && !self.authority.is_admitted()
        {
            self.guard = Some(Arc::new(account.admit(Instant::now())?));
        }
        Ok(())
    }

    /// Returns what counts the bytes of the request.
    pub fn guard(&self) -> Option<&TenantGuard> {
        self.guard.as_deref()
    }

    /// Returns the name of the tenant; empty if there is none.
    pub fn tenant(&self) -> Arc<str> {
        name_of(self.account.as_ref())
    }

    /// Admits the rows of all inputs of the request within the limits of the tenant.
    ///
    /// # Errors
    /// `overloaded` if it sends more than it may.
    pub fn admit_rows(&self, rows: usize) -> Result<()> {
        match &self.account {
            Some(account) if !self.authority.is_admitted() => {
                account.admit_rows(rows).map_err(Error::unjudged)
            }
            _ => Ok(()),
        }
    }

    /// Returns on whose behalf the request is made.
    pub fn requester(&self) -> &Requester {
        &self.authority.requester
    }

    /// Finds the model, if the caller may use it. `header` returns the headers that a routing rule
    /// may use.
    pub fn resolve(
        &mut self,
        model: &str,
        version: Option<&str>,
        header: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Arc<Route>> {
        self.admit()?;
        let Authority { requester, verb, .. } = &self.authority;
        // Asked first: who may not use a model does not learn whether it exists.
        requester.require(*verb, Some((model, version)))?;
        let caller = RouteQuery { request_id: &self.id, header };
        let route = self.policy.content.resolve(model, version, &caller);
        let route = route.map_err(|error| requester.without_hints(error, model, version))?;
        if version.is_none() {
            requester.require(*verb, Some((model, Some(&route.name.version))))?;
        }
        self.route = Some(InUse::new(route));
        Ok(Arc::clone(route))
    }

    /// Runs one call and waits for its single response.
    pub async fn predict(
        &mut self,
        route: &Arc<Route>,
        options: CallOptions,
        input: Payload,
    ) -> Result<Response> {
        refuse_streaming(route)?;
        let timeout = self.router.timeout(route, None);
        let copy = self.shadow.as_ref().and_then(|to| to.copy(route, &input, &options.parameters, timeout));
        let mut responses = self.submit(route, options, input, Arc::clone(&self.id))?;
        let response = self.answer(route, &mut responses).await?;
        self.copy = copy.map(|copy| (copy, response.payload.clone()));
        Ok(response)
    }

    /// Begins one call. Through its responses, the caller can also wait until the work has ended.
    pub fn submit(
        &mut self,
        route: &Arc<Route>,
        options: CallOptions,
        input: Payload,
        id: Arc<str>,
    ) -> Result<Responses> {
        self.admit_rows(rows(route, &input)).map_err(|error| error.model(route.name.to_string()))?;
        let call = self.call(route, options, input, id);
        let admitted = Instant::now();
        let submitted = route.executor.submit(call);
        let responses = submitted.map_err(|error| error.model(route.name.to_string()))?;
        self.trace_admission(admitted);
        Ok(responses)
    }

    /// Begins one call with 0..n responses. The request ends with the stream, not with this call.
    pub fn stream(&mut self, route: &Arc<Route>, options: CallOptions, input: Payload) -> Result<Responses> {
        self.submit(route, options, input, Arc::clone(&self.id))
    }

    /// Returns the next response of a stream; `None` after the last one.
    pub async fn next(&mut self, route: &Arc<Route>, responses: &mut Responses) -> Option<Result<Response>> {
        let next = responses.next().await?;
        Some(match next {
            Ok(response) => {
                self.queue_wait = response.queue_wait;
                self.service = response.service;
                Ok(response)
            }
            Err(error) => Err(self.judged(route, 0, error, responses)),
        })
    }

    /// Waits for the single response of a call that `submit` has begun.
    pub async fn answer(&mut self, route: &Arc<Route>, responses: &mut Responses) -> Result<Response> {
        let response = responses.one().await;
        let response = response.map_err(|error| self.judged(route, 0, error, responses))?;
        self.queue_wait = response.queue_wait;
        self.service = response.service;
        Ok(response)
    }

    /// Runs calls as one unit of admission. A call that fails does not affect the others.
    pub async fn predict_batch(
        &mut self,
        route: &Arc<Route>,
        items: Vec<(CallOptions, Payload)>,
    ) -> Result<Vec<Result<Response>>> {
        refuse_streaming(route)?;
        self.batch = true;
        let named = |error: Error| error.model(route.name.to_string());
        let mut calls = Vec::with_capacity(items.len());
        let rows = items.iter().map(|(_, input)| rows(route, input)).sum();
        self.admit_rows(rows).map_err(named)?;
        for (index, (options, input)) in items.into_iter().enumerate() {
            let id = format!("{}/{index}", self.id).into();
            calls.push(self.call(route, options, input, id));
        }
        let admitted = Instant::now();
        let mut responses = BatchResponses(route.executor.submit_batch(calls).map_err(named)?);
        self.trace_admission(admitted);
        let mut answers = Vec::with_capacity(responses.0.len());
        for (index, response) in responses.0.iter_mut().enumerate() {
            let answer = response.one().await;
            let answer = answer.map_err(|error| self.judged(route, index, error, response));
            if let Ok(response) = &answer {
                self.queue_wait = self.queue_wait.max(response.queue_wait);
                self.service += response.service;
                route.counters.record(CallOutcome::Ok(response.queue_wait + response.service.total()));
                route.statistics.answered_item(response);
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Records that the request was read, decoded and admitted.
    fn trace_admission(&self, admitted: Instant) {
        if let Some(span) = self.trace.span() {
            let took = admitted.saturating_duration_since(self.started);
            span.part("admission", self.started, took, Attributes::new());
        }
    }

    /// Completes an error of a call: adds the model, and decides whether the error is evidence
    /// about the version. A deadline is not if the caller requested less time than the operator
    /// allows, or if the call was still queued. For other errors, the guard may repeat the request
    /// on the previous version.
    fn judged(&mut self, route: &Arc<Route>, index: usize, error: Error, responses: &Responses) -> Error {
        let error = error.settled().model(route.name.to_string());
        let deadline = responses.deadline();
        let has_passed = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let is_late = error.kind() == Kind::Deadline && !responses.has_begun();
        if is_late || (self.is_shortened && has_passed()) {
            return error.unjudged();
        }
        if let Some(kept) = self.kept.get_mut(index).and_then(Option::take) {
            kept.replay(route, &self.id, &error);
        }
        error
    }

    fn call(&mut self, route: &Arc<Route>, options: CallOptions, input: Payload, id: Arc<str>) -> Call {
        let timeout = self.router.timeout(route, options.timeout);
        self.is_shortened = options.timeout.is_some() && timeout < self.router.timeout(route, None);
        let deadline = self.started + timeout;
        let kept = route.keep(&input, &options.parameters, || self.router.timeout(route, None));
        if kept.is_some() || self.batch {
            self.kept.push(kept);
        }
        let (name, version) = (Arc::clone(&route.name.name), Arc::clone(&route.name.version));
        let mut context = CallContext::new(id, name, version, Some(deadline));
        context.trace = if self.batch { self.trace.call(&route.name.name) } else { self.trace.clone() };
        context.trace.on_executor(route.executor.name());
        context.headers = Arc::clone(&self.headers);
        context.outputs = options.outputs;
        context.steps = options.steps;
        context.parameters = options.parameters;
        context.models = Some(Arc::clone(&self.policy.content) as _);
        context.tenant = self.account.as_ref().map(TenantAccount::share).unwrap_or_default();
        context.priority = options.priority;
        Call {
            context: Arc::new(context),
            input: input.from_caller(),
            transformer: route.transformer.clone(),
            callable: Arc::clone(&route.callable),
            batching: route.batching,
            runs: Some(Arc::clone(&route.statistics.runs)),
            precedence: Precedence::New,
        }
    }
}

impl Router {
    /// Returns the shorter of the caller's and the model's timeout, or the default without either.
    /// A caller cannot exceed the operator's maximum.
    pub fn timeout(&self, route: &Route, requested: Option<Duration>) -> Duration {
        let own = [requested, route.timeout].into_iter().flatten().min();
        own.unwrap_or(self.limits.default_timeout).min(self.limits.max_timeout)
    }
}
