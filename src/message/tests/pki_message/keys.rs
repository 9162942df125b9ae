//! Keys, made once a run.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as aws, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RsaKeyPair, RsaSignatureEncoding,
};

/// A key pair and its SubjectPublicKeyInfo.
pub(crate) struct Key {
    pair: Pair,
    pub(crate) spki: Vec<u8>,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
}

/// The key of the device.
pub(crate) static DEVICE: LazyLock<Key> = LazyLock::new(|| Key::rsa(KeySize::Rsa2048));
/// A key of somebody else.
pub(crate) static STRANGER: LazyLock<Key> = LazyLock::new(|| Key::rsa(KeySize::Rsa2048));
/// A key on P-256, which signs with SHA-256.
pub(crate) static P256: LazyLock<Key> =
    LazyLock::new(|| Key::ec(&aws::ECDSA_P256_SHA256_ASN1_SIGNING));
/// A key on P-384, which signs with SHA-384.
pub(crate) static P384: LazyLock<Key> =
    LazyLock::new(|| Key::ec(&aws::ECDSA_P384_SHA384_ASN1_SIGNING));

impl Key {
    fn rsa(size: KeySize) -> Self {
        let pair = RsaKeyPair::generate(size).unwrap();
        let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
        Self {
            pair: Pair::Rsa(Box::new(pair)),
            spki,
        }
    }

    fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> Self {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
        Self {
            pair: Pair::Ec(pair),
            spki,
        }
    }

    /// Signs; the digest counts for RSA only.
    pub(crate) fn sign(&self, digest: Digest, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(digest.rsa(), &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }
}

/// A digest algorithm, as the builder names it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

pub(crate) const DIGESTS: [Digest; 3] = [Digest::Sha256, Digest::Sha384, Digest::Sha512];

impl Digest {
    pub(crate) fn oid(self) -> &'static str {
        match self {
            Self::Sha256 => "2.16.840.1.101.3.4.2.1",
            Self::Sha384 => "2.16.840.1.101.3.4.2.2",
            Self::Sha512 => "2.16.840.1.101.3.4.2.3",
        }
    }

    pub(crate) fn with_rsa(self) -> &'static str {
        match self {
            Self::Sha256 => "1.2.840.113549.1.1.11",
            Self::Sha384 => "1.2.840.113549.1.1.12",
            Self::Sha512 => "1.2.840.113549.1.1.13",
        }
    }

    pub(crate) fn of(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        };
        aws_lc_rs::digest::digest(algorithm, data).as_ref().to_vec()
    }

    fn rsa(self) -> &'static RsaSignatureEncoding {
        match self {
            Self::Sha256 => &aws::RSA_PKCS1_SHA256,
            Self::Sha384 => &aws::RSA_PKCS1_SHA384,
            Self::Sha512 => &aws::RSA_PKCS1_SHA512,
        }
    }
}
