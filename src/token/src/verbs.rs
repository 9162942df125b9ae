//! The verbs: what each key does, and nothing else.

use core::hint::black_box;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use chancery_protocol::wire::Secret;
use cryptoki::context::Function;
use cryptoki::error::{Error as CryptokiError, Result as CryptokiResult};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session as RawSession;
use der::asn1::UintRef;
use der::{Encode, Sequence};
use zeroize::Zeroizing;

use crate::error::{KeyFault, TokenError};
use crate::key::{Key, Record};
use crate::public_key::KeyAlgorithm;
use crate::role::{Authenticate, Checkpoint, Decrypt, Issue, Respond};
use crate::session::Session;

impl Key<Issue> {
    /// Signs a TBSCertificate or TBSCertList that the caller has assembled and recorded. Returns
    /// the contents of signatureValue for [`Key::signature_algorithm`]; the caller verifies them.
    ///
    /// # Errors
    /// [`TokenError`]. Calling again must be with the same octets.
    pub fn issue(&self, session: &mut Session, tbs: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.record().sign(session, tbs)
    }

    /// The algorithm of this key's signatures.
    #[must_use]
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        match self
            .record()
            .identity()
            .public_key()
            .map(|public| public.algorithm)
        {
            Some(KeyAlgorithm::P384) => SignatureAlgorithm::EcdsaWithSha384,
            Some(KeyAlgorithm::P256) => SignatureAlgorithm::EcdsaWithSha256,
            _ => SignatureAlgorithm::Sha256WithRsaEncryption,
        }
    }
}

impl Key<Decrypt> {
    /// Decrypts a content key of `length` octets. Whatever goes wrong, the answer is a random key
    /// of that length, drawn beforehand on every request (RFC 3218 §2.3.2), which then fails like
    /// any wrong key: nothing here tells a good ciphertext from a bad one, and nothing is logged.
    ///
    /// So the result says nothing about the token's health either; [`Session::self_test`] does.
    /// The session is kept as it is, after success and failure alike, until the caller renews it.
    ///
    /// Without random octets from the operating system this aborts the process.
    #[must_use]
    pub fn decrypt(
        &self,
        session: &mut Session,
        transport: KeyTransport,
        encrypted: &[u8],
        length: usize,
    ) -> Secret {
        let mut substitute = Zeroizing::new(vec![0; length]);
        if aws_lc_rs::rand::fill(&mut substitute).is_err() {
            tracing::error!(
                "the operating system's random number generator failed; ending the process"
            );
            std::process::abort();
        }
        let decrypted = session.run(self.record(), |session, key| {
            match session.decrypt(&transport.mechanism(), key, encrypted) {
                Ok(decrypted) => Ok(Some(Zeroizing::new(decrypted))),
                // Only C_Decrypt has seen the ciphertext. What fails before it does is the
                // session's or the handle's fault, and may be mended without telling anything.
                Err(CryptokiError::Pkcs11(_, Function::Decrypt)) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let decrypted = decrypted.ok().flatten().unwrap_or_default();
        select(&decrypted, &substitute)
    }
}

impl Key<Respond> {
    /// Signs the DER-encoded signedAttrs of a CertRep, as SET OF (RFC 5652 §5.4), with RSA
    /// PKCS#1 v1.5.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn respond(
        &self,
        session: &mut Session,
        digest: DigestAlgorithm,
        signed_attributes: &[u8],
    ) -> Result<Vec<u8>, TokenError> {
        let info = digest.info(signed_attributes);
        session.run(self.record(), |session, key| {
            session.sign(&Mechanism::RsaPkcs, key, &info)
        })
    }
}

impl Key<Authenticate> {
    /// The HMAC-SHA256 (RFC 2104) of `message`, which the caller encodes in DER.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn authenticate(
        &self,
        session: &mut Session,
        message: &[u8],
    ) -> Result<[u8; 32], TokenError> {
        self.record().mac(session, message)
    }

    /// Whether `mac` is the one of `message`, compared in constant time.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(
        &self,
        session: &mut Session,
        message: &[u8],
        mac: &[u8],
    ) -> Result<bool, TokenError> {
        let expected = Zeroizing::new(self.authenticate(session, message)?);
        Ok(verify_slices_are_equal(expected.as_slice(), mac).is_ok())
    }

