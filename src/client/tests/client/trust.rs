//! To whom a challenge is sent, and to whom not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use chancery_client::{
    CaCertificates, ClientKey, EnrolError, KeyKind, Trust, TrustError, degenerate, enroll,
};

use crate::enrolment::{Fault, SmallCa, request};
use crate::pki::Pki;

/// Enrols; a CA that is not to be believed must not have seen the message.
async fn attempt(ca: SmallCa, trust: Trust, years: u64) -> Result<(), EnrolError> {
    let (ca, server) = ca.start().await;
    let key = ClientKey::generate(KeyKind::Rsa2048).unwrap();
    let mut request = request(&key);
    request.trust = trust;
    request.now += Duration::from_secs(years * 365 * 24 * 3600);
    let result = enroll(&server.client(), &request).await.map(|_| ());
    let sent = ca.operations.load(Ordering::SeqCst) > 0;
    assert_eq!(sent, result.is_ok());
    result
}

#[tokio::test]
async fn the_pinned_root_is_believed_and_no_other() {
    let ca = SmallCa::new(Fault::None);
    let pin = ca.pki.certificate("root").sha256();
    attempt(ca, Trust::RootSha256(pin), 0).await.unwrap();
    // The same names under other keys.
    let mut ca = SmallCa::new(Fault::None);
    ca.pki = Pki::with_new_keys();
    let error = attempt(ca, Trust::RootSha256(pin), 0).await.unwrap_err();
    assert!(matches!(error, EnrolError::Trust(TrustError::NotServed(named)) if named == pin));
    // An RA certificate is no root.
    let ca = SmallCa::new(Fault::None);
    let pin = ca.pki.certificate("decryption").sha256();
    let error = attempt(ca, Trust::RootSha256(pin), 0).await.unwrap_err();
    assert!(matches!(error, EnrolError::Trust(TrustError::NotServed(_))));
}

#[tokio::test]
async fn an_ra_under_another_root_gets_no_challenge() {
    let mut ca = SmallCa::new(Fault::None);
    ca.pki.make_root("elsewhere");
    ca.pki
        .certify("impostor", "rsa", "decryption", "elsewhere", 30);
    ca.served = vec!["root", "issuing", "elsewhere", "impostor", "signing"];
    ca.decryption = "impostor";
    let pin = Trust::RootSha256(ca.pki.certificate("root").sha256());
    let error = attempt(ca, pin, 0).await.unwrap_err().to_string();
    assert!(
        error.starts_with("the certificate of CN=impostor is not trusted"),
        "{error}"
    );
}

#[tokio::test]
async fn a_device_under_the_same_root_is_no_ra() {
    let mut ca = SmallCa::new(Fault::None);
    ca.pki.certify("device", "rsa", "device", "issuing", 30);
    ca.served = vec!["root", "issuing", "device"];
    ca.decryption = "device";
    let pin = Trust::RootSha256(ca.pki.certificate("root").sha256());
    let error = attempt(ca, pin, 0).await.unwrap_err();
    assert!(matches!(error, EnrolError::NoRecipient));
}

#[tokio::test]
async fn a_certificate_of_no_ca_issues_nothing() {
    let mut ca = SmallCa::new(Fault::None);
    ca.pki.certify("deputy", "rsa", "decryption", "signing", 30);
    ca.served = vec!["root", "issuing", "signing", "deputy"];
    ca.decryption = "deputy";
    let error = attempt(ca, Trust::AsServed, 0).await.unwrap_err();
    assert!(
        matches!(error, EnrolError::Trust(TrustError::Untrusted { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_ca_below_a_path_length_of_zero_issues_nothing() {
    let mut ca = SmallCa::new(Fault::None);
    ca.pki.certify("below", "ec", "issuing", "issuing", 30);
    ca.pki.certify("deep", "rsa", "decryption", "below", 30);
    ca.served = vec!["root", "issuing", "below", "signing", "deep"];
    ca.decryption = "deep";
    let pin = Trust::RootSha256(ca.pki.certificate("root").sha256());
    let error = attempt(ca, pin, 0).await.unwrap_err();
    assert!(
        matches!(error, EnrolError::Trust(TrustError::Untrusted { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn validity_and_critical_extensions_count() {
    let error = attempt(SmallCa::new(Fault::None), Trust::AsServed, 1)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("outside of its validity"),
        "{error}"
    );

    let mut ca = SmallCa::new(Fault::None);
    ca.pki.certify("odd", "rsa", "odd", "issuing", 30);
    ca.served = vec!["root", "issuing", "signing", "odd"];
    let error = attempt(ca, Trust::AsServed, 0).await.unwrap_err();
    assert!(error.to_string().contains("critical extension"), "{error}");
}

#[tokio::test]
async fn an_expired_ra_certificate_gives_way_to_its_successor() {
    let mut ca = SmallCa::new(Fault::None);
    ca.pki.certify("old", "rsa", "decryption", "issuing", -1);
    ca.served = vec!["root", "issuing", "old", "decryption", "signing"];
    attempt(ca, Trust::AsServed, 0).await.unwrap();
}

#[tokio::test]
async fn without_a_root_the_topmost_ca_is_believed() {
    let mut ca = SmallCa::new(Fault::None);
    ca.served = vec!["issuing", "decryption", "signing"];
    attempt(ca, Trust::AsServed, 0).await.unwrap();
}

#[tokio::test]
async fn a_ca_may_receive_and_sign_itself() {
    let pki = Pki::new();
    let one = CaCertificates::read(pki.certificate("decryption").as_der()).unwrap();
    assert_eq!(one.encryption(), Some(&pki.certificate("decryption")));
    let both = degenerate(&pki.certificates(&["root", "issuing"])).unwrap();
    let authorities = CaCertificates::read(&both).unwrap();
    assert_eq!(authorities.signers().len(), 2);
    assert_eq!(authorities.encryption(), None);
}
