//! The connections of HTTP calls: dialed as those of WebSockets are, with the same TLS.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use synclayer_core::ConnectFailure;
use ureq::Error;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use crate::dial::Dialer;
use crate::fault::Greeting;
use crate::progress;

/// The time limit for connecting outside of a call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to one server, whatever a call's URL is.
#[derive(Debug)]
pub(crate) struct Dialing {
    dialer: Dialer,
    tls: Arc<ClientConfig>,
}

impl Dialing {
    pub(crate) fn new(dialer: Dialer, tls: Arc<ClientConfig>) -> Self {
        Self { dialer, tls }
    }

    fn open(&self, details: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, Error> {
        let limit = progress::silence().unwrap_or(CONNECT_TIMEOUT);
        let stream = self.dialer.dial(limit).map_err(failed)?;
        let buffers = || {
            let config = details.config;
            LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size())
        };
        let endpoint = self.dialer.endpoint();
        let socket = Greeted {
            socket: stream,
            greeting: Greeting::new(Arc::clone(endpoint)),
            buffers: buffers(),
        };
        if !endpoint.tls {
            return Ok(Box::new(socket));
        }
        let name = endpoint.tls_name().map_err(failed)?;
        let mut connection = ClientConnection::new(Arc::clone(&self.tls), name)?;
        let mut socket: TransportAdapter =
            TransportAdapter::new(Box::new(socket), Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let stream = StreamOwned::new(connection, socket);
        Ok(Box::new(Encrypted { stream, buffers: buffers() }))
    }
}

fn failed(failure: ConnectFailure) -> Error {
    Error::Other(Box::new(failure))
}

impl Connector for Dialing {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        self.open(details).map(Some)
    }
}

/// Leaves the look-up of the name to the connector: it may be the proxy's to do.
#[derive(Debug)]
pub(crate) struct LeftToDialing;

impl Resolver for LeftToDialing {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        Ok(addresses)
    }
}

/// A socket whose first bytes are looked at.
#[derive(Debug)]
struct Greeted {
    socket: TcpStream,
    greeting: Greeting,
    buffers: LazyBuffers,
}

impl Transport for Greeted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.socket.set_write_timeout(progress::silence())?;
        let mut left = &self.buffers.output()[..amount];
        while !left.is_empty() {
            match self.socket.write(left) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(late(error, timeout)),
            }
            progress::note();
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.socket.set_read_timeout(progress::silence())?;
        let room = self.buffers.input_append_buf();
        let amount = loop {
            match self.socket.read(room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(|error| late(error, timeout))?,
            }
        };
        progress::note();
        self.greeting.check(&room[..amount])?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Returns `false` if the server has closed the connection, or said what it was not asked.
    fn is_open(&mut self) -> bool {
        let peek = || {
            self.socket.set_nonblocking(true)?;
            let peeked = self.socket.peek(&mut [0]);
            self.socket.set_nonblocking(false)?;
            peeked
        };
        peek().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// Tells the end of a call's time from other errors.
#[allow(clippy::wildcard_enum_match_arm)] // of the many kinds few are told apart
fn late(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

/// A socket under TLS.
struct Encrypted {
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    buffers: LazyBuffers,
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encrypted").finish_non_exhaustive()
    }
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