    /// The value by which this key is pinned, as [`Pinned::Check`](crate::Pinned::Check).
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn check_value(&self, session: &mut Session) -> Result<[u8; 32], TokenError> {
        self.record().mac(session, CHECK_TEXT)
    }
}

impl Key<Checkpoint> {
    /// Signs the text of a checkpoint's note (C2SP signed-note), up to and with its last newline.
    /// Returns an ECDSA signature with SHA-256, in DER.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn checkpoint(
        &self,
        session: &mut Session,
        note_text: &[u8],
    ) -> Result<Vec<u8>, TokenError> {
        self.record().sign(session, note_text)
    }
}

/// How a content key is encrypted to the RA (RFC 5652 §6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyTransport {
    /// RSAES-PKCS1-v1_5 (RFC 3370 §4.2.1).
    Pkcs1v15,
    /// RSAES-OAEP with SHA-1 for hash and mask, and no label (RFC 3560 §2.2).
    OaepSha1,
}

impl KeyTransport {
    pub(crate) fn mechanism(self) -> Mechanism<'static> {
        match self {
            Self::Pkcs1v15 => Mechanism::RsaPkcs,
            Self::OaepSha1 => Mechanism::RsaPkcsOaep(PkcsOaepParams::new(
                MechanismType::SHA1,
                PkcsMgfType::MGF1_SHA1,
                PkcsOaepSource::empty(),
            )),
        }
    }
}

/// The algorithm of an issuing key's signatures, by its name in RFC 5912.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 4055 §5).
    Sha256WithRsaEncryption,
    /// ECDSA with SHA-256 (RFC 5758 §3.2), a DER-encoded Ecdsa-Sig-Value.
    EcdsaWithSha256,
    /// ECDSA with SHA-384 (RFC 5758 §3.2), a DER-encoded Ecdsa-Sig-Value.
    EcdsaWithSha384,
}

/// The digest of a signature over signedAttrs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigestAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl DigestAlgorithm {
    /// The DigestInfo of `message`, in DER.
    fn info(self, message: &[u8]) -> Vec<u8> {
        let (algorithm, identifier) = match self {
            Self::Sha256 => (&digest::SHA256, SHA256),
            Self::Sha384 => (&digest::SHA384, SHA384),
            Self::Sha512 => (&digest::SHA512, SHA512),
        };
        let value = digest::digest(algorithm, message);
        let mut info = identifier.to_vec();
        info.extend_from_slice(value.as_ref());
        info
    }
}

/// The octets of a DigestInfo before the digest (RFC 8017 §9.2, note 1).
const SHA256: &[u8] =
    b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
const SHA384: &[u8] =
    b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30";
const SHA512: &[u8] =
    b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40";

/// The text of check values. What is authenticated otherwise is DER and begins with a SEQUENCE.
pub(crate) const CHECK_TEXT: &[u8] = b"chancery key check value";

impl Record {
    fn sign(&self, session: &mut Session, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let Some(public) = self.identity().public_key() else {
            return Err(self
                .error(KeyFault::Unsuitable("a secret key does not sign"))
                .into());
        };
        let algorithm = public.algorithm;
        session
            .run(self, |session, key| sign(session, key, algorithm, message))?
            .ok_or_else(|| self.malformed("signature"))
    }

    fn mac(&self, session: &mut Session, message: &[u8]) -> Result<[u8; 32], TokenError> {
        session
            .run(self, |session, key| mac(session, key, message))?
            .ok_or_else(|| self.malformed("MAC"))
    }

    fn malformed(&self, what: &'static str) -> TokenError {
        TokenError::Malformed {
            token: self.context().name.clone(),
            what,
        }
    }
}

