//! A model for tests that calls HTTP servers. It calls each `url` in turn; `status`, `headers` (one
//! per line) and `body` are from the last response. The parameters `method`, `header` (`name:
//! value`), `body` and `give_ms` (the timeout) control the calls. An error of a call is returned
//! unchanged.

use hostler_plugin::{Datatype, Error, Model, ModelMetadata, Request, Tensor, http, tensor};
use std::time::Duration;

struct Fetch;

hostler_plugin::export!(Fetch: model);

impl Model for Fetch {
    fn metadata() -> ModelMetadata {
        let text = |name| tensor::spec(name, Datatype::Bytes, &[1]);
        ModelMetadata {
            inputs: vec![tensor::spec("url", Datatype::Bytes, &[-1])],
            outputs: vec![tensor::spec("status", Datatype::Int32, &[1]), text("headers"), text("body")],
        }
    }

    fn predict(request: &Request, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let (method, header) = (request.text("method")?, request.text("header")?);
        let (body, give_ms) = (request.text("body")?.unwrap_or_default(), request.integer("give_ms")?);
        let mut last = Err(Error::invalid("url", "is empty"));
        for url in tensor::named(&inputs, "url")?.to_bytes()? {
            let url = String::from_utf8_lossy(&url).into_owned();
            let mut question = http::Request::new(method.as_deref().unwrap_or("GET"), url);
            question.body = body.clone().into_bytes();
            if let Some((name, value)) = header.as_deref().and_then(|header| header.split_once(": ")) {
                question = question.header(name, value);
            }
            if let Some(ms) = give_ms {
                question = question.timeout(Duration::from_millis(ms.unsigned_abs()));
            }
            last = Ok(http::fetch(question)?);
        }
        let answer = last?;
        let lines: Vec<String> =
            answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        Ok(vec![
            tensor::int32("status", &[1], &[answer.status.into()])?,
            tensor::bytes("headers", &[1], &[lines.join("\n")])?,
            tensor::bytes("body", &[1], &[answer.body])?,
        ])
    }
}
