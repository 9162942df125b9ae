//! From a signed message to a verified one: everything that can be judged before decryption.

use chancery_protocol::refusal::Refusal;
use chancery_protocol::scep::{MessageType, Nonce, TransactionId};
use chancery_protocol::wire::Secret;

use crate::algorithm::{ContentCipher, SignatureAlgorithm};
use crate::decrypt::{self, Plaintext};
use crate::envelope::{Envelope, Recipient};
use crate::key::{PublicKey, PublicKeyKind};
use crate::message::{Header, Requester, Signed, SignedMessage};
use crate::signature;
use crate::tag::{self, oid};

/// A PkcsReq that was signed by the key of the certificate it names, over this envelope.
pub struct VerifiedMessage<'m> {
    pub(crate) header: Box<Header<'m>>,
    pub(crate) signer: Signer,
    pub(crate) signature: &'m [u8],
    pub(crate) checked: Checked<'m>,
}

/// What [`SignedMessage::verify`] found to be right.
pub(crate) struct Checked<'m> {
    pub(crate) signer_key: PublicKey,
    pub(crate) algorithm: SignatureAlgorithm,
    envelope: Envelope<'m>,
    cipher: ContentCipher,
    vector: [u8; 16],
}

/// Who signed a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The holder of a certificate whose issuer and subject are the same octets. It proves nothing
    /// but the possession of its key (RFC 8894 §2.3).
    SelfSigned,
    /// The holder of any other certificate. Such messages are refused by this release.
    Other,
}

/// A message that is refused: why, and what a CertRep with FAILURE needs.
#[derive(Debug, thiserror::Error)]
#[error("refused: {refusal}")]
pub struct Rejected<'m> {
    /// The reason.
    pub refusal: Refusal,
    header: Box<Header<'m>>,
}

impl<'m> SignedMessage<'m> {
    /// Verifies the message: its type, its algorithms, who signed it, signedAttrs, envelope, digest
    /// and signature, the cheapest first. Nothing here depends on a secret, so that it matters to
    /// nobody how far a refused message came.
    ///
    /// # Errors
    /// [`Rejected`], always with a [`Refusal`] from before decryption.
    pub fn verify(self) -> Result<VerifiedMessage<'m>, Rejected<'m>> {
        let Self {
            header,
            signed,
            envelope,
        } = self;
        match check(&signed, envelope) {
            Ok(checked) => Ok(VerifiedMessage {
                header,
                signer: signed.signer(),
                signature: signed.signature,
                checked,
            }),
            Err(refusal) => Err(Rejected { refusal, header }),
        }
    }
}

fn check<'m>(signed: &Signed<'_>, envelope: Option<Envelope<'m>>) -> Result<Checked<'m>, Refusal> {
    let (algorithm, key) = signed.check_form()?;
    let (envelope, cipher, vector) = check_envelope(envelope)?;
    let digest = signature::digest_of(algorithm.digest(), envelope.content());
    if signed.message_digest? != digest.as_ref() {
        return Err(Refusal::MessageDigest);
    }
    signature::verify(
        key.spki(),
        algorithm,
        &signed.signed_octets(),
        signed.signature,
    )
    .map_err(|_| Refusal::Signature)?;
    Ok(Checked {
        signer_key: key.clone(),
        algorithm,
        envelope,
        cipher,
        vector,
    })
}

