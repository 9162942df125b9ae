//! How long a peer may take: a stream that fails when its peer is too slow.
//!
//! hyper has one limit for the head of a request, and counts an idle connection against it. Here
//! a connection may be idle for longer than a request, once begun, may take to arrive. And when
//! something of a request is left unread, the stream is closed such that the answer arrives.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long the peer of a closed connection may go on sending: closing the socket while something
/// is unread resets the connection, and the reset may overtake the answer.
const LINGER: Duration = Duration::from_secs(5);

/// Octets that are thrown away meanwhile.
const LINGER_OCTETS: usize = 1024 * 1024;

/// The longest that a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the head of a request, from its first octet to its end; and from the accept to the
    /// first octet.
    pub head: Duration,
    /// For the body of a request.
    pub body: Duration,
    /// Between an answer and the next request.
    pub idle: Duration,
    /// For reading anything of an answer at all, once its side is full.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            write: Duration::from_secs(30),
        }
    }
}

/// What a connection waits for. Shared by the stream and by whoever answers its requests.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    patience: Patience,
    // Guards what the connection waits for now.
    stage: Arc<Mutex<Stage>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The rest of a head.
    Head { until: Instant },
    /// Nothing: a request is being answered, and the body has a limit of its own.
    Answer,
    /// The first octet of a head.
    Idle { until: Instant },
    /// Nothing more: the last answer was given without reading its request to the end.
    Unread { until: Instant },
}

impl Pace {
    /// The pace of a connection just accepted.
    pub(crate) fn new(patience: Patience) -> Self {
        let until = Instant::now() + patience.head;
        Self {
            patience,
            stage: Arc::new(Mutex::new(Stage::Idle { until })),
        }
    }

    /// A head is complete, its request is being answered until the guard is dropped.
    pub(crate) fn answer(&self) -> Answering<'_> {
        *self.stage() = Stage::Answer;
        Answering {
            pace: self,
            unread: false,
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self) {
        let mut stage = self.stage();
        if let Stage::Idle { .. } = *stage {
            *stage = Stage::Head {
                until: Instant::now() + self.patience.head,
            };
        }
    }

    fn until(&self) -> Option<Instant> {
        match *self.stage() {
            Stage::Head { until } | Stage::Idle { until } | Stage::Unread { until } => Some(until),
            Stage::Answer => None,
        }
    }

    /// Whether the peer may be in the middle of a request: one answered early, or whose head was
    /// too long or no head.
    fn is_unread(&self) -> bool {
        match *self.stage() {
            Stage::Head { .. } | Stage::Unread { .. } => true,
            Stage::Answer | Stage::Idle { .. } => false,
        }
    }
}

/// Lasts while a request is being answered.
pub(crate) struct Answering<'a> {
    pace: &'a Pace,
    unread: bool,
}

impl Answering<'_> {
    /// The answer leaves something of the request unread; the connection will be closed.
    pub(crate) fn leave_unread(&mut self) {
        self.unread = true;
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        let until = Instant::now() + self.pace.patience.idle;
        *self.pace.stage() = if self.unread {
            Stage::Unread { until }
        } else {
            Stage::Idle { until }
        };
    }
}

