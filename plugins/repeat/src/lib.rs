//! A streaming model: answers each element of `IN` with a response of its own, after the element of `DELAY` at
//! its place (milliseconds), and ends with a wait of `WAIT` milliseconds. No elements, no responses. The parameter
//! `through` names a model like it, whose responses are passed on instead; that one sees the same parameters, so it
//! passes on nothing itself if it is this one's twin under another name. The config key `offset` is added to each
//! element.
//!
//! The parameter `do` asks for what goes wrong elsewhere, at the element of the place `at` (0 without it):
//! `fail`, `trap`, `spin`, `hang` (waits for nothing), `stay` (waits on after nobody waits any more).

use hostler_plugin::concurrent::{Sink, StreamingMetadata, StreamingModel, model, sleep};
use hostler_plugin::{Datatype, Error, Request, Tensor, config, tensor};
use std::time::Duration;

struct Repeat;

hostler_plugin::export!(Repeat: streaming_model);

impl StreamingModel for Repeat {
    fn metadata() -> StreamingMetadata {
        let inputs = vec![
            tensor::spec("IN", Datatype::Int32, &[-1]),
            tensor::spec("DELAY", Datatype::Uint32, &[-1]),
            tensor::spec("WAIT", Datatype::Uint32, &[1]),
        ];
        let outputs =
            vec![tensor::spec("OUT", Datatype::Int32, &[1]), tensor::spec("IDX", Datatype::Uint32, &[1])];
        StreamingMetadata { inputs, outputs, streaming: true }
    }

    async fn execute(request: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
        if let Some(name) = request.text("through")?.filter(|name| *name != request.model()) {
            let call = model(&name, None)?.start(&inputs, None)?;
            while let Some(outputs) = call.next().await {
                responses.send(outputs?).await?;
            }
            return Ok(());
        }
        let elements = tensor::named(&inputs, "IN")?.to_i32()?;
        let delays = tensor::named(&inputs, "DELAY")?.to_u32()?;
        let wait = tensor::named(&inputs, "WAIT")?.to_u32()?;
        if delays.len() != elements.len() {
            let message = format!("IN has {} elements and DELAY has {}", elements.len(), delays.len());
            return Err(Error::invalid("DELAY", message));
        }
        let (deed, at) = (request.text("do")?, request.integer("at")?.unwrap_or(0));
        for (place, (element, delay)) in elements.into_iter().zip(delays).enumerate() {
            if place as i64 == at
                && let Some(deed) = &deed
            {
                misbehave(deed).await?;
            }
            pause(delay).await?;
            let offset: i32 = config::number("offset", 0, 0..=1_000_000)?;
            let index = u32::try_from(place).map_err(|_| Error::too_large("too many elements"))?;
            let outputs = vec![
                tensor::int32("OUT", &[1], &[element + offset])?,
                tensor::uint32("IDX", &[1], &[index])?,
            ];
            responses.send(outputs).await?;
        }
        pause(wait[0]).await
    }
}

async fn pause(ms: u32) -> Result<(), Error> {
    match ms {
        0 => Ok(()),
        ms => sleep(Duration::from_millis(ms.into())).await,
    }
}

async fn misbehave(deed: &str) -> Result<(), Error> {
    match deed {
        "fail" => Err(Error::failed("asked to fail")),
        "trap" => panic!("asked to trap"),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "hang" => std::future::pending().await,
        "stay" => loop {
            let _ = sleep(Duration::from_millis(1)).await;
        },
        other => Err(Error::invalid("parameters.do", format!("\"{other}\" is no deed"))),
    }
}
