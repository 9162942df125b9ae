//! From a certificate up to the root that is trusted (RFC 5280 §6.1, the part that a client needs
//! to know its server: no policies, no name constraints, no revocation).

use std::time::SystemTime;

use chancery_protocol::wire::Digest;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912;
use x509_cert::ext::pkix::BasicConstraints;

use crate::ca_certificates::CaCertificates;
use crate::certificate::Certificate;

/// Whom to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The CA certificate with this SHA-256 over its DER, which the server has to serve.
    RootSha256(Digest),
    /// The root that the server serves, whoever that is: good where the network is trusted.
    AsServed,
}

/// A server that is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No CA certificate with the pinned digest.
    #[error(
        "the server serves no CA certificate with SHA-256 {0}, check the digest and the URL, and that GetCACert includes the root"
    )]
    NotServed(Digest),
    /// No CA certificate at all.
    #[error("the server serves no CA certificate, check the URL")]
    NoAuthority,
    /// A certificate from which no path leads to the trusted root.
    #[error("the certificate of {subject} is not trusted: {cause}")]
    Untrusted {
        /// The subject, as RFC 4514 text.
        subject: String,
        /// Why.
        cause: Distrust,
    },
}

/// Why no path was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Outside its validity.
    #[error("it is outside of its validity, check the clock here and the certificate there")]
    Expired,
    /// An extension that is critical and unknown.
    #[error("it has a critical extension that this client does not know")]
    CriticalExtension,
    /// No chain of signatures leads to the root.
    #[error("no chain of valid CA certificates leads from it to the trusted root")]
    NoPath,
}

/// Longest path above an end entity.
const MAX_DEPTH: u8 = 8;

/// The certificates that count as roots.
pub(crate) fn anchors<'a>(
    served: &'a CaCertificates,
    trust: &Trust,
) -> Result<Vec<&'a Certificate>, TrustError> {
    let authorities = served.authorities();
    match trust {
        Trust::RootSha256(pin) => {
            let pinned: Vec<_> = authorities
                .into_iter()
                .filter(|c| c.sha256() == *pin)
                .collect();
            if pinned.is_empty() {
                Err(TrustError::NotServed(*pin))
            } else {
                Ok(pinned)
            }
        }
        Trust::AsServed => {
            let topmost = |c: &&Certificate| {
                c.is_self_signed() || !served.all.iter().any(|issuer| c.is_issued_by(issuer))
            };
            let found: Vec<_> = authorities.iter().copied().filter(topmost).collect();
            let (roots, others): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|c| c.is_self_signed());
            match (roots.is_empty(), others.is_empty()) {
                (true, true) => Err(TrustError::NoAuthority),
                (true, false) => Ok(others),
                (false, _) => Ok(roots),
            }
        }
    }
}

/// The issuers of a certificate that the server serves, nearest first, the anchor last; empty if it
/// is an anchor itself.
pub(crate) fn path<'a>(
    leaf: &Certificate,
    pool: &[&'a Certificate],
    anchors: &[&'a Certificate],
    now: SystemTime,
) -> Result<Vec<&'a Certificate>, TrustError> {
    if !leaf.is_valid_at(now) {
        return Err(TrustError::of(leaf, Distrust::Expired));
    }
    path_of_new(leaf, pool, anchors, now)
}

/// [`path`] for a certificate that was issued a moment ago. Its own validity is not asked: it may
/// begin after `now`, for two clocks are never the same, and refusing it would lose it.
pub(crate) fn path_of_new<'a>(
    leaf: &Certificate,
    pool: &[&'a Certificate],
    anchors: &[&'a Certificate],
    now: SystemTime,
) -> Result<Vec<&'a Certificate>, TrustError> {
    if has_unknown_critical_extension(leaf) {
        return Err(TrustError::of(leaf, Distrust::CriticalExtension));
    }
    let mut search = Search {
        pool,
        anchors,
        now,
        tried: Vec::new(),
    };
    let found = search.above(leaf, 0);
    found.ok_or_else(|| TrustError::of(leaf, Distrust::NoPath))
}

impl TrustError {
    fn of(certificate: &Certificate, cause: Distrust) -> Self {
        Self::Untrusted {
            subject: certificate.subject_text(),
            cause,
        }
    }
}

struct Search<'s, 'a> {
    pool: &'s [&'a Certificate],
    anchors: &'s [&'a Certificate],
    now: SystemTime,
    /// Each issuer is tried once, so that a served tangle of cross certificates ends.
    tried: Vec<&'a Certificate>,
}

impl<'a> Search<'_, 'a> {
    /// `depth` counts the CA certificates between this one and the end entity.
    fn above(&mut self, certificate: &Certificate, depth: u8) -> Option<Vec<&'a Certificate>> {
        if self.anchors.contains(&certificate) {
            return Some(Vec::new());
        }
        if depth >= MAX_DEPTH {
            return None;
        }
        let issuers = self.anchors.iter().chain(self.pool).copied();
        for issuer in issuers.collect::<Vec<_>>() {
            if self.tried.contains(&issuer)
                || !may_issue(issuer, depth, self.now)
                || !certificate.is_issued_by(issuer)
            {
                continue;
            }
            self.tried.push(issuer);
            if let Some(rest) = self.above(issuer, depth + 1) {
                return Some(core::iter::once(issuer).chain(rest).collect());
            }
        }
        None
    }
}

/// RFC 5280 §6.1.4 (k) to (o): a valid CA that may sign certificates, at this height.
fn may_issue(issuer: &Certificate, below: u8, now: SystemTime) -> bool {
    let constraints = issuer
        .x509()
        .tbs_certificate()
        .get_extension::<BasicConstraints>();
    let admits = matches!(
        constraints,
        Ok(Some((_, constraints)))
            if constraints.ca && constraints.path_len_constraint.is_none_or(|most| below <= most)
    );
    admits
        && issuer.key_usage().is_none_or(|usage| usage.key_cert_sign())
        && issuer.is_valid_at(now)
        && !has_unknown_critical_extension(issuer)
}

fn has_unknown_critical_extension(certificate: &Certificate) -> bool {
    let extensions = certificate.x509().tbs_certificate().extensions();
    extensions.is_some_and(|extensions| {
        extensions
            .iter()
            .any(|e| e.critical && !KNOWN_EXTENSIONS.contains(&e.extn_id))
    })
}

/// Extensions that may be critical: those read here, and those that bind a relying party, which
/// this client is not.
const KNOWN_EXTENSIONS: &[ObjectIdentifier] = &[
    rfc5912::ID_CE_KEY_USAGE,
    rfc5912::ID_CE_BASIC_CONSTRAINTS,
    rfc5912::ID_CE_EXT_KEY_USAGE,
    rfc5912::ID_CE_SUBJECT_ALT_NAME,
    rfc5912::ID_CE_CERTIFICATE_POLICIES,
    rfc5912::ID_CE_NAME_CONSTRAINTS,
    rfc5912::ID_CE_POLICY_CONSTRAINTS,
    rfc5912::ID_CE_INHIBIT_ANY_POLICY,
];
