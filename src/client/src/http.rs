//! HTTP as SCEP uses it (RFC 8894 §4.1), over connections that are kept.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one exchange may take, the server's own patience included.
const EXCHANGE: Duration = Duration::from_secs(60);
/// The largest body that is taken, in octets.
const MAX_BODY: usize = 1024 * 1024;

/// Where a server is: `http://host[:port]/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    path: String,
}

/// A text that is no URL of a SCEP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A scheme other than http.
    #[error(
        "the URL does not begin with http://, the only scheme of this client; SCEP protects its messages itself"
    )]
    Scheme,
    /// No host, or one with characters that no host has.
    #[error("the URL has no usable host, expected http://host[:port]/path")]
    Host,
    /// A port that is no number from 1 to 65535.
    #[error("the URL's port is not a number from 1 to 65535")]
    Port,
    /// A path with a query, a fragment, or characters that need escaping.
    #[error("the URL's path has a query, a fragment or characters that need %-escapes")]
    Path,
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(UrlError::Scheme);
        }
        let start = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(start);
        let (host, port) = match authority.rfind(':') {
            // A colon inside of brackets belongs to an IPv6 address.
            Some(colon) if !authority.ends_with(']') => {
                let (host, port) = authority.split_at(colon);
                let digits = port.trim_start_matches(':');
                if !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(UrlError::Port);
                }
                (host, digits.parse().map_err(|_| UrlError::Port)?)
            }
            _ => (authority, 80),
        };
        if port == 0 {
            return Err(UrlError::Port);
        }
        if !is_host(host) {
            return Err(UrlError::Host);
        }
        let path = if path.is_empty() { "/" } else { path };
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&b);
        if !path.bytes().all(fits) {
            return Err(UrlError::Path);
        }
        Ok(Self {
            host: host.into(),
            port,
            path: path.into(),
        })
    }
}

fn is_host(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.bytes().all(fits)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

impl Url {
    fn authority(&self) -> String {
        match self.port {
            80 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }

    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// An exchange that brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection.
    #[error("cannot connect to {authority}: {source}, check the URL and that the server runs")]
    Connect {
        /// Host and port.
        authority: String,
        /// What the system says.
        source: io::Error,
    },
    /// A deadline passed.
    #[error("{authority} did not {what} in time, try again later")]
    Timeout {
        /// Host and port.
        authority: String,
        /// What it did not do.
        what: &'static str,
    },
    /// Something else than HTTP/1.1 came, or nothing.
    #[error("the exchange with {authority} broke off: {source}, try again")]
    Exchange {
        /// Host and port.
        authority: String,
        /// What hyper says.
        source: hyper::Error,
    },
    /// A body beyond the limit.
    #[error("the answer of {0} is larger than {MAX_BODY} octets, check the URL")]
    TooLarge(String),
    /// A query that cannot stand in a request line.
    #[error("the query cannot stand in a URL, escape it")]
    Query,
}

/// An answer of any status.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl HttpResponse {
    /// A header field's value, where it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Retry-After in its form of seconds (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header(RETRY_AFTER.as_str())?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

/// One GET over a connection of its own. `query` goes out as given, behind the `?`.
///
/// # Errors
/// [`HttpError`].
pub async fn get_raw(url: &Url, query: &str) -> Result<HttpResponse, HttpError> {
    Connections::default()
        .exchange(url, Method::GET, query, Bytes::new())
        .await
}

/// One POST of a PKIOperation over a connection of its own.
///
/// # Errors
/// [`HttpError`].
pub async fn post_raw(url: &Url, body: impl Into<Bytes>) -> Result<HttpResponse, HttpError> {
    Connections::default()
        .exchange(url, Method::POST, PKI_OPERATION, body.into())
        .await
}

pub(crate) const PKI_OPERATION: &str = "operation=PKIOperation";

type Sender = SendRequest<Full<Bytes>>;

/// At most one idle connection to one server.
#[derive(Default)]
pub(crate) struct Connections {
    idle: Mutex<Option<Sender>>,
}

impl Connections {
    pub(crate) async fn exchange(
        &self,
        url: &Url,
        method: Method,
        query: &str,
        body: Bytes,
    ) -> Result<HttpResponse, HttpError> {
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("{}?{query}", url.path))
            .header(HOST, url.authority());
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/x-pki-message");
        }
        let request = request
            .body(Full::new(body))
            .map_err(|_| HttpError::Query)?;
        let answer = timeout(EXCHANGE, self.send(url, request)).await;
        answer.map_err(|_| HttpError::Timeout {
            authority: url.authority(),
            what: "answer",
        })?
    }

    async fn send(
        &self,
        url: &Url,
        mut request: Request<Full<Bytes>>,
    ) -> Result<HttpResponse, HttpError> {
        let broken = |source| HttpError::Exchange {
            authority: url.authority(),
            source,
        };
        loop {
            let (mut sender, kept) = match self.take().await {
                Some(sender) => (sender, true),
                None => (connect(url).await?, false),
            };
            let response = match sender.try_send_request(request).await {
                Ok(response) => response,
                // A kept connection that the server has closed gives the request back unsent.
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) if kept => {
                        request = unsent;
                        continue;
                    }
                    _ => return Err(broken(failure.into_error())),
                },
            };
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await;
            let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(source) => broken(*source),
                // The only other error of a limited body is its limit.
                Err(_) => HttpError::TooLarge(url.authority()),
            })?;
            self.keep(sender);
            return Ok(HttpResponse {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.to_bytes(),
            });
        }
    }

    /// A connection that broke while idle is dropped here.
    async fn take(&self) -> Option<Sender> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut sender = idle?;
        sender.ready().await.ok().map(|()| sender)
    }

    /// `idle` holds the connection, and is locked for no longer than a move.
    fn keep(&self, sender: Sender) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }
}

