//! Public keys in software: their encodings, and the far side of the pairwise tests.
//!
//! Computed from modulus or point, never from CKA_PUBLIC_KEY_INFO, which several tokens leave
//! empty.

use core::fmt;
use core::str::FromStr;

use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Encode, Sequence};

use crate::verbs::KeyTransport;

/// The keys that a ceremony may generate and a service accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// RSA with a modulus of 2,048 bits and the exponent 65537.
    Rsa2048,
    /// RSA with a modulus of 3,072 bits and the exponent 65537.
    Rsa3072,
    /// RSA with a modulus of 4,096 bits and the exponent 65537.
    Rsa4096,
    /// The curve secp256r1.
    P256,
    /// The curve secp384r1.
    P384,
}

impl KeyAlgorithm {
    const ALL: [Self; 5] = [
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::P256,
        Self::P384,
    ];

    /// Whether this is RSA, of any size.
    #[must_use]
    pub fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }

    /// Octets of a modulus, or of one coordinate.
    pub(crate) fn field_length(self) -> usize {
        match self {
            Self::Rsa2048 => 256,
            Self::Rsa3072 => 384,
            Self::Rsa4096 => 512,
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    /// Bits of an RSA modulus, or of one coordinate.
    pub(crate) fn modulus_bits(self) -> u64 {
        match self {
            Self::Rsa2048 => 2048,
            Self::Rsa3072 => 3072,
            Self::Rsa4096 => 4096,
            Self::P256 => 256,
            Self::P384 => 384,
        }
    }

    /// The curve, where there is one.
    fn curve(self) -> Option<ObjectIdentifier> {
        match self {
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => None,
            Self::P256 => Some(SECP256R1),
            Self::P384 => Some(SECP384R1),
        }
    }

    /// CKA_EC_PARAMS: the curve's name in DER.
    pub(crate) fn ec_params(self) -> Option<Vec<u8>> {
        self.curve()?.to_der().ok()
    }

    fn of_modulus(modulus: &[u8]) -> Option<Self> {
        let full = modulus.first()? & 0x80 != 0;
        Self::ALL.into_iter().find(|algorithm| {
            algorithm.is_rsa() && full && algorithm.field_length() == modulus.len()
        })
    }

    fn of_curve(curve: &ObjectIdentifier) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.curve().as_ref() == Some(curve))
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => &RSA_PKCS1_2048_8192_SHA256,
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA384_ASN1,
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
            Self::P256 => "p256",
            Self::P384 => "p384",
        })
    }
}

impl FromStr for KeyAlgorithm {
    type Err = UnknownKeyAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.to_string() == text)
            .ok_or_else(|| UnknownKeyAlgorithm(text.to_owned()))
    }
}

/// A text that names no [`KeyAlgorithm`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown key algorithm {0:?}; use rsa2048, rsa3072, rsa4096, p256 or p384")]
pub struct UnknownKeyAlgorithm(String);

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// 65537, as CKA_PUBLIC_EXPONENT writes it.
pub(crate) const PUBLIC_EXPONENT: [u8; 3] = [1, 0, 1];

