//! A model that calls two others concurrently and joins their answers. The config keys `first` and
//! `second` name them. Both take `x` and return `y`, `FP32 [-1]`. The outputs `first` and `second`
//! are the `y` of the two models.
//!
//! A wait holds no worker: while the two models work, the same instance starts and ends other
//! requests.

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
