//! Rows that the CA must be able to believe later: it seals them with its challenge key (HMAC),
//! so that the ledger can lose or replay a row but not make or change one.

use der::Sequence;
use der::asn1::OctetString;

use crate::name::{DistinguishedName, GeneralName};
use crate::wire::Digest;

/// What a sealed row is. Part of the sealed octets, so that one kind never passes for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, der::Enumerated)]
#[repr(u8)]
pub enum SealKind {
    /// A challenge: the row id is SHA-256 of the handle, the body its [`Claims`].
    Challenge = 1,
    /// A reservation: the row id is the retry identity, the body the TBSCertificate.
    Reservation = 2,
}

/// The octets under the seal.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct SealedContent {
    /// What the row is.
    pub kind: SealKind,
    /// CKA_ID of the challenge key.
    pub key_id: OctetString,
    /// What the row is found by.
    pub id: Digest,
    /// The row's content in DER.
    pub body: OctetString,
}

/// A sealed row as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct SealedRow {
    /// CKA_ID of the challenge key that sealed the row.
    pub key_id: OctetString,
    /// What the row is found by.
    pub id: Digest,
    /// The row's content in DER.
    pub body: OctetString,
    /// HMAC-SHA-256 over [`SealedContent`].
    pub mac: Digest,
}

/// What a challenge allows.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Claims {
    /// The profile that the challenge is for.
    pub profile: String,
    /// When it was minted, in Unix seconds.
    pub issued_at: u64,
    /// When it stops being accepted, in Unix seconds.
    pub expires: u64,
    /// How many certificates it is good for; 1 for a dynamic challenge.
    pub uses: u32,
    /// The subject that the certificate carries; absent: open within the profile's template.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub subject: Option<DistinguishedName>,
    /// The subject alternative names that the certificate carries; absent: open within the
    /// profile's template.
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    pub sans: Option<Vec<GeneralName>>,
    /// The MDM's name for the device.
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    pub device_id: Option<String>,
    /// Who asked for it: the socket and the peer.
    pub minted_by: String,
}

/// What identifies a repeated enrolment (promise 6): its SHA-256 finds the reservation.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct RetryIdentity {
    /// SHA-256 of the challenge's handle.
    pub challenge: Digest,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub public_key: Digest,
    /// The profile.
    pub profile: String,
    /// The subject that the certificate carries.
    pub subject: DistinguishedName,
    /// The subject alternative names that the certificate carries.
    pub sans: Vec<GeneralName>,
}

/// What identifies the certificate of a key that the ceremony pinned (RA): it is issued once and
/// found again until it is due for renewal.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct InfrastructureIdentity {
    /// The issuing CA's id.
    pub ca: String,
    /// What the key is for, for example `ra-decryption`.
    pub purpose: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub public_key: Digest,
    /// SHA-256 of the issuing CA's certificate: another CA certificate means another RA one.
    pub issuer: Digest,
    /// SHA-256 of the certificate that this one follows; absent: the first.
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub predecessor: Option<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Octets};

    #[test]
    fn claims_survive_with_and_without_names() {
        let open = Claims {
            profile: "devices".into(),
            issued_at: 1,
            expires: 3601,
            uses: 1,
            subject: None,
            sans: None,
            device_id: None,
            minted_by: "operator uid=0".into(),
        };
        let fixed = Claims {
            subject: Some(DistinguishedName::parse("CN=laptop-1").unwrap()),
            sans: Some(vec![GeneralName::dns("laptop-1.example").unwrap()]),
            device_id: Some("D-1".into()),
            ..open.clone()
        };
        let none_allowed = Claims {
            sans: Some(Vec::new()),
            ..open.clone()
        };
        for claims in [open, fixed, none_allowed] {
            assert_eq!(
                wire::decode::<Claims>(&wire::encode(&claims).unwrap()).unwrap(),
                claims
            );
        }
    }

    #[test]
    fn a_seal_of_one_kind_is_not_one_of_another() {
        let content = |kind| {
            let empty = OctetString::new([]).unwrap();
            wire::encode(&SealedContent {
                kind,
                key_id: empty.clone(),
                id: Octets([0; 32]),
                body: empty,
            })
            .unwrap()
        };
        assert_ne!(content(SealKind::Challenge), content(SealKind::Reservation));
    }
}
