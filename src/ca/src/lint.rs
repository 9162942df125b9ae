//! What every TBSCertificate must fulfil before it is signed: read back from its octets, so that a
//! fault in the encoding is found as well as one in the fields.

use chancery_protocol::name::Names;
use der::{Decode, Encode};
use x509_cert::certificate::TbsCertificate;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};

use crate::authorise::Authorised;
use crate::authority::PathCertificate;
use crate::certificate::{Kind, encode_san, encode_subject, key_identifier};

/// The first rule that a TBSCertificate breaks, with its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Finding(&'static str);

/// Checks `tbs` against the rules, what was authorised, and its issuer.
pub(crate) fn check(
    tbs: &[u8],
    authorised: &Authorised,
    issuer: &PathCertificate,
) -> Result<(), Finding> {
    let decoded = TbsCertificate::from_der(tbs).map_err(|_| Finding("is no DER TBSCertificate"))?;
    serial_and_issuer(&decoded, issuer)?;
    validity(&decoded, issuer)?;
    names(&decoded, &authorised.names)?;
    key(&decoded, authorised, issuer)?;
    extensions(&decoded, authorised)
}

fn hold(condition: bool, rule: &'static str) -> Result<(), Finding> {
    if condition {
        Ok(())
    } else {
        Err(Finding(rule))
    }
}

fn serial_and_issuer(tbs: &TbsCertificate, issuer: &PathCertificate) -> Result<(), Finding> {
    let serial = tbs.serial_number().as_bytes();
    hold(
        (8..=20).contains(&serial.len()),
        "RFC 5280 4.1.2.2: serial number of 8 to 20 octets",
    )?;
    hold(
        serial.first().is_some_and(|first| first & 0x80 == 0),
        "RFC 5280 4.1.2.2: positive serial number",
    )?;
    let named = tbs
        .issuer()
        .to_der()
        .map_err(|_| Finding("RFC 5280 4.1.2.4: issuer encodes"))?;
    hold(
        named == issuer.subject,
        "RFC 5280 4.1.2.4: issuer is the CA's subject, octet for octet",
    )
}

fn validity(tbs: &TbsCertificate, issuer: &PathCertificate) -> Result<(), Finding> {
    let not_before = tbs.validity().not_before.to_unix_duration().as_secs();
    let not_after = tbs.validity().not_after.to_unix_duration().as_secs();
    hold(
        not_before < not_after,
        "RFC 5280 4.1.2.5: notBefore precedes notAfter",
    )?;
    hold(
        not_after <= issuer.not_after,
        "a certificate does not outlive its issuer",
    )
}

fn names(tbs: &TbsCertificate, names: &Names) -> Result<(), Finding> {
    let subject = encode_subject(&names.subject)
        .and_then(|name| Ok(name.to_der()?))
        .ok();
    hold(
        subject.is_some() && tbs.subject().to_der().ok() == subject,
        "the subject has the authorised attributes",
    )?;
    let san = tbs
        .get_extension::<SubjectAltName>()
        .map_err(|_| Finding("RFC 5280 4.2.1.6: at most one subjectAltName, well-formed"))?;
    match san {
        None => {
            hold(
                names.sans.is_empty(),
                "the authorised subject alternative names are there",
            )?;
            hold(
                !tbs.subject().is_empty(),
                "RFC 5280 4.1.2.6: a subject, or a subjectAltName",
            )
        }
        Some((critical, san)) => {
            let expected: Option<Vec<_>> = names
                .sans
                .iter()
                .map(|name| encode_san(name).ok())
                .collect();
            hold(
                expected.is_some_and(|expected| san.0 == expected),
                "the authorised subject alternative names are there",
            )?;
            hold(
                critical == tbs.subject().is_empty(),
                "RFC 5280 4.2.1.6: subjectAltName critical exactly if the subject is empty",
            )
        }
    }
}

fn key(
    tbs: &TbsCertificate,
    authorised: &Authorised,
    issuer: &PathCertificate,
) -> Result<(), Finding> {
    let public_key = tbs.subject_public_key_info().to_der().unwrap_or_default();
    hold(
        public_key == authorised.public_key,
        "the key is the authorised one",
    )?;
    hold(
        public_key != issuer.public_key,
        "the key is not the issuer's",
    )?;
    let subject_key = tbs.get_extension::<SubjectKeyIdentifier>().ok().flatten();
    let expected =
        key_identifier(&public_key).map_err(|_| Finding("the key is a SubjectPublicKeyInfo"))?;
    hold(
        subject_key.is_some_and(|(critical, id)| !critical && id.0.as_bytes() == expected),
        "RFC 5280 4.2.1.2: subjectKeyIdentifier of the key, not critical",
    )?;
    let issuer_key = tbs.get_extension::<AuthorityKeyIdentifier>().ok().flatten();
    hold(
        issuer_key.is_some_and(|(critical, id)| {
            !critical
                && id
                    .key_identifier
                    .is_some_and(|id| id.as_bytes() == issuer.key_identifier)
        }),
        "RFC 5280 4.2.1.1: authorityKeyIdentifier is the issuer's subjectKeyIdentifier, not critical",
    )
}

