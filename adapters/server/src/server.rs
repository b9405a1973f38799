//! A server from its opening to its end.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use synclayer_core::protocol::name::{DatabaseId, Epoch, NameError};
use synclayer_core::rules::transaction::{Answer, Sweep, SweepPlace, Transaction};
use synclayer_core::server::Health;
use synclayer_core::store::{ServerStore, StoreError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::commit::Desk;
use crate::config::ServerConfig;
use crate::routes::router;
use crate::shared::Shared;

/// How many rows one transaction of a sweep looks at.
const SWEPT_ROWS: usize = 1000;

/// A server that listens and serves, until [`shutdown`](Self::shutdown). Dropping it ends it too,
/// but nobody waits for that.
pub struct Server {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    /// A place for each connection; all are free when the last one has ended.
    places: Arc<Semaphore>,
    ending: watch::Sender<bool>,
    committer: Option<thread::JoinHandle<()>>,
}

/// A connection's place among those that are served at a time.
#[derive(Clone)]
pub(crate) struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Why a server could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// It would let in everyone who can reach this machine.
    #[error(
        "without tokens the server is open to everyone, so it listens on loopback only, not on \
         {0}: add a token, or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    /// The address can't be had.
    #[error("can't listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The system has no random bytes or no thread to give.
    #[error("the system refuses what a server needs: {0}")]
    System(#[source] io::Error),
    /// The store could not begin its epoch.
    #[error("the store can't be written: {0}")]
    Store(#[source] StoreError),
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
    ) -> Result<Self, BindError> {
        let listen = config.listen;
        if config.authenticator.is_none() && !listen.ip().is_loopback() {
            return Err(BindError::Open(listen));
        }
        let failed = |error| BindError::Listen(listen, error);
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let clock = Clock::start();
        let epoch = random_name(Epoch::new)?;
        let database = random_name(DatabaseId::new)?;
        let places = Arc::new(Semaphore::new(config.max_connections.clamp(1, 1 << 20)));
        let shared = Arc::new(Shared::new(config, Arc::clone(&store), epoch, clock));
        let desk = Desk {
            store,
            policy: Arc::clone(&shared.config.policy),
            limits: shared.session.limits.clone(),
            clock,
            feed: Arc::clone(&shared.feed),
        };
        let desk = begin_epoch(desk, shared.epoch.clone(), database).await?;
        let committer = Some(shared.commits.start(desk).map_err(BindError::System)?);
        let (ending, ended) = watch::channel(false);
        let door = Door {
            router: router(Arc::clone(&shared)),
            patience: shared.config.http_timeout,
            ended: ended.clone(),
        };
        task::spawn(listen_on(listener, Arc::clone(&places), door));
        task::spawn(sweep(Arc::clone(&shared), ended));
        tracing::info!(%local_addr, epoch = %shared.epoch, "serving");
        Ok(Self { local_addr, shared, places, ending, committer })
    }

    /// Where the server listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The epoch that began when the server was opened.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.shared.epoch
    }

    /// How many WebSockets are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// How many transactions were committed, and in how many commits: group commit puts those that
    /// wait for the disk together.
    #[must_use]
    pub fn commits(&self) -> (u64, u64) {
        let Health { transactions, commits, .. } = self.shared.commits.health();
        (transactions, commits)
    }

    /// Serves until `signal` completes, then shuts down.
    pub async fn run(self, signal: impl Future<Output = ()>) {
        signal.await;
        self.shutdown().await;
    }

    /// Ends the server: no connection is accepted any more, requests under way are answered,
    /// WebSockets are closed with 1001, and what was handed in to be written is committed.
    pub async fn shutdown(mut self) {
        self.end();
        let all = u32::try_from(self.shared.config.max_connections.clamp(1, 1 << 20));
        let patience = self.shared.config.http_timeout + self.shared.config.close_patience;
        let parted = timeout(patience, self.places.acquire_many(all.unwrap_or(u32::MAX))).await;
        if parted.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        self.shared.commits.close();
        if let Some(committer) = self.committer.take() {
            // the thread catches what panics in it
            let _ = task::spawn_blocking(|| committer.join()).await;
        }
        tracing::info!("ended");
    }

    fn end(&self) {
        self.ending.send_replace(true);
        self.shared.end();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        self.shared.commits.close();
    }
}

/// What accepting connections needs.
struct Door {
    router: Router,
    patience: Duration,
    ended: watch::Receiver<bool>,
}

/// A random name of 64 bits: no two meet, and each goes along with every poll, some of them often.
fn random_name<T>(make: impl FnOnce(&str) -> Result<T, NameError>) -> Result<T, BindError> {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let refused = |message: String| BindError::System(io::Error::other(message));
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| refused(error.to_string()))?;
    let mut left = u64::from_be_bytes(bytes);
    let mut name = String::with_capacity(13);
    for _ in 0..13 {
        name.push(char::from(DIGITS[(left % 36) as usize]));
        left /= 36;
    }
    make(&name).map_err(|error| refused(error.to_string()))
}

async fn begin_epoch(desk: Desk, epoch: Epoch, database: DatabaseId) -> Result<Desk, BindError> {
    let begin = move || {
        desk.begin_epoch(&Transaction::BeginEpoch { epoch, database })?;
        Ok(desk)
    };
    let begun = task::spawn_blocking(begin).await;
    begun.map_err(|error| BindError::System(io::Error::other(error)))?.map_err(BindError::Store)
}

async fn listen_on(listener: TcpListener, places: Arc<Semaphore>, door: Door) {
    let mut ended = door.ended.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = over(&mut ended) => return,
        };
        match accepted {
            Ok((stream, place)) => {
                let door = (door.router.clone(), door.patience, door.ended.clone());
                task::spawn(serve(stream, place, door.0, door.1, door.2));
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

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(TcpStream, Place)> {
    let permit = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays slow");
    }
    Ok((stream, Place { _permit: Arc::new(permit) }))
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves one connection's HTTP requests, up to its end or its upgrade.
async fn serve(
    stream: TcpStream,
    place: Place,
    router: Router,
    patience: Duration,
    mut ended: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(place.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // who has sent all that there is to send is answered all the same
        .half_close(true)
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = over(&mut ended) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection broke");
    }
}

/// Waits until the server ends.
async fn over(ended: &mut watch::Receiver<bool>) {
    // the sender goes only with the server
    drop(ended.wait_for(|ended| *ended).await);
}

/// Removes what is older than the retention, now and then.
async fn sweep(shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = sleep(shared.config.sweep_interval) => {}
            () = over(&mut ended) => return,
        }
        shared.sweep_buckets();
        let mut next = Some(SweepPlace::Start);
        while let Some(from) = next.take() {
            let retention = shared.config.tombstone_retention;
            let sweep = Transaction::Sweep(Sweep { retention, from, budget: SWEPT_ROWS });
            match shared.commits.run(sweep).await {
                Ok(Answer::Swept(swept)) => next = swept.next,
                Ok(
                    Answer::Hello(_)
                    | Answer::Writes(_)
                    | Answer::Pushed(_)
                    | Answer::Plain(_)
                    | Answer::Begun,
                ) => {}
                Err(error) => tracing::warn!(%error, "nothing was swept"),
            }
        }
    }
}
