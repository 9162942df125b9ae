//! The algorithms of a pkiMessage (RFC 8894 §2.9, RFC 3370, RFC 3565, RFC 5754).

use aws_lc_rs::cipher::{AES_128, AES_192, AES_256};
use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5911, rfc5912};
use der::asn1::{Any, Null};
use x509_cert::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// The digest of signed attributes, content and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl DigestAlgorithm {
    /// Every digest, weakest first.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The algorithm's identifier (RFC 5754 §2).
    #[must_use]
    pub fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha256 => rfc5912::ID_SHA_256,
            Self::Sha384 => rfc5912::ID_SHA_384,
            Self::Sha512 => rfc5912::ID_SHA_512,
        }
    }

    /// The GetCACaps keyword (RFC 8894 §3.5.2; SHA-384 is not among its nine, but in the field).
    #[must_use]
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }

    pub(crate) fn digest(self, octets: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        };
        digest::digest(algorithm, octets)
    }

    pub(crate) fn by_oid(oid: &ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|digest| digest.oid() == *oid)
    }

    pub(crate) fn with_rsa(self) -> ObjectIdentifier {
        match self {
            Self::Sha256 => rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
            Self::Sha384 => rfc5912::SHA_384_WITH_RSA_ENCRYPTION,
            Self::Sha512 => rfc5912::SHA_512_WITH_RSA_ENCRYPTION,
        }
    }

    pub(crate) fn with_ecdsa(self) -> ObjectIdentifier {
        match self {
            Self::Sha256 => rfc5912::ECDSA_WITH_SHA_256,
            Self::Sha384 => rfc5912::ECDSA_WITH_SHA_384,
            Self::Sha512 => rfc5912::ECDSA_WITH_SHA_512,
        }
    }
}

/// The cipher of an envelope's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCipher {
    /// AES-128 in CBC mode, which every server of RFC 8894 has (§2.9).
    Aes128Cbc,
    /// AES-192 in CBC mode.
    Aes192Cbc,
    /// AES-256 in CBC mode.
    Aes256Cbc,
}

impl ContentCipher {
    /// Every cipher.
    pub const ALL: [Self; 3] = [Self::Aes128Cbc, Self::Aes192Cbc, Self::Aes256Cbc];

    /// The algorithm's identifier (RFC 3565 §4.1).
    #[must_use]
    pub fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Aes128Cbc => rfc5911::ID_AES_128_CBC,
            Self::Aes192Cbc => rfc5911::ID_AES_192_CBC,
            Self::Aes256Cbc => rfc5911::ID_AES_256_CBC,
        }
    }

    /// Octets of the content-encryption key.
    #[must_use]
    pub fn key_length(self) -> usize {
        match self {
            Self::Aes128Cbc => 16,
            Self::Aes192Cbc => 24,
            Self::Aes256Cbc => 32,
        }
    }

    pub(crate) fn algorithm(self) -> &'static aws_lc_rs::cipher::Algorithm {
        match self {
            Self::Aes128Cbc => &AES_128,
            Self::Aes192Cbc => &AES_192,
            Self::Aes256Cbc => &AES_256,
        }
    }

    pub(crate) fn by_oid(oid: &ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.oid() == *oid)
    }
}

/// How the content-encryption key travels (RFC 3370 §4.2.1, RFC 3560).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyTransport {
    /// RSAES-PKCS1-v1_5.
    Pkcs1v15,
    /// RSAES-OAEP with its default parameters: SHA-1 and MGF1 with SHA-1.
    OaepSha1,
}

impl KeyTransport {
    pub(crate) fn identifier(self) -> der::Result<AlgorithmIdentifier> {
        Ok(match self {
            Self::Pkcs1v15 => with_null(rfc5912::RSA_ENCRYPTION),
            // RFC 4055 §4.1: every parameter at its default leaves an empty SEQUENCE.
            Self::OaepSha1 => AlgorithmIdentifier {
                oid: rfc5912::ID_RSAES_OAEP,
                parameters: Some(Any::new(der::Tag::Sequence, Vec::new())?),
            },
        })
    }
}

