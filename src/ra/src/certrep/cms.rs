//! The structures of RFC 5652 that a CertRep is made of, as far as it needs them.
//!
//! Names and numbers that a requester chose are [`AnyRef`]: an element copied whole, whose header
//! is checked and whose content is not looked at.

use const_oid::db::rfc5911::{ID_DATA, ID_ENVELOPED_DATA, ID_SIGNED_DATA};
use der::asn1::{Any, AnyRef, ObjectIdentifier, OctetStringRef, SetOfVec};
use der::{Encode, Sequence, ValueOrd};

/// ```text
/// ContentInfo ::= SEQUENCE {
///     contentType ContentType, content [0] EXPLICIT ANY DEFINED BY contentType }
/// ```
#[derive(Sequence)]
pub(crate) struct ContentInfo<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: AnyRef<'a>,
}

impl ContentInfo<'_> {
    /// A whole message of type signed-data, in DER.
    pub(crate) fn signed_data(content: &SignedData<'_>) -> der::Result<Vec<u8>> {
        wrap(ID_SIGNED_DATA, &content.to_der()?)
    }

    /// A whole message of type enveloped-data, in DER.
    pub(crate) fn enveloped_data(content: &EnvelopedData<'_>) -> der::Result<Vec<u8>> {
        wrap(ID_ENVELOPED_DATA, &content.to_der()?)
    }
}

fn wrap(content_type: ObjectIdentifier, content: &[u8]) -> der::Result<Vec<u8>> {
    let content = AnyRef::try_from(content)?;
    ContentInfo {
        content_type,
        content,
    }
    .to_der()
}

/// ```text
/// AlgorithmIdentifier ::= SEQUENCE {
///     algorithm OBJECT IDENTIFIER, parameters ANY DEFINED BY algorithm OPTIONAL }
/// ```
#[derive(Sequence, ValueOrd)]
pub(crate) struct AlgorithmIdentifier<'a> {
    pub(crate) algorithm: ObjectIdentifier,
    pub(crate) parameters: Option<AnyRef<'a>>,
}

/// RFC 5652 §5.1, without crls:
/// ```text
/// SignedData ::= SEQUENCE {
///     version CMSVersion, digestAlgorithms SET OF AlgorithmIdentifier,
///     encapContentInfo EncapsulatedContentInfo,
///     certificates [0] IMPLICIT CertificateSet OPTIONAL,
///     signerInfos SET OF SignerInfo }
/// ```
#[derive(Sequence)]
pub(crate) struct SignedData<'a> {
    version: u8,
    digest_algorithms: SetOfVec<AlgorithmIdentifier<'a>>,
    encap_content_info: EncapsulatedContentInfo<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    certificates: Option<SetOfVec<AnyRef<'a>>>,
    signer_infos: SetOfVec<SignerInfo<'a>>,
}

impl<'a> SignedData<'a> {
    /// Version 1 (plain certificates, content of type data) with one signer.
    pub(crate) fn signed(
        content: Option<&'a [u8]>,
        certificate: &'a [u8],
        signer: SignerInfo<'a>,
    ) -> der::Result<Self> {
        let digest = AlgorithmIdentifier {
            algorithm: signer.digest_algorithm.algorithm,
            parameters: signer.digest_algorithm.parameters,
        };
        Self::new([digest], content, certificate, [signer])
    }

    /// The degenerate form, which carries a certificate and no signature (RFC 8894 §3.4).
    pub(crate) fn degenerate(certificate: &'a [u8]) -> der::Result<Self> {
        Self::new([], None, certificate, [])
    }

    fn new<const N: usize>(
        digests: [AlgorithmIdentifier<'a>; N],
        content: Option<&'a [u8]>,
        certificate: &'a [u8],
        signers: [SignerInfo<'a>; N],
    ) -> der::Result<Self> {
        Ok(Self {
            version: 1,
            digest_algorithms: digests.try_into()?,
            encap_content_info: EncapsulatedContentInfo {
                content_type: ID_DATA,
                content: content.map(OctetStringRef::new).transpose()?,
            },
            certificates: Some([AnyRef::try_from(certificate)?].try_into()?),
            signer_infos: signers.try_into()?,
        })
    }
}

/// RFC 5652 §5.2:
/// ```text
/// EncapsulatedContentInfo ::= SEQUENCE {
///     eContentType ContentType, eContent [0] EXPLICIT OCTET STRING OPTIONAL }
/// ```
#[derive(Sequence)]
struct EncapsulatedContentInfo<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    content: Option<&'a OctetStringRef>,
}

/// RFC 5652 §5.3, with signedAttrs and without unsignedAttrs:
/// ```text
/// SignerInfo ::= SEQUENCE {
///     version CMSVersion, sid SignerIdentifier, digestAlgorithm AlgorithmIdentifier,
///     signedAttrs [0] IMPLICIT SET OF Attribute, signatureAlgorithm AlgorithmIdentifier,
///     signature OCTET STRING }
/// ```
#[derive(Sequence, ValueOrd)]
pub(crate) struct SignerInfo<'a> {
    /// 1 where the signer is named by issuer and serial number.
    pub(crate) version: u8,
    pub(crate) sid: IssuerAndSerialNumber<'a>,
    pub(crate) digest_algorithm: AlgorithmIdentifier<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    pub(crate) signed_attrs: SetOfVec<Attribute>,
    pub(crate) signature_algorithm: AlgorithmIdentifier<'a>,
    pub(crate) signature: &'a OctetStringRef,
}

