//! The messages of a call that streams, framed one after the other.

use super::frame::{PREFIX, declared, late, too_large, unpacked};
use crate::error::{Error, Result};
use crate::server::http::RESERVED_BYTES_MAX;
use crate::server::http::compression::Encoding;
use crate::server::http2::call_body::CallBody;
use crate::server::http2::counted_body::UNCOUNTED_BYTES_MAX;
use crate::server::transfers::{Receiving, Transfers};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// The messages of a call that streams.
pub(super) struct Messages {
    body: CallBody,
    encoding: Option<Encoding>,
    transfers: Arc<Transfers>,
    /// Received bytes of the next message, and possibly of further ones.
    received: BytesMut,
    is_partial: Arc<AtomicBool>,
}

impl Messages {
    pub fn new(body: CallBody, encoding: Option<Encoding>, transfers: Arc<Transfers>) -> Self {
        let (received, is_partial) = Default::default();
        Messages { body, encoding, transfers, received, is_partial }
    }

    /// Returns a flag that is set while a message is partly received: it must be read on, because
    /// its client must not wait for the host.
    pub fn is_partial(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_partial)
    }

    /// Returns the next message; `None` after the last. Once it has begun to arrive, it has the
    /// limits of time and pace of a body.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let (max, limit) = (self.transfers.limits().max_body_bytes, self.transfers.limits().body_timeout);
        let transfers = Arc::clone(&self.transfers);
        let mut receiving = Receiving::new(&transfers);
        let mut deadline = None;
        loop {
            match declared(&self.received) {
                Some(whole) if whole - PREFIX > max => return Err(too_large(max)),
                Some(whole) if self.received.len() >= whole => {
                    if whole > UNCOUNTED_BYTES_MAX {
                        receiving.hold(whole, Some(whole)).await?;
                    }
                    self.is_partial.store(false, Ordering::Relaxed);
                    let mut framed = receiving.finish(self.received.split_to(whole).freeze());
                    let flag = framed.split_to(PREFIX)[0];
                    return unpacked(flag, framed, self.encoding, &transfers).await.map(Some);
                }
                _ if self.received.is_empty() => {}
                length => {
                    self.is_partial.store(true, Ordering::Relaxed);
                    receiving.hold(self.received.len(), length).await?;
                }
            }
            let frame = if self.received.is_empty() {
                self.body.frame().await
            } else {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
                let part = tokio::time::timeout_at(deadline, self.body.frame());
                receiving.unless_aborted(part).await?.map_err(|_| late(limit))?
            };
            let Some(frame) = frame else {
                return match (declared(&self.received), self.received.len()) {
                    (_, 0) => Ok(None),
                    (Some(whole), length) => Err(Error::invalid(format!(
                        "the message breaks off after {} of {} bytes",
                        length - PREFIX,
                        whole - PREFIX
                    ))),
                    (None, _) => Err(Error::invalid("the message breaks off before its end")),
                };
            };
            let frame = frame
                .map_err(|_| Error::cancelled("the client disconnected before its message was complete"))?;
            if let Ok(data) = frame.into_data() {
                if self.received.is_empty() {
                    // Reserved memory that is not written to yet is not resident, and a large
                    // message is not copied while it grows.
                    self.received.reserve(declared(&data).unwrap_or(0).min(RESERVED_BYTES_MAX));
                }
                self.received.extend_from_slice(&data);
            }
        }
    }
}