impl Signed<'_> {
    /// What costs no cryptography.
    fn check_form(&self) -> Result<(SignatureAlgorithm, &PublicKey), Refusal> {
        match self.message_type? {
            Some(MessageType::PkcsReq) => {}
            Some(
                MessageType::RenewalReq
                | MessageType::CertPoll
                | MessageType::GetCert
                | MessageType::GetCrl,
            )
            | None => return Err(Refusal::MessageType),
        }
        let algorithm = self.algorithm.ok_or(Refusal::Algorithm)?;
        let key = self.key.as_ref().ok_or(Refusal::Algorithm)?;
        match key.kind() {
            // The reply is enveloped for the signer, and an EC key cannot take a key transport.
            PublicKeyKind::Ec { .. } => return Err(Refusal::SignerKey),
            PublicKeyKind::Rsa { .. } if !key.is_verifiable() => {
                return Err(Refusal::Algorithm);
            }
            PublicKeyKind::Rsa { .. } => {}
        }
        match self.signer() {
            Signer::SelfSigned => {}
            Signer::Other => return Err(Refusal::Signer),
        }
        // RFC 5652 §11.1: contentType is that of the eContent; RFC 8894 §3.2: both are id-data.
        if !self.attributes_definite
            || self.content_type_attribute? != oid::DATA
            || self.content_type != oid::DATA
        {
            return Err(Refusal::SignedAttributes);
        }
        self.message_digest?;
        Ok((algorithm, key))
    }

    fn signer(&self) -> Signer {
        if self.self_signed {
            Signer::SelfSigned
        } else {
            Signer::Other
        }
    }

    /// RFC 5652 §5.4: signedAttrs are signed with the tag of a SET OF in place of `[0]`. The octets
    /// are those received: sorting them would only let through what the client did not sign.
    fn signed_octets(&self) -> Vec<u8> {
        let mut octets = self.attributes.to_vec();
        if let Some(first) = octets.first_mut() {
            *first = tag::SET;
        }
        octets
    }
}

fn check_envelope(
    envelope: Option<Envelope<'_>>,
) -> Result<(Envelope<'_>, ContentCipher, [u8; 16]), Refusal> {
    // Without an envelope there is nobody that it is for.
    let envelope = envelope.ok_or(Refusal::Recipient)?;
    let (cipher, vector) = envelope.cipher.ok_or(Refusal::Algorithm)?;
    if !envelope.holds_data {
        return Err(Refusal::Algorithm);
    }
    if envelope.recipients().next().is_none() {
        // A password instead of a key (RFC 8894 §3.1) is an algorithm that is not supported.
        return Err(if envelope.has_other_recipients() {
            Refusal::Algorithm
        } else {
            Refusal::Recipient
        });
    }
    Ok((envelope, cipher, vector))
}

impl<'m> VerifiedMessage<'m> {
    /// The transactionID.
    #[must_use]
    pub fn transaction_id(&self) -> &TransactionId {
        &self.header.transaction_id
    }

    /// The senderNonce.
    #[must_use]
    pub fn sender_nonce(&self) -> &Nonce {
        &self.header.sender_nonce
    }

    /// The messageType: of what is verified, PkcsReq.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        MessageType::PkcsReq
    }

    /// Whom a reply is for.
    #[must_use]
    pub fn requester(&self) -> Requester<'m> {
        self.header.requester
    }

    /// Who signed.
    #[must_use]
    pub fn signer(&self) -> Signer {
        self.signer
    }

    /// The recipients to whom an encrypted content-encryption key is addressed; at least one.
    pub fn recipients(&self) -> impl Iterator<Item = Recipient<'_>> {
        self.checked.envelope.recipients()
    }

    /// The content encryption algorithm.
    #[must_use]
    pub fn cipher(&self) -> ContentCipher {
        self.checked.cipher
    }

    /// Decrypts the content. Never fails: a wrong key gives garbage, and so does a key of the wrong
    /// length, at the same cost. What is wrong shows in [`Self::open`] alone.
    #[must_use]
    pub fn decrypt(&self, content_key: &Secret) -> Plaintext {
        decrypt::decrypt(
            self.checked.cipher,
            &self.checked.vector,
            &self.checked.envelope.encrypted_content(),
            content_key,
        )
    }

    /// Refuses the message for a reason found elsewhere.
    #[must_use]
    pub fn reject(self, refusal: Refusal) -> Rejected<'m> {
        Rejected {
            refusal,
            header: self.header,
        }
    }
}

impl<'m> Rejected<'m> {
    /// The transactionID.
    #[must_use]
    pub fn transaction_id(&self) -> &TransactionId {
        &self.header.transaction_id
    }

    /// The senderNonce.
    #[must_use]
    pub fn sender_nonce(&self) -> &Nonce {
        &self.header.sender_nonce
    }

    /// Whom the reply is for. A claim where the refusal is from before the signature.
    #[must_use]
    pub fn requester(&self) -> Requester<'m> {
        self.header.requester
    }
}
