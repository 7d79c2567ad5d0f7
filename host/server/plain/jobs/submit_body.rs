//! Submits a job whose input is the body of the request: `POST /predict/async/<model>`.

use crate::error::Result;
use crate::jobs::{Item, Submitter};
use crate::offload;
use crate::router::RequestScope;
use crate::server::background::{accepted, key, query_options, replayed};
use crate::server::http::{self, Reply};
use crate::server::plain::body_input;
use crate::server::state::Public;
use bytes::Bytes;
use hyper::http::request::Parts;
use std::sync::Arc;

pub(super) async fn submit_body(
    public: &Public,
    scope: &mut RequestScope,
    head: &Parts,
    body: Bytes,
    name: &str,
) -> Result<Reply> {
    let owner = scope.requester().owner();
    let (length, key) = (body.len(), key(head, &body, true, &owner)?);
    if let Some(accepted) = replayed(&public.jobs, key.as_ref()).await? {
        return Ok(accepted.single());
    }
    let options = query_options(head.uri.query())?;
    let (model, version) = body_input::model(name)?;
    let route = scope.resolve(&model, version.as_deref(), &http::header_lookup(&head.headers))?;
    let content_type = http::header(&head.headers, "content-type").unwrap_or_default();
    let input = body_input::read_unconverted(&route, content_type, body).await?;
    let (checked, budget) = (Arc::clone(&route), public.router.budget());
    let item =
        offload::run(length, move || Item::checked(&checked, &input, options.parameters, budget)).await?;
    let (budgets, webhook) = (options.budgets, options.webhook.as_deref());
    let (tenant, priority) = (scope.tenant(), options.priority.unwrap_or_default());
    let submitter = Submitter { request_id: scope.id(), owner: &owner, tenant: &tenant, priority };
    scope.admit_rows(item.rows)?;
    let submitted =
        public.jobs.submit_background(&route.name, vec![item], budgets, webhook, submitter, key).await?;
    Ok(accepted(&public.jobs, submitted).await.single())
}
