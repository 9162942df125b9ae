//! What a token must refuse to do with a key of ours.
//!
//! Attributes are the token's word. There are tokens that report CKA_NEVER_EXTRACTABLE as true and
//! hand the key out when asked, so a ceremony asks.

use core::fmt;

use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::attributes;
use crate::public_key::PublicKey;
use crate::role::Purpose;
use crate::verbs::KeyTransport;

/// What a token did that it must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It let a secret attribute of the key be read.
    Read,
    /// It wrapped the key under another one, by the mechanism named.
    Wrapped(&'static str),
    /// It made a copy of the key that may be extracted.
    Copied,
    /// It used the key for another purpose, by the function named.
    OtherPurpose(&'static str),
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("its secret value could be read"),
            Self::Wrapped(mechanism) => {
                write!(f, "it could be wrapped and taken out by {mechanism}")
            }
            Self::Copied => f.write_str("an extractable copy of it could be made"),
            Self::OtherPurpose(function) => {
                write!(f, "{function} worked with it, which its attributes forbid")
            }
        }
    }
}

/// Tries to get the key out and to use it for another purpose. Any refusal will do, whatever its
/// reason: the caller knows that key and token are well.
pub(super) fn breach(
    session: &Session,
    key: ObjectHandle,
    purpose: Purpose,
    public: Option<&PublicKey>,
) -> Option<Breach> {
    read(session, key)
        .or_else(|| wrap(session, key))
        .or_else(|| copy(session, key))
        .or_else(|| use_otherwise(session, key, purpose, public))
}

fn read(session: &Session, key: ObjectHandle) -> Option<Breach> {
    [AttributeType::Value, AttributeType::PrivateExponent]
        .into_iter()
        .any(|attribute| matches!(attributes::octets(session, key, attribute), Ok(Some(_))))
        .then_some(Breach::Read)
}

fn wrap(session: &Session, key: ObjectHandle) -> Option<Breach> {
    let template = [
        Attribute::Token(false),
        Attribute::ValueLen(32.into()),
        Attribute::Wrap(true),
    ];
    let wrapping = match session.generate_key(&Mechanism::AesKeyGen, &template) {
        Ok(wrapping) => wrapping,
        Err(error) => {
            tracing::warn!(
                %error,
                "the token makes no AES key, so wrapping a key out of it was not tried"
            );
            return None;
        }
    };
    let mechanisms = [
        (Mechanism::AesKeyWrap, "CKM_AES_KEY_WRAP"),
        (Mechanism::AesKeyWrapPad, "CKM_AES_KEY_WRAP_PAD"),
        (Mechanism::AesCbcPad([0; 16]), "CKM_AES_CBC_PAD"),
    ];
    let breach = mechanisms
        .into_iter()
        .find(|(mechanism, _)| session.wrap_key(mechanism, wrapping, key).is_ok())
        .map(|(_, name)| Breach::Wrapped(name));
    if let Err(error) = session.destroy_object(wrapping) {
        // It goes with the session all the same.
        tracing::debug!(%error, "the throw-away wrapping key was not deleted");
    }
    breach
}

fn copy(session: &Session, key: ObjectHandle) -> Option<Breach> {
    let template = [Attribute::Token(false), Attribute::Extractable(true)];
    let copy = session.copy_object(key, &template).ok()?;
    if let Err(error) = session.destroy_object(copy) {
        tracing::debug!(%error, "the copy of the key was not deleted");
    }
    Some(Breach::Copied)
}

fn use_otherwise(
    session: &Session,
    key: ObjectHandle,
    purpose: Purpose,
    public: Option<&PublicKey>,
) -> Option<Breach> {
    let text = [0x42; 32];
    let (worked, function) = match (purpose, public) {
        (Purpose::Decrypt, _) => (
            session.sign(&Mechanism::RsaPkcs, key, &text).is_ok(),
            "C_Sign",
        ),
        (Purpose::Authenticate, _) => {
            let mac = session.sign(&Mechanism::Sha256Hmac, key, &text).ok()?;
            (
                session
                    .verify(&Mechanism::Sha256Hmac, key, &text, &mac)
                    .is_ok(),
                "C_Verify",
            )
        }
        (Purpose::Sign, public) => match public.and_then(PublicKey::point) {
            Some(point) => (agree(session, key, point), "C_DeriveKey"),
            None => {
                let encrypted = public?.encrypt(KeyTransport::Pkcs1v15, &text)?;
                (
                    session
                        .decrypt(&Mechanism::RsaPkcs, key, &encrypted)
                        .is_ok(),
                    "C_Decrypt",
                )
            }
        },
    };
    worked.then_some(Breach::OtherPurpose(function))
}

