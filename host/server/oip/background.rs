//! `POST …/infer` with `Prefer: respond-async`: an inference as a job, whose result is the response
//! that the client would have received.

use super::infer::refuse_streaming;
use super::inference::ModelRequest;
use super::json::{self, BinaryOutputs};
use super::preference;
use super::prepare::{PreparedRequest, ResponseTemplate, SelectedOutput, prepare};
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::jobs::{Item, ReplyEncoder, Submitter};
use crate::offload;
use crate::policy::Route;
use crate::predict::{JsonText, Payload, Response};
use crate::router::RequestScope;
use crate::server::background::{JobOptions, accepted, key, query_options, replayed, with_head_length};
use crate::server::cross_site::Sensitivity;
use crate::server::http::{Reply, RequestBody};
use bytes::{Bytes, BytesMut};
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a job keeps of its request, to encode the response.
#[derive(Serialize, Deserialize)]
struct StoredTemplate {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<SelectedOutput>,
    /// Whether outputs are binary that are not in `named`.
    #[serde(default)]
    binary: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    named: Vec<(String, bool)>,
}

impl StoredTemplate {
    fn of(template: &ResponseTemplate, binary_outputs: &BinaryOutputs) -> Self {
        let (binary, named) = binary_outputs.parts();
        let named = named.map(|(name, binary)| (name.to_owned(), binary)).collect();
        StoredTemplate { id: template.id.clone(), outputs: template.outputs.clone(), binary, named }
    }

    fn parse(text: &str) -> Result<Self> {
        let damaged = |_| Error::failed("the job's record of its request is damaged");
        serde_json::from_str(text).map_err(damaged)
    }
}

impl ModelRequest<'_> {
    /// Submits the inference as a job.
    pub(super) async fn submit(&self, head: &Parts, body: RequestBody) -> Reply {
        let mut scope = self.begin(Verb::Jobs);
        // Inferences are open to pages of other sites, jobs are not.
        let allowed = self.public.cross_site.check(head, Sensitivity::Controls);
        let submitted = match allowed {
            Ok(()) => match self.read(&mut scope, body).await {
                Ok(body) => self.submit_body(&mut scope, head, body).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        self.end(scope, submitted).await
    }

    async fn submit_body(&self, scope: &mut RequestScope, head: &Parts, body: Bytes) -> Result<Reply> {
        let owner = scope.requester().owner();
        let (length, key) = (body.len(), key(head, &body, false, &owner)?);
        let jobs = &self.public.jobs;
        if let Some(accepted) = replayed(jobs, key.as_ref()).await? {
            return Ok(preference_applied(accepted.single()));
        }
        let JobOptions { mut budgets, webhook, priority, parameters } = query_options(head.uri.query())?;
        if let Some((name, _)) = parameters.first() {
            let message = format!(
                "the query \"{name}\" is not known; the parameters of the model are in the body, and options of the job in \
                 the query"
            );
            return Err(Error::invalid(message).field(name.clone()));
        }
        let route = self.resolve(scope)?;
        refuse_streaming(&route)?;
        let (request, binary_outputs) = self.decode(&route, body).await?;
        let PreparedRequest { options, input, template } = prepare(&route, request)?;
        if budgets.max_runtime.is_some() && options.timeout.is_some() {
            let message = "max_runtime_ms in the query and the parameter \"timeout\" (microseconds) in the body are one \
                           limit; send one of them";
            return Err(Error::invalid(message).field("parameters.timeout"));
        }
        budgets.max_runtime = budgets.max_runtime.or(options.timeout);
        let stored = StoredTemplate::of(&template, &binary_outputs);
        let stored = serde_json::to_string(&stored).expect("invariant: it has string keys");
        let (checked, budget) = (Arc::clone(&route), self.public.router.budget());
        let checking = move || Item::checked(&checked, &input, options.parameters, budget);
        let item = offload::run(length, checking).await?.with_reply(stored);
        let (webhook, items) = (webhook.as_deref(), vec![item]);
        let (tenant, priority) = (scope.tenant(), priority.unwrap_or(options.priority));
        let submitter = Submitter { request_id: scope.id(), owner: &owner, tenant: &tenant, priority };
        scope.admit_rows(items.iter().map(|item| item.rows).sum())?;
        let submitted = jobs.submit_background(&route.name, items, budgets, webhook, submitter, key).await?;
        Ok(preference_applied(accepted(jobs, submitted).await.single()))
    }
}

fn preference_applied(mut reply: Reply) -> Reply {
    let applied = HeaderName::from_static("preference-applied");
    reply.headers_mut().insert(applied, HeaderValue::from_static(preference::RESPOND_ASYNC));
    reply
}

/// Encodes the results of jobs that were submitted over this protocol.
pub struct InferenceEncoder;

impl ReplyEncoder for InferenceEncoder {
    fn outputs(&self, route: &Route, reply: &str) -> Result<Option<Arc<[String]>>> {
        let outputs = StoredTemplate::parse(reply)?.outputs;
        let names = outputs.into_iter().map(|output| output.name).collect::<Arc<[String]>>();
        // The outputs of a transformer are not those of its model.
        Ok(Some(names).filter(|names| !names.is_empty() && route.transformer.is_none()))
    }

    fn encode(&self, route: &Arc<Route>, reply: &str, response: Response) -> Result<Payload> {
        let StoredTemplate { id, outputs, binary, named } = StoredTemplate::parse(reply)?;
        let template = ResponseTemplate { route: Arc::clone(route), id, outputs };
        let binary_outputs = BinaryOutputs::of(binary, named.into_iter());
        let (head, tail) = json::encode(&template.response(response)?, &binary_outputs)?;
        if tail.is_empty() {
            return Ok(Payload::Json(JsonText::from_checked(head.into())));
        }
        let content_type = with_head_length("application/octet-stream", head.len());
        let mut data = BytesMut::with_capacity(head.len() + tail.iter().map(Bytes::len).sum::<usize>());
        data.extend_from_slice(&head);
        tail.iter().for_each(|bytes| data.extend_from_slice(bytes));
        Ok(Payload::Bytes { content_type, data: data.freeze() })
    }
}
