//! Readiness and the list of models, in the form of the plain interface.

use crate::access::Verb;
use crate::policy::Route;
use crate::server::http::{self, Reply};
use crate::server::state::Public;
use hyper::StatusCode;
use hyper::http::request::Parts;

/// `GET /ready`
pub(in crate::server) fn ready(public: &Public) -> Reply {
    let closed = || (!public.callers.is_open()).then(|| "the access rules cannot be read".to_owned());
    let draining = public.readiness.refusal().map(str::to_owned).or_else(closed);
    let unready = || Some(public.router.policy().content.unready()?.message().to_owned());
    match draining.or_else(unready) {
        None => http::json(StatusCode::OK, &b"{\"ready\":true}"[..]),
        Some(why) => http::not_ready(&why),
    }
}

/// `GET /models`: the models that the caller may see.
pub(in crate::server) fn models(public: &Public, head: &Parts) -> Reply {
    let requester = public.requester(head);
    list(public, |route| requester.may(Verb::Read, Some((&route.name.name, Some(&route.name.version)))))
}

/// Lists the models that `is_shown` selects.
pub(in crate::server) fn list(public: &Public, is_shown: impl Fn(&Route) -> bool) -> Reply {
    let policy = public.router.policy();
    let routes = policy.content.models().flat_map(|(_, model)| model.versions.values());
    let models: Vec<_> = routes
        .filter(|route| is_shown(route))
        .map(|route| {
            serde_json::json!({
                "name": &*route.name.name,
                "version": &*route.name.version,
                "executor": route.executor.name(),
                "transformer": route.transformer.as_ref().map(|transformer| &**transformer.name()),
                "timeout_ms": route.timeout.map(|timeout| timeout.as_millis() as u64),
                "inputs": http::tensor_specs(&route.callable.metadata().inputs),
                "outputs": http::tensor_specs(&route.callable.metadata().outputs),
            })
        })
        .collect();
    http::json_of(StatusCode::OK, &serde_json::json!({"models": models, "generation": policy.generation}))
}
