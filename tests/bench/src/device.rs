//! Devices, and what they send: everything that a client must compute, done before the clock runs.

use std::time::SystemTime;

use chancery_client::{
    CaCertificates, CertRep, Certificate, ClientKey, CsrBuilder, Envelope, KeyKind, Message,
    MessageBuilder, Signer,
};
use chancery_protocol::ipc::operator::NewChallenge;
use chancery_protocol::name::{DistinguishedName, GeneralName};
use chancery_protocol::wire::Secret;

use crate::Failure;

/// The demo's profile.
const PROFILE: &str = "devices";

/// Seconds that a challenge lives: longer than any run.
const TTL: u64 = 3600;

/// A key. It enrols under many names, one after the other.
pub(crate) struct Device {
    key: ClientKey,
}

impl Device {
    pub(crate) fn new() -> Result<Self, Failure> {
        let key = ClientKey::generate(KeyKind::Rsa2048)?;
        Ok(Self { key })
    }
}

/// A PKCSReq with a challenge and names of its own, and what its answer is held against.
pub(crate) struct Enrolment<'a> {
    device: &'a Device,
    name: String,
    certificate: Certificate,
    message: Message,
}

impl<'a> Enrolment<'a> {
    /// Mints the challenge for `name` and makes the message.
    pub(crate) fn prepare(
        device: &'a Device,
        ca: &CaCertificates,
        name: &str,
        mint: impl FnOnce(NewChallenge) -> Result<Secret, Failure>,
    ) -> Result<Self, Failure> {
        let subject = DistinguishedName::parse(&format!("CN={name}"))?;
        let sans = vec![GeneralName::dns(&format!("{name}.bench.example"))?];
        let challenge = mint(NewChallenge {
            profile: PROFILE.into(),
            ttl: TTL,
            uses: 1,
            subject: Some(subject.clone()),
            sans: Some(sans.clone()),
            device_id: Some(name.into()),
        })?;
        let csr = CsrBuilder::new(&device.key, &subject)
            .sans(&sans)
            .challenge(&challenge)
            .build()?;
        let recipient = ca
            .encryption()
            .ok_or("GetCACert has no certificate to encrypt to")?;
        let signer = Signer::self_signed(&device.key, &subject, SystemTime::now())?;
        let message = MessageBuilder::new(&signer)
            .transaction_id(name)
            .build(&Envelope::to(recipient), &csr)?;
        Ok(Self {
            device,
            name: name.into(),
            certificate: signer.certificate,
            message,
        })
    }

    /// What it is for, in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The pkiMessage.
    pub(crate) fn der(&self) -> &[u8] {
        &self.message.der
    }

    /// Does what a client does with a SUCCESS: verifies it, opens it, and looks for its own key.
    pub(crate) fn examine(&self, reply: &CertRep, ca: &CaCertificates) -> Result<(), Failure> {
        let wrong = |cause: &str| format!("{}: the reply {cause}", self.name);
        if reply.transaction_id != self.message.transaction_id
            || reply.recipient_nonce != self.message.sender_nonce
        {
            return Err(wrong("is to another request").into());
        }
        let signer = reply
            .signer(ca.signers())
            .ok_or_else(|| wrong("is signed by none of the RA's certificates"))?;
        reply
            .verify(signer)
            .map_err(|error| wrong(&format!("does not verify: {error}")))?;
        let certificates = reply
            .open(&self.certificate, &self.device.key)
            .map_err(|error| wrong(&format!("does not open: {error}")))?;
        let ours = self.device.key.public_key_info();
        let subject = format!("CN={}", self.name);
        if certificates
            .iter()
            .any(|c| c.public_key_info() == ours && c.subject_text() == subject)
        {
            return Ok(());
        }
        Err(wrong("holds no certificate for this key and name").into())
    }
}
