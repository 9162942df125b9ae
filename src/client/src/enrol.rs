//! One enrolment, from GetCACaps to the certificate (RFC 8894 §2.5, §4.3).

use std::time::SystemTime;

use chancery_protocol::name::{DistinguishedName, GeneralName};
use chancery_protocol::scep::{FailInfo, PkiStatus};
use chancery_protocol::wire::{Digest, Secret};

use crate::algorithm::{ContentCipher, DigestAlgorithm, KeyTransport};
use crate::ca_certificates::CaCertificates;
use crate::cert_rep::{CertRep, CertRepError};
use crate::certificate::Certificate;
use crate::csr::CsrBuilder;
use crate::envelope::Envelope;
use crate::http::HttpError;
use crate::key::ClientKey;
use crate::message::{BuildError, Message, MessageBuilder};
use crate::path::{Trust, TrustError, anchors, path, path_of_new};
use crate::server::{self, Server, ServerError, Transport};
use crate::signer::Signer;

/// What to ask for, of whom, and how.
pub struct EnrolRequest<'a> {
    /// The key to certify, which also signs the message: RSA.
    pub key: &'a ClientKey,
    /// The subject to ask for.
    pub subject: DistinguishedName,
    /// The subject alternative names to ask for.
    pub sans: Vec<GeneralName>,
    /// The challengePassword.
    pub challenge: Secret,
    /// The digest of request and message.
    pub digest: DigestAlgorithm,
    /// The envelope's cipher.
    pub cipher: ContentCipher,
    /// The envelope's key transport.
    pub key_transport: KeyTransport,
    /// POST or GET.
    pub transport: Transport,
    /// Which root to believe.
    pub trust: Trust,
    /// The time at which certificates have to be valid.
    pub now: SystemTime,
}

impl<'a> EnrolRequest<'a> {
    /// A request with what every server of RFC 8894 has: SHA-256, AES-128-CBC, RSAES-PKCS1-v1_5
    /// and POST, trusting the root as served, at the system's time.
    #[must_use]
    pub fn new(key: &'a ClientKey, subject: DistinguishedName, challenge: Secret) -> Self {
        Self {
            key,
            subject,
            sans: Vec::new(),
            challenge,
            digest: DigestAlgorithm::Sha256,
            cipher: ContentCipher::Aes128Cbc,
            key_transport: KeyTransport::Pkcs1v15,
            transport: Transport::Post,
            trust: Trust::AsServed,
            now: SystemTime::now(),
        }
    }
}

/// What an enrolment brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The certificate, in DER.
    pub certificate: Vec<u8>,
    /// Its issuers in DER, nearest first, the root last.
    pub chain: Vec<Vec<u8>>,
    /// SHA-256 of the root: the pinned one, or the one that the server served.
    pub root_sha256: Digest,
}

/// An enrolment without a certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The server cannot be reached or answers wrongly.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The server does not say that it can do what was chosen.
    #[error("the server does not announce {0} in GetCACaps, choose another algorithm or transport")]
    NotAnnounced(&'static str),
    /// The server's certificates do not lead to the trusted root.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No certificate to encrypt for.
    #[error(
        "the server serves no RSA certificate that may receive a request, ask its operator for an RA certificate with keyEncipherment"
    )]
    NoRecipient,
    /// The message could not be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The reply cannot be believed or read.
    #[error(transparent)]
    Reply(#[from] CertRepError),
    /// The reply belongs to another request.
    #[error("the reply has the {0} of another request: it was mixed up or replayed, try again")]
    OtherRequest(&'static str),
    /// pkiStatus FAILURE.
    #[error("the server refused the request: {}", refusal(*fail_info, fail_info_text.as_deref()))]
    Refused {
        /// failInfo.
        fail_info: FailInfo,
        /// failInfoText, from outside.
        fail_info_text: Option<String>,
    },
    /// pkiStatus PENDING.
    #[error(
        "the request waits for an operator's approval as transaction {transaction_id}, enrol again with the same key once it is given"
    )]
    Pending {
        /// The transactionID under which it waits.
        transaction_id: String,
    },
    /// The reply holds no certificate for the key.
    #[error("the reply holds no certificate for the key that asked, ask the server's operator")]
    OtherKey,
}

impl From<HttpError> for EnrolError {
    fn from(error: HttpError) -> Self {
        Self::Server(error.into())
    }
}

fn refusal(info: FailInfo, text: Option<&str>) -> String {
    let meaning = match info {
        FailInfo::BadAlg => "badAlg, it does not accept an algorithm or the kind of key",
        FailInfo::BadMessageCheck => "badMessageCheck, the message did not verify",
        FailInfo::BadRequest => {
            "badRequest, the challenge may be unknown, used, expired or for other names; its operator can see the reason in the audit"
        }
        FailInfo::BadTime => "badTime, check the clock here",
        FailInfo::BadCertId => "badCertId, it knows no such certificate",
    };
    // Quoted and shortened: the words come from outside and go to a terminal.
    let said = text.map(|text| text.chars().take(200).collect::<String>());
    said.map_or_else(
        || meaning.into(),
        |said| format!("{meaning} (it says {said:?})"),
    )
}

