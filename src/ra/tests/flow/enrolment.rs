//! What is granted, and by which means.

use chancery_client::{ContentCipher, DigestAlgorithm, KeyTransport, SignatureForm};
use chancery_protocol::ipc::message::Reply;

use crate::appliance::Appliance;
use crate::certificates;
use crate::device::Device;

crate::harness::tests!(
    every_accepted_algorithm_is_mirrored,
    many_devices_enrol_at_once,
    an_earlier_decryption_certificate_serves_on,
    a_ca_that_dies_costs_nothing_but_time,
    the_log_tells_when_the_service_began_and_ended,
);

fn every_accepted_algorithm_is_mirrored() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    let issued = std::fs::read(appliance.path("issued.cer")).unwrap();
    let digests = [
        DigestAlgorithm::Sha256,
        DigestAlgorithm::Sha384,
        DigestAlgorithm::Sha512,
    ];
    let ciphers = [
        ContentCipher::Aes128Cbc,
        ContentCipher::Aes192Cbc,
        ContentCipher::Aes256Cbc,
    ];
    let transports = [KeyTransport::Pkcs1v15, KeyTransport::OaepSha1];
    for (n, digest) in digests.into_iter().enumerate() {
        for (cipher, transport) in ciphers.into_iter().flat_map(|c| transports.map(|t| (c, t))) {
            let forms = [SignatureForm::RsaEncryption, SignatureForm::DigestWithRsa];
            let envelope = device.envelope().cipher(cipher).key_transport(transport);
            let message = device
                .builder()
                .digest(digest)
                .signature_form(forms[n % 2])
                .build(&envelope, &Device::request("genuine"))
                .unwrap();
            let reply = appliance.ask(&message.der);
            assert_eq!(device.certificate(&message, &reply), issued);
            let certrep = device.read(&message, &reply);
            assert_eq!(certrep.digest, digest);
            let oid = cipher.oid();
            let envelope = certrep.envelope.unwrap();
            assert!(
                envelope
                    .windows(oid.as_bytes().len())
                    .any(|window| window == oid.as_bytes())
            );
        }
    }
}

fn many_devices_enrol_at_once() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (appliance, device) = (&appliance, &device);
            scope.spawn(move || {
                for _ in 0..4 {
                    // Refusals in between: their sessions serve on like the others.
                    let challenge = if n % 3 == 0 { "unknown" } else { "genuine" };
                    let message = device.message(challenge);
                    match appliance.ask(&message.der) {
                        // More refusals at once than the budget for them.
                        Reply::Unavailable(5) if n % 3 == 0 => {}
                        reply if n % 3 == 0 => drop(device.failure(&message, &reply)),
                        reply => drop(device.certificate(&message, &reply)),
                    }
                }
            });
        }
    });
}

fn an_earlier_decryption_certificate_serves_on() {
    let appliance = Appliance::start();
    let before = Device::new(&appliance);
    // The CA renews the certificate, and the RA starts anew.
    certificates::certificate(&appliance.path(""), "decryption", "keyEncipherment");
    appliance.kill("ra");
    let after = Device::new(&appliance);
    assert_ne!(before.decryption.as_der(), after.decryption.as_der());
    crate::appliance::eventually(|| {
        let message = after.message("genuine");
        matches!(appliance.ask(&message.der), Reply::CertRep(_))
    });
    for device in [before, after] {
        let message = device.message("genuine");
        device.certificate(&message, &appliance.ask(&message.der));
    }
}

fn a_ca_that_dies_costs_nothing_but_time() {
    let appliance = Appliance::start();
    let device = Device::new(&appliance);
    let message = device.message("one death");
    device.certificate(&message, &appliance.ask(&message.der));
    assert!(appliance.path("died").exists());
}

fn the_log_tells_when_the_service_began_and_ended() {
    let appliance = Appliance::start();
    let events = appliance.stop();
    let kinds: Vec<_> = events
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(kinds, ["token.ready", "service.started", "service.stopped"]);
}
