//! A byte stream to the server that never blocks, in the clear or over TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream as StdStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use synclayer_client::address::Endpoint;

/// The time limit for one of a server's addresses to answer before the next is tried.
const PER_ADDRESS: Duration = Duration::from_secs(10);

/// The bytes that are read in one turn of the engine's thread. A message may have no end, and the
/// app is not to wait for it.
const TURN_BYTES: usize = 64 << 10;

/// A connected byte stream.
pub(crate) enum ByteStream {
    /// Unencrypted.
    Plain(Rationed),
    /// Encrypted by TLS.
    Tls(Box<StreamOwned<ClientConnection, Rationed>>),
}

impl ByteStream {
    /// Over a connected socket, as the address wants it.
    pub(crate) fn new(
        socket: TcpStream,
        address: &Endpoint,
        tls: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        // what a handshake may take is bounded by itself
        let socket = Rationed { socket, left: usize::MAX };
        if !address.tls {
            return Ok(Self::Plain(socket));
        }
        let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    /// Begins a turn. Returns `true` if the last one ended with its ration, so that there may be more
    /// to read.
    pub(crate) fn begin_turn(&mut self) -> bool {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut(),
        };
        mem::replace(&mut socket.left, TURN_BYTES) == 0
    }
}

/// A socket of which only so much is read in a turn, once there are turns.
pub(crate) struct Rationed {
    socket: TcpStream,
    /// The bytes that may still be read in this one.
    left: usize,
}

impl Read for Rationed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(self.left);
        if most == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = self.socket.read(&mut bytes[..most])?;
        self.left -= read;
        Ok(read)
    }
}

impl Write for Rationed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
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