/// RFC 5652 §10.2.4:
/// ```text
/// IssuerAndSerialNumber ::= SEQUENCE { issuer Name, serialNumber CertificateSerialNumber }
/// ```
#[derive(Clone, Copy, Sequence, ValueOrd)]
pub(crate) struct IssuerAndSerialNumber<'a> {
    issuer: AnyRef<'a>,
    serial_number: AnyRef<'a>,
}

impl<'a> IssuerAndSerialNumber<'a> {
    /// Takes both as whole elements in DER.
    pub(crate) fn new(issuer: &'a [u8], serial_number: &'a [u8]) -> der::Result<Self> {
        Ok(Self {
            issuer: AnyRef::try_from(issuer)?,
            serial_number: AnyRef::try_from(serial_number)?,
        })
    }
}

/// RFC 5652 §5.3, here always with one value:
/// ```text
/// Attribute ::= SEQUENCE { attrType OBJECT IDENTIFIER, attrValues SET OF AttributeValue }
/// ```
#[derive(Clone, Sequence, ValueOrd)]
pub(crate) struct Attribute {
    attr_type: ObjectIdentifier,
    attr_values: SetOfVec<Any>,
}

impl Attribute {
    pub(crate) fn new(attr_type: ObjectIdentifier, value: Any) -> der::Result<Self> {
        Ok(Self {
            attr_type,
            attr_values: [value].try_into()?,
        })
    }
}

/// RFC 5652 §6.1, without originatorInfo and unprotectedAttrs:
/// ```text
/// EnvelopedData ::= SEQUENCE {
///     version CMSVersion, recipientInfos SET OF RecipientInfo,
///     encryptedContentInfo EncryptedContentInfo }
/// ```
#[derive(Sequence)]
pub(crate) struct EnvelopedData<'a> {
    version: u8,
    recipient_infos: SetOfVec<KeyTransRecipientInfo<'a>>,
    encrypted_content_info: EncryptedContentInfo<'a>,
}

impl<'a> EnvelopedData<'a> {
    /// Version 0 (one recipient, named by issuer and serial number).
    pub(crate) fn new(
        recipient: KeyTransRecipientInfo<'a>,
        content: EncryptedContentInfo<'a>,
    ) -> der::Result<Self> {
        Ok(Self {
            version: 0,
            recipient_infos: [recipient].try_into()?,
            encrypted_content_info: content,
        })
    }
}

/// RFC 5652 §6.2.1:
/// ```text
/// KeyTransRecipientInfo ::= SEQUENCE {
///     version CMSVersion, rid RecipientIdentifier,
///     keyEncryptionAlgorithm AlgorithmIdentifier, encryptedKey OCTET STRING }
/// ```
#[derive(Sequence, ValueOrd)]
pub(crate) struct KeyTransRecipientInfo<'a> {
    /// 0 where the recipient is named by issuer and serial number.
    pub(crate) version: u8,
    pub(crate) rid: IssuerAndSerialNumber<'a>,
    pub(crate) key_encryption_algorithm: AlgorithmIdentifier<'a>,
    pub(crate) encrypted_key: &'a OctetStringRef,
}

/// RFC 5652 §6.1:
/// ```text
/// EncryptedContentInfo ::= SEQUENCE {
///     contentType ContentType, contentEncryptionAlgorithm AlgorithmIdentifier,
///     encryptedContent [0] IMPLICIT OCTET STRING OPTIONAL }
/// ```
#[derive(Sequence)]
pub(crate) struct EncryptedContentInfo<'a> {
    pub(crate) content_type: ObjectIdentifier,
    pub(crate) content_encryption_algorithm: AlgorithmIdentifier<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    pub(crate) encrypted_content: &'a OctetStringRef,
}
