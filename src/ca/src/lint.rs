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
use crate::authority::Authority;
use crate::certificate::{Kind, key_identifier};

/// The first rule that a TBSCertificate breaks, with its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Finding(&'static str);

/// Checks `tbs` against the rules, what was authorised, and its issuer.
pub(crate) fn check(
    tbs: &[u8],
    authorised: &Authorised,
    authority: &Authority,
) -> Result<(), Finding> {
    let decoded = TbsCertificate::from_der(tbs).map_err(|_| Finding("is no DER TBSCertificate"))?;
    serial_and_issuer(&decoded, authority)?;
    validity(&decoded, authority)?;
    names(&decoded, &authorised.names)?;
    key(&decoded, authorised, authority)?;
    extensions(&decoded, authorised)
}

fn hold(condition: bool, rule: &'static str) -> Result<(), Finding> {
    if condition {
        Ok(())
    } else {
        Err(Finding(rule))
    }
}

fn serial_and_issuer(tbs: &TbsCertificate, authority: &Authority) -> Result<(), Finding> {
    let serial = tbs.serial_number().as_bytes();
    hold(
        (8..=20).contains(&serial.len()),
        "RFC 5280 4.1.2.2: serial number of 8 to 20 octets",
    )?;
    hold(
        serial.first().is_some_and(|first| first & 0x80 == 0),
        "RFC 5280 4.1.2.2: positive serial number",
    )?;
    let issuer = tbs
        .issuer()
        .to_der()
        .map_err(|_| Finding("RFC 5280 4.1.2.4: issuer encodes"))?;
    hold(
        issuer == authority.certificate.subject,
        "RFC 5280 4.1.2.4: issuer is the CA's subject, octet for octet",
    )
}

fn validity(tbs: &TbsCertificate, authority: &Authority) -> Result<(), Finding> {
    let not_before = tbs.validity().not_before.to_unix_duration().as_secs();
    let not_after = tbs.validity().not_after.to_unix_duration().as_secs();
    hold(
        not_before < not_after,
        "RFC 5280 4.1.2.5: notBefore precedes notAfter",
    )?;
    hold(
        not_after <= authority.certificate.not_after,
        "a certificate does not outlive its issuer",
    )
}

fn names(tbs: &TbsCertificate, names: &Names) -> Result<(), Finding> {
    hold(
        tbs.subject().len() == names.subject.attributes().len(),
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
            hold(
                san.0.len() == names.sans.len(),
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
    authority: &Authority,
) -> Result<(), Finding> {
    let public_key = tbs.subject_public_key_info().to_der().unwrap_or_default();
    hold(
        public_key == authorised.public_key,
        "the key is the authorised one",
    )?;
    hold(
        public_key != authority.certificate.public_key,
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
                    .is_some_and(|id| id.as_bytes() == authority.certificate.key_identifier)
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
