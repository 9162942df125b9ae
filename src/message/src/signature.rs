//! Signatures and digests in software. Public values only: nothing here has to hide what it does.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    self as aws, EcdsaVerificationAlgorithm, RsaParameters, UnparsedPublicKey,
};
use chancery_protocol::wire::{Digest, Octets};

use crate::algorithm::{DigestAlgorithm, SignatureAlgorithm};
use crate::key::Curve;

/// A signature that does not verify: it is of other octets or another key, or the key is outside
/// the accepted kinds and sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify with this key")]
pub struct BadSignature;

/// Verifies `signature` over `message` with the key of a SubjectPublicKeyInfo in DER: RSA of 2048
/// to 8192 bits, P-256 or P-384.
///
/// # Errors
/// [`BadSignature`].
pub fn verify(
    spki: &[u8],
    algorithm: SignatureAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    let verified = match (algorithm, split_ec(spki)) {
        (SignatureAlgorithm::RsaPkcs1(digest), None) => {
            UnparsedPublicKey::new(rsa_parameters(digest), spki).verify(message, signature)
        }
        (SignatureAlgorithm::Ecdsa(digest), Some((curve, _))) => {
            verify_ecdsa(curve, spki, digest, message, signature)
        }
        (SignatureAlgorithm::RsaPkcs1(_), Some(_)) | (SignatureAlgorithm::Ecdsa(_), None) => {
            return Err(BadSignature);
        }
    };
    verified.map_err(|_| BadSignature)
}

/// SHA-256 of `data`.
#[must_use]
pub fn sha256(data: &[u8]) -> Digest {
    let mut octets = [0; 32];
    octets.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    Octets(octets)
}

/// The digest of `data`.
pub(crate) fn digest_of(algorithm: DigestAlgorithm, data: &[u8]) -> digest::Digest {
    digest::digest(digest_algorithm(algorithm), data)
}

/// FIPS 186-5 §6.4.1: of a digest longer than the curve's order, the leftmost bits count. So a
/// longer digest is cut to the one that the library pairs with the curve; a shorter one it knows.
fn verify_ecdsa(
    curve: Curve,
    spki: &[u8],
    digest: DigestAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), aws_lc_rs::error::Unspecified> {
    use DigestAlgorithm::{Sha256, Sha384, Sha512};
    let direct: &'static EcdsaVerificationAlgorithm = match (curve, digest) {
        (Curve::P256, Sha256) => &aws::ECDSA_P256_SHA256_ASN1,
        (Curve::P256, Sha384) => &aws::ECDSA_P256_SHA384_ASN1,
        (Curve::P384, Sha256) => &aws::ECDSA_P384_SHA256_ASN1,
        (Curve::P384, Sha384) => &aws::ECDSA_P384_SHA384_ASN1,
        (Curve::P256, Sha512) => {
            return verify_cut(
                (&aws::ECDSA_P256_SHA256_ASN1, &digest::SHA256),
                spki,
                message,
                signature,
            );
        }
        (Curve::P384, Sha512) => {
            return verify_cut(
                (&aws::ECDSA_P384_SHA384_ASN1, &digest::SHA384),
                spki,
                message,
                signature,
            );
        }
    };
    UnparsedPublicKey::new(direct, spki).verify(message, signature)
}

fn verify_cut(
    (algorithm, as_digest): (
        &'static EcdsaVerificationAlgorithm,
        &'static digest::Algorithm,
    ),
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), aws_lc_rs::error::Unspecified> {
    let digest = digest::digest(&digest::SHA512, message);
    let leftmost = digest
        .as_ref()
        .get(..as_digest.output_len())
        .ok_or(aws_lc_rs::error::Unspecified)?;
    let digest = digest::Digest::import_less_safe(leftmost, as_digest)?;
    UnparsedPublicKey::new(algorithm, spki).verify_digest(&digest, signature)
}

fn rsa_parameters(digest: DigestAlgorithm) -> &'static RsaParameters {
    match digest {
        DigestAlgorithm::Sha256 => &aws::RSA_PKCS1_2048_8192_SHA256,
        DigestAlgorithm::Sha384 => &aws::RSA_PKCS1_2048_8192_SHA384,
        DigestAlgorithm::Sha512 => &aws::RSA_PKCS1_2048_8192_SHA512,
    }
}

fn digest_algorithm(algorithm: DigestAlgorithm) -> &'static digest::Algorithm {
    match algorithm {
        DigestAlgorithm::Sha256 => &digest::SHA256,
        DigestAlgorithm::Sha384 => &digest::SHA384,
        DigestAlgorithm::Sha512 => &digest::SHA512,
    }
}

/// Takes the SubjectPublicKeyInfo of an uncompressed point on a named curve apart.
pub(crate) fn split_ec(spki: &[u8]) -> Option<(Curve, &[u8])> {
    [(Curve::P256, 65), (Curve::P384, 97)]
        .into_iter()
        .find_map(|(curve, length)| {
            let point = spki.strip_prefix(ec_prefix(curve))?;
            let fits = point.len() == length && point.first() == Some(&4);
            fits.then_some((curve, point))
        })
}

/// What stands before the point in the SubjectPublicKeyInfo of a named curve (RFC 5480 §2):
/// `SEQUENCE { SEQUENCE { id-ecPublicKey, namedCurve }, BIT STRING`, no unused bits.
pub(crate) fn ec_prefix(curve: Curve) -> &'static [u8] {
    match curve {
        Curve::P256 => {
            b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00"
        }
        Curve::P384 => {
            b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00"
        }
    }
}