/// Whether the key agrees on a secret, with its own public key for a peer.
fn agree(session: &Session, key: ObjectHandle, point: &[u8]) -> bool {
    let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), point));
    let template = [
        Attribute::Token(false),
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::ValueLen(32.into()),
    ];
    session.derive_key(&mechanism, key, &template).is_ok()
}

/// A probe that finds nothing with a good key must find something with a bad one.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::Fixture;
    use crate::key::read_public_key;
    use crate::public_key::KeyAlgorithm;

    fn rsa(session: &Session, private: &[Attribute]) -> (ObjectHandle, PublicKey) {
        let public = [
            Attribute::Token(false),
            Attribute::ModulusBits(2048.into()),
            Attribute::PublicExponent(vec![1, 0, 1]),
        ];
        pair(session, Mechanism::RsaPkcsKeyPairGen, &public, private)
    }

    fn p256(session: &Session, private: &[Attribute]) -> (ObjectHandle, PublicKey) {
        let params = KeyAlgorithm::P256.ec_params().unwrap();
        let public = [Attribute::Token(false), Attribute::EcParams(params)];
        pair(session, Mechanism::EccKeyPairGen, &public, private)
    }

    fn pair(
        session: &Session,
        mechanism: Mechanism<'_>,
        public: &[Attribute],
        changes: &[Attribute],
    ) -> (ObjectHandle, PublicKey) {
        let private = template(changes);
        let (public, private) = session
            .generate_key_pair(&mechanism, public, &private)
            .unwrap();
        (
            private,
            read_public_key(session, public).unwrap().unwrap().unwrap(),
        )
    }

    /// Good for signing and nothing else, but for what `changes` say.
    fn template(changes: &[Attribute]) -> Vec<Attribute> {
        let mut template = vec![
            Attribute::Token(false),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Decrypt(false),
            Attribute::Derive(false),
        ];
        for change in changes {
            template.retain(|attribute| attribute.attribute_type() != change.attribute_type());
            template.push(change.clone());
        }
        template
    }

    #[test]
    fn good_keys_resist() {
        let fixture = Fixture::new();
        let session = fixture.raw();
        let (key, public) = rsa(&session, &[]);
        assert_eq!(breach(&session, key, Purpose::Sign, Some(&public)), None);
        let (key, public) = p256(&session, &[]);
        assert_eq!(breach(&session, key, Purpose::Sign, Some(&public)), None);
        let (key, public) = rsa(
            &session,
            &[Attribute::Sign(false), Attribute::Decrypt(true)],
        );
        assert_eq!(breach(&session, key, Purpose::Decrypt, Some(&public)), None);
    }

    #[test]
    fn ways_out_are_found() {
        let fixture = Fixture::new();
        let session = fixture.raw();
        let open = [Attribute::Sensitive(false), Attribute::Extractable(true)];
        let (key, public) = rsa(&session, &open);
        assert_eq!(
            breach(&session, key, Purpose::Sign, Some(&public)),
            Some(Breach::Read)
        );

        for (key, public) in [
            rsa(&session, &[Attribute::Extractable(true)]),
            p256(&session, &[Attribute::Extractable(true)]),
        ] {
            let found = breach(&session, key, Purpose::Sign, Some(&public));
            assert!(matches!(found, Some(Breach::Wrapped(_))), "{found:?}");
            assert_eq!(copy(&session, key), Some(Breach::Copied));
        }
    }

    #[test]
    fn other_purposes_are_found() {
        let fixture = Fixture::new();
        let session = fixture.raw();
        let found = |(key, public): (ObjectHandle, PublicKey), purpose| {
            breach(&session, key, purpose, Some(&public))
        };
        let both = [Attribute::Decrypt(true)];
        let other = |function| Some(Breach::OtherPurpose(function));
        assert_eq!(
            found(rsa(&session, &both), Purpose::Sign),
            other("C_Decrypt")
        );
        assert_eq!(
            found(rsa(&session, &both), Purpose::Decrypt),
            other("C_Sign")
        );
        let derive = [Attribute::Derive(true)];
        assert_eq!(
            found(p256(&session, &derive), Purpose::Sign),
            other("C_DeriveKey")
        );
    }

    #[test]
    fn a_secret_that_verifies_is_found() {
        let fixture = Fixture::new();
        let session = fixture.raw();
        for (verify, expected) in [
            (true, Some(Breach::OtherPurpose("C_Verify"))),
            (false, None),
        ] {
            let mut template = template(&[Attribute::Verify(verify)]);
            template.push(Attribute::ValueLen(32.into()));
            let key = session
                .generate_key(&Mechanism::GenericSecretKeyGen, &template)
                .unwrap();
            assert_eq!(breach(&session, key, Purpose::Authenticate, None), expected);
        }
    }
}
