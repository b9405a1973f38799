//! A server with a listener of its own.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use synclayer_core::{Epoch, ServerStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task;
use tokio::time::{sleep, timeout};

use crate::admission::ConnectionPermit;
use crate::config::ServerConfig;
use crate::embedded::{Embedded, StartError};
use crate::ending::wait_for_end;
use crate::routes;
use crate::shared::Shared;
use crate::timed::Timed;

/// The size of the largest head of a request.
const HEADER_BYTES: usize = 16 << 10;

/// A server that listens and serves, until [`shutdown`](Self::shutdown). Dropping it ends it too,
/// but nobody waits for that.
///
/// A program that has an axum server already mounts an [`Embedded`] one instead.
///
/// ```
/// use std::sync::Arc;
///
/// use synclayer_server::{MemoryServerStore, Server, ServerConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), synclayer_server::StartError> {
/// let config = ServerConfig::new().listen(([127, 0, 0, 1], 0)).max_connections(1_000);
/// let server = Server::bind(config, Arc::new(MemoryServerStore::new())).await?;
/// assert!(server.local_addr().ip().is_loopback());
/// assert_eq!((server.connections(), server.commits()), (0, (0, 0)));
/// # let signal = async {};
/// server.run(signal).await; // such as `tokio::signal::ctrl_c()`
/// # Ok(())
/// # }
/// ```
pub struct Server {
    local_addr: SocketAddr,
    embedded: Embedded,
}

impl Server {
    /// Listens, begins an epoch of the store, and starts to serve.
    ///
    /// # Errors
    /// When an open server would listen on more than loopback, the address is taken, or the store
    /// can't be written.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub async fn bind(
        config: ServerConfig,
        store: Arc<dyn ServerStore>,
    ) -> Result<Self, StartError> {
        let listen = config.listen;
        if config.authenticator.is_none() && !listen.ip().is_loopback() {
            return Err(StartError::Exposed(listen));
        }
        let failed = |error| StartError::Listen(listen, error);
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let embedded = Embedded::open(config, store).await?;
        task::spawn(accept_all(listener, HttpServer::new(&embedded)));
        let connections = embedded.shared().admission.max_connections();
        tracing::info!(%local_addr, epoch = %embedded.epoch(), connections, "serving");
        Ok(Self { local_addr, embedded })
    }

    /// The address at which the server listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The server behind the listener: to mount it in another one as well.
    #[must_use]
    pub fn embedded(&self) -> &Embedded {
        &self.embedded
    }

    /// The epoch that began when the server was opened.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        self.embedded.epoch()
    }

    /// The number of WebSockets that are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.embedded.connections()
    }

    /// The number of transactions that were committed, and of the commits that it took: group
    /// commit puts those that wait for the disk together.
    #[must_use]
    pub fn commits(&self) -> (u64, u64) {
        self.embedded.commits()
    }

    /// Serves until `signal` completes, then shuts down.
    pub async fn run(self, signal: impl Future<Output = ()>) {
        signal.await;
        self.shutdown().await;
    }

    /// Ends the server: no connection is accepted any more, requests under way are answered,
    /// WebSockets are closed with 1001, and what was handed in to be written is committed.
    pub async fn shutdown(self) {
        self.embedded.shutdown().await;
    }
}

/// The server of the connections that a listener accepts.
#[derive(Clone)]
struct HttpServer {
    shared: Arc<Shared>,
    router: Router,
    ending: watch::Receiver<bool>,
}

/// The number of bytes that a socket takes before they can be sent. Half of it makes room for more.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 << 10;

impl HttpServer {
    fn new(embedded: &Embedded) -> Self {
        let shared = Arc::clone(embedded.shared());
        Self { router: routes::standalone(Arc::clone(&shared)), ending: embedded.ending(), shared }
    }

    /// Serves one connection, behind its TLS handshake where there is to be one.
    async fn serve(mut self, stream: TcpStream, permit: Arc<ConnectionPermit>) {
        let Some(tls) = &self.shared.config.tls else {
            return self.serve_http(stream, permit).await;
        };
        let accepted = tokio::select! {
            accepted = timeout(self.shared.config.http_timeout, tls.accept(stream)) => accepted,
            () = permit.ended() => return tracing::debug!("a handshake made room for others"),
            () = wait_for_end(&mut self.ending) => return,
        };
        match accepted {
            // in a place of its own: what is moved between futures takes its room in each of them
            Ok(Ok(stream)) => Box::pin(self.serve_http(stream, permit)).await,
            Ok(Err(error)) => self.shared.refusals.handshake(&error),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    /// Serves one connection's HTTP requests, up to its end or its upgrade.
    async fn serve_http<S>(mut self, stream: S, permit: Arc<ConnectionPermit>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = &self.shared.config;
        let stream = Timed::new(stream, config.write_timeout);
        let header_timeout = config.http_timeout;
        let permit_of_requests = Arc::clone(&permit);
        let router = TowerToHyperService::new(self.router);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&permit_of_requests));
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // who has sent all that there is to send is answered all the same
            .half_close(true)
            .header_read_timeout(header_timeout)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = permit.ended() => return tracing::debug!("a connection made room for others"),
            () = wait_for_end(&mut self.ending) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    served = connection => served,
                    () = permit.ended() => return,
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "an HTTP connection broke");
        }
    }
}

async fn accept_all(listener: TcpListener, server: HttpServer) {
    let mut ending = server.ending.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &server.shared) => accepted,
            () = wait_for_end(&mut ending) => return,
        };
        match accepted {
            Ok((stream, permit)) => {
                let server = server.clone();
                task::spawn(async move {
                    let meter = Arc::clone(permit.meter());
                    meter.run(pin!(server.serve(stream, permit))).await;
                });
                // those who are connected have their turn between two that come
                task::yield_now().await;
            }
            // a connection that broke before it was accepted is nobody's trouble
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::error!(%error, "can't accept connections");
                // too many open files, most likely: some have to be closed first
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Bounds what a socket takes that it can't send yet. Otherwise it takes megabytes and then nothing for
/// minutes, which on a slow link looks like a peer that is gone.
fn limit_unsent(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::debug!(%error, "a connection may keep more unsent");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

async fn accept(
    listener: &TcpListener,
    shared: &Shared,
) -> io::Result<(TcpStream, Arc<ConnectionPermit>)> {
    let (stream, peer) = listener.accept().await?;
    let permit = shared.admission.permit(peer.ip()).await;
    limit_unsent(&stream);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays slow");
    }
    Ok((stream, permit))
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