/// A stream that keeps a [`Pace`].
pub(crate) struct Paced<S> {
    stream: S,
    pace: Pace,
    reading: Pin<Box<Sleep>>,
    /// Runs only while `stalled`.
    writing: Pin<Box<Sleep>>,
    stalled: bool,
    /// Octets thrown away since our side was closed; none: it is open.
    lingering: Option<usize>,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, pace: Pace) -> Self {
        let timer = || Box::pin(tokio::time::sleep(Duration::ZERO));
        Self {
            stream,
            pace,
            reading: timer(),
            writing: timer(),
            stalled: false,
            lingering: None,
        }
    }

    /// Passes on the outcome of a write; a pending one fails after [`Patience::write`].
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = false;
            return outcome;
        }
        if !self.stalled {
            self.stalled = true;
            let until = Instant::now() + self.pace.patience.write;
            self.writing.as_mut().reset(until);
        }
        ready!(self.writing.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> Paced<S> {
    /// Throws away what still comes until the peer closes its side, sends too much or takes too
    /// long.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let discarded = self.lingering.get_or_insert(0);
        let mut octets = [0; 4096];
        while *discarded < LINGER_OCTETS {
            let mut buf = ReadBuf::new(&mut octets);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    *discarded += buf.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.reading.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        if outcome.is_ready() {
            if buf.filled().len() > before {
                this.pace.received();
            }
            return outcome;
        }
        let Some(until) = this.pace.until() else {
            return Poll::Pending;
        };
        if this.reading.deadline() != until {
            this.reading.as_mut().reset(until);
        }
        ready!(this.reading.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let outcome = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.written(cx, outcome))?;
            this.lingering = Some(0);
            this.reading.as_mut().reset(Instant::now() + LINGER);
        }
        if this.pace.is_unread() {
            ready!(this.linger(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(20);

    fn patient() -> Patience {
        Patience {
            head: LONG,
            body: LONG,
            idle: LONG,
            write: LONG,
        }
    }

    fn timed_out<T: std::fmt::Debug>(result: io::Result<T>) {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_head_that_trickles_in_runs_out_of_time() {
        let (mut peer, stream) = duplex(64);
        let pace = Pace::new(Patience {
            head: SHORT,
            ..patient()
        });
        let mut paced = Paced::new(stream, pace);
        peer.write_all(b"GET").await.unwrap();
        let mut octets = [0; 3];
        paced.read_exact(&mut octets).await.unwrap();
        timed_out(paced.read(&mut octets).await);
    }

    #[tokio::test]
    async fn an_idle_connection_runs_out_of_time_and_a_working_one_does_not() {
        let (mut peer, stream) = duplex(64);
        let pace = Pace::new(Patience {
            head: SHORT,
            idle: SHORT,
            ..patient()
        });
        let mut paced = Paced::new(stream, pace.clone());
        let mut octets = [0; 1];
        let answering = pace.answer();
        tokio::select! {
            biased;
            _ = paced.read(&mut octets) => panic!("nothing was sent"),
            () = tokio::time::sleep(SHORT * 4) => {}
        }
        drop(answering);
        timed_out(paced.read(&mut octets).await);
        // What arrives in time is read, and from then on the limit of a head holds.
        drop(pace.answer());
        peer.write_all(b"G").await.unwrap();
        paced.read_exact(&mut octets).await.unwrap();
        assert!(matches!(*pace.stage(), Stage::Head { .. }));
    }

    #[tokio::test]
    async fn what_is_left_unread_is_thrown_away_before_the_end() {
        for (unread, left) in [(true, 0), (false, 60_000)] {
            let (mut peer, stream) = duplex(64 * 1024);
            let pace = Pace::new(patient());
            let mut paced = Paced::new(stream, pace.clone());
            let mut answering = pace.answer();
            if unread {
                answering.leave_unread();
            }
            drop(answering);
            peer.write_all(&[0; 60_000]).await.unwrap();
            peer.shutdown().await.unwrap();
            paced.shutdown().await.unwrap();
            let mut rest = Vec::new();
            paced.stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest.len(), left);
        }
    }

    #[tokio::test]
    async fn a_peer_that_never_stops_sending_is_not_heard_out() {
        let (mut peer, stream) = duplex(64 * 1024);
        let pace = Pace::new(patient());
        pace.answer().leave_unread();
        let mut paced = Paced::new(stream, pace);
        let sending = async { while peer.write_all(&[0; 4096]).await.is_ok() {} };
        let closing = async {
            paced.shutdown().await.unwrap();
            drop(paced);
        };
        tokio::join!(sending, closing);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_runs_out_of_time() {
        let (_peer, stream) = duplex(8);
        let pace = Pace::new(Patience {
            write: SHORT,
            ..patient()
        });
        let mut paced = Paced::new(stream, pace);
        timed_out(paced.write_all(&[0; 64]).await);
    }
}
