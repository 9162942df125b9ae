//! Whole enrolments against a small CA: the cms crate reads, `openssl` decrypts and issues.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chancery_client::{
    Certificate, ClientKey, ContentCipher, DigestAlgorithm, EnrolError, EnrolRequest, Envelope,
    KeyKind, KeyTransport, MessageBuilder, ServerError, SignatureForm, Transport, Trust,
    degenerate, enroll,
};
use chancery_protocol::name::{DistinguishedName, GeneralName};
use chancery_protocol::scep::{FailInfo, oid};
use chancery_protocol::wire::Secret;
use cms::cert::CertificateChoices;
use der::Encode;
use percent_encoding::percent_decode_str;

use crate::messages::signed_data;
use crate::pki::Pki;
use crate::server::{Reply, Seen, TestServer, ok};

/// What the small CA does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Refuse,
    Pending,
    Busy,
    OtherTransaction,
    OtherNonce,
    SignedByDevice,
    BrokenSignature,
    CertificateOfOther,
    IssuedByOther,
    NotEnveloped,
}

/// A CA of one RA, in the folder of `pki`.
pub(crate) struct SmallCa {
    pub(crate) pki: Pki,
    pub(crate) caps: &'static str,
    pub(crate) served: Vec<&'static str>,
    pub(crate) decryption: &'static str,
    pub(crate) fault: Mutex<Fault>,
    pub(crate) operations: AtomicUsize,
    turn: Mutex<()>,
}

impl SmallCa {
    pub(crate) fn new(fault: Fault) -> Self {
        Self {
            pki: Pki::new(),
            caps: "AES\nPOSTPKIOperation\nSCEPStandard\nSHA-256\nSHA-384\nSHA-512\n",
            served: vec!["root", "issuing", "decryption", "signing"],
            decryption: "decryption",
            fault: Mutex::new(fault),
            operations: AtomicUsize::new(0),
            turn: Mutex::new(()),
        }
    }

    pub(crate) async fn start(self) -> (Arc<Self>, TestServer) {
        let ca = Arc::new(self);
        let answering = ca.clone();
        let server = TestServer::start(move |seen| answering.answer(seen)).await;
        (ca, server)
    }

    fn answer(&self, seen: Seen) -> Reply {
        let query = seen.query.as_str();
        let message = query.strip_prefix("operation=PKIOperation&message=");
        match (seen.method.as_str(), query, message) {
            ("GET", "operation=GetCACaps", _) => ok(self.caps),
            ("GET", "operation=GetCACert", _) => {
                ok(degenerate(&self.pki.certificates(&self.served)).unwrap())
            }
            ("POST", "operation=PKIOperation", _) => self.pki_operation(&seen.body),
            ("GET", _, Some(message)) => {
                let text: Vec<u8> = percent_decode_str(message).collect();
                self.pki_operation(&STANDARD.decode(text).unwrap())
            }
            _ => panic!("unexpected {} {}", seen.method, seen.query),
        }
    }

    fn pki_operation(&self, message: &[u8]) -> Reply {
        // The files of the folder are shared by all requests.
        let _turn = self.turn.lock().unwrap();
        self.operations.fetch_add(1, Ordering::SeqCst);
        let fault = *self.fault.lock().unwrap();
        if fault == Fault::Busy {
            let mut reply = ok("");
            *reply.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
            reply
                .headers_mut()
                .insert("retry-after", "7".parse().unwrap());
            return reply;
        }
        let content = self.pki.verify(message);
        let csr = self.pki.decrypt(&content, self.decryption);
        std::fs::write(self.pki.path("request.der"), csr).unwrap();
        self.pki.openssl(&[
            "req",
            "-verify",
            "-inform",
            "DER",
            "-in",
            "request.der",
            "-out",
            "issued.csr",
        ]);
        self.reply(message, fault)
    }

