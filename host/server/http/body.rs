//! The body of a request, read whole.

use super::errors::BODY;
use super::request_body::RequestBody;
use crate::error::{Error, Result};
use crate::predict::{self, ALIGNMENT};
use crate::server::transfers::{Receiving, Transfers};
use crate::server::wake_gate;
use crate::task_timer;
use crate::tenants::TenantGuard;
use bytes::{Bytes, BytesMut};
use hyper::body::Body;
use std::sync::Arc;

/// Reads a body whole, within the limits of size, time and pace.
///
/// The byte at the index `aligned_at`, with which a tensor begins, is aligned for the kernels that
/// read it if the body arrives in several pieces. One piece is not copied.
///
/// # Errors
/// `too_large` over `max_body_mb`, `deadline` if the body is late, `overloaded` if the budget of
/// buffered bytes is used up, `cancelled` if the client disconnects.
pub async fn read_body(
    mut body: RequestBody,
    aligned_at: usize,
    transfers: &Arc<Transfers>,
    tenant: Option<&TenantGuard>,
) -> Result<Bytes> {
    let limits = transfers.limits();
    let max = limits.max_body_bytes;
    let too_large = || Error::too_large(format!("the body is over {} MB; see max_body_mb", max >> 20));
    let hint = body.size_hint();
    if hint.lower() > max as u64 {
        return Err(too_large());
    }
    let length = hint.exact().map(|length| length as usize);
    let count = |bytes: usize| tenant.map_or(Ok(()), |tenant| tenant.count_bytes(bytes));
    // Refused before it is read, if it says how long it is.
    count(length.unwrap_or_default())?;
    let read = collect(&mut body, length, max, aligned_at, transfers, &count);
    match task_timer::within(limits.body_timeout, read).await {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(Unread::TooLarge)) => Err(too_large()),
        Some(Err(Unread::Refused(error))) => Err(error),
        // Over HTTP/2, the client has reset the call.
        Some(Err(Unread::Broken(error))) if body.is_http2() || is_disconnect(&error) => {
            Err(Error::cancelled("the client disconnected before its body was complete"))
        }
        Some(Err(Unread::Broken(error))) => Err(Error::invalid(format!("cannot read the body: {error}"))),
        None => {
            let ms = limits.body_timeout.as_millis();
            Err(Error::deadline(format!("the body did not arrive within {ms} ms")).field(BODY))
        }
    }
}

enum Unread {
    TooLarge,
    /// The budget of buffered bytes is used up, or the client was too slow.
    Refused(Error),
    Broken(hyper::Error),
}

/// Whether a body broke off because its client disconnected, and not because of its content.
fn is_disconnect(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| {
        matches!(cause.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
    })
}

/// The most memory that is reserved at once for bytes that have not arrived yet.
pub const RESERVED_BYTES_MAX: usize = 64 << 20;

/// Collects the frames of a body of this length, if it is known. A single frame, as small requests
/// have, is not copied. For further frames memory is reserved once, so that a large body is not
/// copied while it grows; reserved memory that is not written to yet is not resident.
async fn collect(
    body: &mut RequestBody,
    length: Option<usize>,
    max: usize,
    aligned_at: usize,
    transfers: &Arc<Transfers>,
    count: &impl Fn(usize) -> Result<()>,
) -> Result<Bytes, Unread> {
    let mut receiving = Receiving::new(transfers);
    let mut first = Bytes::new();
    let (mut rest, mut padding) = (BytesMut::new(), 0);
    loop {
        let frame = receiving.unless_aborted(wake_gate::next_frame(body)).await;
        let Some(frame) = frame.map_err(Unread::Refused)? else { break };
        let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else { continue };
        if first.len() + rest.len() - padding + data.len() > max {
            return Err(Unread::TooLarge);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(length.unwrap_or(max).min(RESERVED_BYTES_MAX) + ALIGNMENT);
                padding = predict::padding(rest.as_ptr(), aligned_at);
                rest.resize(padding, 0);
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        count(first.len() + rest.len() - padding).map_err(Unread::Refused)?;
        if body.is_end_stream() {
            break;
        }
        receiving.hold(first.len() + rest.len() - padding, length).await.map_err(Unread::Refused)?;
    }
    Ok(receiving.finish(if rest.is_empty() { first } else { rest.freeze().slice(padding..) }))
}
