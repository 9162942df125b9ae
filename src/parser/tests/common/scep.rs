//! Messages as SCEP clients send them (RFC 8894), with random values, built and encoded in DER by
//! the `cms` and `x509-cert` crates. Signatures and ciphertexts are random octets.

use super::element::{Element, constructed, primitive};
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::enveloped_data::{
    EncryptedContentInfo, EnvelopedData, KeyTransRecipientInfo, RecipientIdentifier, RecipientInfo,
    RecipientInfos,
};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use der::asn1::{Any, BitString, Ia5String, ObjectIdentifier, OctetString, SetOfVec, Uint};
use der::{Decode, Encode, Sequence};
use proptest::prelude::*;
use x509_cert::attr::Attribute;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};
use x509_cert::{AlgorithmIdentifier, Certificate, SubjectPublicKeyInfo};

pub(crate) const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
pub(crate) const SIGNED_DATA: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
pub(crate) const ENVELOPED_DATA: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.3");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA256_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const AES_128_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.2");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");
/// Microsoft's name of extensionRequest.
pub(crate) const CERT_EXTENSIONS: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.14");
const MESSAGE_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113733.1.9.2");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SAN: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// RFC 8017 appendix A.1.1.
#[derive(Debug, Sequence)]
struct RsaPublicKey {
    modulus: Uint,
    public_exponent: Uint,
}

/// A certificate to be made; the one of `x509-cert` can only be read.
#[derive(Sequence)]
struct Made {
    tbs: MadeTbs,
    algorithm: AlgorithmIdentifier,
    signature: BitString,
}

#[derive(Sequence)]
struct MadeTbs {
    #[asn1(context_specific = "0", optional = "true")]
    version: Option<u8>,
    serial_number: SerialNumber,
    signature: AlgorithmIdentifier,
    issuer: Name,
    validity: Validity,
    subject: Name,
    subject_public_key_info: SubjectPublicKeyInfo,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    issuer_unique_id: Option<BitString>,
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT", optional = "true")]
    subject_unique_id: Option<BitString>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..most)
}

fn bits() -> impl Strategy<Value = BitString> {
    octets(300).prop_map(|octets| BitString::from_bytes(&octets).unwrap())
}

fn algorithm(oid: ObjectIdentifier, parameters: Option<Any>) -> AlgorithmIdentifier {
    AlgorithmIdentifier { oid, parameters }
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![
        "CN=[a-z][a-z0-9 ]{0,20}[a-z](,O=[A-Z]{1,9})?(,C=DE)?",
        "serialNumber=[0-9]{1,20}\\+CN=[a-z]{1,9}",
        Just(String::new()),
    ]
    .prop_map(|text| {
        if text.is_empty() {
            Name::default()
        } else {
            text.parse().unwrap()
        }
    })
}

fn public_key() -> impl Strategy<Value = SubjectPublicKeyInfo> {
    let rsa = octets(260).prop_map(|modulus| RsaPublicKey {
        modulus: Uint::new(&modulus).unwrap(),
        public_exponent: Uint::new(&[1, 0, 1]).unwrap(),
    });
    let rsa = rsa.prop_map(|key| SubjectPublicKeyInfo {
        algorithm: algorithm(RSA, Some(Any::null())),
        subject_public_key: BitString::from_bytes(&key.to_der().unwrap()).unwrap(),
    });
    let ec = octets(70).prop_map(|point| SubjectPublicKeyInfo {
        algorithm: algorithm(EC, Some(Any::encode_from(&P256).unwrap())),
        subject_public_key: BitString::from_bytes(&point).unwrap(),
    });
    prop_oneof![rsa, ec]
}

fn general_name() -> impl Strategy<Value = GeneralName> {
    prop_oneof![
        "[a-z]{1,30}".prop_map(|dns| GeneralName::DnsName(Ia5String::new(&dns).unwrap())),
        "[a-z]{1,9}@[a-z]{1,9}"
            .prop_map(|mail| GeneralName::Rfc822Name(Ia5String::new(&mail).unwrap())),
        octets(17).prop_map(|ip| GeneralName::IpAddress(OctetString::new(ip).unwrap())),
        name().prop_map(GeneralName::DirectoryName),
    ]
}

