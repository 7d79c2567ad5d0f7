//! An HTTP/1.1 client that keeps one connection, and a histogram of latencies.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a request waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

pub struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

pub struct ClientAnswer {
    pub status: u16,
    pub retry_after: bool,
    pub body: Bytes,
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum RequestError {
    /// No connection was accepted.
    Refused(String),
    /// The connection ended before the answer began. The host may not have seen the request.
    Unanswered(String),
    /// The connection ended in the middle of the answer.
    Cut(String),
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RequestError::Refused(why) => write!(f, "no connection: {why}"),
            RequestError::Unanswered(why) => write!(f, "no answer: {why}"),
            RequestError::Cut(why) => write!(f, "incomplete answer: {why}"),
        }
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Client { address, sender: None }
    }

    pub async fn get(&mut self, path: &str) -> Result<ClientAnswer, RequestError> {
        self.send(Method::GET, path, "drill", Bytes::new()).await
    }

    pub async fn post(&mut self, path: &str, id: &str, body: Bytes) -> Result<ClientAnswer, RequestError> {
        self.send(Method::POST, path, id, body).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        id: &str,
        body: Bytes,
    ) -> Result<ClientAnswer, RequestError> {
        let mut sender = self.connected().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .header("x-request-id", id)
            .header("x-operator", "hostler drill")
            .body(Full::new(body))
            .map_err(|error| RequestError::Refused(error.to_string()))?;
        let answered = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| RequestError::Unanswered(error.to_string()))?;
            let status = answer.status().as_u16();
            let retry_after = answer.headers().contains_key("retry-after");
            let body =
                answer.into_body().collect().await.map_err(|error| RequestError::Cut(error.to_string()))?;
            Ok(ClientAnswer { status, retry_after, body: body.to_bytes() })
        };
        let late =
            |_| Err(RequestError::Unanswered(format!("timed out after {} s", ANSWER_TIMEOUT.as_secs())));
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answered).await.unwrap_or_else(late)?;
        self.sender = Some(sender);
        Ok(answer)
    }

    /// Returns the open connection, or opens a new one.
    async fn connected(&mut self) -> Result<SendRequest<Full<Bytes>>, RequestError> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let refused = |error: &dyn std::fmt::Display| RequestError::Refused(error.to_string());
        let stream = TcpStream::connect(self.address).await.map_err(|error| refused(&error))?;
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| refused(&error))?;
        // The task ends when the sender is dropped.
        tokio::spawn(connection);
        sender.ready().await.map_err(|error| RequestError::Unanswered(error.to_string()))?;
        Ok(sender)
    }
}

/// Counts latencies in buckets, exact to three percent, in constant memory.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    pub worst: Duration,
}

/// Below this, each microsecond has its own bucket; above, there are 32 buckets for each doubling.
const EXACT: u64 = 64;

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; bucket(u64::MAX) + 1], total: 0, worst: Duration::ZERO }
    }
}

impl Histogram {
    pub fn add(&mut self, latency: Duration) {
        self.counts[bucket(latency.as_micros() as u64)] += 1;
        self.total += 1;
        self.worst = self.worst.max(latency);
    }

    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(ours, theirs)| *ours += theirs);
        self.total += other.total;
        self.worst = self.worst.max(other.worst);
    }

    /// Returns the latency that this share of all requests stays under; `None` without requests.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let index = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_micros(upper(index)).min(self.worst))
    }
}

fn bucket(micros: u64) -> usize {
    if micros < EXACT {
        return micros as usize;
    }
    let doublings = u64::from(micros.ilog2() - EXACT.ilog2());
    let within = (micros >> (doublings + 1)) - EXACT / 2;
    (EXACT + doublings * EXACT / 2 + within) as usize
}

/// Returns the largest number of microseconds in a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let (doublings, within) = ((bucket - EXACT) / (EXACT / 2), (bucket - EXACT) % (EXACT / 2));
    (u128::from(within + EXACT / 2 + 1) << (doublings + 1)).min(u128::from(u64::MAX)) as u64 - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_three_percent() {
        for micros in [0, 1, 63, 64, 65, 127, 128, 1_000, 123_456, 10_000_000, u64::from(u32::MAX)] {
            let top = upper(bucket(micros));
            assert!(top >= micros && top as f64 <= micros as f64 * 1.04, "{micros} is counted as {top}");
        }
        let mut histogram = Histogram::default();
        (1..=1_000).for_each(|ms| histogram.add(Duration::from_millis(ms)));
        let mut other = Histogram::default();
        other.add(Duration::from_secs(5));
        histogram.merge(&other);
        let p50 = histogram.percentile(0.5).unwrap().as_millis();
        assert!((495..=520).contains(&p50), "{p50}");
        assert_eq!(histogram.percentile(1.0), Some(Duration::from_secs(5)));
        assert_eq!(Histogram::default().percentile(0.5), None);
    }
}
