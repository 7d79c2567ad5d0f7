//! Calls over gRPC that are answered before their client has sent the whole body, and calls that
//! their client cancels: the other calls of the connection go on.

use crate::support::grpc::{floats, serve};
use crate::support::http2::*;
use crate::support::{Host, Setup, model};
use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use hostler::proto::inference::ModelInferResponse;
use prost::Message;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;

/// More calls than HTTP/2 counts errors of a connection before it ends it, which is 1,024.
const CALLS: usize = 2_400;

/// How many of them are open at the same time.
const AT_ONCE: usize = 60;

/// A call that is refused by its head or by the first bytes of its body.
#[derive(Clone, Copy)]
struct Refused {
    method: &'static str,
    header: (&'static str, &'static str),
    /// The length in the prefix of its message.
    declared: u32,
    /// `grpc-status`, or "" for a status of HTTP.
    status: &'static str,
}

const PLAIN: (&str, &str) = ("x-plain", "1");

const REFUSED: [Refused; 8] = [
    Refused { method: "ModelInfer", header: ("grpc-timeout", "soon"), declared: 5_000, status: "3" },
    Refused { method: "ModelInfer", header: ("grpc-encoding", "br"), declared: 5_000, status: "12" },
    Refused { method: "ModelInfer", header: PLAIN, declared: 9 << 20, status: "8" },
    Refused { method: "ModelInfer", header: ("content-type", "text/plain"), declared: 5_000, status: "" },
    Refused { method: "ModelMetadata", header: PLAIN, declared: 9 << 20, status: "8" },
    Refused { method: "Nothing", header: PLAIN, declared: 5_000, status: "12" },
    Refused { method: "ModelStreamInfer", header: PLAIN, declared: 9 << 20, status: "8" },
    Refused { method: "ModelStreamInfer", header: ("grpc-encoding", "br"), declared: 5_000, status: "12" },
];

/// Sends a call that is refused, and its whole body: after the answer, or without waiting for it.
async fn refused(sender: SendRequest<Bytes>, refused: Refused, waits: bool) -> Result<(), String> {
    let said = |what: &'static str| move |error: h2::Error| format!("{what}: {error}");
    let path = path(refused.method);
    let mut call = begin(&sender, &path, &[refused.header]).await.map_err(said("the head"))?;
    let mut prefix = vec![0];
    prefix.extend_from_slice(&refused.declared.to_be_bytes());
    call.body.send_data(prefix.into(), false).map_err(said("the prefix"))?;
    let part = Bytes::from_static(&[0; 1_000]);
    let rest = |body: &mut h2::SendStream<Bytes>| {
        (0..5).try_for_each(|index| body.send_data(part.clone(), index == 4))
    };
    if !waits {
        rest(&mut call.body).map_err(said("the body"))?;
    }
    let (reply, mut body) = call.reply().await.map_err(said("the answer"))?;
    if waits {
        rest(&mut body).map_err(said("the rest of the body"))?;
    }
    match reply.raw("grpc-status") == refused.status {
        true => Ok(()),
        false => Err(format!("{path}: {reply:?}")),
    }
}

/// Makes good calls until it is told to stop. Returns their number.
async fn good_calls(sender: SendRequest<Bytes>, is_over: Arc<AtomicBool>) -> Result<usize, String> {
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        good_call(&sender).await?;
        count += 1;
    }
    Ok(count)
}

async fn good_call(sender: &SendRequest<Bytes>) -> Result<(), String> {
    let answer = async {
        let mut call = begin(sender, &path("ModelInfer"), &[]).await?;
        call.body.send_data(framed(&floats("m", &[1.0])), true)?;
        call.reply().await
    };
    let (reply, _) = answer.await.map_err(|error| format!("a good call: {error}"))?;
    let response = ModelInferResponse::decode(reply.data.get(5..).unwrap_or_default());
    let is_answered =
        response.is_ok_and(|response| response.raw_output_contents[0] == 2.0_f32.to_le_bytes()[..]);
    if is_answered { Ok(()) } else { Err(format!("a good call: {reply:?}")) }
}

