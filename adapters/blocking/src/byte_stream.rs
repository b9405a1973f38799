//! A byte stream to the server that never blocks, in the clear or over TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use synclayer_client::address::Endpoint;

/// The time limit for one of a server's addresses to answer before the next is tried.
const PER_ADDRESS: Duration = Duration::from_secs(10);

/// A connected byte stream.
pub(crate) enum ByteStream {
    /// Unencrypted.
    Plain(TcpStream),
    /// Encrypted by TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl ByteStream {
    /// Over a connected socket, as the address wants it.
    pub(crate) fn new(
        socket: TcpStream,
        address: &Endpoint,
        tls: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        if !address.tls {
            return Ok(Self::Plain(socket));
        }
        let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, socket))))
    }
}

/// Connects to a server, trying all that its name stands for. This may block for long.
pub(crate) fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
    for address in (host, port).to_socket_addrs()? {
        match reach(&address) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn reach(address: &SocketAddr) -> io::Result<TcpStream> {
    let stream = StdStream::connect_timeout(address, PER_ADDRESS)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

impl Read for ByteStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for ByteStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
