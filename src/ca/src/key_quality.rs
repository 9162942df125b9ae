//! Which public keys may be certified.

use chancery_message::{PublicKey, PublicKeyKind};

/// Whether a key is of a kind and size that we certify: RSA of 2048 to 8192 bits, a multiple of
/// eight, odd, with exponent 65537; or a point on P-256 or P-384, which its
/// proof of possession has shown to be on the curve.
#[must_use]
pub(crate) fn is_acceptable(key: &PublicKey) -> bool {
    match key.kind() {
        PublicKeyKind::Rsa { modulus, exponent } => {
            (2048..=8192).contains(&key.bits())
                && key.bits().is_multiple_of(8)
                && modulus.last().is_some_and(|octet| octet & 1 == 1)
                && *exponent == [1, 0, 1]
        }
        PublicKeyKind::Ec { .. } => true,
    }
}
