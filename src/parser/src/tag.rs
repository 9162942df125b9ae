//! Tag octets (X.690 §8.1.2) and object identifiers, by content octets, that the grammars name.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const CHUNKED_OCTET_STRING: u8 = 0x24;

/// `[n]`, constructed.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// `[n]` in place of a primitive type's own tag.
pub(crate) const fn context_primitive(number: u8) -> u8 {
    0x80 | number
}

/// id-signedData, 1.2.840.113549.1.7.2 (RFC 5652 §5.1).
pub(crate) const ID_SIGNED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
/// id-envelopedData, 1.2.840.113549.1.7.3 (RFC 5652 §6.1).
pub(crate) const ID_ENVELOPED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03";
/// rsaEncryption, 1.2.840.113549.1.1.1 (RFC 3279 §2.3.1).
pub(crate) const RSA_ENCRYPTION: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
/// extensionRequest, 1.2.840.113549.1.9.14 (RFC 2985 §5.4.2).
pub(crate) const EXTENSION_REQUEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
/// szOID_CERT_EXTENSIONS, 1.3.6.1.4.1.311.2.1.14: Microsoft's name of the same attribute.
pub(crate) const CERT_EXTENSIONS: &[u8] = b"\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0e";
/// id-ce-subjectAltName, 2.5.29.17 (RFC 5280 §4.2.1.6).
pub(crate) const SUBJECT_ALT_NAME: &[u8] = b"\x55\x1d\x11";
