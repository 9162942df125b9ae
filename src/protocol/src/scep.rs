//! SCEP's numbers and identifiers (RFC 8894 §3.2.1).

use core::fmt;

use der::asn1::{ObjectIdentifier, OctetString};
use der::{Enumerated, Sequence};

/// messageType (§3.2.1.2): every number that RFC 8894 assigns to a request, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// 17.
    RenewalReq,
    /// 19.
    PkcsReq,
    /// 20.
    CertPoll,
    /// 21.
    GetCert,
    /// 22.
    GetCrl,
}

impl MessageType {
    /// Reads the decimal text of the attribute; `None` for CertRep and anything unassigned.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        match text {
            b"17" => Some(Self::RenewalReq),
            b"19" => Some(Self::PkcsReq),
            b"20" => Some(Self::CertPoll),
            b"21" => Some(Self::GetCert),
            b"22" => Some(Self::GetCrl),
            _ => None,
        }
    }
}

/// messageType of a response.
pub const CERT_REP: &str = "3";

/// pkiStatus (§3.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PkiStatus {
    /// 0: the request was granted.
    Success,
    /// 2: the request was refused; failInfo says how.
    Failure,
    /// 3: the request waits for approval.
    Pending,
}

impl PkiStatus {
    /// The decimal text of the attribute.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Success => "0",
            Self::Failure => "2",
            Self::Pending => "3",
        }
    }
}

/// failInfo (§3.2.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumerated)]
#[repr(u8)]
pub enum FailInfo {
    /// Unrecognized or unsupported algorithm.
    BadAlg = 0,
    /// Integrity check (verification of the CMS message) failed.
    BadMessageCheck = 1,
    /// Transaction not permitted or supported.
    BadRequest = 2,
    /// signingTime was not close enough to the system time.
    BadTime = 3,
    /// No certificate could be identified matching the provided criteria.
    BadCertId = 4,
}

impl FailInfo {
    /// The decimal text of the attribute.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::BadAlg => "0",
            Self::BadMessageCheck => "1",
            Self::BadRequest => "2",
            Self::BadTime => "3",
            Self::BadCertId => "4",
        }
    }
}

/// The client's transactionID: 1 to 256 printable ASCII characters. Not unique and not hexadecimal in
/// the field; good for correlation, never for authority.
#[derive(Clone, PartialEq, Eq, Sequence)]
pub struct TransactionId {
    text: String,
}

impl TransactionId {
    /// Takes the content of the attribute's PrintableString.
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(text).ok()?;
        let fits =
            (1..=256).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b));
        fits.then(|| Self { text: text.into() })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The client's senderNonce: 16 octets by §3.2.1.5, 1 to 64 in the field; echoed as received.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Nonce {
    octets: OctetString,
}

impl Nonce {
    /// Takes the content of the attribute's OCTET STRING.
    #[must_use]
    pub fn new(octets: &[u8]) -> Option<Self> {
        if !(1..=64).contains(&octets.len()) {
            return None;
        }
        OctetString::new(octets).ok().map(|octets| Self { octets })
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.as_bytes()
    }
}

/// SCEP's attribute types (§3.2.1).
pub mod oid {
    use super::ObjectIdentifier;

    /// messageType.
    pub const MESSAGE_TYPE: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.2");
    /// pkiStatus.
    pub const PKI_STATUS: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.3");
    /// failInfo.
    pub const FAIL_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.4");
    /// senderNonce.
    pub const SENDER_NONCE: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.5");
    /// recipientNonce.
    pub const RECIPIENT_NONCE: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.6");
    /// transactionID.
    pub const TRANSACTION_ID: ObjectIdentifier =
        ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.7");
    /// failInfoText.
    pub const FAIL_INFO_TEXT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.24.1");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_assigned_request_types_are_read() {
        let read: Vec<u32> = (0..=300u32)
            .filter(|n| MessageType::from_text(n.to_string().as_bytes()).is_some())
            .collect();
        assert_eq!(read, [17, 19, 20, 21, 22]);
        for junk in ["", "019", "19 ", "+19", "-19", "nineteen"] {
            assert!(MessageType::from_text(junk.as_bytes()).is_none());
        }
    }

    #[test]
    fn identifiers_have_limits() {
        assert!(TransactionId::new(b"").is_none());
        assert!(TransactionId::new("é".as_bytes()).is_none());
        assert!(TransactionId::new(&[b'a'; 257]).is_none());
        assert!(TransactionId::new(b"SSCEP transactionId").is_some());
        assert!(Nonce::new(&[]).is_none());
        assert!(Nonce::new(&[0; 8]).is_some());
        assert!(Nonce::new(&[0; 65]).is_none());
    }
}