#[test]
fn calls_that_are_answered_early_do_not_end_those_of_others() {
    let manifest = "[server]\nmax_body_mb = 8\n[models.m]\npath = \"m.onnx\"\n";
    let host = Setup::new(manifest).file("m.onnx", model("plus1")).grpc().start();
    for waits in [true, false] {
        let connection = Http2::connect(&host);
        let is_over = Arc::new(AtomicBool::new(false));
        let good = connection.spawn(good_calls(connection.sender.clone(), Arc::clone(&is_over)));
        let faults = connection.run(async {
            let (mut calls, mut faults) = (JoinSet::<Result<(), String>>::new(), Vec::new());
            for index in 0..CALLS {
                if calls.len() == AT_ONCE {
                    faults.extend(calls.join_next().await.and_then(|ended| ended.unwrap().err()));
                }
                let kind = REFUSED[index % REFUSED.len()];
                calls.spawn(refused(connection.sender.clone(), kind, waits));
            }
            while let Some(ended) = calls.join_next().await {
                faults.extend(ended.unwrap().err());
            }
            faults
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(faults.is_empty(), "waits: {waits}: {} faults, such as {}", faults.len(), faults[0]);
        let good = connection.run(good).expect("no panic");
        assert!(good.as_ref().is_ok_and(|count| *count > 0), "{good:?}");
    }
}

/// Sends zeros until the host resets the call. Returns their number and the reason.
async fn flood(mut body: h2::SendStream<Bytes>) -> (usize, Option<Reason>) {
    let zeros = Bytes::from(vec![0; 64 << 10]);
    let mut sent = 0;
    loop {
        body.reserve_capacity(zeros.len());
        match poll_fn(|context| body.poll_capacity(context)).await {
            Some(Ok(capacity)) => {
                let part = zeros.slice(..capacity.min(zeros.len()));
                sent += part.len();
                if body.send_data(part, false).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    (sent, until_reset(&mut body).await.ok())
}

#[test]
fn the_rest_of_a_call_is_read_within_limits_of_bytes_and_time() {
    let host = serve("plus1");
    let connection = Http2::connect(&host);
    let early = || async {
        let call = begin(&connection.sender, &path("Nothing"), &[]).await.unwrap();
        let (reply, body) = call.reply().await.unwrap();
        assert_eq!(reply.raw("grpc-status"), "12");
        body
    };
    let (growth_kb, ()) = host.peak_growth_kb(|| {
        connection.run(async {
            let (flooding, mut silent) = (early().await, early().await);
            let (flooded, reason) = tokio::join!(flood(flooding), until_reset(&mut silent));
            let (sent, flood_reason) = flooded;
            assert!((64 << 20..80 << 20).contains(&sent), "{sent} bytes were taken");
            assert_eq!((flood_reason, reason.unwrap()), (Some(Reason::NO_ERROR), Reason::NO_ERROR));
        });
    });
    assert!(growth_kb < 48 << 10, "the rest took {growth_kb} kB");
    connection.run(good_call(&connection.sender)).unwrap();
}

#[test]
fn calls_that_their_client_cancels_do_not_end_those_of_others() {
    let host = serve("plus1");
    let connection = Http2::connect(&host);
    connection.run(async {
        for _ in 0..CALLS / 12 {
            let mut bodies = Vec::new();
            for _ in 0..12 {
                let mut call = begin(&connection.sender, &path("ModelInfer"), &[]).await.unwrap();
                call.body.send_data(Bytes::from_static(&[0; 100]), false).unwrap();
                bodies.push(call);
            }
            // The host has taken all of them once it answers this one.
            good_call(&connection.sender).await.unwrap();
            bodies.iter_mut().for_each(|call| call.body.send_reset(Reason::CANCEL));
        }
        good_call(&connection.sender).await.unwrap();
    });
}

/// Frames of HTTP/2, written by hand.
mod frames {
    /// The first bytes of a client, with empty settings.
    pub const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    /// The head of a call whose body is open.
    pub fn head(stream: u32, path: &str) -> Vec<u8> {
        let mut block = Vec::new();
        let headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "test"),
            (":path", path),
            ("content-type", "application/grpc"),
        ];
        for (name, value) in headers {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).expect("short"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        frame(1, 4, stream, &block)
    }

    pub fn reset(stream: u32) -> Vec<u8> {
        frame(3, 0, stream, &8_u32.to_be_bytes())
    }

    /// Returns the code of the first GOAWAY in what the host sent.
    pub fn go_away(mut received: &[u8]) -> Option<u32> {
        while let Some((head, rest)) = received.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let payload = rest.get(..length)?;
            if head[3] == 7 {
                return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
            received = &rest[length..];
        }
        None
    }
}

/// Begins and cancels calls in one burst, before the host can take any. Returns the code of the
/// GOAWAY by which the host ends the connection.
fn burst(host: &Host, calls: u32) -> Option<u32> {
    let mut socket = std::net::TcpStream::connect(host.grpc.unwrap()).unwrap();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let mut bytes = frames::START.to_vec();
    for index in 0..calls {
        let stream = 2 * index + 1;
        bytes.extend(frames::head(stream, &path("ModelInfer")));
        bytes.extend(frames::reset(stream));
    }
    // The host may close the connection before it has read everything.
    let _ = socket.write_all(&bytes);
    let mut received = Vec::new();
    let _ = socket.read_to_end(&mut received);
    frames::go_away(&received)
}

#[test]
fn a_burst_of_cancelled_calls_ends_only_its_own_connection() {
    let host = serve("plus1");
    let other = Http2::connect(&host);
    other.run(good_call(&other.sender)).unwrap();
    // Few enough for one read, so that the host's last word is not lost with bytes that it left.
    assert_eq!(burst(&host, 30), Some(11), "ENHANCE_YOUR_CALM");
    let (growth_kb, ()) = host.peak_growth_kb(|| {
        for _ in 0..5 {
            burst(&host, 20_000);
            other.run(good_call(&other.sender)).unwrap();
        }
    });
    assert!(growth_kb < 64 << 10, "cancelled calls took {growth_kb} kB");
}
