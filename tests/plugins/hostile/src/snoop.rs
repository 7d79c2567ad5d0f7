//! Tries to use what a plugin must not have: environment, arguments, input, files, network. Reports
//! what it could use.

use hostler_plugin::{Error, Request};
use std::io::Read;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

/// Returns a JSON object of counts and of what worked. The parameter `address` is a listener to
/// try.
pub fn snoop(request: &Request) -> Result<String, Error> {
    let address = request.text("address")?.unwrap_or_else(|| "127.0.0.1:80".into());
    let mut input = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut input);
    let counts = [
        ("environment", std::env::vars().count()),
        ("arguments", std::env::args().count()),
        ("input", input.len()),
    ];
    let worked = [
        ("list", std::fs::read_dir("/").is_ok()),
        ("read", std::fs::read("/etc/hostname").or_else(|_| std::fs::read("hostler.toml")).is_ok()),
        (
            "write",
            std::fs::write("/tmp/hostile", "was here").or_else(|_| std::fs::write("hostile", "")).is_ok(),
        ),
        ("connect", TcpStream::connect(&address).is_ok()),
        ("listen", TcpListener::bind("127.0.0.1:0").is_ok()),
        ("udp", UdpSocket::bind("127.0.0.1:0").is_ok()),
        ("names", ("localhost", 80).to_socket_addrs().is_ok()),
    ];
    let counts = counts.iter().map(|(name, count)| format!("\"{name}\":{count}"));
    let worked = worked.iter().map(|(name, worked)| format!("\"{name}\":{worked}"));
    Ok(format!("{{{}}}", counts.chain(worked).collect::<Vec<_>>().join(",")))
}
