//! Faults of a plugin, by name. Some of them never return.

use crate::snoop::snoop;
use hostler_plugin::{Datatype, Error, ErrorKind, Request, Tensor, log, metrics, state, tensor};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The result of a fault that replaces the correct one, for calls that can return this type.
pub enum Answer {
    Tensors(Vec<Tensor>),
    Json(String),
}

/// Executes the fault that the request selects for this call; `None` if the result is unchanged.
pub fn misdeed(request: &Request, at: &str) -> Result<Option<Answer>, Error> {
    if request.text("at")?.is_some_and(|wanted| wanted != at) {
        return Ok(None);
    }
    let deed = request.text("do")?.unwrap_or_else(|| "ok".into());
    match deed.as_str() {
        "ok" => {}
        "spin" => spin(None),
        "slow" => spin(Some(Duration::from_millis(whole(request, "ms", 100)?))),
        "sleep" => std::thread::sleep(Duration::from_millis(whole(request, "ms", 60_000)?)),
        "polite" => return Err(polite(request)),
        "trap" => panic!("the request asked for this panic"),
        "last-words" => last_words(request)?,
        "forged-last-words" => {
            eprintln!("{FORGED}");
            panic!("{FORGED}");
        }
        "overflow" => {
            black_box(overflow(black_box(1)));
        }
        "exit" => std::process::exit(1),
        "bomb" => bomb(),
        "greedy" => drop(black_box(Vec::<u8>::new()).try_reserve(black_box(1 << 30))),
        "recurse" => {
            black_box(recurse(black_box(1)));
        }
        "huge-answer" => return Ok(Some(huge(at, whole(request, "mb", 200)? as usize)?)),
        "bad-tensor" => return Err(bad_tensor()),
        "nan" if at == "postprocess" => return Ok(Some(Answer::Json(r#"{"x": NaN}"#.into()))),
        "not-json" if at == "postprocess" => return Ok(Some(Answer::Json(r#"{"x": [1, 2"#.into()))),
        "snoop" if at == "postprocess" => return Ok(Some(Answer::Json(snoop(request)?))),
        "nan" | "not-json" | "snoop" => {}
        "forge" => forge(),
        "say" => println!("{}", request.text("text")?.unwrap_or_default()),
        "log-flood" => log_flood(whole(request, "count", FLOOD_LINES)?),
        "print-flood" => print_flood(whole(request, "count", FLOOD_LINES)?),
        "handles" => handles(whole(request, "count", 1_000_000)?)?,
        "hoard" => hoard(whole(request, "mb", 20)? as usize, whole(request, "count", 1)?)?,
        // Handled where there are tensors to keep.
        "keep" | "remember" => {}
        "names" => names(whole(request, "mb", 8)? as usize)?,
        "big-note" => request.set_note(&vec![0; 2 << 20]),
        "wrong-outputs" => {
            return Ok(Some(Answer::Tensors(vec![tensor::fp32("surprise", &[1, 3], &[1.0, 2.0, 3.0])?])));
        }
        "forged-error" => return Err(Error::failed(FORGED)),
        "huge-error" => return Err(Error::failed("x".repeat((whole(request, "mb", 8)? as usize) << 20))),
        "meter" => metrics::Counter::new("places", "Where it was.", &["place"])?.add(&[at], 1.0)?,
        "error" => return Err(error(&request.text("kind")?.unwrap_or_default())?),
        unknown => return Err(Error::invalid("parameters.do", format!("\"{unknown}\" is no misdeed"))),
    }
    Ok(None)
}

/// Returns a parameter that is a whole number and not negative.
fn whole(request: &Request, name: &str, default: u64) -> Result<u64, Error> {
    match request.integer(name)? {
        None => Ok(default),
        Some(value) => u64::try_from(value)
            .map_err(|_| Error::invalid(format!("parameters.{name}"), format!("{name} is negative"))),
    }
}

/// Computes, for a time or forever, without a host call that could stop it.
fn spin(time: Option<Duration>) {
    let start = Instant::now();
    while time.is_none_or(|time| start.elapsed() < time) {
        for i in 0..100_000_u64 {
            black_box(i);
        }
    }
}

/// Computes until the request has ended, and checks often, as a long computation should.
fn polite(request: &Request) -> Error {
    loop {
        if request.cancelled() {
            return Error::of(ErrorKind::Cancelled, "stopped: nobody waits for the answer");
        }
        if request.time_left().is_some_and(|left| left < 20) {
            return Error::of(ErrorKind::Deadline, "stopped: the time is nearly up");
        }
        spin(Some(Duration::from_millis(1)));
    }
}

/// Allocates until there is no memory left; then the allocation fails and the instance aborts.
fn bomb() {
    loop {
        black_box(vec![1_u8; 1 << 20].leak());
    }
}

/// Exhausts the native stack rather than the program's own stack, which is in its linear memory.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    if depth == 0 { 0 } else { recurse(depth.wrapping_add(1)).wrapping_mul(3) ^ depth }
}

/// Exhausts the program's own stack, which is in its linear memory.
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let mut frame = [depth; 4096];
    black_box(&mut frame);
    if depth == 0 { 0 } else { overflow(depth.wrapping_add(1)) ^ frame[depth as usize % frame.len()] }
}

/// Returns an answer of `mb` megabytes, of the type that the call can return.
fn huge(at: &str, mb: usize) -> Result<Answer, Error> {
    if at == "postprocess" {
        let mut text = String::with_capacity((mb << 20) + 2);
        text.push('"');
        text.extend(std::iter::repeat_n('x', mb << 20));
        text.push('"');
        return Ok(Answer::Json(text));
    }
    // The encoding of one element, written in place so that the memory is needed only once.
    let mut data = vec![b'x'; 4 + (mb << 20)];
    data[..4].copy_from_slice(&((mb << 20) as u32).to_le_bytes());
    Ok(Answer::Tensors(vec![Tensor::create("data", Datatype::Bytes, &[1], &data)?]))
}

/// Returns the host's error for a tensor whose bytes do not match its shape.
fn bad_tensor() -> Error {
    match tensor::fp32("bad", &[2, 2], &[1.0, 2.0, 3.0]) {
        Ok(_) => Error::failed("the host took a tensor that is not one"),
        Err(error) => error,
    }
}

/// Lines that look like the host's own, and characters with which text looks like other text.
const FORGED: &str =
    "honest\n2026-01-01T00:00:00Z ERROR forged\r\n\u{1b}[31mforged \u{202e}\u{2066}\u{2028}\u{85}\u{7f}\r";

fn forge() {
    log::info(FORGED);
    println!("{FORGED}");
    eprintln!("{FORGED}");
}

/// Writes `count` lines to stderr, and panics with the request's id.
fn last_words(request: &Request) -> Result<(), Error> {
    for line in 0..whole(request, "count", 1_000)? {
        eprintln!("chatter {line} of {}", request.id());
    }
    panic!("last words of {}", request.id());
}

/// 100 MB.
const FLOOD_LINES: u64 = 1 << 20;

/// Writes `lines` lines of 100 bytes to the log.
fn log_flood(lines: u64) {
    let line = "a line of one hundred letters ".repeat(4)[..100].to_owned();
    for _ in 0..lines {
        log::info(&line);
    }
}

/// Writes `lines` lines of 100 bytes to stdout.
fn print_flood(lines: u64) {
    for i in 0..lines {
        println!("line {i:010} {:83}", "of one hundred letters");
    }
}

/// Creates tensors that are never dropped.
fn handles(count: u64) -> Result<(), Error> {
    for _ in 0..count {
        std::mem::forget(tensor::uint8("leak", &[0], &[])?);
    }
    Ok(())
}

/// Creates tensors of `mb` megabytes that are never dropped. Returns the host's error when it
/// refuses one.
fn hoard(mb: usize, count: u64) -> Result<(), Error> {
    let data = vec![7; mb << 20];
    for _ in 0..count {
        match Tensor::create("hoard", Datatype::Uint8, &[data.len() as i64], &data) {
            Ok(tensor) => std::mem::forget(tensor),
            Err(error) => return Err(Error::failed(format!("refused: {}", error.message))),
        }
    }
    Ok(())
}

/// Keeps tensors beyond the call that received them: forever, or in the plugin's state under the
/// request id.
pub fn keep(request: &Request, at: &str, tensors: &[Tensor]) -> Result<(), Error> {
    if request.text("at")?.is_some_and(|wanted| wanted != at) {
        return Ok(());
    }
    match request.text("do")?.as_deref() {
        Some("keep") => {
            tensors.iter().for_each(|tensor| std::mem::forget(tensor.renamed("kept")));
            Ok(())
        }
        Some("remember") => state::set_tensors(&request.id(), tensors, None),
        _ => Ok(()),
    }
}

/// Creates a tensor without bytes under a hundred long names.
fn names(mb: usize) -> Result<(), Error> {
    let (tensor, name) = (tensor::uint8("", &[0], &[])?, "n".repeat(mb << 20));
    for _ in 0..100 {
        std::mem::forget(tensor.renamed(&name));
    }
    Ok(())
}

/// Returns an error of any kind in the contract.
fn error(kind: &str) -> Result<Error, Error> {
    let kind = match kind {
        "invalid-input" => return Ok(Error::invalid("data.field", "an invalid input, as asked")),
        "not-found" => ErrorKind::NotFound,
        "unsupported" => ErrorKind::Unsupported,
        "too-large" => ErrorKind::TooLarge,
        "overloaded" => ErrorKind::Overloaded,
        "unavailable" => ErrorKind::Unavailable,
        "deadline" => ErrorKind::Deadline,
        "cancelled" => ErrorKind::Cancelled,
        "" | "failed" => ErrorKind::Failed,
        _ => return Err(Error::invalid("parameters.kind", format!("\"{kind}\" is no kind of error"))),
    };
    Ok(Error::of(kind, "an error, as asked"))
}