/// Signs `message` as a key of `algorithm` does; `None` if the token's answer is no signature.
pub(crate) fn sign(
    session: &RawSession,
    key: ObjectHandle,
    algorithm: KeyAlgorithm,
    message: &[u8],
) -> CryptokiResult<Option<Vec<u8>>> {
    let hash = match algorithm {
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            let info = DigestAlgorithm::Sha256.info(message);
            let signature = session.sign(&Mechanism::RsaPkcs, key, &info)?;
            return Ok(
                Some(signature).filter(|signature| signature.len() == algorithm.field_length())
            );
        }
        KeyAlgorithm::P256 => &digest::SHA256,
        KeyAlgorithm::P384 => &digest::SHA384,
    };
    let value = digest::digest(hash, message);
    let signature = session.sign(&Mechanism::Ecdsa, key, value.as_ref())?;
    Ok(ecdsa_sig_value(&signature, algorithm.field_length()))
}

/// Computes the HMAC-SHA256 of `message`; `None` if the token's answer has another length.
pub(crate) fn mac(
    session: &RawSession,
    key: ObjectHandle,
    message: &[u8],
) -> CryptokiResult<Option<[u8; 32]>> {
    let mac = session.sign(&Mechanism::Sha256Hmac, key, message)?;
    Ok(mac.try_into().ok())
}

/// ```text
/// Ecdsa-Sig-Value ::= SEQUENCE {
///     r INTEGER,
///     s INTEGER }
/// ```
/// RFC 3279 §2.2.3.
#[derive(Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// From the token's form, r and s side by side in the octets of one field element each.
fn ecdsa_sig_value(signature: &[u8], field_length: usize) -> Option<Vec<u8>> {
    if signature.len() != 2 * field_length {
        return None;
    }
    let (r, s) = signature.split_at(field_length);
    if [r, s]
        .iter()
        .any(|number| number.iter().all(|octet| *octet == 0))
    {
        return None;
    }
    EcdsaSigValue {
        r: UintRef::new(r).ok()?,
        s: UintRef::new(s).ok()?,
    }
    .to_der()
    .ok()
}

/// `decrypted` if it has the length of `substitute`, else `substitute`, by the same steps.
fn select(decrypted: &[u8], substitute: &[u8]) -> Secret {
    let right = u8::from(decrypted.len() == substitute.len());
    // All ones or all zeros. Hidden from the compiler, which could make branches of it.
    let mask = black_box(0_u8.wrapping_sub(right));
    let padding = core::iter::repeat(&0);
    let mut selected = Zeroizing::new(vec![0; substitute.len()]);
    for ((octet, ours), theirs) in selected
        .iter_mut()
        .zip(substitute)
        .zip(decrypted.iter().chain(padding))
    {
        *octet = (theirs & mask) | (ours & !mask);
    }
    Secret::new(core::mem::take(&mut *selected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_the_right_length_is_replaced() {
        let substitute = [9; 16];
        assert_eq!(select(&[1; 16], &substitute).expose(), [1; 16]);
        assert_eq!(select(&[1; 15], &substitute).expose(), substitute);
        assert_eq!(select(&[1; 17], &substitute).expose(), substitute);
        assert_eq!(select(&[], &substitute).expose(), substitute);
        assert!(select(&[1; 16], &[]).expose().is_empty());
    }

    #[test]
    fn ecdsa_signatures_become_minimal_integers() {
        let mut signature = [0; 64];
        signature[31] = 0x80;
        signature[32] = 0x7f;
        let value = ecdsa_sig_value(&signature, 32).unwrap();
        let mut expected = vec![0x30, 38, 0x02, 2, 0x00, 0x80, 0x02, 32, 0x7f];
        expected.extend([0; 31]);
        assert_eq!(value, expected);
    }

    #[test]
    fn what_is_no_ecdsa_signature_is_noticed() {
        assert_eq!(ecdsa_sig_value(&[1; 63], 32), None);
        assert_eq!(ecdsa_sig_value(&[1; 96], 32), None);
        assert_eq!(ecdsa_sig_value(&[0; 64], 32), None);
        let mut without_s = [0; 64];
        without_s[0] = 1;
        assert_eq!(ecdsa_sig_value(&without_s, 32), None);
    }

    #[test]
    fn digest_infos_are_der() {
        for (algorithm, length) in [
            (DigestAlgorithm::Sha256, 32),
            (DigestAlgorithm::Sha384, 48),
            (DigestAlgorithm::Sha512, 64),
        ] {
            let info = algorithm.info(b"text");
            assert_eq!(usize::from(info[1]), info.len() - 2);
            assert_eq!(info.len(), 19 + length);
        }
    }
}
