//! The minimum of HTTP/1.1 that a probe needs: one keep-alive connection, and answers with a
//! Content-Length. Uses no client library: the benchmark depends only on the standard library and
//! xtask.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Longer than a healthy server takes to answer; a probe must not wait forever.
const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Connection {
    stream: BufReader<TcpStream>,
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Connection {
    pub fn open(port: u16) -> io::Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends a request and blocks until the complete answer has arrived.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.request_with(method, path, None, body)
    }

    /// Like [`Connection::request`]; for a binary body, with the length of its JSON.
    pub fn request_with(
        &mut self,
        method: &str,
        path: &str,
        json_length: Option<usize>,
        body: &[u8],
    ) -> io::Result<Answer> {
        let kind = match json_length {
            None => "Content-Type: application/json".to_owned(),
            Some(length) => {
                format!("Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {length}")
            }
        };
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        let status =
            self.line()?.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
        let mut length = None;
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                None if line.is_empty() => break,
                None => return Err(malformed()),
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok();
                }
                Some(_) => {}
            }
        }
        let mut body = vec![0; length.ok_or_else(malformed)?];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, body })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "expected an HTTP/1.1 answer with a Content-Length")
}