    fn reply(&self, message: &[u8], fault: Fault) -> Reply {
        let pki = &self.pki;
        if fault == Fault::SignedByDevice || fault == Fault::CertificateOfOther {
            pki.certify("device", "rsa", "device", "issuing", 30);
        }
        let signing = if fault == Fault::SignedByDevice {
            "device"
        } else {
            "signing"
        };
        let key = pki.key(signing);
        let signer = pki.signer(&key, signing);
        let (requester, transaction, mut nonce) = request_parts(message);
        let transaction = match fault {
            Fault::OtherTransaction => "another".into(),
            _ => transaction,
        };
        if fault == Fault::OtherNonce {
            nonce[5] ^= 1;
        }
        let status = match fault {
            Fault::Refuse => "2",
            Fault::Pending => "3",
            _ => "0",
        };
        let text = |text: &str| vec![[&[0x13, 1], text.as_bytes()].concat()];
        let mut builder = MessageBuilder::new(&signer)
            .message_type("3")
            .transaction_id(&transaction)
            .signature_form(SignatureForm::RsaEncryption)
            .attribute(oid::PKI_STATUS, &text(status))
            .unwrap()
            .attribute(oid::RECIPIENT_NONCE, &[nonce])
            .unwrap();
        if fault == Fault::Refuse {
            let said = b"\x0c\x0bno\x1b[31m, no".to_vec();
            builder = builder.attribute(oid::FAIL_INFO, &text("2")).unwrap();
            builder = builder.attribute(oid::FAIL_INFO_TEXT, &[said]).unwrap();
        }
        if fault == Fault::Refuse || fault == Fault::Pending {
            return ok(builder.sign(None).unwrap().der);
        }
        let issuer = if fault == Fault::IssuedByOther {
            "elsewhere"
        } else {
            "issuing"
        };
        if fault == Fault::IssuedByOther {
            pki.make_root("elsewhere");
        }
        pki.sign("issued", "device", issuer, 30);
        let issued = match fault {
            Fault::CertificateOfOther => "device",
            _ => "issued",
        };
        let contents = degenerate(&pki.certificates(&[issued, issuer])).unwrap();
        let mut der = match fault {
            Fault::NotEnveloped => builder.sign(Some(&contents)),
            _ => builder.build(&Envelope::to(&requester), &contents),
        }
        .unwrap()
        .der;
        if fault == Fault::BrokenSignature {
            *der.last_mut().unwrap() ^= 1;
        }
        ok(der)
    }
}

/// Signer certificate, transactionID and the DER of senderNonce, as the cms crate reads them.
fn request_parts(message: &[u8]) -> (Certificate, String, Vec<u8>) {
    let signed = signed_data(message);
    let certificate = match signed.certificates.unwrap().0.get(0).unwrap() {
        CertificateChoices::Certificate(certificate) => certificate.to_der().unwrap(),
        other => panic!("{other:?}"),
    };
    let attributes = signed
        .signer_infos
        .0
        .get(0)
        .unwrap()
        .signed_attrs
        .clone()
        .unwrap();
    let value = |oid| {
        let attribute = attributes
            .iter()
            .find(|attribute| attribute.oid == oid)
            .unwrap();
        attribute.values.get(0).unwrap().clone()
    };
    let transaction = value(oid::TRANSACTION_ID).value().to_vec();
    (
        Certificate::from_der(&certificate).unwrap(),
        String::from_utf8(transaction).unwrap(),
        value(oid::SENDER_NONCE).to_der().unwrap(),
    )
}

pub(crate) fn request(key: &ClientKey) -> EnrolRequest<'_> {
    let subject = DistinguishedName::parse("CN=probe-1").unwrap();
    let mut request = EnrolRequest::new(key, subject, Secret::new(b"0123ABCD".to_vec()));
    request.sans = vec![GeneralName::parse("dns:probe-1.example").unwrap()];
    request
}

