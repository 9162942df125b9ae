//! A key: found by its identifier, held against what is pinned, and tested.

use core::fmt;
use core::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use chancery_protocol::hex;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session as RawSession;

use crate::attributes;
use crate::context::{Context, Token};
use crate::error::{Class, KeyError, KeyFault};
use crate::public_key::PublicKey;
use crate::role::{Purpose, Role};
use crate::verbs::{self, KeyTransport};

/// What is known of a key outside its token, and what it must prove to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedKey {
    /// CKA_ID.
    pub id: Vec<u8>,
    /// What tells this key from every other.
    pub material: Pinned,
}

/// What tells a key from every other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// The SubjectPublicKeyInfo of a key pair, in DER.
    Public(Vec<u8>),
    /// The check value of a secret key: its MAC of a text that is used for nothing else. It tells
    /// nothing about the key or any other MAC.
    Check([u8; 32]),
}

/// A key of a token, with the one verb of its role. Cloning shares it; any session of the same
/// token can use it.
pub struct Key<R> {
    record: Arc<Record>,
    role: PhantomData<fn() -> R>,
}

impl<R> Clone for Key<R> {
    fn clone(&self) -> Self {
        Self {
            record: Arc::clone(&self.record),
            role: PhantomData,
        }
    }
}

impl<R> fmt::Debug for Key<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { role, id, .. } = &self.record.identity;
        f.debug_struct("Key")
            .field("role", role)
            .field("id", &hex::encode(id))
            .field("token", &self.record.context.name)
            .finish()
    }
}

impl<R> Key<R> {
    /// The SubjectPublicKeyInfo in DER; `None` for a secret key.
    #[must_use]
    pub fn public_key(&self) -> Option<&[u8]> {
        self.record.identity.public_key().map(PublicKey::spki)
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }
}

impl<R: Role> Key<R> {
    pub(crate) fn find(token: &Token, pinned: &PinnedKey) -> Result<Self, KeyError> {
        let context = Arc::clone(&token.context);
        let _call = context.watch.gauge().start();
        let found = Identity::new::<R>(pinned).and_then(|identity| {
            let handle = identity.locate(&context.open_session()?)?;
            Ok((identity, Mutex::new(handle)))
        });
        match found {
            Ok((identity, handle)) => {
                let record = Arc::new(Record {
                    context,
                    identity,
                    handle,
                });
                Ok(Self {
                    record,
                    role: PhantomData,
                })
            }
            Err(fault) => Err(key_error(R::NAME, &pinned.id, &context.name, fault)),
        }
    }
}

/// A key that was found on a token.
pub(crate) struct Record {
    context: Arc<Context>,
    identity: Identity,
    /// The handle found last. The lock is held to copy or replace it, never during a call.
    handle: Mutex<ObjectHandle>,
}

impl Record {
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn handle(&self) -> ObjectHandle {
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_handle(&self, handle: ObjectHandle) {
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = handle;
    }

    pub(crate) fn error(&self, fault: KeyFault) -> KeyError {
        key_error(
            self.identity.role,
            &self.identity.id,
            &self.context.name,
            fault,
        )
    }
}

pub(crate) fn key_error(role: &'static str, id: &[u8], token: &str, fault: KeyFault) -> KeyError {
    KeyError {
        role,
        id: hex::encode(id),
        token: token.to_owned(),
        fault,
    }
}

/// Which key is meant, for what, and how it is recognised.
pub(crate) struct Identity {
    role: &'static str,
    purpose: Purpose,
    id: Vec<u8>,
    material: Material,
}

enum Material {
    Pair(PublicKey),
    Secret([u8; 32]),
}

impl Identity {
    pub(crate) fn new<R: Role>(pinned: &PinnedKey) -> Result<Self, KeyFault> {
        let material = match (&pinned.material, R::PURPOSE) {
            (Pinned::Public(spki), Purpose::Sign | Purpose::Decrypt) => {
                let public = PublicKey::from_spki(spki).map_err(KeyFault::Unsuitable)?;
                if !R::accepts(public.algorithm) {
                    return Err(KeyFault::Unsuitable("its algorithm cannot serve this role"));
                }
                Material::Pair(public)
            }
            (Pinned::Check(check), Purpose::Authenticate) => Material::Secret(*check),
            (Pinned::Public(_), Purpose::Authenticate) => {
                return Err(KeyFault::Unsuitable(
                    "a check value is needed, not a public key",
                ));
            }
            (Pinned::Check(_), Purpose::Sign | Purpose::Decrypt) => {
                return Err(KeyFault::Unsuitable(
                    "a public key is needed, not a check value",
                ));
            }
        };
        if pinned.id.is_empty() {
            // An empty value in a search template would match keys without an identifier.
            return Err(KeyFault::Unsuitable("its CKA_ID is empty"));
        }
        Ok(Self {
            role: R::NAME,
            purpose: R::PURPOSE,
            id: pinned.id.clone(),
            material,
        })
    }

    pub(crate) fn public_key(&self) -> Option<&PublicKey> {
        match &self.material {
            Material::Pair(public) => Some(public),
            Material::Secret(_) => None,
        }
    }

    /// Finds the key and puts it to every test.
    pub(crate) fn locate(&self, session: &RawSession) -> Result<ObjectHandle, KeyFault> {
        let class = match self.material {
            Material::Pair(_) => ObjectClass::PRIVATE_KEY,
            Material::Secret(_) => ObjectClass::SECRET_KEY,
        };
        let found = self.objects(session, class)?;
        let handle = match found.as_slice() {
            [handle] => *handle,
            [] => return Err(KeyFault::Missing),
            several => return Err(KeyFault::Several(several.len())),
        };
        attributes::check(session, handle, self.purpose)?;
        self.compare(session, handle)?;
        self.pairwise_test(session, handle)?;
        Ok(handle)
    }

