//! Reads `POST /predict/stream` line by line, with the time at which each line arrived.

use super::{Host, Setup, plugin};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Starts a host with the model `repeat`; `limits` is for the plugin, `model` for the model.
pub fn repeat(limits: &str, model: &str) -> Host {
    setup(limits, model).start()
}

pub fn setup(limits: &str, model: &str) -> Setup {
    Setup::new(&format!(
        "[plugins.repeat]\npath = \"repeat.wasm\"\n{limits}\n\n[models.repeat]\nplugin = \"repeat\"\n{model}\n"
    ))
    .file("repeat.wasm", plugin("repeat"))
}

/// Returns a request to `repeat`: one element for each delay, and a wait at the end.
pub fn request(delays: &[u32], wait: u32, parameters: Value) -> Value {
    let elements: Vec<usize> = (0..delays.len()).map(|place| 100 + place).collect();
    let data = json!({"IN": elements, "DELAY": delays, "WAIT": [wait]});
    json!({"model": "repeat", "data": data, "parameters": parameters})
}

pub fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

pub fn send(stream: &mut TcpStream, body: &Value, accept: &str) -> std::io::Result<()> {
    send_to(stream, "/predict/stream", body, accept)
}

pub fn send_to(stream: &mut TcpStream, path: &str, body: &Value, accept: &str) -> std::io::Result<()> {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())
}

/// Sends the same request on `count` connections concurrently. Returns the answers, and the time
/// until the last one.
pub fn at_once(host: &Host, count: usize, body: &Value) -> (Vec<(u16, Vec<Value>)>, Duration) {
    let mut open: Vec<TcpStream> = (0..count).map(|_| connect(host.http).expect("a connection")).collect();
    let started = Instant::now();
    open.iter_mut().for_each(|stream| send(stream, body, "*/*").expect("the request goes out"));
    let answer = |stream| {
        let stream = Stream::receive(stream, started).expect("an answer");
        (stream.status, stream.lines())
    };
    let answers = open.into_iter().map(answer).collect();
    (answers, started.elapsed())
}

/// A stream of responses in progress.
pub struct Stream {
    reader: BufReader<TcpStream>,
    pub status: u16,
    head: String,
    pub started: Instant,
    chunked: bool,
    left: usize,
}

impl Stream {
    pub fn open(address: SocketAddr, body: &Value, accept: &str) -> Self {
        Self::try_open(address, body, accept).expect("an answer")
    }

    pub fn try_open(address: SocketAddr, body: &Value, accept: &str) -> std::io::Result<Self> {
        let mut stream = connect(address)?;
        let started = Instant::now();
        send(&mut stream, body, accept)?;
        Self::receive(stream, started)
    }

    /// Opens a `generate_stream` of the Open Inference Protocol.
    pub fn generate(address: SocketAddr, model: &str, body: &Value) -> Self {
        let mut stream = connect(address).expect("a connection");
        let started = Instant::now();
        let path = format!("/v2/models/{model}/generate_stream");
        send_to(&mut stream, &path, body, "*/*").expect("the request goes out");
        Self::receive(stream, started).expect("an answer")
    }

    /// Reads the head of the answer to a request that was already sent.
    pub fn receive(stream: TcpStream, started: Instant) -> std::io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        Ok(Stream { reader, status, chunked: length.is_none(), left: length.unwrap_or(0), head, started })
    }

    pub fn has_header(&self, line: &str) -> bool {
        self.head.contains(line)
    }

    /// Returns the next part of the body; `None` at its end. Fails if the body is cut off.
    pub fn part(&mut self) -> std::io::Result<Option<(String, Duration)>> {
        if self.chunked {
            let mut size = String::new();
            if self.reader.read_line(&mut size)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.left = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
        }
        let mut part = vec![0; self.left];
        std::io::Read::read_exact(&mut self.reader, &mut part)?;
        if self.chunked {
            self.reader.read_line(&mut String::new())?;
        }
        let ended = self.left == 0;
        self.left = 0;
        Ok((!ended).then(|| (String::from_utf8_lossy(&part).into_owned(), self.started.elapsed())))
    }

    /// Returns all remaining parts.
    pub fn rest(mut self) -> Vec<(String, Duration)> {
        let mut parts = Vec::new();
        while let Some(part) = self.part().expect("the whole answer") {
            parts.push(part);
        }
        parts
    }

    /// Returns the data of all events as JSON.
    pub fn events(self) -> Vec<Value> {
        let text: String = self.rest().into_iter().map(|(part, _)| part).collect();
        let events =
            text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").expect("an event"));
        events.map(|event| serde_json::from_str(event).expect("JSON")).collect()
    }

    /// Returns all lines as JSON.
    pub fn lines(self) -> Vec<Value> {
        let text: String = self.rest().into_iter().map(|(part, _)| part).collect();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Returns all JSON lines of the answer to one request.
pub fn ask(host: &Host, body: &Value) -> Vec<Value> {
    Stream::open(host.http, body, "application/x-ndjson").lines()
}

/// Returns the elements that these lines repeat.
pub fn elements(lines: &[Value]) -> Vec<i64> {
    lines.iter().filter_map(|line| line["result"]["OUT"][0].as_i64()).collect()
}

/// Opens such streams `times` times and closes each after its first response. If that is more than
/// the streams that `host` can run at once, each slot must become free again.
pub fn leave_again_and_again(host: &Host, name: &str, times: usize) {
    let body = match name {
        "none" => request(&[0, 30_000], 0, json!({})),
        name => request(&[0, 0], 30_000, json!({"do": name, "at": 1})),
    };
    for _ in 0..times {
        let ready = || {
            let mut stream = Stream::open(host.http, &body, "*/*");
            (stream.status == 200).then(|| stream.part().unwrap().expect("the first response"))
        };
        super::eventually(&format!("a place for {name}"), ready, || host.log());
    }
}