#[tokio::test]
async fn an_enrolment_brings_certificate_and_chain() {
    let (ca, server) = SmallCa::new(Fault::None).start().await;
    let root = ca.pki.certificate("root");
    let client = server.client();
    for (index, transport) in [Transport::Post, Transport::Get].into_iter().enumerate() {
        let key = ClientKey::generate(KeyKind::Rsa2048).unwrap();
        let mut request = request(&key);
        request.transport = transport;
        request.digest = DigestAlgorithm::ALL[index + 1];
        request.cipher = ContentCipher::ALL[index + 1];
        request.key_transport = [KeyTransport::OaepSha1, KeyTransport::Pkcs1v15][index];
        request.trust = Trust::RootSha256(root.sha256());
        let enrolled = enroll(&client, &request).await.unwrap();
        let certificate = Certificate::from_der(&enrolled.certificate).unwrap();
        assert_eq!(certificate.public_key_info(), key.public_key_info());
        assert_eq!(certificate.subject_text(), "CN=probe-1");
        let issuing = ca.pki.certificate("issuing");
        assert_eq!(enrolled.chain, [issuing.as_der(), root.as_der()]);
        assert_eq!(enrolled.root_sha256, root.sha256());
    }
    assert_eq!(ca.operations.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_reply_that_is_not_ours_is_refused() {
    let (ca, server) = SmallCa::new(Fault::None).start().await;
    let key = ClientKey::generate(KeyKind::Rsa2048).unwrap();
    let request = request(&key);
    let client = server.client();
    for (fault, expected) in [
        (
            Fault::OtherTransaction,
            "the reply has the transactionID of another request",
        ),
        (
            Fault::OtherNonce,
            "the reply has the recipientNonce of another request",
        ),
        (
            Fault::SignedByDevice,
            "the reply is signed by none of the certificates",
        ),
        (
            Fault::BrokenSignature,
            "the reply's signature is not that of the server's certificate",
        ),
        (
            Fault::CertificateOfOther,
            "the reply holds no certificate for the key that asked",
        ),
        (
            Fault::IssuedByOther,
            "the certificate of CN=probe-1 is not trusted",
        ),
        (
            Fault::NotEnveloped,
            "the reply is no CertRep: its content is no EnvelopedData",
        ),
    ] {
        *ca.fault.lock().unwrap() = fault;
        let error = enroll(&client, &request).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    *ca.fault.lock().unwrap() = Fault::None;
    enroll(&client, &request).await.unwrap();
}

#[tokio::test]
async fn refusals_say_what_the_server_said() {
    let (ca, server) = SmallCa::new(Fault::Refuse).start().await;
    let key = ClientKey::generate(KeyKind::Rsa2048).unwrap();
    let request = request(&key);
    let error = enroll(&server.client(), &request).await.unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("badRequest") && said.contains(r#""no\u{1b}[31m, no""#),
        "{said}"
    );
    assert!(matches!(
        error,
        EnrolError::Refused {
            fail_info: FailInfo::BadRequest,
            ..
        }
    ));

    *ca.fault.lock().unwrap() = Fault::Pending;
    let error = enroll(&server.client(), &request).await.unwrap_err();
    assert!(matches!(error, EnrolError::Pending { transaction_id } if transaction_id.len() == 64));

    *ca.fault.lock().unwrap() = Fault::Busy;
    let error = enroll(&server.client(), &request).await.unwrap_err();
    assert!(matches!(
        error,
        EnrolError::Server(ServerError::Status { status: 503, retry_after: Some(after), .. })
            if after.as_secs() == 7
    ));
}

#[tokio::test]
async fn what_is_not_announced_is_not_sent() {
    let mut ca = SmallCa::new(Fault::None);
    ca.caps = "AES\nSHA-256\n";
    let (ca, server) = ca.start().await;
    let key = ClientKey::generate(KeyKind::Rsa2048).unwrap();
    let mut request = request(&key);
    let error = enroll(&server.client(), &request).await.unwrap_err();
    assert!(matches!(
        error,
        EnrolError::NotAnnounced("POSTPKIOperation")
    ));
    request.transport = Transport::Get;
    request.digest = DigestAlgorithm::Sha512;
    let error = enroll(&server.client(), &request).await.unwrap_err();
    assert!(matches!(error, EnrolError::NotAnnounced("SHA-512")));
    assert_eq!(ca.operations.load(Ordering::SeqCst), 0);
    request.digest = DigestAlgorithm::Sha256;
    enroll(&server.client(), &request).await.unwrap();
}

#[tokio::test]
async fn an_elliptic_key_cannot_receive_the_reply() {
    let (_ca, server) = SmallCa::new(Fault::Refuse).start().await;
    let key = ClientKey::generate(KeyKind::EcP256).unwrap();
    let error = enroll(&server.client(), &request(&key)).await.unwrap_err();
    assert!(matches!(error, EnrolError::Refused { .. }), "{error}");
}