/// How SignerInfo names an RSA signature; clients in the field send both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureForm {
    /// Plain rsaEncryption, the digest being named beside it (RFC 3370 §3.2).
    RsaEncryption,
    /// sha256WithRSAEncryption and its like (RFC 5754 §3.2).
    DigestWithRsa,
}

/// An identifier whose parameters are NULL.
pub(crate) fn with_null(oid: ObjectIdentifier) -> AlgorithmIdentifier {
    AlgorithmIdentifier {
        oid,
        parameters: Some(Any::from(Null)),
    }
}

/// An identifier without parameters.
pub(crate) fn bare(oid: ObjectIdentifier) -> AlgorithmIdentifier {
    AlgorithmIdentifier {
        oid,
        parameters: None,
    }
}

/// Why a signature was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unverified {
    /// An algorithm, key type or key size that this client does not accept.
    Algorithm,
    /// The signature is not that key's over these octets.
    Signature,
}

/// Verifies `signature` over `octets`. `beside` is the digest that CMS names outside of the
/// signature algorithm; a signature algorithm that names another one is refused.
pub(crate) fn verify(
    key: &SubjectPublicKeyInfo,
    signature_algorithm: &ObjectIdentifier,
    beside: Option<DigestAlgorithm>,
    octets: &[u8],
    signature: &[u8],
) -> Result<(), Unverified> {
    let digest = DigestAlgorithm::ALL
        .into_iter()
        .find(|d| d.with_rsa() == *signature_algorithm || d.with_ecdsa() == *signature_algorithm);
    let digest = match (digest, beside) {
        (Some(named), Some(beside)) if named != beside => None,
        (Some(named), _) => Some(named),
        (None, beside) if *signature_algorithm == rfc5912::RSA_ENCRYPTION => beside,
        (None, _) => None,
    };
    let digest = digest.ok_or(Unverified::Algorithm)?;
    let elliptic = digest.with_ecdsa() == *signature_algorithm;
    let algorithm = verification(key, elliptic, digest).ok_or(Unverified::Algorithm)?;
    UnparsedPublicKey::new(algorithm, key.subject_public_key.raw_bytes())
        .verify(octets, signature)
        .map_err(|_| Unverified::Signature)
}

fn verification(
    key: &SubjectPublicKeyInfo,
    elliptic: bool,
    digest: DigestAlgorithm,
) -> Option<&'static dyn VerificationAlgorithm> {
    use DigestAlgorithm::{Sha256, Sha384, Sha512};
    let curve = key.algorithm.parameters.as_ref();
    let curve = curve.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    Some(match (key.algorithm.oid, elliptic, curve, digest) {
        (rfc5912::RSA_ENCRYPTION, false, _, Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (rfc5912::RSA_ENCRYPTION, false, _, Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (rfc5912::RSA_ENCRYPTION, false, _, Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (rfc5912::ID_EC_PUBLIC_KEY, true, Some(rfc5912::SECP_256_R_1), Sha256) => {
            &signature::ECDSA_P256_SHA256_ASN1
        }
        (rfc5912::ID_EC_PUBLIC_KEY, true, Some(rfc5912::SECP_256_R_1), Sha384) => {
            &signature::ECDSA_P256_SHA384_ASN1
        }
        (rfc5912::ID_EC_PUBLIC_KEY, true, Some(rfc5912::SECP_256_R_1), Sha512) => {
            &signature::ECDSA_P256_SHA512_ASN1
        }
        (rfc5912::ID_EC_PUBLIC_KEY, true, Some(rfc5912::SECP_384_R_1), Sha256) => {
            &signature::ECDSA_P384_SHA256_ASN1
        }
        (rfc5912::ID_EC_PUBLIC_KEY, true, Some(rfc5912::SECP_384_R_1), Sha384) => {
            &signature::ECDSA_P384_SHA384_ASN1
        }
        (rfc5912::ID_EC_PUBLIC_KEY, true, Some(rfc5912::SECP_384_R_1), Sha512) => {
            &signature::ECDSA_P384_SHA512_ASN1
        }
        _ => return None,
    })
}
