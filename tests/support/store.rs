//! An HTTP server that plugins send requests to; the path selects its behaviour. It records the
//! requests, and the clients that disconnected.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};

use super::{PATIENCE, eventually, root};

pub struct Store {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    asked: Mutex<Vec<String>>,
    connections: AtomicUsize,
    /// The number of connections that were closed before their answer.
    left: AtomicUsize,
    together: Mutex<usize>,
    arrived: Condvar,
}

impl Store {
    pub fn start() -> Self {
        Store::with(|stream, seen| drop(serve(stream, seen)))
    }

    /// Starts the server with the certificate of `tests/tls`, which is valid for `localhost`.
    pub fn with_tls() -> Self {
        let pem = |name: &str| std::fs::read(root().join("tests/tls").join(name)).unwrap();
        let certificate = CertificateDer::from_pem_slice(&pem("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&pem("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        Store::with(move |stream, seen| {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            drop(serve(StreamOwned::new(tls, stream), seen));
        })
    }

    fn with(serve: impl Fn(TcpStream, &Seen) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                all.connections.fetch_add(1, Ordering::SeqCst);
                let (serve, seen) = (serve.clone(), Arc::clone(&all));
                std::thread::spawn(move || serve(stream, &seen));
            }
        });
        Store { address, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn asked(&self) -> Vec<String> {
        self.seen.asked.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Waits until the server has received this many requests.
    pub fn wait_until_asked(&self, times: usize) {
        let asked = || (self.asked().len() >= times).then_some(());
        eventually("a request", asked, || format!("{:?}", self.asked()));
    }

    /// Waits until this many connections were closed before their answer.
    pub fn wait_until_left(&self, times: usize) {
        let left = || (self.seen.left.load(Ordering::SeqCst) >= times).then_some(());
        eventually("a connection being closed", left, || format!("{:?}", self.asked()));
    }
}

fn serve<S: Read + Write>(stream: S, seen: &Seen) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        let asked = head.split(" HTTP").next().unwrap_or_default().to_owned();
        let path = asked.split(' ').nth(1).unwrap_or_default().to_owned();
        let times = {
            let mut all = seen.asked.lock().unwrap();
            all.push(asked.clone());
            all.iter().filter(|known| **known == asked).count()
        };
        let parts: Vec<&str> = path.split(['/', '?']).skip(1).collect();
        let number = |place: usize| parts.get(place).and_then(|part| part.parse().ok()).unwrap_or(0_usize);
        let answer = |status: u16, headers: &str, body: &str| {
            format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
        };
        // `/walk/<job>/<step>/<blocked>` names the URL of the next step; the first request for the
        // blocked one is never answered.
        let is_blocked = parts[0] == "walk" && number(2) == number(3) && times == 1;
        let said = match parts[0] {
            "walk" if is_blocked => String::new(),
            "walk" => {
                let next = format!("/walk/{}/{}/{}", parts[1], number(2) + 1, number(3));
                let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
                answer(200, "", &format!("http://{host}{next}"))
            }
            "echo" => answer(200, "x-one: 1\r\nx-two: 2\r\n", &(head + &String::from_utf8_lossy(&body))),
            "users" if number(1) < 1000 => answer(200, "", &format!("[{}, 0.5]", number(1))),
            "users" => answer(404, "", "no such user"),
            "together" => {
                let mut there = seen.together.lock().unwrap();
                *there += 1;
                seen.arrived.notify_all();
                let wanted = number(1);
                let waited = seen.arrived.wait_timeout_while(there, PATIENCE, |there| *there < wanted);
                drop(waited.unwrap());
                answer(200, "", "[1, 2]")
            }
            "redirect" => answer(302, "location: /users/1\r\n", ""),
            "packed" => answer(200, "content-encoding: gzip\r\n", "as it was sent"),
            "big" => answer(200, "", &"x".repeat(number(1))),
            "chunks" => {
                let chunk = format!("{:x}\r\n{}\r\n", number(1), "x".repeat(number(1)));
                format!("HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(4))
            }
            "head" => answer(200, &format!("x-long: {}\r\n", "x".repeat(number(1))), ""),
            "half" => "HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
            "stall" => "HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nstall".to_owned(),
            "nonsense" => "this is not HTTP\r\n\r\n".to_owned(),
            "closes" => answer(200, "", "[]"),
            _ => String::new(),
        };
        stream.get_mut().write_all(said.as_bytes())?;
        stream.get_mut().flush()?;
        match parts[0] {
            "half" | "closes" | "nonsense" => return Ok(()),
            // Sends nothing more and waits for the client to disconnect.
            "stall" | "never" | "walk" if parts[0] != "walk" || is_blocked => {
                while stream.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
                seen.left.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            _ => {}
        }
    }
}
