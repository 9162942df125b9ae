//! Algorithm identifiers that this release accepts, and no other.

use crate::element::{Element, Missing};
use crate::tag::{self, oid};

/// A digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How a signature was made; the key says on which curve, and of what size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 (RFC 8017 §8.2).
    RsaPkcs1(DigestAlgorithm),
    /// ECDSA with a DER-encoded signature (RFC 5758 §3.2).
    Ecdsa(DigestAlgorithm),
}

impl SignatureAlgorithm {
    /// The digest that is signed.
    #[must_use]
    pub fn digest(self) -> DigestAlgorithm {
        match self {
            Self::RsaPkcs1(digest) | Self::Ecdsa(digest) => digest,
        }
    }
}

/// A content encryption algorithm (RFC 3565).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCipher {
    /// AES-128 in CBC mode.
    Aes128Cbc,
    /// AES-192 in CBC mode.
    Aes192Cbc,
    /// AES-256 in CBC mode.
    Aes256Cbc,
}

impl ContentCipher {
    /// Octets of a key.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Cbc => 16,
            Self::Aes192Cbc => 24,
            Self::Aes256Cbc => 32,
        }
    }
}

/// How a content-encryption key was encrypted for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyTransport {
    /// RSAES-PKCS1-v1_5.
    Pkcs1v15,
    /// RSAES-OAEP with SHA-1, MGF1 with SHA-1 and no label: its defaults (RFC 4055 §4.1).
    OaepSha1,
    /// Anything else, OAEP with other parameters included.
    Unsupported,
}

/// An AlgorithmIdentifier (RFC 5280 §4.1.1.2): `SEQUENCE { algorithm OBJECT IDENTIFIER, parameters
/// ANY DEFINED BY algorithm OPTIONAL }`.
#[derive(Clone, Copy)]
pub(crate) struct AlgorithmIdentifier<'b, 'n> {
    pub(crate) algorithm: &'b [u8],
    pub(crate) parameters: Option<Element<'b, 'n>>,
}

impl<'b, 'n> AlgorithmIdentifier<'b, 'n> {
    pub(crate) fn read(element: Element<'b, 'n>, what: &'static str) -> Result<Self, Missing> {
        let mut fields = element.is(tag::SEQUENCE, what)?.fields();
        let algorithm = fields.take(tag::OBJECT_IDENTIFIER, what)?.content();
        let parameters = fields.any(what).ok();
        fields.end(what)?;
        Ok(Self {
            algorithm,
            parameters,
        })
    }

    /// RFC 5754 §2: parameters absent, but NULL has to be understood as well.
    pub(crate) fn digest(self) -> Option<DigestAlgorithm> {
        match self.algorithm {
            _ if !self.is_bare() => None,
            oid::SHA256 => Some(DigestAlgorithm::Sha256),
            oid::SHA384 => Some(DigestAlgorithm::Sha384),
            oid::SHA512 => Some(DigestAlgorithm::Sha512),
            _ => None,
        }
    }

    /// The algorithms of a certification request's signature.
    pub(crate) fn signature(self) -> Option<SignatureAlgorithm> {
        use DigestAlgorithm::{Sha256, Sha384, Sha512};
        match self.algorithm {
            _ if !self.is_bare() => None,
            oid::SHA256_WITH_RSA => Some(SignatureAlgorithm::RsaPkcs1(Sha256)),
            oid::SHA384_WITH_RSA => Some(SignatureAlgorithm::RsaPkcs1(Sha384)),
            oid::SHA512_WITH_RSA => Some(SignatureAlgorithm::RsaPkcs1(Sha512)),
            oid::ECDSA_WITH_SHA256 => Some(SignatureAlgorithm::Ecdsa(Sha256)),
            oid::ECDSA_WITH_SHA384 => Some(SignatureAlgorithm::Ecdsa(Sha384)),
            oid::ECDSA_WITH_SHA512 => Some(SignatureAlgorithm::Ecdsa(Sha512)),
            _ => None,
        }
    }

    /// The signatureAlgorithm of a SignerInfo: clients write either the key's algorithm or the one
    /// with the hash (RFC 3370 §3.2, RFC 5754 §3.2), which must then be that of `digest`.
    pub(crate) fn signer_signature(self, digest: DigestAlgorithm) -> Option<SignatureAlgorithm> {
        let named = SignatureAlgorithm::RsaPkcs1(digest);
        let plain = self.algorithm == oid::RSA_ENCRYPTION && self.is_bare();
        (plain || self.signature() == Some(named)).then_some(named)
    }

    /// RFC 3565 §4.1: the parameter is the initialisation vector of 16 octets.
    pub(crate) fn content_cipher(self) -> Option<(ContentCipher, [u8; 16])> {
        let cipher = match self.algorithm {
            oid::AES128_CBC => ContentCipher::Aes128Cbc,
            oid::AES192_CBC => ContentCipher::Aes192Cbc,
            oid::AES256_CBC => ContentCipher::Aes256Cbc,
            _ => return None,
        };
        let vector = self.parameters.filter(|p| p.tag() == tag::OCTET_STRING)?;
        Some((cipher, vector.content().try_into().ok()?))
    }

    pub(crate) fn key_transport(self) -> KeyTransport {
        match self.algorithm {
            oid::RSA_ENCRYPTION if self.is_bare() => KeyTransport::Pkcs1v15,
            oid::RSAES_OAEP if self.parameters.is_some_and(is_default_oaep) => {
                KeyTransport::OaepSha1
            }
            _ => KeyTransport::Unsupported,
        }
    }

    /// Whether the parameters are absent or NULL.
    fn is_bare(self) -> bool {
        self.parameters.is_none_or(|p| p.octets() == [tag::NULL, 0])
    }

    /// Reads the parameters as an AlgorithmIdentifier of their own.
    fn nested(self) -> Option<Self> {
        Self::read(self.parameters?, "nested parameters").ok()
    }

    fn is_sha1(self) -> bool {
        self.algorithm == oid::SHA1 && self.is_bare()
    }
}

/// RFC 4055 §4.1: `SEQUENCE { hashFunc [0], maskGenFunc [1], pSourceFunc [2] }`, each with a
/// default; encoders write them out nevertheless.
fn is_default_oaep(parameters: Element<'_, '_>) -> bool {
    let is_default = |parameter: Element<'_, '_>| {
        let mut fields = parameter.fields();
        let (Ok(inner), Ok(())) = (
            fields.any("a parameter"),
            fields.end("the end of a parameter"),
        ) else {
            return false;
        };
        let Ok(inner) = AlgorithmIdentifier::read(inner, "a parameter") else {
            return false;
        };
        match parameter.tag() {
            HASH => inner.is_sha1(),
            MASK => {
                inner.algorithm == oid::MGF1 && inner.nested().is_some_and(|hash| hash.is_sha1())
            }
            SOURCE => {
                inner.algorithm == oid::P_SPECIFIED
                    && inner
                        .parameters
                        .is_some_and(|label| label.octets() == [tag::OCTET_STRING, 0])
            }
            _ => false,
        }
    };
    const HASH: u8 = tag::context(0);
    const MASK: u8 = tag::context(1);
    const SOURCE: u8 = tag::context(2);
    parameters.tag() == tag::SEQUENCE && parameters.children().all(is_default)
}