/// A public key of one of our algorithms.
pub(crate) struct PublicKey {
    pub(crate) algorithm: KeyAlgorithm,
    spki: Vec<u8>,
    /// The contents of subjectPublicKey: an RSAPublicKey or an uncompressed point.
    key: Vec<u8>,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7, RFC 3279 §2.3.1, RFC 5480 §2). The error
    /// says what is unsuitable.
    pub(crate) fn from_spki(spki: &[u8]) -> Result<Self, &'static str> {
        let info = SubjectPublicKeyInfo::from_der(spki)
            .map_err(|_| "it is no DER-encoded SubjectPublicKeyInfo")?;
        let key = info
            .subject_public_key
            .as_bytes()
            .ok_or("its key has unused bits")?;
        let found = match info.algorithm.algorithm {
            RSA_ENCRYPTION => {
                let rsa = RsaPublicKey::from_der(key).map_err(|_| "it holds no RSAPublicKey")?;
                Self::from_rsa(rsa.modulus.as_bytes(), rsa.public_exponent.as_bytes())
            }
            EC_PUBLIC_KEY => {
                let curve = info.algorithm.parameters.ok_or("its curve is not named")?;
                let curve = curve.to_der().map_err(|_| "its curve is not named")?;
                Self::from_ec(&curve, key)
            }
            _ => Err("its algorithm is neither RSA nor EC"),
        }?;
        // Built anew from its numbers: what differs from that has another or a needless form.
        if found.spki == spki {
            Ok(found)
        } else {
            Err("its encoding is not the usual one")
        }
    }

    /// From CKA_MODULUS and CKA_PUBLIC_EXPONENT, big-endian.
    pub(crate) fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, &'static str> {
        let modulus = without_leading_zeros(modulus);
        if without_leading_zeros(exponent) != PUBLIC_EXPONENT {
            return Err("its RSA exponent is not 65537");
        }
        let algorithm = KeyAlgorithm::of_modulus(modulus)
            .ok_or("its RSA modulus has not 2048, 3072 or 4096 bits")?;
        let key = UintRef::new(modulus)
            .and_then(|modulus| {
                let public_exponent = UintRef::new(&PUBLIC_EXPONENT)?;
                RsaPublicKey {
                    modulus,
                    public_exponent,
                }
                .to_der()
            })
            .map_err(|_| "its RSA modulus cannot be encoded")?;
        Self::encode(algorithm, RSA_ENCRYPTION, Some(AnyRef::NULL), key)
    }

    /// From CKA_EC_PARAMS and CKA_EC_POINT. The standard wraps the point in an OCTET STRING, some
    /// tokens do not.
    pub(crate) fn from_ec(params: &[u8], point: &[u8]) -> Result<Self, &'static str> {
        let curve = ObjectIdentifier::from_der(params).map_err(|_| "its curve is not named")?;
        let algorithm = KeyAlgorithm::of_curve(&curve).ok_or("its curve is not P-256 or P-384")?;
        let length = 1 + 2 * algorithm.field_length();
        let point = match <&OctetStringRef>::from_der(point) {
            Ok(inner) if inner.as_bytes().len() == length => inner.as_bytes(),
            _ => point,
        };
        if point.len() != length || point.first() != Some(&4) {
            return Err("its EC point is not an uncompressed one of its curve");
        }
        Self::encode(
            algorithm,
            EC_PUBLIC_KEY,
            Some(AnyRef::from(&curve)),
            point.to_vec(),
        )
    }

    fn encode(
        algorithm: KeyAlgorithm,
        identifier: ObjectIdentifier,
        parameters: Option<AnyRef<'_>>,
        key: Vec<u8>,
    ) -> Result<Self, &'static str> {
        let spki = BitStringRef::from_bytes(&key)
            .and_then(|subject_public_key| {
                let algorithm = AlgorithmIdentifier {
                    algorithm: identifier,
                    parameters,
                };
                SubjectPublicKeyInfo {
                    algorithm,
                    subject_public_key,
                }
                .to_der()
            })
            .map_err(|_| "it cannot be encoded")?;
        Ok(Self {
            algorithm,
            spki,
            key,
        })
    }

    /// SubjectPublicKeyInfo in DER.
    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The uncompressed point of an EC key.
    pub(crate) fn point(&self) -> Option<&[u8]> {
        (!self.algorithm.is_rsa()).then_some(self.key.as_slice())
    }

    /// Verifies a signature of this key over `message`: RSA PKCS#1 v1.5 with SHA-256, ECDSA with
    /// SHA-256 on P-256 and with SHA-384 on P-384.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm.verification(), &self.key)
            .verify(message, signature)
            .is_ok()
    }

    /// Encrypts a content key to this RSA key; `None` for other keys and content keys too long.
    pub(crate) fn encrypt(&self, transport: KeyTransport, content_key: &[u8]) -> Option<Vec<u8>> {
        let key = PublicEncryptingKey::from_der(&self.spki).ok()?;
        let mut encrypted = vec![0; self.algorithm.field_length()];
        let length = match transport {
            KeyTransport::Pkcs1v15 => {
                let key = Pkcs1PublicEncryptingKey::new(key).ok()?;
                key.encrypt(content_key, &mut encrypted).ok()?.len()
            }
            KeyTransport::OaepSha1 => {
                let key = OaepPublicEncryptingKey::new(key).ok()?;
                key.encrypt(&OAEP_SHA1_MGF1SHA1, content_key, &mut encrypted, None)
                    .ok()?
                    .len()
            }
        };
        encrypted.truncate(length);
        Some(encrypted)
    }
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// ```text
/// SubjectPublicKeyInfo ::= SEQUENCE {
///     algorithm        AlgorithmIdentifier,
///     subjectPublicKey BIT STRING }
/// ```
/// RFC 5280 §4.1.
#[derive(Sequence)]
struct SubjectPublicKeyInfo<'a> {
    algorithm: AlgorithmIdentifier<'a>,
    subject_public_key: BitStringRef<'a>,
}

