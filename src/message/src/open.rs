//! From a verified message to an opened one: the request inside, and whether it is the signer's.

use core::hint::black_box;

use chancery_protocol::refusal::Refusal;
use chancery_protocol::scep::{Nonce, TransactionId};

use crate::decrypt::Plaintext;
use crate::key::PublicKey;
use crate::message::Requester;
use crate::prove::{Unproved, prove};
use crate::request::{CertificationRequest, Fault, Fields};
use crate::signature;
use crate::verify::{Rejected, Signer, VerifiedMessage};

/// A message whose request is proved to be of the key that signed the message, in possession of
/// the private key. Whether its challenge is worth anything is not known yet.
pub struct OpenedMessage<'m> {
    /// The transactionID.
    pub transaction_id: TransactionId,
    /// The senderNonce.
    pub sender_nonce: Nonce,
    /// Who signed the message.
    pub signer: Signer,
    /// Whom a reply is for.
    pub requester: Requester<'m>,
    /// The request.
    pub request: CertificationRequest,
}

/// Why a message was not opened. A device must see no difference between the two, nor between any
/// two refusals.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<'m> {
    /// The table does not describe the plaintext.
    #[error("a parser child answered with a table that is not true: {cause}")]
    Unproved {
        /// The first rule that is broken.
        cause: Unproved,
        /// For the reply: [`Refusal::Plaintext`].
        rejected: Rejected<'m>,
    },
    /// The request is refused.
    #[error(transparent)]
    Rejected(Rejected<'m>),
}

impl<'m> OpenError<'m> {
    /// What a reply needs, in either case.
    #[must_use]
    pub fn into_rejected(self) -> Rejected<'m> {
        match self {
            Self::Unproved { rejected, .. } | Self::Rejected(rejected) => rejected,
        }
    }
}

impl<'m> VerifiedMessage<'m> {
    /// Reads and checks the request in `plaintext`, as [`Self::decrypt`] gave it. `table_p` is the
    /// child's answer, `None` if that was "malformed".
    ///
    /// Every plaintext costs one verification of a signature, garbage too: then of the message's
    /// own, over the garbage, and the result is thrown away. All fields are read before the first
    /// refusal is chosen, and the padding is asked about after them. What is not the same: the
    /// reading itself, which a structure that breaks off ends early, and the kind of the key.
    /// Whoever answers has to put a fixed time around that.
    ///
    /// # Errors
    /// [`OpenError`]; its refusals are all from after decryption.
    pub fn open(
        self,
        plaintext: &Plaintext,
        table_p: Option<&[u8]>,
    ) -> Result<OpenedMessage<'m>, OpenError<'m>> {
        match self.check(plaintext, table_p) {
            Ok(request) => Ok(OpenedMessage {
                transaction_id: self.header.transaction_id,
                sender_nonce: self.header.sender_nonce,
                signer: self.signer,
                requester: self.header.requester,
                request,
            }),
            Err(Fault::Refused(refusal)) => Err(OpenError::Rejected(self.reject(refusal))),
            Err(Fault::Unproved(cause)) => Err(OpenError::Unproved {
                cause,
                rejected: self.reject(Refusal::Plaintext),
            }),
        }
    }

    fn check(
        &self,
        plaintext: &Plaintext,
        table_p: Option<&[u8]>,
    ) -> Result<CertificationRequest, Fault> {
        let octets = plaintext.as_bytes();
        let fields = table_p.map_or(Err(Refusal::Plaintext.into()), |table| {
            read_fields(octets, table)
        });
        let possession = fields.as_ref().ok().and_then(verify_possession);
        if possession.is_none() {
            let _ = black_box(signature::verify(
                self.checked.signer_key.spki(),
                self.checked.algorithm,
                octets,
                self.signature,
            ));
        }
        let fields = fields?;
        if !plaintext.is_padded() {
            return Err(Refusal::Plaintext.into());
        }
        let public_key = fields.public_key?;
        if !public_key.is_verifiable() {
            return Err(Refusal::KeyQuality.into());
        }
        if possession != Some(true) {
            return Err(Refusal::ProofOfPossession.into());
        }
        self.check_signer(&public_key)?;
        Ok(CertificationRequest {
            public_key,
            names: fields.names?,
            challenge: fields.challenge?,
        })
    }

    /// RFC 8894 §2.3: a certificate made for this message alone is of the key to be certified. Its
    /// subject may be another (appendix A).
    fn check_signer(&self, requested: &PublicKey) -> Result<(), Refusal> {
        match self.signer {
            Signer::SelfSigned if self.checked.signer_key == *requested => Ok(()),
            Signer::SelfSigned => Err(Refusal::SignerMismatch),
            Signer::Other => Err(Refusal::Signer),
        }
    }
}

fn read_fields<'p>(octets: &'p [u8], table: &[u8]) -> Result<Fields<'p>, Fault> {
    let nodes = prove(octets, table)?;
    let root = nodes.root(octets).ok_or(Refusal::Plaintext)?;
    Fields::read(root)
}

/// Whether the request's signature verifies with the key that it asks to certify (RFC 2986 §4.2);
/// `None` if nothing could be verified.
fn verify_possession(fields: &Fields<'_>) -> Option<bool> {
    let key = fields.public_key.as_ref().ok()?;
    let verified = signature::verify(key.spki(), fields.algorithm?, fields.info, fields.signature);
    Some(verified.is_ok())
}
