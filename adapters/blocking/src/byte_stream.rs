//! A byte stream to the server that never blocks, in the clear or over TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use synclayer_client::address::Endpoint;
use synclayer_client::fault::Greeting;
use synclayer_client::progress::Moved;

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
        address: &Arc<Endpoint>,
        tls: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        // what a handshake may take is bounded by itself
        let greeting = Greeting::new(Arc::clone(address));
        let socket = Rationed { socket, greeting, left: usize::MAX, moved: Moved::default() };
        if !address.tls {
            return Ok(Self::Plain(socket));
        }
        let name = address.tls_name().map_err(io::Error::other)?;
        let connection = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    /// Begins a turn. Returns `true` if the last one ended with its ration, so that there may be more
    /// to read.
    pub(crate) fn begin_turn(&mut self) -> bool {
        mem::replace(&mut self.socket().left, TURN_BYTES) == 0
    }

    /// Returns `true` if bytes were read, or were written that had to wait for room, since this was last
    /// asked.
    pub(crate) fn take_progress(&mut self) -> bool {
        self.socket().moved.take()
    }

    fn socket(&mut self) -> &mut Rationed {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut(),
        }
    }
}

/// A socket of which only so much is read in a turn, once there are turns.
pub(crate) struct Rationed {
    socket: TcpStream,
    greeting: Greeting,
    /// The bytes that may still be read in this one.
    left: usize,
    moved: Moved,
}

impl Read for Rationed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(self.left);
        if most == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = self.socket.read(&mut bytes[..most])?;
        self.left -= read;
        self.moved.read(read);
        self.greeting.check(&bytes[..read])?;
        Ok(read)
    }
}

impl Write for Rationed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.socket.write(bytes);
        let is_full = |error: &io::Error| error.kind() == ErrorKind::WouldBlock;
        self.moved.written(written.as_ref().is_err_and(is_full));
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
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
