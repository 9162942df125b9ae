//! Tag octets (X.690 §8.1.2) and object identifiers, by their content octets.

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
pub(crate) const TELETEX_STRING: u8 = 0x14;
pub(crate) const IA5_STRING: u8 = 0x16;
pub(crate) const UNIVERSAL_STRING: u8 = 0x1c;
pub(crate) const BMP_STRING: u8 = 0x1e;
pub(crate) const CHUNKED_OCTET_STRING: u8 = 0x24;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// `[n]`, constructed.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// `[n]` in place of the tag of a primitive type.
pub(crate) const fn context_primitive(number: u8) -> u8 {
    0x80 | number
}

/// Object identifiers. Those of SCEP's own attributes are in [`chancery_protocol::scep::oid`].
pub(crate) mod oid {
    /// id-data, 1.2.840.113549.1.7.1 (RFC 5652 §4).
    pub(crate) const DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    /// id-signedData, 1.2.840.113549.1.7.2 (RFC 5652 §5.1).
    pub(crate) const SIGNED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
    /// id-envelopedData, 1.2.840.113549.1.7.3 (RFC 5652 §6.1).
    pub(crate) const ENVELOPED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03";
    /// id-contentType, 1.2.840.113549.1.9.3 (RFC 5652 §11.1).
    pub(crate) const CONTENT_TYPE: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03";
    /// id-messageDigest, 1.2.840.113549.1.9.4 (RFC 5652 §11.2).
    pub(crate) const MESSAGE_DIGEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04";
    /// challengePassword, 1.2.840.113549.1.9.7 (RFC 2985 §5.4.1).
    pub(crate) const CHALLENGE_PASSWORD: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x07";
    /// extensionRequest, 1.2.840.113549.1.9.14 (RFC 2985 §5.4.2).
    pub(crate) const EXTENSION_REQUEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
    /// szOID_CERT_EXTENSIONS, 1.3.6.1.4.1.311.2.1.14: Microsoft's name of the same attribute.
    pub(crate) const CERT_EXTENSIONS: &[u8] = b"\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0e";
    /// id-ce-subjectKeyIdentifier, 2.5.29.14 (RFC 5280 §4.2.1.2).
    pub(crate) const SUBJECT_KEY_IDENTIFIER: &[u8] = b"\x55\x1d\x0e";
    /// id-ce-subjectAltName, 2.5.29.17 (RFC 5280 §4.2.1.6).
    pub(crate) const SUBJECT_ALT_NAME: &[u8] = b"\x55\x1d\x11";

    /// rsaEncryption, 1.2.840.113549.1.1.1 (RFC 8017 appendix C).
    pub(crate) const RSA_ENCRYPTION: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    /// id-RSAES-OAEP, 1.2.840.113549.1.1.7.
    pub(crate) const RSAES_OAEP: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07";
    /// id-mgf1, 1.2.840.113549.1.1.8.
    pub(crate) const MGF1: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08";
    /// id-pSpecified, 1.2.840.113549.1.1.9.
    pub(crate) const P_SPECIFIED: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x09";
    /// sha256WithRSAEncryption, 1.2.840.113549.1.1.11.
    pub(crate) const SHA256_WITH_RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
    /// sha384WithRSAEncryption, 1.2.840.113549.1.1.12.
    pub(crate) const SHA384_WITH_RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c";
    /// sha512WithRSAEncryption, 1.2.840.113549.1.1.13.
    pub(crate) const SHA512_WITH_RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d";
    /// ecdsa-with-SHA256, 1.2.840.10045.4.3.2 (RFC 5758 §3.2).
    pub(crate) const ECDSA_WITH_SHA256: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x02";
    /// ecdsa-with-SHA384, 1.2.840.10045.4.3.3.
    pub(crate) const ECDSA_WITH_SHA384: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x03";
    /// ecdsa-with-SHA512, 1.2.840.10045.4.3.4.
    pub(crate) const ECDSA_WITH_SHA512: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x04";

    /// id-sha1, 1.3.14.3.2.26: inside OAEP parameters only.
    pub(crate) const SHA1: &[u8] = b"\x2b\x0e\x03\x02\x1a";
    /// id-sha256, 2.16.840.1.101.3.4.2.1 (RFC 5754 §2).
    pub(crate) const SHA256: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x01";
    /// id-sha384, 2.16.840.1.101.3.4.2.2.
    pub(crate) const SHA384: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x02";
    /// id-sha512, 2.16.840.1.101.3.4.2.3.
    pub(crate) const SHA512: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x02\x03";
    /// id-aes128-CBC, 2.16.840.1.101.3.4.1.2 (RFC 3565 §4.1).
    pub(crate) const AES128_CBC: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x01\x02";
    /// id-aes192-CBC, 2.16.840.1.101.3.4.1.22.
    pub(crate) const AES192_CBC: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x01\x16";
    /// id-aes256-CBC, 2.16.840.1.101.3.4.1.42.
    pub(crate) const AES256_CBC: &[u8] = b"\x60\x86\x48\x01\x65\x03\x04\x01\x2a";
}
