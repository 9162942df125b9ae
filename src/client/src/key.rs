//! The client's own key.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair as RsaKeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey,
    Pkcs1PrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RsaEncoding,
};
use core::fmt;
use core::str::FromStr;
use x509_cert::AlgorithmIdentifier;
use zeroize::{Zeroize, Zeroizing};

use crate::algorithm::{DigestAlgorithm, KeyTransport, SignatureForm, bare, with_null};
use const_oid::db::rfc5912;

/// What a client key can be. SCEP needs RSA for the key that signs and receives the messages
/// (RFC 8894 §3.1); the curve is there to see it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with a modulus of 2,048 bits.
    Rsa2048,
    /// RSA with a modulus of 3,072 bits.
    Rsa3072,
    /// RSA with a modulus of 4,096 bits.
    Rsa4096,
    /// ECDSA on secp256r1.
    EcP256,
}

impl KeyKind {
    const ALL: [Self; 4] = [Self::Rsa2048, Self::Rsa3072, Self::Rsa4096, Self::EcP256];
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
            Self::EcP256 => "p256",
        })
    }
}

impl FromStr for KeyKind {
    type Err = UnknownKeyKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kind = Self::ALL.into_iter().find(|kind| kind.to_string() == text);
        kind.ok_or_else(|| UnknownKeyKind(text.into()))
    }
}

/// A text that names no [`KeyKind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of key {0:?}, use rsa2048, rsa3072 or rsa4096")]
pub struct UnknownKeyKind(String);

/// A key that could not be made, read or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The cryptographic library could not make a key.
    #[error("no key could be generated: the cryptographic library failed, try again")]
    Generate,
    /// The text is no unencrypted PKCS#8 in PEM.
    #[error("not a private key in PEM, expected an unencrypted PKCS#8 (BEGIN PRIVATE KEY)")]
    Pem,
    /// The key is of a kind or size outside [`KeyKind`].
    #[error("the private key is of an unsupported kind, use RSA of 2048, 3072 or 4096 bits")]
    Unsupported,
    /// The key could not sign.
    #[error("the private key cannot sign with this digest, use SHA-256 with an elliptic curve")]
    Sign,
    /// The key does not decrypt this: it is another key's, or it is damaged.
    #[error("the private key does not decrypt this content key")]
    Decrypt,
}

