//! A streaming model: answers each element of `IN` with a response, after the element of `DELAY` at
//! the same index (milliseconds), and ends with a wait of `WAIT` milliseconds. Without elements
//! there are no responses. The parameter `through` names a similar model, whose responses are
//! forwarded instead. That model receives the same parameters, so it forwards nothing itself if it
//! is the same plugin under another name. With `take`, the call is dropped after this many
//! responses, followed by a wait of `WAIT`. The config key `offset` is added to each element.
//!
//! The parameter `do` requests a fault at the element with the index `at` (default 0): `fail`,
//! `trap`, `chat` (writes `lines` lines to stdout, stderr and the log), `last-words` (the same, and
//! panics), `spin`, `hang` (waits for nothing), `stay` (continues to wait after the request has
//! ended), `flood` (sends without end), `tire` (is not ready for the next `asks` calls of `ready`),
//! `ready-trap` and `ready-spin` (the effect of the next call of `ready`).
//!
//! More config keys: `leaf` makes it a model that returns `x` as `y`, both `FP32 [-1]`; with `keep`
//! it never drops an `x`. `single` makes it a model with exactly one response. `meter` makes it
//! count itself. `unready` is the number of calls of `ready` for which each instance is not ready,
//! `good_starts` the number of instances before `initialize` fails, `finalize_ms` the time that
//! `finalize` waits, `initialize_lines` the number of lines that `initialize` writes.

use hostler_plugin::concurrent::{Sink, StreamingMetadata, StreamingModel, model, sleep};
use hostler_plugin::{Datatype, Error, Request, Tensor, config, log, metrics, state, tensor};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How many calls of `ready` still return false.
static UNREADY: AtomicU32 = AtomicU32::new(0);
/// What `ready` does instead of returning: 1 traps, 2 loops.
static READY_DEED: AtomicU32 = AtomicU32::new(0);

struct Repeat;

hostler_plugin::export!(Repeat: streaming_model);

impl StreamingModel for Repeat {
    fn metadata() -> StreamingMetadata {
        if is_set("leaf") {
            let spec = |name| tensor::spec(name, Datatype::Fp32, &[-1]);
            return StreamingMetadata { inputs: vec![spec("x")], outputs: vec![spec("y")], streaming: false };
        }
        let inputs = vec![
            tensor::spec("IN", Datatype::Int32, &[-1]),
            tensor::spec("DELAY", Datatype::Uint32, &[-1]),
            tensor::spec("WAIT", Datatype::Uint32, &[1]),
        ];
        let outputs =
            vec![tensor::spec("OUT", Datatype::Int32, &[1]), tensor::spec("IDX", Datatype::Uint32, &[1])];
        StreamingMetadata { inputs, outputs, streaming: !is_set("single") }
    }

    async fn initialize() -> Result<(), Error> {
        let good: i64 = config::number("good_starts", i64::MAX, 0..=i64::MAX)?;
        if good < i64::MAX && state::add("starts", 1) > good {
            return Err(Error::failed("no start is left"));
        }
        UNREADY.store(config::number("unready", 0, 0..=1_000)?, Ordering::Relaxed);
        chat("initialize", config::number("initialize_lines", 0, 0..=1_000_000)?);
        meter("initialize")
    }

    fn ready() -> bool {
        match READY_DEED.load(Ordering::Relaxed) {
            1 => panic!("asked to trap in ready"),
            2 => loop {
                std::hint::spin_loop();
            },
            _ => {}
        }
        let less = |asks: u32| asks.checked_sub(1);
        UNREADY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }

    async fn finalize() {
        let ms = config::number("finalize_ms", 0, 0..=1_000_000).unwrap_or(0);
        let _ = pause(ms).await;
        let _ = meter("finalize");
    }

    async fn execute(request: Request, inputs: Vec<Tensor>, responses: Sink) -> Result<(), Error> {
        meter("execute")?;
        if is_set("leaf") {
            if is_set("keep") {
                std::mem::forget(inputs[0].renamed("kept"));
            }
            return responses.send(vec![inputs[0].renamed("y")]).await;
        }
        if let Some(name) = request.text("through")?.filter(|name| *name != request.model()) {
            let call = model(&name, None)?.start(&inputs, None)?;
            let take = request.integer("take")?.unwrap_or(i64::MAX);
            let mut taken = 0;
            while taken < take
                && let Some(outputs) = call.next().await
            {
                responses.send(outputs?).await?;
                taken += 1;
            }
            // Cancels the call; its remaining responses are not needed.
            drop(call);
            return if taken < take {
                Ok(())
            } else {
                pause(tensor::named(&inputs, "WAIT")?.to_u32()?[0]).await
            };
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
                misbehave(deed, &request, &responses).await?;
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

/// Returns whether the config has the key. It is constant during the life of an instance, so each
/// key is read once.
fn is_set(key: &'static str) -> bool {
    static KNOWN: Mutex<BTreeMap<&'static str, bool>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("one thread");
    *known.entry(key).or_insert_with(|| matches!(config::get(key), Ok(Some(_))))
}

/// Counts the function, if the config says so; in `execute` with a label that needs escaping.
fn meter(place: &str) -> Result<(), Error> {
    if !is_set("meter") {
        return Ok(());
    }
    metrics::Counter::new("calls", "Functions called, by \"place\".\nOne line.", &["place", "odd"])?
        .add(&[place, "a\"b\\c\nd é"], 1.0)?;
    metrics::Gauge::new("last", "The last place.", &["place"])?.set(&[place], 1.5)?;
    metrics::Histogram::new("spread", "Nothing much.", &[], &[0.5, 1.0])?.observe(&[], 0.75)
}

/// Writes lines that name their author.
fn chat(author: &str, lines: i64) {
    for line in 0..lines {
        println!("stdout {line} of {author}.");
        // In two parts, between which no other call may write.
        eprint!("stderr {line} ");
        eprintln!("of {author}.");
        log::info(&format!("log {line} of {author}."));
    }
}

async fn misbehave(deed: &str, request: &Request, responses: &Sink) -> Result<(), Error> {
    match deed {
        "fail" => Err(Error::failed("asked to fail")),
        "trap" => panic!("asked to trap"),
        "chat" | "last-words" => {
            chat(&request.id(), request.integer("lines")?.unwrap_or(1));
            // The next call is made while this one still works.
            pause(1).await?;
            chat(&format!("{} again", request.id()), 1);
            match deed {
                "chat" => Ok(()),
                _ => panic!("last words of {}", request.id()),
            }
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        "hang" => std::future::pending().await,
        "stay" => loop {
            let _ = sleep(Duration::from_millis(1)).await;
        },
        "flood" => {
            let sent = metrics::Gauge::new("sent", "Responses of a flood.", &[])?;
            for number in 0_i32.. {
                let (out, index) =
                    (tensor::int32("OUT", &[1], &[number])?, tensor::uint32("IDX", &[1], &[0])?);
                responses.send(vec![out, index]).await?;
                sent.set(&[], number.into())?;
            }
            Ok(())
        }
        "tire" => {
            let asks = request.integer("asks")?.and_then(|asks| u32::try_from(asks).ok()).unwrap_or(1);
            UNREADY.store(asks, Ordering::Relaxed);
            Ok(())
        }
        "ready-trap" => {
            READY_DEED.store(1, Ordering::Relaxed);
            Ok(())
        }
        "ready-spin" => {
            READY_DEED.store(2, Ordering::Relaxed);
            Ok(())
        }
        other => Err(Error::invalid("parameters.do", format!("\"{other}\" is no deed"))),
    }
}
