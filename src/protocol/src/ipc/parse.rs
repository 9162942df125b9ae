//! ra → parser, socket `parser.parse`: one blob a connection, one answer, then the child is gone.

use der::asn1::OctetString;
use der::{Choice, Sequence};

/// One blob to take apart. Which grammar applies says the asker, never the blob.
#[derive(Clone, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Request {
    /// A pkiMessage: ContentInfo holding SignedData and, in its eContent, EnvelopedData.
    #[asn1(context_specific = "0", constructed = "true")]
    Message(OctetString),
    /// A decrypted plaintext: a PKCS#10 CertificationRequest, or garbage. Wiped by nobody but
    /// the end of the child's address space.
    #[asn1(context_specific = "1", constructed = "true")]
    CertificationRequest(OctetString),
}

/// The answer. For [`Request::Message`] two tables, of the message and of the joined eContent
/// (one only where the eContent is absent); for [`Request::CertificationRequest`] one.
#[derive(Clone, Debug, PartialEq, Eq, Choice)]
#[asn1(tag_mode = "EXPLICIT")]
pub enum Reply {
    /// Node tables in the order of their buffers.
    #[asn1(context_specific = "0", constructed = "true")]
    Tables(Tables),
    /// Not this grammar, or beyond a limit. Carries no detail: whoever needs one uses `explain`.
    #[asn1(context_specific = "1", constructed = "true")]
    Malformed(der::asn1::Null),
}

/// Encoded node tables (see [`crate::node`]).
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Tables {
    /// One table a buffer.
    pub tables: Vec<OctetString>,
}