fn extensions() -> impl Strategy<Value = Extensions> {
    let san = (any::<bool>(), prop::collection::vec(general_name(), 0..4)).prop_map(
        |(critical, names)| Extension {
            extn_id: SAN,
            critical,
            extn_value: OctetString::new(SubjectAltName(names).to_der().unwrap()).unwrap(),
        },
    );
    // The value of an extension that nobody opens may be anything.
    let other = (any::<bool>(), octets(20)).prop_map(|(critical, value)| Extension {
        extn_id: KEY_USAGE,
        critical,
        extn_value: OctetString::new(value).unwrap(),
    });
    prop::collection::vec(prop_oneof![san, other], 1..4)
}

fn set_of_one(value: Any) -> SetOfVec<Any> {
    SetOfVec::try_from(vec![value]).unwrap()
}

fn printable(text: &str) -> Any {
    Any::new(der::Tag::PrintableString, text.as_bytes()).unwrap()
}

/// A PKCS#10 CertificationRequest.
pub(crate) fn certification_request() -> impl Strategy<Value = Vec<u8>> {
    let challenge = "[0-9A-F]{32}".prop_map(|challenge| Attribute {
        oid: CHALLENGE_PASSWORD,
        values: set_of_one(printable(&challenge)),
    });
    let extensions = (extensions(), any::<bool>()).prop_map(|(extensions, microsoft)| {
        let mut attribute = Attribute::try_from(ExtensionReq(extensions)).unwrap();
        if microsoft {
            attribute.oid = CERT_EXTENSIONS;
        }
        attribute
    });
    let attributes = prop::collection::vec(prop_oneof![challenge, extensions], 0..3);
    (name(), public_key(), attributes, bits()).prop_map(
        |(subject, public_key, attributes, signature)| {
            let attributes = SetOfVec::try_from(attributes).unwrap();
            let info = CertReqInfo {
                version: Version::V1,
                subject,
                public_key,
                attributes,
            };
            let algorithm = algorithm(SHA256_RSA, Some(Any::null()));
            CertReq {
                info,
                algorithm,
                signature,
            }
            .to_der()
            .unwrap()
        },
    )
}

/// A certificate, self-signed by its form.
pub(crate) fn certificate() -> impl Strategy<Value = Certificate> {
    let unique = || prop::option::of(bits());
    let extensions = prop::option::of(extensions());
    let made = (
        name(),
        octets(20),
        public_key(),
        unique(),
        unique(),
        extensions,
        bits(),
    );
    made.prop_map(
        |(name, serial, key, issuer_unique_id, subject_unique_id, extensions, bits)| {
            let date = |text: &str| text.parse::<Time>().unwrap();
            let signature = algorithm(SHA256_RSA, Some(Any::null()));
            let tbs = MadeTbs {
                version: extensions.is_some().then_some(2),
                serial_number: SerialNumber::new(&serial).unwrap(),
                signature: signature.clone(),
                issuer: name.clone(),
                validity: Validity::new(date("2026-01-01T00:00:00Z"), date("2051-01-01T00:00:00Z")),
                subject: name,
                subject_public_key_info: key,
                issuer_unique_id,
                subject_unique_id,
                extensions,
            };
            let made = Made {
                tbs,
                algorithm: signature,
                signature: bits,
            };
            Certificate::from_der(&made.to_der().unwrap()).unwrap()
        },
    )
}

/// A ContentInfo of EnvelopedData for one recipient.
pub(crate) fn enveloped_data() -> impl Strategy<Value = Vec<u8>> {
    let content = prop::option::of(octets(600));
    (name(), octets(20), octets(300), content).prop_map(|(issuer, serial, key, content)| {
        let serial_number = SerialNumber::new(&serial).unwrap();
        let recipient = RecipientInfo::Ktri(KeyTransRecipientInfo {
            version: CmsVersion::V0,
            rid: RecipientIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer,
                serial_number,
            }),
            key_enc_alg: algorithm(RSA, Some(Any::null())),
            enc_key: OctetString::new(key).unwrap(),
        });
        let iv = Any::encode_from(&OctetString::new([7; 16]).unwrap()).unwrap();
        let enveloped = EnvelopedData {
            version: CmsVersion::V0,
            originator_info: None,
            recip_infos: RecipientInfos(SetOfVec::try_from(vec![recipient]).unwrap()),
            encrypted_content: EncryptedContentInfo {
                content_type: DATA,
                content_enc_alg: algorithm(AES_128_CBC, Some(iv)),
                encrypted_content: content.map(|octets| OctetString::new(octets).unwrap()),
            },
            unprotected_attrs: None,
        };
        content_info(ENVELOPED_DATA, &enveloped)
    })
}

