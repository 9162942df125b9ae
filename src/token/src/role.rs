//! What keys are for: one purpose each, known to the compiler.

use crate::public_key::KeyAlgorithm;

/// A purpose of a key. Implemented by the types of this module alone.
pub trait Role: sealed::Role + 'static {}

/// A purpose served by a key pair.
pub trait PairRole: Role {}

/// A purpose served by a secret key.
pub trait SecretRole: Role {}

/// Signing certificates and CRLs: a CA's key. RSA or EC.
#[derive(Debug)]
pub enum Issue {}

/// Decrypting content keys of requests: an RA's key. RSA.
#[derive(Debug)]
pub enum Decrypt {}

/// Signing CertRep messages: an RA's other key. RSA.
#[derive(Debug)]
pub enum Respond {}

/// Authenticating challenges and other rows of the CA's memory: a secret of 32 octets.
#[derive(Debug)]
pub enum Authenticate {}

/// Signing checkpoints of the audit log. EC, P-256.
#[derive(Debug)]
pub enum Checkpoint {}

impl Role for Issue {}
impl Role for Decrypt {}
impl Role for Respond {}
impl Role for Authenticate {}
impl Role for Checkpoint {}

impl PairRole for Issue {}
impl PairRole for Decrypt {}
impl PairRole for Respond {}
impl PairRole for Checkpoint {}

impl SecretRole for Authenticate {}

pub(crate) use sealed::Purpose;

mod sealed {
    use crate::public_key::KeyAlgorithm;

    /// The one thing that the token lets a key do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Purpose {
        /// CKA_SIGN of a private key.
        Sign,
        /// CKA_DECRYPT of a private key.
        Decrypt,
        /// CKA_SIGN of a secret key. MACs are compared here, so CKA_VERIFY stays off.
        Authenticate,
    }

    pub trait Role {
        /// The verb, for messages.
        const NAME: &'static str;
        const PURPOSE: Purpose;

        /// Whether a key pair of this algorithm may serve the role.
        fn accepts(algorithm: KeyAlgorithm) -> bool;
    }
}

impl sealed::Role for Issue {
    const NAME: &'static str = "issue";
    const PURPOSE: Purpose = Purpose::Sign;

    fn accepts(_: KeyAlgorithm) -> bool {
        true
    }
}

impl sealed::Role for Decrypt {
    const NAME: &'static str = "decrypt";
    const PURPOSE: Purpose = Purpose::Decrypt;

    fn accepts(algorithm: KeyAlgorithm) -> bool {
        algorithm.is_rsa()
    }
}

impl sealed::Role for Respond {
    const NAME: &'static str = "respond";
    const PURPOSE: Purpose = Purpose::Sign;

    fn accepts(algorithm: KeyAlgorithm) -> bool {
        algorithm.is_rsa()
    }
}

impl sealed::Role for Authenticate {
    const NAME: &'static str = "authenticate";
    const PURPOSE: Purpose = Purpose::Authenticate;

    fn accepts(_: KeyAlgorithm) -> bool {
        false
    }
}

impl sealed::Role for Checkpoint {
    const NAME: &'static str = "checkpoint";
    const PURPOSE: Purpose = Purpose::Sign;

    fn accepts(algorithm: KeyAlgorithm) -> bool {
        algorithm == KeyAlgorithm::P256
    }
}
