//! A model that asks two others at once and joins what they answer. Its config names them: `first` and `second` take
//! `x` and give `y`, both `FP32 [-1]`; `y` of the one is `first` here, that of the other `second`.
//!
//! Waiting costs no worker: while the two models work, the same instance begins and ends other requests.

use hostler_plugin::concurrent::{Sink, StreamingMetadata, StreamingModel, both, model};
use hostler_plugin::{Datatype, Error, Request, Tensor, config, tensor};
use std::time::Duration;

struct Router;

hostler_plugin::export!(Router: streaming_model);

impl StreamingModel for Router {
    fn metadata() -> StreamingMetadata {
        let spec = |name| tensor::spec(name, Datatype::Fp32, &[-1]);
        StreamingMetadata {
            inputs: vec![spec("x")],
            outputs: vec![spec("first"), spec("second")],
            streaming: false,
        }
    }

    async fn execute(request: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
        let timeout = request.integer("each_ms")?.map(|ms| Duration::from_millis(ms.unsigned_abs()));
        let ask = async |name: &str| {
            let named =
                config::get(name)?.ok_or_else(|| Error::failed(format!("config lacks \"{name}\"")))?;
            let outputs = model(&named, None)?.call(&inputs, timeout).await?;
            Ok::<_, Error>(tensor::named(&outputs, "y")?.renamed(name))
        };
        let (first, second) = both(ask("first"), ask("second")).await;
        responses.send(vec![first?, second?]).await
    }
}
