//! One HTTP/2 connection for gRPC calls whose frames the test decides itself: parts of messages,
//! and calls that are never ended.

use super::{Host, PATIENCE};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::{HeaderMap, Request, Response};
use prost::Message;
use std::future::poll_fn;

/// A connection and the runtime that drives it.
pub struct Http2 {
    runtime: tokio::runtime::Runtime,
    pub sender: SendRequest<Bytes>,
}

/// A call whose body is still open.
pub struct OpenCall {
    pub response: ResponseFuture,
    pub body: SendStream<Bytes>,
}

/// The whole answer of a call.
#[derive(Debug)]
pub struct Reply {
    pub http_status: u16,
    pub data: Vec<u8>,
    /// The trailers, or the headers of an answer that has nothing else.
    pub end: HeaderMap,
}

impl Http2 {
    pub fn connect(host: &Host) -> Self {
        Http2::at(host.grpc.expect("a gRPC listener"))
    }

    /// Connects to any listener.
    pub fn at(address: std::net::SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let sender = runtime.block_on(async {
            let socket = tokio::net::TcpStream::connect(address).await.expect("a connection");
            socket.set_nodelay(true).expect("a socket");
            let (sender, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
            tokio::spawn(connection);
            sender
        });
        Http2 { runtime, sender }
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("an end in time") })
    }

    /// Runs work beside the test.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(work)
    }
}

/// Begins a call to a path with further headers, and leaves its body open.
pub async fn begin(
    sender: &SendRequest<Bytes>,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<OpenCall, h2::Error> {
    let mut request = Request::post(format!("http://test{path}")).header("te", "trailers");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut sender = sender.clone().ready().await?;
    let (response, body) = sender.send_request(request.body(()).expect("a request"), false)?;
    Ok(OpenCall { response, body })
}

/// The path of a method of the protocol.
pub fn path(method: &str) -> String {
    format!("/inference.GRPCInferenceService/{method}")
}

/// Frames a message.
pub fn framed(message: &impl Message) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    message.encode(&mut framed).expect("room");
    framed.freeze()
}

/// Waits for the rest of an answer.
pub async fn finish(response: Response<RecvStream>) -> Result<Reply, h2::Error> {
    let (head, mut body) = response.into_parts();
    let mut data = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        data.extend_from_slice(&part);
    }
    let end = body.trailers().await?.unwrap_or(head.headers);
    Ok(Reply { http_status: head.status.as_u16(), data, end })
}

impl OpenCall {
    /// Waits for the whole answer, and leaves the body open.
    pub async fn reply(self) -> Result<(Reply, SendStream<Bytes>), h2::Error> {
        let reply = finish(self.response.await?).await?;
        Ok((reply, self.body))
    }
}

/// Returns once the host has reset the call.
pub async fn until_reset(body: &mut SendStream<Bytes>) -> Result<h2::Reason, h2::Error> {
    poll_fn(|context| body.poll_reset(context)).await
}

impl Reply {
    /// Returns a header or trailer exactly as it was sent.
    pub fn raw(&self, name: &str) -> &str {
        self.end.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// Checks that the call was refused with this code and exactly this message, as it was sent.
    pub fn refused(&self, code: tonic::Code, message: &str) {
        let expected = (i32::from(code).to_string(), message);
        assert_eq!((self.raw("grpc-status").to_owned(), self.raw("grpc-message")), expected, "{self:?}");
    }
}
