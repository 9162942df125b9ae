//! A SCEP client (RFC 8894): `chancery enroll`, the tests of the server, and the load maker.
//!
//! Runs on a device or on an operator's machine, in no process of the appliance, and is trusted
//! with nothing of it: it holds its own key and one challenge, and believes what it is told to
//! trust ([`Trust`]). A challenge leaves only for a certificate that chains to the trusted root.
//!
//! [`enroll`] does one whole enrolment. Below it, [`CsrBuilder`], [`Envelope`] and
//! [`MessageBuilder`] make messages of which each part can be another than the standard wants,
//! and [`CertRep`] takes a reply apart.
#![forbid(unsafe_code)]

mod algorithm;
mod asn1;
mod ca_certificates;
mod cert_rep;
mod certificate;
mod command;
mod csr;
mod enrol;
mod envelope;
mod http;
mod key;
mod message;
mod path;
mod server;
mod signer;

pub use algorithm::{ContentCipher, DigestAlgorithm, KeyTransport, SignatureForm};
pub use ca_certificates::{CaCertificates, CaCertificatesError};
pub use cert_rep::{CertRep, CertRepError};
pub use certificate::{Certificate, CertificateError};
pub use command::{Challenge, CommandError, EnrollOptions, enroll_command, enroll_to_folder};
pub use csr::{CsrBuilder, StringType};
pub use enrol::{EnrolError, EnrolRequest, Enrolled, enroll};
pub use envelope::{Envelope, degenerate};
pub use http::{HttpError, HttpResponse, Url, UrlError, get_raw, post_raw};
pub use key::{ClientKey, KeyError, KeyKind, UnknownKeyKind};
pub use message::{BuildError, Message, MessageBuilder, SignerIdentification};
pub use path::{Distrust, Trust, TrustError};
pub use server::{Caps, Server, ServerError, Transport};
pub use signer::Signer;
