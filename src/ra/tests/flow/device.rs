//! A device: what it sends, and how it reads the answer.

use std::sync::LazyLock;
use std::time::SystemTime;

use chancery_client::{
    CertRep, Certificate, ClientKey, CsrBuilder, Envelope, KeyKind, Message, MessageBuilder, Signer,
};
use chancery_protocol::ipc::message::Reply;
use chancery_protocol::name::DistinguishedName;
use chancery_protocol::scep::{FailInfo, PkiStatus};
use chancery_protocol::wire::Secret;
use der::asn1::ObjectIdentifier;

use crate::appliance::Appliance;

/// The key of every device here, and one of somebody else.
pub(crate) static KEY: LazyLock<ClientKey> = LazyLock::new(|| key(KeyKind::Rsa2048));
pub(crate) static OTHER_KEY: LazyLock<ClientKey> = LazyLock::new(|| key(KeyKind::Rsa2048));

fn key(kind: KeyKind) -> ClientKey {
    ClientKey::generate(kind).unwrap()
}

/// A certificate for the device's key, under any name.
pub(crate) fn certificate(subject: &str) -> Vec<u8> {
    signer(&KEY, subject).certificate.as_der().to_vec()
}

fn signer<'k>(key: &'k ClientKey, subject: &str) -> Signer<'k> {
    let subject = DistinguishedName::parse(subject).unwrap();
    Signer::self_signed(key, &subject, SystemTime::now()).unwrap()
}

pub(crate) struct Device {
    pub(crate) signer: Signer<'static>,
    /// The RA's certificates.
    pub(crate) decryption: Certificate,
    pub(crate) signing: Certificate,
}

impl Device {
    pub(crate) fn new(appliance: &Appliance) -> Self {
        Self::with_key(appliance, &KEY)
    }

    pub(crate) fn with_key(appliance: &Appliance, key: &'static ClientKey) -> Self {
        let read = |name| Certificate::from_der(&std::fs::read(appliance.path(name)).unwrap());
        Self {
            signer: signer(key, "CN=device"),
            decryption: read("decryption.cer").unwrap(),
            signing: read("signing.cer").unwrap(),
        }
    }

    /// A PKCS#10 with this challenge.
    pub(crate) fn request(challenge: &str) -> Vec<u8> {
        let subject = DistinguishedName::parse("CN=device").unwrap();
        let challenge = Secret::new(challenge.into());
        CsrBuilder::new(&KEY, &subject)
            .challenge(&challenge)
            .build()
            .unwrap()
            .to_vec()
    }

    pub(crate) fn envelope(&self) -> Envelope<'_> {
        Envelope::to(&self.decryption)
    }

    pub(crate) fn builder(&self) -> MessageBuilder<'_> {
        MessageBuilder::new(&self.signer)
    }

    /// A correct PKCSReq.
    pub(crate) fn message(&self, challenge: &str) -> Message {
        self.builder()
            .build(&self.envelope(), &Self::request(challenge))
            .unwrap()
    }

    /// Reads a CertRep and verifies all that a client must.
    pub(crate) fn read(&self, message: &Message, reply: &Reply) -> CertRep {
        let Reply::CertRep(certrep) = reply else {
            panic!("{reply:?}")
        };
        let certrep = CertRep::read(certrep.as_bytes()).unwrap();
        assert_eq!(
            certrep.signer([&self.signing]).unwrap().as_der(),
            self.signing.as_der()
        );
        certrep.verify(&self.signing).unwrap();
        assert_eq!(certrep.transaction_id, message.transaction_id);
        assert_eq!(certrep.recipient_nonce, message.sender_nonce);
        assert_eq!(certrep.sender_nonce.as_ref().unwrap().len(), 16);
        // strongSwan 5.9.8 takes no other.
        assert_eq!(
            certrep.signature_algorithm,
            ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1")
        );
        certrep
    }

    /// The one certificate in a SUCCESS.
    pub(crate) fn certificate(&self, message: &Message, reply: &Reply) -> Vec<u8> {
        let certrep = self.read(message, reply);
        assert_eq!(certrep.status, PkiStatus::Success);
        let found = certrep
            .open(&self.signer.certificate, self.signer.key)
            .unwrap();
        assert_eq!(found.len(), 1);
        found[0].as_der().to_vec()
    }

    /// The failInfo and its text in a FAILURE.
    pub(crate) fn failure(&self, message: &Message, reply: &Reply) -> (FailInfo, String) {
        let certrep = self.read(message, reply);
        assert_eq!(certrep.status, PkiStatus::Failure);
        assert!(certrep.envelope.is_none());
        (certrep.fail_info.unwrap(), certrep.fail_info_text.unwrap())
    }
}
