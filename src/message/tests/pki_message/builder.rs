//! Makes pkiMessages: what a well-behaved client sends, with every part open to change.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;

use crate::asn1::{
    Encoding, Tree, attribute, bit_string, context, integer, null, octet_string, oid, printable,
    sequence, set, utf8,
};
use crate::keys::{DEVICE, Digest, Key};

pub(crate) const ID_DATA: &str = "1.2.840.113549.1.7.1";
pub(crate) const ID_SIGNED_DATA: &str = "1.2.840.113549.1.7.2";
pub(crate) const ID_ENVELOPED_DATA: &str = "1.2.840.113549.1.7.3";
pub(crate) const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";
pub(crate) const CONTENT_TYPE: &str = "1.2.840.113549.1.9.3";
pub(crate) const MESSAGE_DIGEST: &str = "1.2.840.113549.1.9.4";
pub(crate) const CHALLENGE_PASSWORD: &str = "1.2.840.113549.1.9.7";
pub(crate) const EXTENSION_REQUEST: &str = "1.2.840.113549.1.9.14";
pub(crate) const CERT_EXTENSIONS: &str = "1.3.6.1.4.1.311.2.1.14";
pub(crate) const SUBJECT_ALT_NAME: &str = "2.5.29.17";
pub(crate) const MESSAGE_TYPE: &str = "2.16.840.1.113733.1.9.2";
pub(crate) const SENDER_NONCE: &str = "2.16.840.1.113733.1.9.5";
pub(crate) const TRANSACTION_ID: &str = "2.16.840.1.113733.1.9.7";
pub(crate) const CHALLENGE: &str = "0123456789ABCDEF0123456789ABCDEF";

/// A PKCS#10 request of one key.
pub(crate) struct Request<'k> {
    pub(crate) key: &'k Key,
    pub(crate) digest: Digest,
    pub(crate) version: Tree,
    pub(crate) subject: Tree,
    pub(crate) spki: Tree,
    pub(crate) attributes: Option<Vec<Tree>>,
    /// What follows in the CertificationRequestInfo, against the grammar.
    pub(crate) behind: Vec<Tree>,
    pub(crate) algorithm: Tree,
    pub(crate) signature: Option<Tree>,
    pub(crate) encoding: Encoding,
}

impl<'k> Request<'k> {
    pub(crate) fn new(key: &'k Key) -> Self {
        Self {
            key,
            digest: Digest::Sha256,
            version: integer(0),
            subject: name(&[("2.5.4.10", "Example"), ("2.5.4.3", "probe-1")]),
            spki: Tree::Fixed(key.spki.clone()),
            attributes: Some(vec![
                challenge(utf8(CHALLENGE)),
                sans(EXTENSION_REQUEST, vec![dns("probe-1.example")]),
            ]),
            behind: Vec::new(),
            algorithm: signature_algorithm(key, Digest::Sha256),
            signature: None,
            encoding: Encoding::Der,
        }
    }

    pub(crate) fn info(&self) -> Tree {
        let mut fields = vec![
            self.version.clone(),
            self.subject.clone(),
            self.spki.clone(),
        ];
        fields.extend(self.attributes.clone().map(|set| context(0, set)));
        fields.extend(self.behind.clone());
        Tree::Constructed(0x30, fields)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let info = self.info().encode(self.encoding);
        let signature = self.key.sign(self.digest, &info);
        let signature = self.signature.clone().unwrap_or(bit_string(&signature));
        sequence([Tree::Fixed(info), self.algorithm.clone(), signature]).encode(self.encoding)
    }
}

pub(crate) fn signature_algorithm(key: &Key, digest: Digest) -> Tree {
    match key.spki.len() {
        91 => sequence([oid("1.2.840.10045.4.3.2")]),
        120 => sequence([oid("1.2.840.10045.4.3.3")]),
        _ => sequence([oid(digest.with_rsa()), null()]),
    }
}

pub(crate) fn name(attributes: &[(&str, &str)]) -> Tree {
    let pair = |(kind, value): &(&str, &str)| set([sequence([oid(kind), utf8(value)])]);
    Tree::Constructed(0x30, attributes.iter().map(pair).collect())
}

pub(crate) fn challenge(value: Tree) -> Tree {
    attribute(CHALLENGE_PASSWORD, [value])
}

pub(crate) fn dns(name: &str) -> Tree {
    Tree::Primitive(0x82, name.into())
}

pub(crate) fn extension(kind: &str, value: Tree) -> Tree {
    sequence([oid(kind), octet_string(value.der())])
}

/// An attribute that requests a subjectAltName, and another extension before it.
pub(crate) fn sans(kind: &str, names: Vec<Tree>) -> Tree {
    let key_usage = extension("2.5.29.15", Tree::Primitive(0x03, vec![5, 0xa0]));
    let names = extension(SUBJECT_ALT_NAME, Tree::Constructed(0x30, names));
    attribute(kind, [sequence([key_usage, names])])
}

