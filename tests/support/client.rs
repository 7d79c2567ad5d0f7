//! A small blocking HTTP/1.1 client that keeps its connection alive, and can misbehave where a test
//! needs it.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the `result` of an answer with status 200. Panics on any other status.
    pub fn result(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["result"].clone()
    }

    /// Returns the `error` of an answer with any other status than 200.
    pub fn error(&self) -> Value {
        assert_ne!(self.status, 200, "{}", self.text());
        self.json()["error"].clone()
    }

    /// Checks that the answer has this status and kind, and that its message contains all of
    /// `parts`. Returns the `error`.
    pub fn refused(&self, status: u16, kind: &str, parts: &[&str]) -> Value {
        let shown: String = self.text().chars().take(2_000).collect();
        assert_eq!(self.status, status, "{shown}");
        let error = self.error();
        assert_eq!(error["kind"], kind, "{shown}");
        let message = error["message"].as_str().unwrap_or_else(|| panic!("no message in {shown}"));
        for part in parts {
            assert!(message.contains(part), "{shown}\nlacks {part}");
        }
        error
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Client { address, stream: None }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    pub fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request("POST", path, &[("content-type", "application/json")], body.as_ref())
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_request(method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request and reads its answer. Fails if the connection breaks before the answer is
    /// complete.
    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        self.begin(method, path, headers, body)?;
        let answer = self.receive();
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    /// Sends a complete request without waiting for its answer: see `receive` and `leave`.
    pub fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if headers.iter().all(|(name, _)| *name != "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)
    }

    /// Sends the bytes unchanged.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().expect("connected");
        // A server may answer and close before it has read everything; the answer still counts.
        match stream.get_mut().write_all(bytes) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads one answer.
    pub fn receive(&mut self) -> std::io::Result<Answer> {
        let stream = self.stream.as_mut().expect("connected");
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let Some(status) = status else {
            return Err(std::io::Error::other(format!("no status in {line:?}")));
        };
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None => break,
            }
        }
        let header = |wanted: &str| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        if header("transfer-encoding").is_some() {
            let mut body = Vec::new();
            while let Some(chunk) = read_chunk(stream)? {
                body.extend_from_slice(&chunk);
            }
            return Ok(Answer { status, headers, body });
        }
        let length = header("content-length");
        let mut body = vec![0; length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0)];
        stream.read_exact(&mut body)?;
        let close =
            headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("connection") && value == "close");
        if close {
            self.stream = None;
        }
        Ok(Answer { status, headers, body })
    }

    /// Closes the connection.
    pub fn leave(&mut self) {
        self.stream = None;
    }
}

/// Reads one chunk of a body; `None` at the end of the body.
fn read_chunk(stream: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let size = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
    let mut chunk = vec![0; size + 2];
    stream.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
}

/// Checks the error of the inference protocol, and that its message has all these parts.
pub fn refused_over_oip(answer: &Answer, status: u16, wanted: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let json = answer.json();
    let message = json["error"].as_str().unwrap_or_else(|| panic!("{json} is not an error of the protocol"));
    for part in wanted {
        assert!(message.contains(part), "{message}\nlacks {part}");
    }
}
