//! Which names a certificate carries: the claims', or what the request asks where they leave it
//! open within the profile's template. Pure.

use chancery_config::Profile;
use chancery_protocol::name::{AttributeKind, DistinguishedName, GeneralName, Names};
use chancery_protocol::seal::Claims;

/// The names for the certificate, or `None` if the request asks for more than, or other than, the
/// claims allow, or if no name is left.
#[must_use]
pub(crate) fn allowed(claims: &Claims, profile: &Profile, requested: &Names) -> Option<Names> {
    let names = Names {
        subject: subject(claims.subject.as_ref(), profile, &requested.subject)?,
        sans: sans(claims.sans.as_deref(), profile, &requested.sans)?,
    };
    (!names.is_empty()).then_some(names)
}

/// The names by which somebody is known to a network: what a challenge of several uses gives to one
/// key only. Without their kinds and in lower case, since verifiers look at one or the other; what
/// many share (organization, place) is left out.
#[must_use]
pub(crate) fn identities(names: &Names) -> Vec<String> {
    let own = |short: &str| ["CN", "serialNumber", "UID", "emailAddress"].contains(&short);
    let attributes = names.subject.attributes().iter().filter_map(|attribute| {
        let kind = AttributeKind::by_oid(&attribute.oid())?;
        own(kind.short).then(|| attribute.value().to_owned())
    });
    let sans = names.sans.iter().map(|san| {
        let text = san.to_string();
        text.split_once(':')
            .map_or(text.clone(), |(_, value)| value.to_owned())
    });
    let mut identities: Vec<String> = attributes
        .chain(sans)
        .map(|name| name.to_lowercase())
        .collect();
    if identities.is_empty() {
        identities.push(names.subject.to_string().to_lowercase());
    }
    identities.sort();
    identities.dedup();
    identities
}

fn subject(
    claimed: Option<&DistinguishedName>,
    profile: &Profile,
    requested: &DistinguishedName,
) -> Option<DistinguishedName> {
    if let Some(claimed) = claimed {
        let within = requested.as_set().is_subset(&claimed.as_set());
        return within.then(|| claimed.clone());
    }
    let mut kinds: Vec<&AttributeKind> = profile.open_subject.clone();
    for attribute in requested.attributes() {
        // Each open kind once: two common names would be two identities.
        let position = kinds.iter().position(|kind| kind.oid == attribute.oid())?;
        kinds.swap_remove(position);
    }
    Some(requested.clone())
}

fn sans(
    claimed: Option<&[GeneralName]>,
    profile: &Profile,
    requested: &[GeneralName],
) -> Option<Vec<GeneralName>> {
    if let Some(claimed) = claimed {
        return requested
            .iter()
            .all(|name| claimed.contains(name))
            .then(|| claimed.to_vec());
    }
    let open = |name: &GeneralName| profile.open_sans.iter().any(|kind| kind == name.kind());
    let mut names = requested.to_vec();
    names.sort();
    names.dedup();
    names.iter().all(open).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile {
            name: "devices".into(),
            ca: "issuing".into(),
            validity_days: 365,
            backdate_seconds: 0,
            open_subject: vec![AttributeKind::by_short("CN").unwrap()],
            open_sans: vec!["dns".into()],
            extended_key_usage: Vec::new(),
            challenge_ttl_max: 3600,
        }
    }

    fn claims(subject: Option<&str>, sans: Option<&[&str]>) -> Claims {
        Claims {
            profile: "devices".into(),
            issued_at: 0,
            expires: 1,
            uses: 1,
            subject: subject.map(|text| DistinguishedName::parse(text).unwrap()),
            sans: sans.map(|list| {
                list.iter()
                    .map(|t| GeneralName::parse(t).unwrap())
                    .collect()
            }),
            device_id: None,
            minted_by: String::new(),
        }
    }

    fn request(subject: &str, sans: &[&str]) -> Names {
        Names {
            subject: DistinguishedName::parse(subject).unwrap(),
            sans: sans
                .iter()
                .map(|t| GeneralName::parse(t).unwrap())
                .collect(),
        }
    }

    #[test]
    fn a_request_may_ask_for_less_and_gets_the_claims() {
        let claims = claims(Some("CN=a,O=x"), Some(&["dns:a.example"]));
        let names = allowed(&claims, &profile(), &request("CN=a", &[])).unwrap();
        assert_eq!(names, request("CN=a,O=x", &["dns:a.example"]));
        assert!(
            allowed(
                &claims,
                &profile(),
                &request("O=x,CN=a", &["dns:a.example"])
            )
            .is_some()
        );
    }

    #[test]
    fn a_name_is_the_same_in_any_case_and_kind() {
        let of = |subject, sans: &[&str]| identities(&request(subject, sans));
        assert_eq!(
            of("CN=GW1.example,O=Example", &["dns:gw1.example"]),
            ["gw1.example"]
        );
        assert_eq!(
            of("CN=gw1", &["ip:192.0.2.1", "uri:urn:x"]),
            ["192.0.2.1", "gw1", "urn:x"]
        );
        assert_eq!(of("O=Example", &[]), ["o=example"]);
    }

    #[test]
    fn more_or_other_is_refused() {
        let claims = claims(Some("CN=a"), Some(&["dns:a.example"]));
        for (subject, sans) in [
            ("CN=b", vec!["dns:a.example"]),
            ("CN=a,O=x", vec![]),
            ("CN=a", vec!["dns:a.example", "dns:b.example"]),
            ("CN=a", vec!["email:a@a.example"]),
        ] {
            assert!(
                allowed(&claims, &profile(), &request(subject, &sans)).is_none(),
                "{subject} {sans:?}"
            );
        }
    }

    #[test]
    fn what_the_challenge_leaves_open_is_within_the_template() {
        let claims = claims(None, None);
        assert!(allowed(&claims, &profile(), &request("CN=a", &["dns:a.example"])).is_some());
        assert!(allowed(&claims, &profile(), &request("CN=a,O=x", &[])).is_none());
        assert!(allowed(&claims, &profile(), &request("CN=a,CN=b", &[])).is_none());
        assert!(allowed(&claims, &profile(), &request("CN=a", &["ip:192.0.2.1"])).is_none());
        assert!(allowed(&claims, &profile(), &request("", &[])).is_none());
    }

    #[test]
    fn nothing_fixed_and_nothing_open_allows_nothing() {
        let closed = Profile {
            open_subject: Vec::new(),
            open_sans: Vec::new(),
            ..profile()
        };
        let claims = claims(Some("CN=a"), Some(&[]));
        assert!(allowed(&claims, &closed, &request("CN=a", &[])).is_some());
        assert!(allowed(&claims, &closed, &request("CN=a", &["dns:a.example"])).is_none());
    }
}