/// An EnvelopedData.
pub(crate) struct Envelope {
    pub(crate) plaintext: Vec<u8>,
    /// Whole blocks in the place of the padded plaintext.
    pub(crate) blocks: Option<Vec<u8>>,
    pub(crate) key: Vec<u8>,
    pub(crate) vector: [u8; 16],
    pub(crate) content_type: &'static str,
    pub(crate) algorithm: Option<Tree>,
    pub(crate) recipients: Vec<Tree>,
    pub(crate) encoding: Encoding,
}

impl Envelope {
    pub(crate) fn new(plaintext: Vec<u8>) -> Self {
        Self {
            plaintext,
            blocks: None,
            key: vec![0x5a; 16],
            vector: [0xa5; 16],
            content_type: ID_DATA,
            algorithm: None,
            recipients: vec![recipient(sequence([oid(RSA_ENCRYPTION), null()]))],
            encoding: Encoding::Der,
        }
    }

    fn padded(&self) -> Vec<u8> {
        let padding = 16 - self.plaintext.len() % 16;
        let mut blocks = self.plaintext.clone();
        blocks.resize(
            self.plaintext.len() + padding,
            u8::try_from(padding).unwrap(),
        );
        blocks
    }

    pub(crate) fn encrypted(&self) -> Vec<u8> {
        let algorithm = match self.key.len() {
            16 => &AES_128,
            24 => &AES_192,
            _ => &AES_256,
        };
        let key = UnboundCipherKey::new(algorithm, &self.key).unwrap();
        let mut blocks = self.blocks.clone().unwrap_or_else(|| self.padded());
        EncryptingKey::cbc(key)
            .unwrap()
            .less_safe_encrypt(
                &mut blocks,
                EncryptionContext::Iv128(FixedLength::from(&self.vector)),
            )
            .unwrap();
        blocks
    }

    pub(crate) fn tree(&self) -> Tree {
        let cipher = match self.key.len() {
            16 => "2.16.840.1.101.3.4.1.2",
            24 => "2.16.840.1.101.3.4.1.22",
            _ => "2.16.840.1.101.3.4.1.42",
        };
        let algorithm = sequence([oid(cipher), octet_string(self.vector)]);
        content_info(
            ID_ENVELOPED_DATA,
            sequence([
                integer(0),
                Tree::Constructed(0x31, self.recipients.clone()),
                sequence([
                    oid(self.content_type),
                    self.algorithm.clone().unwrap_or(algorithm),
                    Tree::String(0x80, 0xa0, self.encrypted()),
                ]),
            ]),
        )
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.tree().encode(self.encoding)
    }
}

/// A KeyTransRecipientInfo for the registration authority.
pub(crate) fn recipient(algorithm: Tree) -> Tree {
    sequence([
        integer(0),
        sequence([authority(), integer(9)]),
        algorithm,
        octet_string([0xee; 256]),
    ])
}

pub(crate) fn authority() -> Tree {
    name(&[("2.5.4.3", "Registration")])
}

pub(crate) fn content_info(kind: &str, content: Tree) -> Tree {
    sequence([oid(kind), context(0, vec![content])])
}

/// A certificate that a client makes for itself.
pub(crate) struct Certificate<'k> {
    pub(crate) key: &'k Key,
    pub(crate) spki: Tree,
    pub(crate) serial: u8,
    pub(crate) issuer: Tree,
    pub(crate) subject: Tree,
    pub(crate) extensions: Vec<Tree>,
}

impl<'k> Certificate<'k> {
    pub(crate) fn new(key: &'k Key) -> Self {
        Self {
            key,
            spki: Tree::Fixed(key.spki.clone()),
            serial: 1,
            issuer: name(&[("2.5.4.3", "myself")]),
            subject: name(&[("2.5.4.3", "myself")]),
            extensions: Vec::new(),
        }
    }

    pub(crate) fn encode(&self, encoding: Encoding) -> Vec<u8> {
        let algorithm = signature_algorithm(self.key, Digest::Sha256);
        let time = |text: &str| Tree::Primitive(0x17, text.into());
        let mut tbs = sequence([
            context(0, vec![integer(2)]),
            integer(self.serial),
            algorithm.clone(),
            self.issuer.fixed(),
            sequence([time("240101000000Z"), time("340101000000Z")]),
            self.subject.clone(),
            self.spki.clone(),
        ]);
        if !self.extensions.is_empty() {
            let extensions = Tree::Constructed(0x30, self.extensions.clone());
            tbs.children().push(context(3, vec![extensions]));
        }
        let tbs = tbs.encode(encoding);
        let signature = self.key.sign(Digest::Sha256, &tbs);
        sequence([Tree::Fixed(tbs), algorithm, bit_string(&signature)]).encode(encoding)
    }

