//! Clients: threads with one connection each, which take the next message as soon as they have
//! the answer to the last.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chancery_client::{CaCertificates, CertRep, HttpResponse, Server, Transport, Url};
use chancery_host::process::Stop;
use chancery_protocol::scep::PkiStatus;
use tokio::runtime::{Builder, Runtime};

use crate::Failure;
use crate::device::Enrolment;
use crate::processes;

/// What a run brought.
pub(crate) struct Run {
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// CPU time of this process when the clock stopped.
    pub(crate) own_cpu: Duration,
    /// From request to answer, shortest first.
    pub(crate) latencies: Vec<Duration>,
    /// The answers in the order of the enrolments, each with pkiStatus SUCCESS.
    pub(crate) replies: Vec<CertRep>,
}

/// GetCACert.
pub(crate) fn ca_certificates(url: &Url) -> Result<CaCertificates, Failure> {
    let client = Client::new(url)?;
    Ok(client.runtime.block_on(client.server.get_ca_cert())?)
}

/// Sends every message once, `clients` at a time. The first answer that is no SUCCESS ends it.
pub(crate) fn run(
    url: &Url,
    enrolments: &[Enrolment<'_>],
    clients: usize,
    stop: &Stop,
) -> Result<Run, Failure> {
    let mut connected = Vec::new();
    for _ in 0..clients {
        let client = Client::new(url)?;
        client.runtime.block_on(client.server.get_ca_caps())?;
        connected.push(client);
    }
    let queue = Queue {
        enrolments,
        next: AtomicUsize::new(0),
        stop,
    };
    let start = Instant::now();
    let answers = thread::scope(|scope| {
        let threads: Vec<_> = connected
            .iter()
            .map(|client| scope.spawn(|| client.work(&queue)))
            .collect();
        let mut answers = Vec::with_capacity(enrolments.len());
        for thread in threads {
            answers.extend(thread.join().map_err(|_| "a client's thread panicked")??);
        }
        Ok::<_, Failure>(answers)
    });
    let (elapsed, own_cpu) = (start.elapsed(), processes::own_cpu()?);
    let mut answers = answers?;
    answers.sort_by_key(|answer| answer.number);
    let mut latencies: Vec<_> = answers.iter().map(|answer| answer.latency).collect();
    latencies.sort();
    Ok(Run {
        elapsed,
        own_cpu,
        latencies,
        replies: answers.into_iter().map(|answer| answer.reply).collect(),
    })
}

/// Makes `count` things on every processor; their order is of no account.
pub(crate) fn in_parallel<T: Send>(
    count: usize,
    stop: &Stop,
    make: impl Fn(usize) -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(made);
            }
            let thing = unless_stopped(stop).and_then(|()| make(number));
            // The others need not go on either.
            made.push(thing.inspect_err(|_| next.store(count, Ordering::Relaxed))?);
        }
    };
    let threads = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut made = Vec::with_capacity(count);
        for thread in threads {
            let part: Result<Vec<T>, Failure> = thread
                .join()
                .map_err(|_| "a thread panicked while preparing")?;
            made.extend(part?);
        }
        Ok(made)
    })
}

/// What the clients share.
struct Queue<'a> {
    enrolments: &'a [Enrolment<'a>],
    /// Number of the enrolment that is sent next.
    next: AtomicUsize,
    stop: &'a Stop,
}

struct Answer {
    number: usize,
    latency: Duration,
    reply: CertRep,
}

/// A client with a connection and a runtime of its own.
struct Client {
    runtime: Runtime,
    server: Server,
}

impl Client {
    fn new(url: &Url) -> Result<Self, Failure> {
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            server: Server::new(url.clone()),
        })
    }

    fn work(&self, queue: &Queue<'_>) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::new();
        loop {
            let number = queue.next.fetch_add(1, Ordering::Relaxed);
            let Some(enrolment) = queue.enrolments.get(number) else {
                return Ok(answers);
            };
            let answer = unless_stopped(queue.stop).and_then(|()| self.enrol(number, enrolment));
            let end = |_: &Failure| queue.next.store(queue.enrolments.len(), Ordering::Relaxed);
            answers.push(answer.inspect_err(end)?);
        }
    }

    fn enrol(&self, number: usize, enrolment: &Enrolment<'_>) -> Result<Answer, Failure> {
        let start = Instant::now();
        let sent = self.server.pki_operation(Transport::Post, enrolment.der());
        let response = self.runtime.block_on(sent)?;
        let latency = start.elapsed();
        let reply = success(&response).map_err(|cause| format!("{}: {cause}", enrolment.name()))?;
        Ok(Answer {
            number,
            latency,
            reply,
        })
    }
}

/// The reply, if it grants the request; else what it says.
fn success(response: &HttpResponse) -> Result<CertRep, String> {
    if response.status != 200 {
        let after = response.header("retry-after").unwrap_or("none");
        return Err(format!(
            "HTTP status {}, Retry-After {after}",
            response.status
        ));
    }
    let reply = CertRep::read(&response.body).map_err(|error| error.to_string())?;
    if reply.status == PkiStatus::Success {
        return Ok(reply);
    }
    Err(format!(
        "pkiStatus {:?}, failInfo {:?}",
        reply.status, reply.fail_info
    ))
}

fn unless_stopped(stop: &Stop) -> Result<(), Failure> {
    if stop.requested() {
        return Err("interrupted".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_made_once() {
        let stop = Stop::new().unwrap();
        let mut made = in_parallel(100, &stop, Ok).unwrap();
        made.sort_unstable();
        assert_eq!(made, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_failure_ends_all() {
        let stop = Stop::new().unwrap();
        let failed = in_parallel(100, &stop, |number| match number {
            7 => Err("seven".into()),
            number => Ok(number),
        });
        assert_eq!(failed.unwrap_err().to_string(), "seven");
        stop.request();
        let interrupted = in_parallel(1, &stop, Ok);
        assert_eq!(interrupted.unwrap_err().to_string(), "interrupted");
    }

    #[test]
    fn an_error_status_is_no_success() {
        let response = HttpResponse {
            status: 503,
            headers: [("retry-after", "5")]
                .into_iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect(),
            body: Vec::new().into(),
        };
        let cause = success(&response).unwrap_err();
        assert_eq!(cause, "HTTP status 503, Retry-After 5");
    }
}