    fn objects(
        &self,
        session: &RawSession,
        class: ObjectClass,
    ) -> Result<Vec<ObjectHandle>, KeyFault> {
        let template = [
            Attribute::Token(true),
            Attribute::Class(class),
            Attribute::Id(self.id.clone()),
        ];
        Ok(session.find_objects(&template)?)
    }

    /// Compares what the token shows of the public key: at the private key itself, and at each
    /// public key object of the same identifier. A token need not show it anywhere; the pairwise
    /// test then stands alone.
    fn compare(&self, session: &RawSession, handle: ObjectHandle) -> Result<(), KeyFault> {
        let wanted_type = match &self.material {
            Material::Pair(public) if public.algorithm.is_rsa() => KeyType::RSA,
            Material::Pair(_) => KeyType::EC,
            Material::Secret(_) => KeyType::GENERIC_SECRET,
        };
        if attributes::key_type(session, handle)? != Some(wanted_type) {
            return Err(KeyFault::PublicKeyDiffers);
        }
        let Material::Pair(pinned) = &self.material else {
            return Ok(());
        };
        let mut shown = vec![handle];
        shown.extend(self.objects(session, ObjectClass::PUBLIC_KEY)?);
        for object in shown {
            let differs = match read_public_key(session, object)? {
                Some(Ok(public)) => public.spki() != pinned.spki(),
                Some(Err(_)) => true,
                None => false,
            };
            if differs {
                return Err(KeyFault::PublicKeyDiffers);
            }
        }
        Ok(())
    }

    /// Has the key do its work once and checks the result in software, against the pinned key.
    pub(crate) fn pairwise_test(
        &self,
        session: &RawSession,
        handle: ObjectHandle,
    ) -> Result<(), KeyFault> {
        let tested = match (&self.material, self.purpose) {
            (Material::Pair(public), Purpose::Decrypt) => decrypt_test(session, handle, public),
            (Material::Pair(public), _) => sign_test(session, handle, public),
            (Material::Secret(check), _) => check_test(session, handle, check),
        };
        tested.map_err(|fault| match fault {
            // What the token says against data of our own making, it says against the key.
            KeyFault::Call(cause) if cause.class() == Class::Request => {
                KeyFault::Pairwise("the token refuses data made with the pinned key")
            }
            other => other,
        })
    }
}

/// What an object shows of a public key: nothing, a key of ours, or something else.
pub(crate) fn read_public_key(
    session: &RawSession,
    object: ObjectHandle,
) -> Result<Option<Result<PublicKey, &'static str>>, KeyFault> {
    let octets = |attribute| attributes::octets(session, object, attribute);
    if attributes::key_type(session, object)? == Some(KeyType::RSA) {
        let modulus = octets(AttributeType::Modulus)?;
        let exponent = octets(AttributeType::PublicExponent)?;
        return Ok(modulus
            .zip(exponent)
            .map(|(modulus, exponent)| PublicKey::from_rsa(&modulus, &exponent)));
    }
    let params = octets(AttributeType::EcParams)?;
    let point = octets(AttributeType::EcPoint)?;
    Ok(params
        .zip(point)
        .map(|(params, point)| PublicKey::from_ec(&params, &point)))
}

/// The beginning of every text signed for a test: no certificate, CRL, message or checkpoint
/// begins so.
const TEST_TEXT: &[u8] = b"chancery pairwise test ";

fn sign_test(
    session: &RawSession,
    handle: ObjectHandle,
    public: &PublicKey,
) -> Result<(), KeyFault> {
    let mut text = TEST_TEXT.to_vec();
    text.extend(nonce()?);
    let signature = verbs::sign(session, handle, public.algorithm, &text)?
        .ok_or(KeyFault::Pairwise("the signature is malformed"))?;
    if public.verifies(&text, &signature) {
        Ok(())
    } else {
        Err(KeyFault::Pairwise(
            "a signature of the key does not verify with the pinned key",
        ))
    }
}

fn decrypt_test(
    session: &RawSession,
    handle: ObjectHandle,
    public: &PublicKey,
) -> Result<(), KeyFault> {
    for transport in [KeyTransport::Pkcs1v15, KeyTransport::OaepSha1] {
        let content_key = nonce()?;
        let encrypted = public
            .encrypt(transport, &content_key)
            .ok_or(KeyFault::Pairwise("the pinned key does not encrypt"))?;
        let decrypted = session.decrypt(&transport.mechanism(), handle, &encrypted)?;
        if verify_slices_are_equal(&decrypted, &content_key).is_err() {
            return Err(KeyFault::Pairwise(
                "the key does not decrypt what the pinned key encrypts",
            ));
        }
    }
    Ok(())
}

fn check_test(
    session: &RawSession,
    handle: ObjectHandle,
    check: &[u8; 32],
) -> Result<(), KeyFault> {
    // Twice, since a token that answers from a spent operation would do so the second time.
    for _ in 0..2 {
        let mac = verbs::mac(session, handle, verbs::CHECK_TEXT)?
            .ok_or(KeyFault::Pairwise("the MAC is malformed"))?;
        if verify_slices_are_equal(&mac, check).is_err() {
            return Err(KeyFault::PublicKeyDiffers);
        }
    }
    Ok(())
}

fn nonce() -> Result<[u8; 32], KeyFault> {
    let mut nonce = [0; 32];
    aws_lc_rs::rand::fill(&mut nonce)
        .map_err(|_| KeyFault::Pairwise("the operating system gives no random octets"))?;
    Ok(nonce)
}
