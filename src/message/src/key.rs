//! Public keys in the one form that is accepted (RFC 5280 §4.1.2.7): RSA, P-256 and P-384.

use crate::element::Element;
use crate::prove::Unproved;
use crate::signature;
use crate::tag;

/// A public key of a kind and form that is accepted. Neither size nor quality was judged, and
/// whether a point is on its curve shows when a signature is verified.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    kind: PublicKeyKind,
}

/// The numbers of a public key.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicKeyKind {
    /// An RSA key; both numbers big-endian without leading zeros, never empty.
    Rsa {
        /// The modulus.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: Vec<u8>,
    },
    /// A key on a named curve.
    Ec {
        /// The curve.
        curve: Curve,
        /// The uncompressed point: 04, then both coordinates.
        point: Vec<u8>,
    },
}

/// A named curve (RFC 5480 §2.1.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
}

/// Why a SubjectPublicKeyInfo was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyError {
    /// The child left the key of an RSA SubjectPublicKeyInfo closed.
    Unproved(Unproved),
    /// Not of an accepted kind and form.
    Unaccepted,
}

impl PublicKey {
    /// The SubjectPublicKeyInfo in DER: as received, and equal to the encoding of [`Self::kind`].
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The numbers.
    #[must_use]
    pub fn kind(&self) -> &PublicKeyKind {
        &self.kind
    }

    /// Bits of the modulus, or of the curve's order.
    #[must_use]
    pub fn bits(&self) -> usize {
        match &self.kind {
            PublicKeyKind::Rsa { modulus, .. } => {
                let unused = modulus.first().map_or(0, |octet| octet.leading_zeros());
                (modulus.len() * 8).saturating_sub(unused as usize)
            }
            PublicKeyKind::Ec {
                curve: Curve::P256, ..
            } => 256,
            PublicKeyKind::Ec {
                curve: Curve::P384, ..
            } => 384,
        }
    }

    /// Whether the size is one that signatures are verified with at all: RSA of 2048 to 8192 bits.
    pub(crate) fn is_verifiable(&self) -> bool {
        match self.kind {
            PublicKeyKind::Rsa { .. } => (2048..=8192).contains(&self.bits()),
            PublicKeyKind::Ec { .. } => true,
        }
    }

    /// Reads `SubjectPublicKeyInfo ::= SEQUENCE { algorithm, subjectPublicKey BIT STRING }`. The
    /// numbers are encoded again and compared with what was received, so that one key has one
    /// form only: parameters exactly NULL or a named curve, minimal positive INTEGERs, an
    /// uncompressed point.
    pub(crate) fn read(element: Element<'_, '_>) -> Result<Self, KeyError> {
        let received = element.octets();
        let kind = match signature::split_ec(received) {
            Some((curve, point)) => PublicKeyKind::Ec {
                curve,
                point: point.into(),
            },
            None => read_rsa(element)?,
        };
        let spki = kind.to_spki();
        if spki == received {
            Ok(Self { spki, kind })
        } else {
            Err(KeyError::Unaccepted)
        }
    }
}

impl PublicKeyKind {
    fn to_spki(&self) -> Vec<u8> {
        match self {
            Self::Rsa { modulus, exponent } => {
                let key = tlv(tag::SEQUENCE, &[&integer(modulus), &integer(exponent)]);
                let key = tlv(tag::BIT_STRING, &[&[0], &key]);
                tlv(tag::SEQUENCE, &[RSA_ALGORITHM, &key])
            }
            Self::Ec { curve, point } => [signature::ec_prefix(*curve), point].concat(),
        }
    }
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }` (RFC 8017 A.1.1).
fn read_rsa(element: Element<'_, '_>) -> Result<PublicKeyKind, KeyError> {
    let mut fields = element.fields();
    let algorithm = fields
        .any("an algorithm")
        .map_err(|_| KeyError::Unaccepted)?;
    if algorithm.octets() != RSA_ALGORITHM {
        return Err(KeyError::Unaccepted);
    }
    let string = fields
        .take(tag::BIT_STRING, "a subjectPublicKey")
        .map_err(|_| KeyError::Unaccepted)?;
    let mut numbers = string.opened().map_err(KeyError::Unproved)?.fields();
    let mut number = || {
        let integer = numbers.take(tag::INTEGER, "a number of the key").ok()?;
        let zeros = integer.content().iter().take_while(|o| **o == 0).count();
        integer.content().get(zeros..).filter(|n| !n.is_empty())
    };
    match (number(), number()) {
        (Some(modulus), Some(exponent)) => Ok(PublicKeyKind::Rsa {
            modulus: modulus.into(),
            exponent: exponent.into(),
        }),
        _ => Err(KeyError::Unaccepted),
    }
}

/// A positive INTEGER (X.690 §8.3): the top bit is the sign.
fn integer(magnitude: &[u8]) -> Vec<u8> {
    let sign: &[u8] = match magnitude.first() {
        Some(0x80..) => &[0],
        _ => &[],
    };
    tlv(tag::INTEGER, &[sign, magnitude])
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut octets = Vec::with_capacity(length + 5);
    octets.push(tag);
    let [.., high, middle, low] = length.to_be_bytes();
    match length {
        0..=0x7f => octets.push(low),
        0x80..=0xff => octets.extend([0x81, low]),
        0x100..=0xffff => octets.extend([0x82, middle, low]),
        _ => octets.extend([0x83, high, middle, low]),
    }
    octets.extend(parts.iter().copied().flatten());
    octets
}

/// `SEQUENCE { rsaEncryption, NULL }` (RFC 3279 §2.3.1).
const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
