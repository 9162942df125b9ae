//! The operations of a SCEP server (RFC 8894 §3.5, §4).

use core::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::algorithm::DigestAlgorithm;
use crate::ca_certificates::{CaCertificates, CaCertificatesError};
use crate::http::{Connections, HttpError, HttpResponse, PKI_OPERATION, Url};

/// A server that gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// An answer other than 200.
    #[error("the server answered {status} to {operation} at {url}: {}", remedy(*status, *retry_after))]
    Status {
        /// The operation asked for.
        operation: &'static str,
        /// Where.
        url: Url,
        /// The status code.
        status: u16,
        /// When to try again, if the server says so.
        retry_after: Option<Duration>,
    },
    /// GetCACert brought no certificates.
    #[error(transparent)]
    CaCertificates(#[from] CaCertificatesError),
}

fn remedy(status: u16, retry_after: Option<Duration>) -> String {
    match (status, retry_after) {
        (503, Some(after)) => format!("try again in {} s", after.as_secs()),
        (503, None) => "try again later".into(),
        (404, _) => "is the profile's name right?".into(),
        (400, _) => "it could not read the message".into(),
        _ => "check the URL".into(),
    }
}

/// How a PKIOperation travels (RFC 8894 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// POST of the octets.
    Post,
    /// GET with the message in base64, percent-encoded.
    Get,
}

/// What the server announces (§3.5.2). Keywords compare without case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    keywords: Vec<String>,
}

impl Caps {
    /// Reads the body of the answer: keywords on lines of LF or CRLF; unknown ones are kept.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let keywords = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Self {
            keywords: keywords.map(Into::into).collect(),
        }
    }

    /// The keywords as sent.
    #[must_use]
    pub fn keywords(&self) -> &[String] {
        &self.keywords
    }

    /// Whether `keyword` is announced, itself or through SCEPStandard, which implies AES,
    /// POSTPKIOperation and SHA-256.
    #[must_use]
    pub fn has(&self, keyword: &str) -> bool {
        let announced = |keyword: &str| {
            self.keywords
                .iter()
                .any(|known| known.eq_ignore_ascii_case(keyword))
        };
        let implied = [AES, POST, DigestAlgorithm::Sha256.keyword()]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(keyword));
        announced(keyword) || implied && announced("SCEPStandard")
    }
}

/// AES in any key length; the standard has no keyword for one of them.
pub(crate) const AES: &str = "AES";
/// POST of a PKIOperation.
pub(crate) const POST: &str = "POSTPKIOperation";

/// One SCEP server. Connections are kept between operations.
pub struct Server {
    url: Url,
    connections: Connections,
}

impl Server {
    /// The server at `url`; nothing is sent yet.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            url,
            connections: Connections::default(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// GetCACaps. An HTTP error reads as no capabilities (§3.5.2), but for 503, which speaks of
    /// now and not of the server.
    ///
    /// # Errors
    /// [`ServerError::Http`] and [`ServerError::Status`] with 503.
    pub async fn get_ca_caps(&self) -> Result<Caps, ServerError> {
        match self.announced().await {
            Err(ServerError::Status { status, .. }) if status != 503 => Ok(Caps::read(&[])),
            announced => announced,
        }
    }

    /// GetCACaps, for whoever cannot go on without capabilities: an HTTP error stays one, since it
    /// says more than their absence.
    pub(crate) async fn announced(&self) -> Result<Caps, ServerError> {
        let response = self.get("operation=GetCACaps").await?;
        match response.status {
            200 => Ok(Caps::read(&response.body)),
            _ => Err(self.status("GetCACaps", &response)),
        }
    }

    /// GetCACert.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn get_ca_cert(&self) -> Result<CaCertificates, ServerError> {
        let response = self.get("operation=GetCACert").await?;
        if response.status != 200 {
            return Err(self.status("GetCACert", &response));
        }
        Ok(CaCertificates::read(&response.body)?)
    }

    /// PKIOperation: sends a pkiMessage, brings the answer of any status.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn pki_operation(
        &self,
        transport: Transport,
        message: &[u8],
    ) -> Result<HttpResponse, HttpError> {
        match transport {
            Transport::Post => {
                let body = Bytes::copy_from_slice(message);
                self.connections
                    .exchange(&self.url, Method::POST, PKI_OPERATION, body)
                    .await
            }
            Transport::Get => {
                let text = STANDARD.encode(message);
                let text = utf8_percent_encode(&text, NON_ALPHANUMERIC);
                self.get(&format!("{PKI_OPERATION}&message={text}")).await
            }
        }
    }

    /// A GET with any query, over a kept connection.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn get(&self, query: &str) -> Result<HttpResponse, HttpError> {
        self.connections
            .exchange(&self.url, Method::GET, query, Bytes::new())
            .await
    }

    pub(crate) fn status(&self, operation: &'static str, response: &HttpResponse) -> ServerError {
        ServerError::Status {
            operation,
            url: self.url.clone(),
            status: response.status,
            retry_after: response.retry_after(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_lines_of_either_kind() {
        let caps = Caps::read(b"AES\r\nSHA-512\npostpkioperation\n\n Example.com-x \n");
        assert_eq!(
            caps.keywords(),
            ["AES", "SHA-512", "postpkioperation", "Example.com-x"]
        );
        assert!(caps.has("POSTPKIOperation") && caps.has("sha-512"));
        assert!(!caps.has("SHA-256"));
        assert!(Caps::read(b"").keywords().is_empty());
    }

    #[test]
    fn the_standard_keyword_implies_three_others() {
        let caps = Caps::read(b"SCEPStandard");
        assert!(caps.has("AES") && caps.has("POSTPKIOperation") && caps.has("SHA-256"));
        assert!(!caps.has("SHA-512") && !caps.has("Renewal"));
    }
}
