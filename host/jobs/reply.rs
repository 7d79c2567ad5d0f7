//! The form of a job's result, which depends on the interface that the job was submitted over.

use crate::error::Result;
use crate::offload;
use crate::policy::Route;
use crate::predict::{self, JsonText, Payload, Response};
use std::sync::Arc;

/// Encodes results for an interface other than the plain one.
///
/// A job keeps the text with which the interface has described the reply at the submission. Only
/// the interface can read it.
pub trait ReplyEncoder: Send + Sync {
    /// Returns the outputs that the reply has; `None` for all.
    fn outputs(&self, route: &Route, reply: &str) -> Result<Option<Arc<[String]>>>;

    fn encode(&self, route: &Arc<Route>, reply: &str, response: Response) -> Result<Payload>;
}

/// Encodes a response as the result of a job. JSON text is the `result` of `/predict`; bytes stay
/// bytes.
pub(super) async fn encode(
    encoder: Arc<dyn ReplyEncoder>,
    route: Arc<Route>,
    reply: Option<Arc<str>>,
    response: Response,
) -> Result<Payload> {
    let name = route.name.to_string();
    let encoded = offload::run(response.payload.json_bytes(), move || match (reply, response.payload) {
        (Some(reply), payload) => encoder.encode(&route, &reply, Response { payload, ..response }),
        (None, payload @ Payload::Bytes { .. }) => Ok(payload),
        (None, payload) => {
            let mut result = Vec::new();
            predict::encode_result(&payload, &mut result)?;
            Ok(Payload::Json(JsonText::from_checked(result.into())))
        }
    });
    encoded.await.map_err(|error| error.model(name))
}
