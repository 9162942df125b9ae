//! One HTTP exchange: a request in, its answer out.
//!
//! No answer carries an internal text. What a device is told is a status, at most with
//! Retry-After; the cause stands in the log.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chancery_protocol::ipc::message::Reply;
use chancery_protocol::wire::MAX_MESSAGE;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};

use crate::blobs::Blobs;
use crate::pace::Answering;
use crate::ra::{self, Ra};
use crate::request::{self, Operation, Refusal};
use crate::warnings::Warnings;

/// GetCACaps (RFC 8894 §3.5.2): each keyword works. SHA-384 is none of the RFC's, but strongSwan
/// 5.9.8 tests indexes of keywords as bit masks and finds SHA-256 only where SHA-384 stands too.
const CAPABILITIES: &str = "AES\nPOSTPKIOperation\nSHA-256\nSHA-384\nSHA-512\nSCEPStandard\n";

/// The longest Retry-After in seconds.
const MAX_RETRY_AFTER: u32 = 3600;

/// Answers requests.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) profiles: BTreeSet<String>,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) ra: Ra,
    /// For the whole body of a request.
    pub(crate) body_time: Duration,
    /// Of profiles that are not there.
    pub(crate) unknown: Warnings,
}

/// How much of a path that names no profile is logged, in characters.
const LOGGED_PATH: usize = 80;

impl Exchange {
    /// Answers one request and logs it. Query and body are never logged.
    pub(crate) async fn answer<B>(
        &self,
        request: Request<B>,
        peer: SocketAddr,
        answering: &mut Answering<'_>,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, mut body) = request.into_parts();
        let profile = request::profile(head.uri.path().as_bytes())
            .filter(|name| self.profiles.contains(*name));
        let query = head.uri.query().unwrap_or_default().as_bytes();
        let operation = request::operation(head.method.as_str().as_bytes(), query);
        let name = operation.as_ref().map_or("-", name);
        let mut received = 0;
        let mut unread = !body.is_end_stream();
        let mut response = match (profile, operation) {
            (None, _) => {
                self.note_unknown(head.uri.path(), peer);
                empty(StatusCode::NOT_FOUND)
            }
            (Some(_), Err(refusal)) => refused(refusal),
            (Some(_), Ok(Operation::GetCaCaps)) => {
                content("text/plain", Bytes::from_static(CAPABILITIES.as_bytes()))
            }
            (Some(profile), Ok(Operation::GetCaCert)) => match self.blobs.cacert(profile) {
                Some(answer) => content(answer.media_type, answer.content),
                None => unavailable(ra::RETRY_AFTER),
            },
            (Some(profile), Ok(Operation::PkiOperationGet(message))) => {
                received = message.len();
                self.pki_operation(profile, peer, &message).await
            }
            (Some(profile), Ok(Operation::PkiOperationPost { in_query })) => {
                match read(&mut body, self.body_time).await {
                    Ok(posted) => {
                        unread = false;
                        let message = match in_query {
                            Some(in_query) if posted.is_empty() => in_query,
                            _ => posted,
                        };
                        received = message.len();
                        self.pki_operation(profile, peer, &message).await
                    }
                    Err(failure) => failure.response(),
                }
            }
        };
        if unread {
            answering.leave_unread();
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        let status = response.status().as_u16();
        let sent = response.body().size_hint().exact().unwrap_or_default();
        let profile = profile.unwrap_or("-");
        // Strangers can ask anything as often as they like; only what went towards ra is news.
        if received > 0 {
            tracing::info!(%peer, profile, operation = name, status, received, sent, "request");
        } else {
            tracing::debug!(%peer, profile, operation = name, status, received, sent, "request");
        }
        response
    }

    /// Whoever set up a device with a wrong URL looks here for it. Paths outside of SCEP are those
    /// of scanners, and would leave no room for it.
    fn note_unknown(&self, path: &str, peer: SocketAddr) {
        if path.starts_with("/scep/") && self.unknown.due() {
            let path: String = path.chars().take(LOGGED_PATH).collect();
            tracing::info!(%peer, ?path, "no such profile");
        }
    }

    async fn pki_operation(
        &self,
        profile: &str,
        peer: SocketAddr,
        message: &[u8],
    ) -> Response<Full<Bytes>> {
        let reply = match message {
            [] => Reply::Malformed(der::asn1::Null),
            _ => self.ra.ask(profile, peer, message).await,
        };
        let mut response = match reply {
            Reply::CertRep(message) => {
                content("application/x-pki-message", Bytes::from(Vec::from(message)))
            }
            Reply::Malformed(_) => empty(StatusCode::BAD_REQUEST),
            Reply::NoProfile(_) => empty(StatusCode::NOT_FOUND),
            Reply::Unavailable(seconds) => unavailable(seconds),
        };
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CACHE_CONTROL, no_store);
        response
    }
}

/// The operation's name in RFC 8894.
fn name(operation: &Operation) -> &'static str {
    match operation {
        Operation::GetCaCaps => "GetCACaps",
        Operation::GetCaCert => "GetCACert",
        Operation::PkiOperationGet(_) | Operation::PkiOperationPost { .. } => "PKIOperation",
    }
}

fn refused(refusal: Refusal) -> Response<Full<Bytes>> {
    match refusal {
        Refusal::Operation | Refusal::Message => empty(StatusCode::BAD_REQUEST),
        Refusal::TooLong => empty(StatusCode::URI_TOO_LONG),
        Refusal::Method => {
            let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
            let allow = HeaderValue::from_static("GET, POST");
            response.headers_mut().insert(ALLOW, allow);
            response
        }
    }
}

fn content(media_type: &'static str, content: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content));
    let media_type = HeaderValue::from_static(media_type);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn unavailable(seconds: u32) -> Response<Full<Bytes>> {
    let mut response = empty(StatusCode::SERVICE_UNAVAILABLE);
    let seconds = HeaderValue::from(seconds.clamp(1, MAX_RETRY_AFTER));
    response.headers_mut().insert(RETRY_AFTER, seconds);
    response
}

/// Why a body was not read to its end.
enum BodyFailure {
    TooLarge,
    Slow,
    /// Bad chunks, or the peer is gone.
    Broken,
}

impl BodyFailure {
    fn response(&self) -> Response<Full<Bytes>> {
        empty(match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        })
    }
}

/// Reads a body of at most [`MAX_MESSAGE`] octets.
async fn read<B>(body: &mut B, time: Duration) -> Result<Vec<u8>, BodyFailure>
where
    B: Body<Data = Bytes> + Unpin,
{
    let limit = MAX_MESSAGE as u64;
    if body.size_hint().lower() > limit {
        return Err(BodyFailure::TooLarge);
    }
    let reading = async {
        let mut octets = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| BodyFailure::Broken)?;
            // Trailers mean nothing here.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if octets.len() + data.len() > MAX_MESSAGE {
                return Err(BodyFailure::TooLarge);
            }
            octets.extend_from_slice(&data);
        }
        Ok(octets)
    };
    tokio::time::timeout(time, reading)
        .await
        .unwrap_or(Err(BodyFailure::Slow))
}