async fn connect(url: &Url) -> Result<Sender, HttpError> {
    let authority = || url.authority();
    let stream = timeout(CONNECT, TcpStream::connect((url.bare_host(), url.port)))
        .await
        .map_err(|_| HttpError::Timeout {
            authority: authority(),
            what: "take the connection",
        })?
        .map_err(|source| HttpError::Connect {
            authority: authority(),
            source,
        })?;
    // One request, one answer: waiting for more to send only costs time.
    stream
        .set_nodelay(true)
        .map_err(|source| HttpError::Connect {
            authority: authority(),
            source,
        })?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|source| HttpError::Exchange {
            authority: authority(),
            source,
        })?;
    // Ends when the sender is dropped; what breaks it is told to the exchange in hand.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_written() {
        for text in [
            "http://127.0.0.1:8080/scep/devices",
            "http://ca.example/",
            "http://[::1]:8080/cgi-bin/pkiclient.exe",
            "http://[::1]/",
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), text);
        }
        assert_eq!(
            "http://a:80".parse::<Url>().unwrap().to_string(),
            "http://a/"
        );
        assert_eq!(
            "HTTP://a/x".parse::<Url>().unwrap().to_string(),
            "http://a/x"
        );
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for (text, error) in [
            ("https://a/", UrlError::Scheme),
            ("a/b", UrlError::Scheme),
            ("http:///x", UrlError::Host),
            ("http://user@a/", UrlError::Host),
            ("http://a b/", UrlError::Host),
            ("http://[::1/", UrlError::Host),
            ("http://[x]/", UrlError::Host),
            ("http://a:/", UrlError::Port),
            ("http://a:0/", UrlError::Port),
            ("http://a:65536/", UrlError::Port),
            ("http://a:+1/", UrlError::Port),
            ("http://a/?x=y", UrlError::Path),
            ("http://a/#x", UrlError::Path),
            ("http://a/ b", UrlError::Path),
        ] {
            assert_eq!(text.parse::<Url>(), Err(error), "{text}");
        }
    }
}