/// ```text
/// AlgorithmIdentifier ::= SEQUENCE {
///     algorithm  OBJECT IDENTIFIER,
///     parameters ANY DEFINED BY algorithm OPTIONAL }
/// ```
/// RFC 5280 §4.1.1.2.
#[derive(Sequence)]
struct AlgorithmIdentifier<'a> {
    algorithm: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

/// ```text
/// RSAPublicKey ::= SEQUENCE {
///     modulus        INTEGER,
///     publicExponent INTEGER }
/// ```
/// RFC 8017 §A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    #[test]
    fn names_read_back() {
        for algorithm in KeyAlgorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
        let error = "p521".parse::<KeyAlgorithm>().unwrap_err();
        assert!(error.to_string().contains("\"p521\""));
    }

    #[test]
    fn an_ec_key_keeps_its_encoding_and_verifies() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
        let key = PublicKey::from_spki(&spki).unwrap();
        assert_eq!(key.algorithm, KeyAlgorithm::P256);
        assert_eq!(key.spki(), spki);
        let signature = pair.sign(&SystemRandom::new(), b"text").unwrap();
        assert!(key.verifies(b"text", signature.as_ref()));
        assert!(!key.verifies(b"next", signature.as_ref()));
    }

    #[test]
    fn points_are_taken_wrapped_and_bare() {
        let params = KeyAlgorithm::P256.ec_params().unwrap();
        let bare: Vec<u8> = std::iter::once(4).chain([7; 64]).collect();
        let wrapped: Vec<u8> = [4, 65].into_iter().chain(bare.iter().copied()).collect();
        let one = PublicKey::from_ec(&params, &bare).unwrap();
        let other = PublicKey::from_ec(&params, &wrapped).unwrap();
        assert_eq!(one.spki(), other.spki());
        assert!(PublicKey::from_ec(&params, &bare[..64]).is_err());
        assert!(PublicKey::from_ec(&KeyAlgorithm::P384.ec_params().unwrap(), &bare).is_err());
    }

    #[test]
    fn rsa_keys_need_their_size_and_exponent() {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
            private.public_key().as_der().unwrap();
        let key = PublicKey::from_spki(spki.as_ref()).unwrap();
        assert_eq!(key.algorithm, KeyAlgorithm::Rsa2048);
        assert_eq!(key.spki(), spki.as_ref());

        let modulus = [0xc1; 256];
        assert!(PublicKey::from_rsa(&modulus, &[0, 1, 0, 1]).is_ok());
        assert!(PublicKey::from_rsa(&modulus, &[3]).is_err());
        assert!(PublicKey::from_rsa(&modulus[..128], &PUBLIC_EXPONENT).is_err());
        assert!(PublicKey::from_rsa(&[0x41; 256], &PUBLIC_EXPONENT).is_err());
    }

    #[test]
    fn other_encodings_are_refused() {
        assert!(PublicKey::from_spki(b"").is_err());
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let mut spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
        spki.push(0);
        assert!(PublicKey::from_spki(&spki).is_err());
    }
}
