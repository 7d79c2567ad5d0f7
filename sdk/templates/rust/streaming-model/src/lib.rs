//! Counts down: one response for each number.

use hostler_plugin::concurrent::{Sink, StreamingMetadata, StreamingModel, sleep};
use hostler_plugin::{Datatype, Error, Request, Tensor, tensor};
use std::time::Duration;

struct Countdown;

hostler_plugin::export!(Countdown: streaming_model);

impl StreamingModel for Countdown {
    fn metadata() -> StreamingMetadata {
        StreamingMetadata {
            inputs: vec![tensor::spec("from", Datatype::Int32, &[1])],
            outputs: vec![tensor::spec("n", Datatype::Int32, &[1])],
            streaming: true,
        }
    }

    async fn execute(_: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
        let from = tensor::named(&inputs, "from")?.to_i32()?[0];
        if from < 0 {
            return Err(Error::invalid("from", "it must not be negative"));
        }
        for n in (1..=from).rev() {
            responses.send(vec![tensor::int32("n", &[1], &[n])?]).await?;
            sleep(Duration::from_millis(10)).await?;
        }
        Ok(())
    }
}
