//! Asks ra, with bounds on how many wait and for how long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chancery_host::ipc::{CallError, Channel};
use chancery_protocol::ipc::message::{Reply, Request};
use der::asn1::OctetString;
use tokio::sync::Semaphore;

use crate::warnings::Warnings;

/// Seconds after which a device is to try again when ra has not said when.
pub(crate) const RETRY_AFTER: u32 = 5;

/// Calls to ra at once, each on a thread of its own while it lasts. Most of that time is spent
/// waiting for a token, or for the moment at which a refusal may leave: with half a second each,
/// strangers need a thousand refusals a second to hold them all. Ra takes more connections than
/// this.
pub(crate) const CALLS: usize = 512;

/// How long a message waits for its call, and how long the call may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// In the queue.
    pub queue: Duration,
    /// At ra.
    pub call: Duration,
}

impl Default for Deadlines {
    /// Together 30 s: no client waits longer.
    fn default() -> Self {
        Self {
            queue: Duration::from_secs(10),
            call: Duration::from_secs(20),
        }
    }
}

/// The way to ra.
#[derive(Debug)]
pub(crate) struct Ra {
    channel: Arc<Channel>,
    /// Messages that are being called or wait for it.
    places: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    deadlines: Deadlines,
    warnings: Warnings,
}

impl Ra {
    /// `calls` at once, `queue` more may wait.
    pub(crate) fn new(
        socket: &std::path::Path,
        calls: usize,
        queue: usize,
        deadlines: Deadlines,
    ) -> Self {
        let places = calls.saturating_add(queue).min(Semaphore::MAX_PERMITS);
        Self {
            channel: Arc::new(Channel::new(socket, deadlines.call)),
            places: Arc::new(Semaphore::new(places)),
            calls: Arc::new(Semaphore::new(calls)),
            deadlines,
            warnings: Warnings::default(),
        }
    }

    /// Hands over one message. Whatever fails on the way is [`Reply::Unavailable`].
    pub(crate) async fn ask(&self, profile: &str, peer: SocketAddr, message: &[u8]) -> Reply {
        let asked = self.try_ask(profile, peer, message).await;
        asked.unwrap_or_else(|failure| {
            if self.warnings.due() {
                tracing::warn!(%peer, profile, %failure, "message not answered by ra");
            } else {
                tracing::debug!(%peer, profile, %failure, "message not answered by ra");
            }
            Reply::Unavailable(RETRY_AFTER)
        })
    }

    async fn try_ask(
        &self,
        profile: &str,
        peer: SocketAddr,
        message: &[u8],
    ) -> Result<Reply, Failure> {
        let request = Request {
            profile: profile.to_owned(),
            peer: peer.to_string(),
            message: OctetString::new(message)?,
        };
        let place = Arc::clone(&self.places);
        let place = place.try_acquire_owned().map_err(|_| Failure::Full)?;
        let call = Arc::clone(&self.calls).acquire_owned();
        let call = tokio::time::timeout(self.deadlines.queue, call)
            .await
            .map_err(|_| Failure::Queue)?
            .map_err(|_| Failure::Full)?;
        let channel = Arc::clone(&self.channel);
        let answer = tokio::task::spawn_blocking(move || {
            let answer = channel.call(&request);
            // Held until here: a device that hangs up does not end its call.
            drop((call, place));
            answer
        });
        Ok(answer.await??)
    }
}

/// Why a message did not get to ra and back.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the queue is full; see [front] queue")]
    Full,
    #[error("no call became free in time; ra is too slow for what arrives")]
    Queue,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the call was broken off: {0}")]
    Broken(#[from] tokio::task::JoinError),
    #[error("the message does not fit a packet: {0}")]
    Encoding(#[from] der::Error),
}