/// Enrols once. The challenge leaves only in an envelope for a certificate that leads to the
/// trusted root, and what comes back is believed only if such a certificate signed it, it answers
/// this very request, and its certificate is for this key and leads to that root.
///
/// # Errors
/// [`EnrolError`].
pub async fn enroll(server: &Server, request: &EnrolRequest<'_>) -> Result<Enrolled, EnrolError> {
    check_caps(server, request).await?;
    let served = server.get_ca_cert().await?;
    let trusted = Trusted::among(&served, request)?;
    let signer = Signer::self_signed(request.key, &request.subject, request.now)?;
    let message = pkcs_req(request, &signer, trusted.recipient)?;
    let response = server
        .pki_operation(request.transport, &message.der)
        .await?;
    if response.status != 200 {
        return Err(server.status("PKIOperation", &response).into());
    }
    let reply = CertRep::read(&response.body)?;
    let reply_signer = reply.signer(trusted.signers.iter().copied());
    reply.verify(reply_signer.ok_or(CertRepError::UnknownSigner)?)?;
    if reply.transaction_id != message.transaction_id {
        return Err(EnrolError::OtherRequest("transactionID"));
    }
    if reply.recipient_nonce != message.sender_nonce {
        return Err(EnrolError::OtherRequest("recipientNonce"));
    }
    match (reply.status, reply.fail_info) {
        (PkiStatus::Success, _) => {}
        (PkiStatus::Pending, _) => {
            return Err(EnrolError::Pending {
                transaction_id: message.transaction_id,
            });
        }
        (PkiStatus::Failure, fail_info) => {
            return Err(EnrolError::Refused {
                fail_info: fail_info.unwrap_or(FailInfo::BadRequest),
                fail_info_text: reply.fail_info_text,
            });
        }
    }
    let issued = reply.open(&signer.certificate, request.key)?;
    trusted.accept(&issued, request)
}

async fn check_caps(server: &Server, request: &EnrolRequest<'_>) -> Result<(), EnrolError> {
    let caps = server.announced().await?;
    let needed = [
        (request.transport == Transport::Post).then_some(server::POST),
        Some(server::AES),
        Some(request.digest.keyword()),
    ];
    match needed
        .into_iter()
        .flatten()
        .find(|keyword| !caps.has(keyword))
    {
        Some(keyword) => Err(EnrolError::NotAnnounced(keyword)),
        None => Ok(()),
    }
}

/// The PKCSReq. The signer's certificate repeats the request's subject.
fn pkcs_req(
    request: &EnrolRequest<'_>,
    signer: &Signer<'_>,
    recipient: &Certificate,
) -> Result<Message, BuildError> {
    let csr = CsrBuilder::new(request.key, &request.subject)
        .sans(&request.sans)
        .challenge(&request.challenge)
        .digest(request.digest)
        .build()?;
    let envelope = Envelope::to(recipient)
        .cipher(request.cipher)
        .key_transport(request.key_transport);
    MessageBuilder::new(signer)
        .digest(request.digest)
        .build(&envelope, &csr)
}

/// The served certificates that lead to the trusted root.
struct Trusted<'a> {
    authorities: Vec<&'a Certificate>,
    anchors: Vec<&'a Certificate>,
    recipient: &'a Certificate,
    signers: Vec<&'a Certificate>,
}

impl<'a> Trusted<'a> {
    fn among(served: &'a CaCertificates, request: &EnrolRequest<'_>) -> Result<Self, EnrolError> {
        let anchors = anchors(served, &request.trust)?;
        let authorities = served.authorities();
        let leads =
            |certificate: &Certificate| path(certificate, &authorities, &anchors, request.now);
        let Some(recipient) = served.encryption_where(|c| leads(c).is_ok()) else {
            let untrusted = served.encryption().ok_or(EnrolError::NoRecipient)?;
            leads(untrusted)?;
            return Err(EnrolError::NoRecipient);
        };
        let signers = served
            .signers()
            .into_iter()
            .filter(|signer| leads(signer).is_ok());
        let signers = signers.collect();
        Ok(Self {
            authorities,
            anchors,
            recipient,
            signers,
        })
    }

    /// Picks the certificate for our key (RFC 8894 §3.3.2.1 lets others come along) and checks
    /// that it leads to the same root.
    fn accept(
        &self,
        issued: &[Certificate],
        request: &EnrolRequest<'_>,
    ) -> Result<Enrolled, EnrolError> {
        let ours = |c: &&Certificate| c.public_key_info() == request.key.public_key_info();
        let certificate = issued.iter().find(ours).ok_or(EnrolError::OtherKey)?;
        let along = issued
            .iter()
            .filter(|certificate| certificate.is_authority());
        let pool: Vec<_> = self.authorities.iter().copied().chain(along).collect();
        let chain = path_of_new(certificate, &pool, &self.anchors, request.now)?;
        let root = chain.last().ok_or(EnrolError::OtherKey)?;
        Ok(Enrolled {
            certificate: certificate.as_der().to_vec(),
            root_sha256: root.sha256(),
            chain: chain
                .iter()
                .map(|issuer| issuer.as_der().to_vec())
                .collect(),
        })
    }
}
