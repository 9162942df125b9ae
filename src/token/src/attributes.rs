//! What the token says about a key, read back and held against what must be.

use cryptoki::error::Error as CryptokiError;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session as RawSession;

use crate::error::KeyFault;
use crate::role::Purpose;

/// Reads a key's attributes back: kept in the token, secret since it was generated there, and for
/// one purpose.
pub(crate) fn check(
    session: &RawSession,
    key: ObjectHandle,
    purpose: Purpose,
) -> Result<(), KeyFault> {
    for (attribute, name, wanted) in ORIGIN {
        expect(
            session,
            key,
            attribute,
            name,
            wanted,
            Absent::IsWrong,
            NEW_KEY,
        )?;
    }
    for (attribute, name) in USAGES {
        let wanted = attribute == purpose.attribute();
        let absent = if wanted {
            Absent::IsWrong
        } else {
            Absent::IsFalse
        };
        expect(session, key, attribute, name, wanted, absent, ONE_PURPOSE)?;
    }
    let always = (AttributeType::AlwaysAuthenticate, "CKA_ALWAYS_AUTHENTICATE");
    expect(
        session,
        key,
        always.0,
        always.1,
        false,
        Absent::IsFalse,
        NO_PIN_EACH_TIME,
    )
}

impl Purpose {
    pub(crate) fn attribute(self) -> AttributeType {
        match self {
            Self::Sign | Self::Authenticate => AttributeType::Sign,
            Self::Decrypt => AttributeType::Decrypt,
        }
    }
}

const ORIGIN: [(AttributeType, &str, bool); 7] = [
    (AttributeType::Token, "CKA_TOKEN", true),
    (AttributeType::Private, "CKA_PRIVATE", true),
    (AttributeType::Extractable, "CKA_EXTRACTABLE", false),
    (
        AttributeType::NeverExtractable,
        "CKA_NEVER_EXTRACTABLE",
        true,
    ),
    (AttributeType::Sensitive, "CKA_SENSITIVE", true),
    (AttributeType::AlwaysSensitive, "CKA_ALWAYS_SENSITIVE", true),
    (AttributeType::Local, "CKA_LOCAL", true),
];

/// Every usage of a private or a secret key in PKCS#11 2.40 and 3.0.
const USAGES: [(AttributeType, &str); 8] = [
    (AttributeType::Sign, "CKA_SIGN"),
    (AttributeType::Decrypt, "CKA_DECRYPT"),
    (AttributeType::SignRecover, "CKA_SIGN_RECOVER"),
    (AttributeType::Unwrap, "CKA_UNWRAP"),
    (AttributeType::Derive, "CKA_DERIVE"),
    (AttributeType::Encrypt, "CKA_ENCRYPT"),
    (AttributeType::Wrap, "CKA_WRAP"),
    (AttributeType::Verify, "CKA_VERIFY"),
];

const NEW_KEY: &str = "generate a new key in the token, and pin that";
const ONE_PURPOSE: &str = "generate a key for this one purpose, and pin that";
const NO_PIN_EACH_TIME: &str = "generate a key that asks for no PIN at each use, and pin that";

/// What it means when a token knows no such attribute of a key.
#[derive(Clone, Copy)]
enum Absent {
    IsFalse,
    IsWrong,
}

fn expect(
    session: &RawSession,
    key: ObjectHandle,
    attribute: AttributeType,
    name: &'static str,
    wanted: bool,
    absent: Absent,
    remedy: &'static str,
) -> Result<(), KeyFault> {
    let found = flag(session, key, attribute)?;
    let holds = match (found, absent) {
        (Some(found), _) => found == wanted,
        (None, Absent::IsFalse) => !wanted,
        (None, Absent::IsWrong) => false,
    };
    if holds {
        Ok(())
    } else {
        Err(KeyFault::Attribute {
            name,
            found,
            wanted,
            remedy,
        })
    }
}

/// One boolean attribute. Asked for alone, since some modules fail a whole list for one attribute
/// that they do not know.
fn flag(
    session: &RawSession,
    key: ObjectHandle,
    attribute: AttributeType,
) -> Result<Option<bool>, CryptokiError> {
    Ok(match session.get_attributes(key, &[attribute])?.first() {
        Some(
            Attribute::Token(flag)
            | Attribute::Private(flag)
            | Attribute::Extractable(flag)
            | Attribute::NeverExtractable(flag)
            | Attribute::Sensitive(flag)
            | Attribute::AlwaysSensitive(flag)
            | Attribute::Local(flag)
            | Attribute::Sign(flag)
            | Attribute::Decrypt(flag)
            | Attribute::SignRecover(flag)
            | Attribute::Unwrap(flag)
            | Attribute::Derive(flag)
            | Attribute::Encrypt(flag)
            | Attribute::Wrap(flag)
            | Attribute::Verify(flag)
            | Attribute::AlwaysAuthenticate(flag),
        ) => Some(*flag),
        _ => None,
    })
}

/// CKA_KEY_TYPE, where the token knows it by a name of the standard.
pub(crate) fn key_type(
    session: &RawSession,
    key: ObjectHandle,
) -> Result<Option<KeyType>, CryptokiError> {
    Ok(
        match session
            .get_attributes(key, &[AttributeType::KeyType])?
            .first()
        {
            Some(Attribute::KeyType(key_type)) => Some(*key_type),
            _ => None,
        },
    )
}

/// One attribute that is a string of octets; `None` where it is absent, withheld or empty.
pub(crate) fn octets(
    session: &RawSession,
    object: ObjectHandle,
    attribute: AttributeType,
) -> Result<Option<Vec<u8>>, CryptokiError> {
    Ok(match session.get_attributes(object, &[attribute])?.pop() {
        Some(
            Attribute::Modulus(octets)
            | Attribute::PublicExponent(octets)
            | Attribute::PrivateExponent(octets)
            | Attribute::EcParams(octets)
            | Attribute::EcPoint(octets)
            | Attribute::Value(octets),
        ) => Some(octets).filter(|octets| !octets.is_empty()),
        _ => None,
    })
}