fn extensions(tbs: &TbsCertificate, authorised: &Authorised) -> Result<(), Finding> {
    let list: &[Extension] = tbs.extensions().map_or(&[], |list| list.as_slice());
    for (position, extension) in list.iter().enumerate() {
        let doubled = list
            .iter()
            .skip(position + 1)
            .any(|other| other.extn_id == extension.extn_id);
        hold(!doubled, "RFC 5280 4.2: each extension once")?;
    }
    let constraints = tbs.get_extension::<BasicConstraints>().ok().flatten();
    hold(
        constraints.is_none(),
        "no basicConstraints in what this process issues: CAs come from ceremonies",
    )?;
    let usage = tbs.get_extension::<KeyUsage>().ok().flatten();
    let Some((true, KeyUsage(usage))) = usage else {
        return Err(Finding("RFC 5280 4.2.1.3: a critical keyUsage"));
    };
    let forbidden = KeyUsages::KeyCertSign | KeyUsages::CRLSign;
    hold(
        !usage.is_empty() && (usage & forbidden).is_empty(),
        "RFC 5280 4.2.1.3: at least one usage, none of a CA's",
    )?;
    let single = match authorised.kind {
        Kind::RaDecryption => usage == KeyUsages::KeyEncipherment,
        Kind::RaSigning => usage == KeyUsages::DigitalSignature,
        Kind::EndEntity(_) => usage.contains(KeyUsages::DigitalSignature),
        Kind::Root | Kind::Issuing => false,
    };
    hold(single, "the usages of its kind")
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use chancery_config::ExtendedKeyUsage;
    use chancery_protocol::name::{DistinguishedName, GeneralName};
    use chancery_protocol::wire::Octets;
    use chancery_token::SignatureAlgorithm;

    use super::*;
    use crate::certificate::{Fields, Issuer, encode_subject, tbs_certificate};

    fn spki() -> Vec<u8> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        key.public_key().as_der().unwrap().as_ref().to_vec()
    }

    fn name(text: &str) -> DistinguishedName {
        DistinguishedName::parse(text).unwrap()
    }

    fn ca() -> PathCertificate {
        PathCertificate {
            id: "issuing".into(),
            der: Vec::new(),
            subject: encode_subject(&name("CN=Issuing"))
                .unwrap()
                .to_der()
                .unwrap(),
            public_key: spki(),
            key_identifier: vec![7; 20],
            not_after: 2_000_000_000,
        }
    }

    fn authorised(public_key: Vec<u8>) -> Authorised {
        Authorised {
            request: Octets([0; 16]),
            ca: "issuing".into(),
            profile: "devices".into(),
            kind: Kind::EndEntity(vec![ExtendedKeyUsage::ClientAuth]),
            names: Names {
                subject: name("CN=a,O=Example"),
                sans: vec![GeneralName::dns("a.example").unwrap()],
            },
            public_key,
            not_before: 1_800_000_000,
            not_after: 1_900_000_000,
            retry: Octets([0; 32]),
            device_id: String::new(),
            transaction: String::new(),
            peer: String::new(),
            spend: None,
            only_repetition: None,
            revoked: false,
        }
    }

    /// Builds what was authorised, with one field changed, and lints it.
    fn finding(
        change: impl FnOnce(&mut Authorised, &mut PathCertificate, &mut Vec<u8>),
    ) -> Option<String> {
        let (right, issuer) = (authorised(spki()), ca());
        let (mut wrong, mut signer, mut serial) = (
            authorised(right.public_key.clone()),
            issuer.clone(),
            vec![0x41; 16],
        );
        change(&mut wrong, &mut signer, &mut serial);
        let tbs = tbs_certificate(&Fields {
            serial: &serial,
            issuer: Issuer {
                subject: &signer.subject,
                key_identifier: Some(&signer.key_identifier),
                algorithm: SignatureAlgorithm::EcdsaWithSha256,
            },
            not_before: wrong.not_before,
            not_after: wrong.not_after,
            subject: &wrong.names.subject,
            sans: &wrong.names.sans,
            public_key: &wrong.public_key,
            kind: &wrong.kind,
        })
        .unwrap();
        check(&tbs, &right, &issuer)
            .err()
            .map(|finding| finding.to_string())
    }

    #[test]
    fn what_was_authorised_passes() {
        assert_eq!(finding(|_, _, _| {}), None);
    }

    #[test]
    fn each_rule_is_held() {
        let says = |found: Option<String>, part: &str| {
            let found = found.unwrap_or_default();
            assert!(found.contains(part), "\"{part}\" is not in \"{found}\"");
        };
        says(
            finding(|_, _, serial| *serial = vec![0x41; 7]),
            "8 to 20 octets",
        );
        says(
            finding(|_, _, serial| *serial = vec![0x41; 21]),
            "8 to 20 octets",
        );
        let other = encode_subject(&name("CN=Other")).unwrap().to_der().unwrap();
        says(
            finding(|_, signer, _| signer.subject = other),
            "issuer is the CA's subject",
        );
        says(
            finding(|wrong, _, _| wrong.not_after = wrong.not_before),
            "precedes",
        );
        says(
            finding(|wrong, _, _| wrong.not_after = 2_000_000_001),
            "outlive",
        );
        says(
            finding(|wrong, _, _| wrong.names.subject = name("CN=a")),
            "authorised attributes",
        );
        says(
            finding(|wrong, _, _| wrong.names.subject = name("CN=b,O=Example")),
            "authorised attributes",
        );
        says(
            finding(|wrong, _, _| wrong.names.sans.clear()),
            "alternative names",
        );
        says(
            finding(|wrong, _, _| wrong.names.sans = vec![GeneralName::dns("b.example").unwrap()]),
            "alternative names",
        );
        says(
            finding(|wrong, _, _| wrong.public_key = spki()),
            "the key is the authorised one",
        );
        says(
            finding(|_, signer, _| signer.key_identifier = vec![8; 20]),
            "authorityKeyIdentifier",
        );
        says(
            finding(|wrong, _, _| wrong.kind = Kind::Issuing),
            "basicConstraints",
        );
        says(
            finding(|wrong, _, _| wrong.kind = Kind::RaDecryption),
            "usages of its kind",
        );
    }

    #[test]
    fn garbage_is_no_certificate() {
        assert!(check(&[0x30, 0], &authorised(spki()), &ca()).is_err());
    }
}