/// A private key and its public half. Wiped when dropped, never printed.
pub struct ClientKey {
    kind: KeyKind,
    pair: Pair,
    public_key_info: Vec<u8>,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

const PEM_LABEL: &str = "PRIVATE KEY";

impl ClientKey {
    /// Makes a new key. RSA takes a noticeable fraction of a second.
    ///
    /// # Errors
    /// [`KeyError::Generate`].
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let rsa = |size| RsaKeyPair::generate(size).map(Pair::Rsa);
        let pair = match kind {
            KeyKind::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyKind::Rsa3072 => rsa(KeySize::Rsa3072),
            KeyKind::Rsa4096 => rsa(KeySize::Rsa4096),
            KeyKind::EcP256 => {
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Pair::Ec)
            }
        };
        Self::new(kind, pair.map_err(|_| KeyError::Generate)?)
    }

    /// Reads an unencrypted PKCS#8 in PEM (RFC 7468 §10).
    ///
    /// # Errors
    /// [`KeyError::Pem`] and [`KeyError::Unsupported`].
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, KeyError> {
        let (label, der) = der::pem::decode_vec(pem.as_bytes()).map_err(|_| KeyError::Pem)?;
        let der = Zeroizing::new(der);
        if label != PEM_LABEL {
            return Err(KeyError::Pem);
        }
        if let Ok(pair) = RsaKeyPair::from_pkcs8(&der) {
            let kind = match pair.public_modulus_len() {
                256 => KeyKind::Rsa2048,
                384 => KeyKind::Rsa3072,
                512 => KeyKind::Rsa4096,
                _ => return Err(KeyError::Unsupported),
            };
            return Self::new(kind, Pair::Rsa(pair));
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der);
        Self::new(
            KeyKind::EcP256,
            pair.map(Pair::Ec).map_err(|_| KeyError::Unsupported)?,
        )
    }

    fn new(kind: KeyKind, pair: Pair) -> Result<Self, KeyError> {
        let info: Result<PublicKeyX509Der<'_>, _> = match &pair {
            Pair::Rsa(pair) => pair.public_key().as_der(),
            Pair::Ec(pair) => pair.public_key().as_der(),
        };
        let public_key_info = info.map_err(|_| KeyError::Unsupported)?.as_ref().to_vec();
        Ok(Self {
            kind,
            pair,
            public_key_info,
        })
    }

    /// The key as unencrypted PKCS#8 in PEM.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`] if the library cannot write the key.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der = self.pkcs8()?;
        let pem = der::pem::encode_string(PEM_LABEL, der::pem::LineEnding::LF, &der);
        pem.map(Zeroizing::new).map_err(|_| KeyError::Unsupported)
    }

    fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let der: Result<Pkcs8V1Der<'_>, _> = pair.as_der();
                der.map(|der| Zeroizing::new(der.as_ref().to_vec()))
            }
            Pair::Ec(pair) => pair
                .to_pkcs8v1()
                .map(|der| Zeroizing::new(der.as_ref().to_vec())),
        }
        .map_err(|_| KeyError::Unsupported)
    }

    /// What the key is.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// SubjectPublicKeyInfo in DER (RFC 5280 §4.1.2.7).
    #[must_use]
    pub fn public_key_info(&self) -> &[u8] {
        &self.public_key_info
    }

    /// The identifier for a signature of this key; `form` matters to RSA only.
    pub(crate) fn signature_algorithm(
        &self,
        digest: DigestAlgorithm,
        form: SignatureForm,
    ) -> AlgorithmIdentifier {
        match (&self.pair, form) {
            (Pair::Rsa(_), SignatureForm::RsaEncryption) => with_null(rfc5912::RSA_ENCRYPTION),
            (Pair::Rsa(_), SignatureForm::DigestWithRsa) => with_null(digest.with_rsa()),
            (Pair::Ec(_), _) => bare(digest.with_ecdsa()),
        }
    }

    /// Signs: RSASSA-PKCS1-v1_5, or ECDSA as a DER pair.
    pub(crate) fn sign(&self, digest: DigestAlgorithm, octets: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &dyn RsaEncoding = match digest {
                    DigestAlgorithm::Sha256 => &RSA_PKCS1_SHA256,
                    DigestAlgorithm::Sha384 => &RSA_PKCS1_SHA384,
                    DigestAlgorithm::Sha512 => &RSA_PKCS1_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(encoding, &random, octets, &mut signature);
                signed.map(|()| signature).map_err(|_| KeyError::Sign)
            }
            Pair::Ec(pair) if digest == DigestAlgorithm::Sha256 => {
                let signed = pair.sign(&random, octets);
                signed
                    .map(|s| s.as_ref().to_vec())
                    .map_err(|_| KeyError::Sign)
            }
            Pair::Ec(_) => Err(KeyError::Sign),
        }
    }

    /// Opens a content-encryption key. The caller is the requester itself, so nobody is there to
    /// whom success and failure would tell something.
    pub(crate) fn decrypt(
        &self,
        transport: KeyTransport,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let Pair::Rsa(pair) = &self.pair else {
            return Err(KeyError::Decrypt);
        };
        let key =
            PrivateDecryptingKey::from_pkcs8(&self.pkcs8()?).map_err(|_| KeyError::Decrypt)?;
        let mut room = Zeroizing::new(vec![0; pair.public_modulus_len()]);
        let opened = match transport {
            KeyTransport::Pkcs1v15 => Pkcs1PrivateDecryptingKey::new(key)
                .and_then(|key| key.decrypt(ciphertext, &mut room).map(|found| found.len())),
            KeyTransport::OaepSha1 => OaepPrivateDecryptingKey::new(key).and_then(|key| {
                key.decrypt(&OAEP_SHA1_MGF1SHA1, ciphertext, &mut room, None)
                    .map(|found| found.len())
            }),
        };
        let length = opened.map_err(|_| KeyError::Decrypt)?;
        if let Some(rest) = room.get_mut(length..) {
            rest.zeroize();
        }
        room.truncate(length);
        Ok(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem() {
        for kind in [KeyKind::Rsa2048, KeyKind::EcP256] {
            let key = ClientKey::generate(kind).unwrap();
            let again = ClientKey::from_pkcs8_pem(&key.to_pkcs8_pem().unwrap()).unwrap();
            assert_eq!(again.kind(), kind);
            assert_eq!(again.public_key_info(), key.public_key_info());
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(
            ClientKey::from_pkcs8_pem("hello").err(),
            Some(KeyError::Pem)
        );
        let certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert_eq!(
            ClientKey::from_pkcs8_pem(certificate).err(),
            Some(KeyError::Pem)
        );
        let empty = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
        assert_eq!(
            ClientKey::from_pkcs8_pem(empty).err(),
            Some(KeyError::Unsupported)
        );
    }

    #[test]
    fn kinds_are_read_as_written() {
        for kind in KeyKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("rsa1024".parse::<KeyKind>().is_err());
    }
}