/// A pkiMessage around `content`.
fn signed_data(
    content: Option<Vec<u8>>,
    certificates: Vec<Certificate>,
    signer: (Name, Vec<u8>),
    signature: Vec<u8>,
) -> Vec<u8> {
    let digest_alg = algorithm(SHA256, Some(Any::null()));
    let attribute = |oid, value| Attribute {
        oid,
        values: set_of_one(value),
    };
    let digest = Any::encode_from(&OctetString::new([9; 32]).unwrap()).unwrap();
    let signed_attrs = vec![
        attribute(MESSAGE_TYPE, printable("19")),
        attribute(MESSAGE_DIGEST, digest),
    ];
    let signer_info = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: signer.0,
            serial_number: SerialNumber::new(&signer.1).unwrap(),
        }),
        digest_alg: digest_alg.clone(),
        signed_attrs: Some(SetOfVec::try_from(signed_attrs).unwrap()),
        signature_algorithm: algorithm(RSA, Some(Any::null())),
        signature: OctetString::new(signature).unwrap(),
        unsigned_attrs: None,
    };
    let certificates: Vec<_> = certificates
        .into_iter()
        .map(CertificateChoices::Certificate)
        .collect();
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![digest_alg]).unwrap(),
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: DATA,
            econtent: content
                .map(|octets| Any::encode_from(&OctetString::new(octets).unwrap()).unwrap()),
        },
        certificates: (!certificates.is_empty())
            .then(|| CertificateSet(SetOfVec::try_from(certificates).unwrap())),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![signer_info]).unwrap()),
    };
    content_info(SIGNED_DATA, &signed)
}

/// A pkiMessage: SignedData and, mostly, EnvelopedData inside it.
pub(crate) fn message() -> impl Strategy<Value = Vec<u8>> {
    let content = prop::option::weighted(0.9, enveloped_data());
    let certificates = prop::collection::vec(certificate(), 0..3);
    (content, certificates, (name(), octets(20)), octets(300)).prop_map(
        |(content, certificates, signer, sig)| signed_data(content, certificates, signer, sig),
    )
}

/// A pkiMessage that has an eContent, and that eContent.
pub(crate) fn enveloping_message() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let certificates = prop::collection::vec(certificate(), 0..3);
    (
        enveloped_data(),
        certificates,
        (name(), octets(20)),
        octets(300),
    )
        .prop_map(|(content, certificates, signer, signature)| {
            let message = signed_data(Some(content.clone()), certificates, signer, signature);
            (message, content)
        })
}

fn content_info(content_type: ObjectIdentifier, content: &impl Encode) -> Vec<u8> {
    let content = Any::from_der(&content.to_der().unwrap()).unwrap();
    ContentInfo {
        content_type,
        content,
    }
    .to_der()
    .unwrap()
}

/// Where a message keeps its eContent, as a path of child numbers: the element inside `[0]`.
pub(crate) const E_CONTENT: [usize; 5] = [1, 0, 2, 1, 0];

/// Where EnvelopedData keeps its encryptedContent.
pub(crate) const ENCRYPTED_CONTENT: [usize; 4] = [1, 0, 2, 2];

/// The smallest message without eContent that is of the grammar.
pub(crate) fn bare_signed_data() -> Element {
    let oid = |oid: ObjectIdentifier| primitive(0x06, oid.as_bytes());
    let signed = [
        primitive(0x02, [1]),
        constructed(0x31, []),
        constructed(0x30, [oid(DATA)]),
        constructed(0x31, []),
    ];
    constructed(
        0x30,
        [
            oid(SIGNED_DATA),
            constructed(0xa0, [constructed(0x30, signed)]),
        ],
    )
}

/// The smallest EnvelopedData that is of the grammar, without content.
pub(crate) fn bare_enveloped_data() -> Element {
    let oid = |oid: ObjectIdentifier| primitive(0x06, oid.as_bytes());
    let content = [oid(DATA), constructed(0x30, [oid(AES_128_CBC)])];
    let enveloped = [
        primitive(0x02, [0]),
        constructed(0x31, []),
        constructed(0x30, content),
    ];
    constructed(
        0x30,
        [
            oid(ENVELOPED_DATA),
            constructed(0xa0, [constructed(0x30, enveloped)]),
        ],
    )
}
