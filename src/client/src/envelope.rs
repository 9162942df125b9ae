//! The pkcsPKIEnvelope (RFC 8894 §3.2.2, RFC 5652 §6) and the degenerate SignedData (§3.4).

use aws_lc_rs::cipher::{
    DecryptionContext, EncryptingKey, EncryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::enveloped_data::{
    EncryptedContentInfo, EnvelopedData, KeyTransRecipientInfo, RecipientIdentifier, RecipientInfo,
    RecipientInfos,
};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerInfos};
use const_oid::ObjectIdentifier;
use const_oid::db::{rfc5911, rfc5912};
use der::asn1::{Any, OctetString, SetOfVec};
use der::{Decode, Encode};
use x509_cert::AlgorithmIdentifier;
use zeroize::Zeroizing;

use crate::algorithm::{ContentCipher, KeyTransport};
use crate::cert_rep::CertRepError;
use crate::certificate::Certificate;
use crate::csr::random;
use crate::key::ClientKey;
use crate::message::BuildError;

/// Encrypts for one recipient. What is declared can be another than what is done, so that a
/// server's refusals can be seen.
#[derive(Clone)]
pub struct Envelope<'a> {
    recipient: &'a Certificate,
    cipher: ContentCipher,
    transport: KeyTransport,
    declared_cipher: Option<ObjectIdentifier>,
    declared_transport: Option<ObjectIdentifier>,
    content_key: Option<Zeroizing<Vec<u8>>>,
    encrypted_key: Option<Vec<u8>>,
    padded: bool,
}

const BLOCK: usize = 16;

impl<'a> Envelope<'a> {
    /// AES-128-CBC and RSAES-PKCS1-v1_5 for `recipient`.
    #[must_use]
    pub fn to(recipient: &'a Certificate) -> Self {
        Self {
            recipient,
            cipher: ContentCipher::Aes128Cbc,
            transport: KeyTransport::Pkcs1v15,
            declared_cipher: None,
            declared_transport: None,
            content_key: None,
            encrypted_key: None,
            padded: true,
        }
    }

    /// The content's cipher.
    #[must_use]
    pub fn cipher(mut self, cipher: ContentCipher) -> Self {
        self.cipher = cipher;
        self
    }

    /// How the content-encryption key travels.
    #[must_use]
    pub fn key_transport(mut self, transport: KeyTransport) -> Self {
        self.transport = transport;
        self
    }

    /// Names another cipher than the one in use.
    #[must_use]
    pub fn declared_cipher(mut self, oid: ObjectIdentifier) -> Self {
        self.declared_cipher = Some(oid);
        self
    }

    /// Names another key transport than the one in use.
    #[must_use]
    pub fn declared_key_transport(mut self, oid: ObjectIdentifier) -> Self {
        self.declared_transport = Some(oid);
        self
    }

    /// Transports these octets in place of the key that encrypted the content.
    #[must_use]
    pub fn content_key(mut self, octets: &[u8]) -> Self {
        self.content_key = Some(Zeroizing::new(octets.to_vec()));
        self
    }

    /// Puts these octets where the encrypted key belongs, as they are.
    #[must_use]
    pub fn encrypted_key(mut self, octets: &[u8]) -> Self {
        self.encrypted_key = Some(octets.to_vec());
        self
    }

    /// Encrypts the plaintext without padding; its length has to be a multiple of 16.
    #[must_use]
    pub fn unpadded(mut self) -> Self {
        self.padded = false;
        self
    }

    /// ContentInfo of an EnvelopedData around `plaintext`, in DER.
    ///
    /// # Errors
    /// [`BuildError`], in particular [`BuildError::Recipient`] if the recipient's key is not RSA.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, BuildError> {
        let mut key = Zeroizing::new(vec![0; self.cipher.key_length()]);
        aws_lc_rs::rand::fill(&mut key).map_err(|_| BuildError::Random)?;
        let iv = random::<BLOCK>()?;
        let ciphertext = self.encrypt(&key, iv, plaintext)?;
        let mut key_enc_alg = self.transport.identifier()?;
        if let Some(declared) = self.declared_transport {
            key_enc_alg.oid = declared;
        }
        let recipient = KeyTransRecipientInfo {
            version: CmsVersion::V0,
            rid: RecipientIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber::from_der(
                self.recipient.issuer_and_serial(),
            )?),
            key_enc_alg,
            enc_key: OctetString::new(self.encrypt_key(&key)?)?,
        };
        let enveloped = EnvelopedData {
            version: CmsVersion::V0,
            originator_info: None,
            recip_infos: RecipientInfos(SetOfVec::try_from(vec![RecipientInfo::Ktri(recipient)])?),
            encrypted_content: EncryptedContentInfo {
                content_type: rfc5911::ID_DATA,
                content_enc_alg: AlgorithmIdentifier {
                    oid: self.declared_cipher.unwrap_or_else(|| self.cipher.oid()),
                    parameters: Some(Any::new(der::Tag::OctetString, iv)?),
                },
                encrypted_content: Some(OctetString::new(ciphertext)?),
            },
            unprotected_attrs: None,
        };
        content_info(rfc5911::ID_ENVELOPED_DATA, &enveloped)
    }

    fn encrypt(
        &self,
        key: &[u8],
        iv: [u8; BLOCK],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, BuildError> {
        // Room for the padding beforehand: growing would leave a copy of the plaintext behind.
        let mut octets = Vec::with_capacity(plaintext.len() + BLOCK);
        octets.extend_from_slice(plaintext);
        if self.padded {
            // RFC 5652 §6.3: 1 to 16 octets, each saying how many they are.
            let padding = BLOCK - plaintext.len() % BLOCK;
            octets.resize(
                plaintext.len() + padding,
                u8::try_from(padding).unwrap_or_default(),
            );
        }
        UnboundCipherKey::new(self.cipher.algorithm(), key)
            .and_then(EncryptingKey::cbc)
            .and_then(|key| {
                key.less_safe_encrypt(&mut octets, EncryptionContext::Iv128(FixedLength::from(iv)))
            })
            .map_err(|_| BuildError::Encrypt)?;
        Ok(octets)
    }

    fn encrypt_key(&self, key: &[u8]) -> Result<Vec<u8>, BuildError> {
        if let Some(octets) = &self.encrypted_key {
            return Ok(octets.clone());
        }
        let key = self
            .content_key
            .as_ref()
            .map_or(key, |octets| octets.as_slice());
        if !self.recipient.has_rsa_key() {
            return Err(BuildError::Recipient);
        }
        let public = PublicEncryptingKey::from_der(self.recipient.public_key_info())
            .map_err(|_| BuildError::Recipient)?;
        let mut room = vec![0; public.key_size_bytes()];
        let length = match self.transport {
            KeyTransport::Pkcs1v15 => Pkcs1PublicEncryptingKey::new(public)
                .and_then(|public| public.encrypt(key, &mut room).map(|out| out.len())),
            KeyTransport::OaepSha1 => OaepPublicEncryptingKey::new(public).and_then(|public| {
                public
                    .encrypt(&OAEP_SHA1_MGF1SHA1, key, &mut room, None)
                    .map(|out| out.len())
            }),
        };
        room.truncate(length.map_err(|_| BuildError::Encrypt)?);
        Ok(room)
    }
}

