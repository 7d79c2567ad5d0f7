//! Binds the addresses of a listener. A name stands for all addresses that it resolves to.

use super::listener::Listener;
use crate::config::ListenAddress;
use crate::error::{Error, Result};
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Addresses that belong to this process. Until it listens, the system refuses connections to them.
pub struct BoundAddresses {
    what: &'static str,
    sockets: Vec<TcpSocket>,
    addresses: Vec<SocketAddr>,
}

impl BoundAddresses {
    /// Binds all addresses of `wanted`. Port 0 selects a free port, the same one for all of them.
    ///
    /// # Errors
    /// `unavailable` if a name does not resolve, an address is in use, or this machine has none of
    /// them.
    pub fn bind(what: &'static str, wanted: &ListenAddress) -> Result<Self> {
        let failed = |why: &dyn std::fmt::Display| {
            Error::unavailable(format!("cannot listen for {what} on {wanted}: {why}"))
        };
        let resolved = wanted.resolve().map_err(|error| failed(&error.message()))?;
        let mut bound = BoundAddresses { what, sockets: Vec::new(), addresses: Vec::new() };
        let mut absent = None;
        for mut address in resolved {
            if let Some(first) = bound.addresses.first() {
                address.set_port(first.port());
            }
            match bind(address) {
                Ok((socket, address)) => {
                    bound.sockets.push(socket);
                    bound.addresses.push(address);
                }
                Err(error) if is_absent(&error) => {
                    tracing::debug!(what, %address, %error, "address left out: this machine does not have it");
                    absent = Some(error);
                }
                Err(error) if wanted.to_string() == address.to_string() => return Err(failed(&error)),
                // A name has several addresses.
                Err(error) => return Err(failed(&format_args!("{address}: {error}"))),
            }
        }
        match absent.filter(|_| bound.sockets.is_empty()) {
            Some(error) => Err(failed(&error)),
            None => Ok(bound),
        }
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Lets clients connect. Must be called in the runtime that serves the connections.
    pub fn listen(self) -> Result<Listener> {
        let BoundAddresses { what, sockets, addresses } = self;
        let listening = sockets.into_iter().map(|socket| socket.listen(BACKLOG));
        match listening.collect::<io::Result<Vec<_>>>() {
            Ok(sockets) => Ok(Listener::new(sockets, addresses)),
            Err(error) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let addresses = addresses.join(" and ");
                Err(Error::unavailable(format!("cannot listen for {what} on {addresses}: {error}")))
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted host can use its port although connections of the old one are not forgotten yet.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// Whether this machine does not have an address, or not its family: often a name has one for IPv6.
fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| [libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT].contains(&code))
}
