//! A receiver of webhooks, with an answer for each request. It records what it receives.

use super::eventually;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpSocket;

/// What the receiver does with a request.
#[derive(Clone, Copy)]
pub enum Reaction {
    Status(u16),
    /// A status with further lines of the head.
    With(u16, &'static str),
    /// Nothing, until the client leaves.
    Stall,
    /// 200 with a body that does not end before the client leaves.
    Endless,
}

#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(key, _)| key == name);
        header.map_or_else(|| panic!("no {name} in {:?}", self.headers), |(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub fn job(&self) -> String {
        self.json()["data"]["job_id"].as_str().expect("an id").to_owned()
    }

    /// Checks the signature of this secret, which is one of `count`.
    pub fn verify(&self, secret: &str, count: usize) {
        let signatures: Vec<&str> = self.header("webhook-signature").split(' ').collect();
        assert_eq!(signatures.len(), count, "{signatures:?}");
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("base64");
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
        mac.update(format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp")).as_bytes());
        mac.update(&self.body);
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert!(signatures.contains(&&*expected), "{signatures:?} lack {expected}");
    }
}

/// Returns a secret whose key is this byte, many times.
pub fn secret(byte: u8) -> String {
    format!("whsec_{}", STANDARD.encode([byte; 32]))
}

pub struct Receiver {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    /// Holds the port until the receiver listens.
    socket: Option<TcpSocket>,
}

#[derive(Default)]
struct Seen {
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    stalled: AtomicUsize,
    most_stalled: AtomicUsize,
    /// Bytes of endless bodies whose client has left.
    sent: Mutex<Vec<usize>>,
}

impl Receiver {
    /// Starts a receiver that answers 204.
    pub fn start() -> Self {
        Receiver::answering(|_| Reaction::Status(204))
    }

    /// `react` gets the number of the request, from 0.
    pub fn answering(react: impl Fn(usize) -> Reaction + Send + Sync + 'static) -> Self {
        let mut receiver = Receiver::down();
        receiver.listen(react);
        receiver
    }

    /// Returns a receiver that refuses connections.
    pub fn down() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = socket.local_addr().expect("an address");
        Receiver { address, seen: Arc::default(), socket: Some(socket) }
    }

    pub fn listen(&mut self, react: impl Fn(usize) -> Reaction + Send + Sync + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let socket = self.socket.take().expect("it does not listen yet");
        let listener = runtime.block_on(async { socket.listen(1024)?.into_std() }).expect("a listener");
        listener.set_nonblocking(false).expect("a blocking listener");
        let (seen, react) = (Arc::clone(&self.seen), Arc::new(react));
        std::thread::spawn(move || accept(&listener, &seen, &react));
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.seen.received.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The most requests that were stalled at once.
    pub fn most_stalled(&self) -> usize {
        self.seen.most_stalled.load(Ordering::SeqCst)
    }

    /// Waits for this many requests, and returns all.
    pub fn wait_for(&self, count: usize) -> Vec<Received> {
        let enough = || Some(self.received()).filter(|received| received.len() >= count);
        eventually(&format!("{count} requests"), enough, || format!("{:?}", self.received()))
    }

    /// Waits until the client has left an endless body, and returns the bytes that were sent.
    pub fn wait_until_left(&self) -> usize {
        let left = || self.seen.sent.lock().unwrap().first().copied();
        eventually("the client to leave", left, || format!("{:?}", self.received()))
    }
}

fn accept(
    listener: &TcpListener,
    seen: &Arc<Seen>,
    react: &Arc<impl Fn(usize) -> Reaction + Send + Sync + 'static>,
) {
    for stream in listener.incoming().map_while(Result::ok) {
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let (seen, react) = (Arc::clone(seen), Arc::clone(react));
        std::thread::spawn(move || drop(serve(stream, &seen, &*react)));
    }
}

fn serve(stream: TcpStream, seen: &Seen, react: &impl Fn(usize) -> Reaction) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(line.starts_with("POST "), "{line}");
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.and_then(|(_, value)| value.parse().ok()).expect("a length")];
        stream.read_exact(&mut body)?;
        let number = {
            let mut received = seen.received.lock().unwrap();
            received.push(Received { path, headers, body });
            received.len() - 1
        };
        match react(number) {
            Reaction::Status(status) => {
                write!(stream.get_mut(), "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n")?;
            }
            Reaction::With(status, head) => {
                write!(stream.get_mut(), "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n{head}\r\n")?;
            }
            Reaction::Stall => {
                let stalled = seen.stalled.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most_stalled.fetch_max(stalled, Ordering::SeqCst);
                while stream.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
                seen.stalled.fetch_sub(1, Ordering::SeqCst);
                return Ok(());
            }
            Reaction::Endless => {
                let (mut sent, part) = (0, vec![b'x'; 64 << 10]);
                write!(stream.get_mut(), "HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n", u64::MAX / 2)?;
                while stream.get_mut().write_all(&part).is_ok() {
                    sent += part.len();
                }
                seen.sent.lock().unwrap().push(sent);
                return Ok(());
            }
        }
    }
}
