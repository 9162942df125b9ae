//! Listeners and connections: accept, limit, serve, drain.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chancery_config::Config;
use chancery_host::process::Stop;
use chancery_protocol::ipc::socket;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, watch};

use crate::blobs::Blobs;
use crate::exchange::Exchange;
pub use crate::pace::Patience;
use crate::pace::{Pace, Paced};
use crate::peers::Peers;
pub use crate::ra::Deadlines;
use crate::ra::{CALLS, Ra};
use crate::warnings::Warnings;

/// Longest head of a request in octets, request line included. A GET of a message under RSA-4096
/// is about a third of it; beyond it the answer is 431.
const MAX_HEAD: usize = 32 * 1024;

/// What one connection may buffer in octets.
const BUFFER: usize = 64 * 1024;

/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What to serve, and within which limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names of the profiles.
    pub profiles: Vec<String>,
    /// Socket of ra.
    pub ra: PathBuf,
    /// The ledger's public socket.
    pub public: PathBuf,
    /// Most connections at once; more wait in the kernel's backlog.
    pub connections: usize,
    /// Most connections at once from one host (IPv6: one /64); more are closed at once.
    pub per_peer: usize,
    /// Most messages that ra works on at once.
    pub calls: usize,
    /// Most messages that wait for that; more are answered with 503 at once.
    pub queue: usize,
    /// How slow a device may be.
    pub patience: Patience,
    /// How slow ra may be.
    pub deadlines: Deadlines,
    /// For requests under way when the stop comes.
    pub grace: Duration,
}

impl Settings {
    /// The settings of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            profiles: config.profiles.iter().map(|p| p.name.clone()).collect(),
            ra: config.socket(socket::RA_MESSAGE),
            public: config.socket(socket::LEDGER_PUBLIC),
            connections: config.front.connections,
            per_peer: config.front.per_peer,
            calls: CALLS,
            queue: config.front.queue,
            patience: Patience::default(),
            deadlines: Deadlines::default(),
            grace: Duration::from_secs(10),
        }
    }

    /// Descriptors that serving may need at once: a stream a connection, a socket a call, and
    /// some for listeners, the runtime, the log and the ledger.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        (self.connections + self.calls + 64) as u64
    }
}

/// Serves until `stop`, then lets the requests under way end.
///
/// # Errors
/// [`ServeError`] if the listeners or the stop cannot be waited for.
pub async fn serve(
    listeners: Vec<std::net::TcpListener>,
    settings: Settings,
    stop: &Stop,
) -> Result<(), ServeError> {
    let listeners = listeners
        .into_iter()
        .map(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(ServeError::Listener)?;
    let grace = settings.grace;
    let places = u32::try_from(settings.connections.min(Semaphore::MAX_PERMITS));
    let places = places.unwrap_or(u32::MAX);
    let blobs = Arc::new(Blobs::new(&settings.public, settings.profiles.clone()));
    let refreshing = tokio::spawn(Arc::clone(&blobs).keep_fresh());
    let server = Arc::new(Server::new(settings, blobs, places as usize));
    let (close, closing) = watch::channel(false);
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(Arc::clone(&server).accept(listener, closing.clone())))
        .collect();

    let stopped = requested(stop).await.map_err(ServeError::Stop);
    close.send_replace(true);
    for task in accepting {
        // A task that panicked has dropped its listener too.
        let _ = task.await;
    }
    let all = server.connections.acquire_many(places);
    if tokio::time::timeout(grace, all).await.is_err() {
        let left = places as usize - server.connections.available_permits();
        tracing::warn!(left, "connections were cut off by the stop");
    }
    refreshing.abort();
    stopped
}

/// Waits until the connections are to be closed; a server that is gone says so too.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|close| *close).await;
}

/// Waits for the stop.
async fn requested(stop: &Stop) -> io::Result<()> {
    // Never read from: the stop stays requested for everybody.
    let pipe = pipe::Receiver::from_owned_fd(stop.fd().try_clone_to_owned()?)?;
    pipe.readable().await
}

struct Server {
    exchange: Arc<Exchange>,
    patience: Patience,
    connections: Arc<Semaphore>,
    peers: Peers,
    full: Warnings,
    crowded: Warnings,
}

impl Server {
    fn new(settings: Settings, blobs: Arc<Blobs>, connections: usize) -> Self {
        let exchange = Exchange {
            profiles: settings.profiles.into_iter().collect(),
            blobs,
            ra: Ra::new(
                &settings.ra,
                settings.calls,
                settings.queue,
                settings.deadlines,
            ),
            body_time: settings.patience.body,
            unknown: Warnings::default(),
        };
        Self {
            exchange: Arc::new(exchange),
            patience: settings.patience,
            connections: Arc::new(Semaphore::new(connections)),
            peers: Peers::new(settings.per_peer),
            full: Warnings::default(),
            crowded: Warnings::default(),
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, mut closing: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                () = closed(&mut closing) => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                // The peer gave up in the backlog.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let Some(place) = self.peers.admit(peer.ip()) else {
                if self.crowded.due() {
                    tracing::warn!(%peer, "too many connections from one host; see [front] per_peer");
                }
                continue;
            };
            if self.connections.available_permits() == 0 && self.full.due() {
                tracing::warn!("too many connections, new ones wait; see [front] connections");
            }
            let permit = tokio::select! {
                () = closed(&mut closing) => return,
                permit = Arc::clone(&self.connections).acquire_owned() => permit,
            };
            // An answer is one small write: nothing is gained by waiting for more.
            let _ = stream.set_nodelay(true);
            let server = Arc::clone(&self);
            let closing = closing.clone();
            tokio::spawn(async move {
                server.connection(stream, peer, closing).await;
                drop((permit, place));
            });
        }
    }

    /// Serves one connection, whatever carries it.
    async fn connection<S>(&self, stream: S, peer: SocketAddr, mut closing: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let pace = Pace::new(self.patience);
        let stream = TokioIo::new(Paced::new(stream, pace.clone()));
        let service = service_fn(|request| {
            let exchange = Arc::clone(&self.exchange);
            let pace = pace.clone();
            async move {
                let mut answering = pace.answer();
                Ok::<_, Infallible>(exchange.answer(request, peer, &mut answering).await)
            }
        });
        let connection = http1::Builder::new()
            .half_close(true)
            .header_read_timeout(None)
            .max_header_size(MAX_HEAD)
            .max_buf_size(BUFFER)
            .serve_connection(stream, service);
        let mut connection = pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = closed(&mut closing) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%peer, %error, "connection ended early");
        }
    }
}

/// Why serving ended before the stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A listener cannot be waited for.
    #[error("cannot wait for connections: {0}; check the limit of open files")]
    Listener(io::Error),
    /// The stop cannot be waited for.
    #[error("cannot wait for the stop: {0}; check the limit of open files")]
    Stop(io::Error),
}