    /// The issuerAndSerialNumber of it, with the issuer's octets as they are in the certificate.
    pub(crate) fn sid(&self) -> Tree {
        sequence([self.issuer.fixed(), integer(self.serial)])
    }
}

/// A pkiMessage: SignedData around an envelope.
pub(crate) struct Message<'k> {
    pub(crate) key: &'k Key,
    pub(crate) digest: Digest,
    pub(crate) content_type: &'static str,
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) sid: Tree,
    pub(crate) digest_algorithm: Tree,
    /// The values of signedAttrs, in the order in which they are written.
    pub(crate) attributes: Vec<Tree>,
    pub(crate) attributes_encoding: Encoding,
    pub(crate) signature_algorithm: Tree,
    pub(crate) signature: Option<Vec<u8>>,
    pub(crate) unsigned_attributes: Vec<Tree>,
    /// Appended to the one SignerInfo.
    pub(crate) more_signer_infos: Vec<Tree>,
    pub(crate) encoding: Encoding,
}

impl Message<'static> {
    /// What a well-behaved client sends around this request.
    pub(crate) fn around(request: Vec<u8>) -> Self {
        Self::new(&DEVICE, Envelope::new(request).encode())
    }

    /// What a well-behaved client sends.
    pub(crate) fn usual() -> Self {
        Self::around(Request::new(&DEVICE).encode())
    }
}

impl<'k> Message<'k> {
    pub(crate) fn new(key: &'k Key, content: Vec<u8>) -> Self {
        Self::with_digest(key, content, Digest::Sha256)
    }

    pub(crate) fn with_digest(key: &'k Key, content: Vec<u8>, digest: Digest) -> Self {
        let certificate = Certificate::new(key);
        Self {
            key,
            digest,
            content_type: ID_DATA,
            certificates: vec![certificate.encode(Encoding::Der)],
            sid: certificate.sid(),
            digest_algorithm: sequence([oid(digest.oid()), null()]),
            attributes: vec![
                attribute(CONTENT_TYPE, [oid(ID_DATA)]),
                attribute(MESSAGE_DIGEST, [octet_string(digest.of(&content))]),
                attribute(MESSAGE_TYPE, [printable("19")]),
                attribute(SENDER_NONCE, [octet_string([0x11; 16])]),
                attribute(TRANSACTION_ID, [printable("transaction-1")]),
            ],
            attributes_encoding: Encoding::Der,
            signature_algorithm: sequence([oid(digest.with_rsa()), null()]),
            signature: None,
            unsigned_attributes: Vec::new(),
            more_signer_infos: Vec::new(),
            encoding: Encoding::Der,
            content: Some(content),
        }
    }

    /// Puts `attribute` in the place of the one of its type.
    pub(crate) fn replace(mut self, kind: &str, by: Tree) -> Self {
        let place = self.position(kind);
        self.attributes[place] = by;
        self
    }

    pub(crate) fn without(mut self, kind: &str) -> Self {
        let place = self.position(kind);
        self.attributes.remove(place);
        self
    }

    fn position(&self, kind: &str) -> usize {
        let kind = oid(kind);
        let is_kind = |a: &Tree| matches!(a, Tree::Constructed(_, fields) if fields[0] == kind);
        self.attributes.iter().position(is_kind).unwrap()
    }

    pub(crate) fn signer_info(&self) -> Tree {
        let attributes =
            |tag| Tree::Constructed(tag, self.attributes.clone()).encode(self.attributes_encoding);
        let signature = self
            .signature
            .clone()
            .unwrap_or_else(|| self.key.sign(self.digest, &attributes(0x31)));
        let mut info = sequence([
            integer(1),
            self.sid.clone(),
            self.digest_algorithm.clone(),
            Tree::Fixed(attributes(0xa0)),
            self.signature_algorithm.clone(),
            octet_string(signature),
        ]);
        if !self.unsigned_attributes.is_empty() {
            info.children()
                .push(context(1, self.unsigned_attributes.clone()));
        }
        info
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut encapsulated = sequence([oid(self.content_type)]);
        if let Some(content) = &self.content {
            let string = Tree::String(0x04, 0x24, content.clone());
            encapsulated.children().push(context(0, vec![string]));
        }
        let mut infos = vec![self.signer_info()];
        infos.extend(self.more_signer_infos.clone());
        let certificates = self.certificates.iter().cloned().map(Tree::Fixed).collect();
        content_info(
            ID_SIGNED_DATA,
            sequence([
                integer(1),
                set([self.digest_algorithm.clone()]),
                encapsulated,
                context(0, certificates),
                Tree::Constructed(0x31, infos),
            ]),
        )
        .encode(self.encoding)
    }
}