/// Opens a ContentInfo of EnvelopedData that is addressed to `recipient`.
pub(crate) fn open(
    der: &[u8],
    recipient: &Certificate,
    key: &ClientKey,
) -> Result<Zeroizing<Vec<u8>>, CertRepError> {
    let info = ContentInfo::from_der(der)?;
    if info.content_type != rfc5911::ID_ENVELOPED_DATA {
        return Err(CertRepError::NotScep("its content is no EnvelopedData"));
    }
    let enveloped: EnvelopedData = info.content.decode_as()?;
    let ours = enveloped.recip_infos.0.iter().find_map(|info| match info {
        RecipientInfo::Ktri(ktri) if is_recipient(&ktri.rid, recipient) => Some(ktri),
        _ => None,
    });
    let ktri = ours.ok_or(CertRepError::NotForUs)?;
    let transport = match ktri.key_enc_alg.oid {
        rfc5912::RSA_ENCRYPTION => KeyTransport::Pkcs1v15,
        rfc5912::ID_RSAES_OAEP if ktri.key_enc_alg == KeyTransport::OaepSha1.identifier()? => {
            KeyTransport::OaepSha1
        }
        _ => return Err(CertRepError::Algorithm("key transport")),
    };
    let content = enveloped.encrypted_content;
    let algorithm = content.content_enc_alg;
    let cipher =
        ContentCipher::by_oid(&algorithm.oid).ok_or(CertRepError::Algorithm("content cipher"))?;
    let iv = algorithm.parameters.as_ref().and_then(|any| {
        let octets: OctetString = any.decode_as().ok()?;
        <[u8; BLOCK]>::try_from(octets.as_bytes()).ok()
    });
    let iv = iv.ok_or(CertRepError::NotScep(
        "its cipher has no initialisation vector",
    ))?;
    let ciphertext = content
        .encrypted_content
        .ok_or(CertRepError::NotScep("its envelope is empty"))?;
    let content_key = key
        .decrypt(transport, ktri.enc_key.as_bytes())
        .map_err(|_| CertRepError::Decrypt)?;
    let mut octets = Zeroizing::new(ciphertext.into_bytes().to_vec());
    let length = UnboundCipherKey::new(cipher.algorithm(), &content_key)
        .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
        .and_then(|key| {
            let context = DecryptionContext::Iv128(FixedLength::from(iv));
            key.decrypt(&mut octets, context)
                .map(|plaintext| plaintext.len())
        })
        .map_err(|_| CertRepError::Decrypt)?;
    octets.truncate(length);
    Ok(octets)
}

fn is_recipient(rid: &RecipientIdentifier, recipient: &Certificate) -> bool {
    match rid {
        RecipientIdentifier::IssuerAndSerialNumber(id) => id
            .to_der()
            .is_ok_and(|der| der == recipient.issuer_and_serial()),
        RecipientIdentifier::SubjectKeyIdentifier(id) => recipient
            .subject_key_identifier()
            .is_some_and(|ours| ours == id.0.as_bytes()),
    }
}

/// A degenerate, certificates-only SignedData in its ContentInfo (RFC 8894 §3.4), in DER.
///
/// # Errors
/// [`BuildError::Encoding`].
pub fn degenerate(certificates: &[Certificate]) -> Result<Vec<u8>, BuildError> {
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::default(),
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: rfc5911::ID_DATA,
            econtent: None,
        },
        certificates: Some(certificate_set(certificates)?),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::default()),
    };
    content_info(rfc5911::ID_SIGNED_DATA, &signed)
}

pub(crate) fn certificate_set(certificates: &[Certificate]) -> der::Result<CertificateSet> {
    let choices = certificates
        .iter()
        .map(|c| CertificateChoices::Certificate(c.x509().clone()));
    choices.collect::<Vec<_>>().try_into()
}

pub(crate) fn content_info<T: Encode>(
    content_type: ObjectIdentifier,
    content: &T,
) -> Result<Vec<u8>, BuildError> {
    let content = Any::from_der(&content.to_der()?)?;
    Ok(ContentInfo {
        content_type,
        content,
    }
    .to_der()?)
}
