//! What GetCACert serves, sorted by use (RFC 8894 §4.2.1).

use crate::certificate::{Certificate, CertificateError, read_degenerate};

/// A GetCACert answer that holds no certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaCertificatesError {
    /// Neither a certificate nor a degenerate SignedData.
    #[error("the answer to GetCACert holds no certificates in DER: {0}")]
    Malformed(#[from] CertificateError),
    /// No certificate in it.
    #[error("the answer to GetCACert holds no certificate")]
    Empty,
}

/// The certificates that a server serves.
#[derive(Clone, Debug)]
pub struct CaCertificates {
    /// All of them, in the order served, which means nothing (a DER SET is sorted).
    pub all: Vec<Certificate>,
}

impl CaCertificates {
    /// Reads the body of the answer: one certificate, or a degenerate SignedData. The form shows
    /// in the octets, so the Content-Type, which servers get wrong, is not asked.
    ///
    /// # Errors
    /// [`CaCertificatesError`].
    pub fn read(body: &[u8]) -> Result<Self, CaCertificatesError> {
        let all = match Certificate::from_der(body) {
            Ok(certificate) => vec![certificate],
            Err(_) => read_degenerate(body)?,
        };
        if all.is_empty() {
            return Err(CaCertificatesError::Empty);
        }
        Ok(Self { all })
    }

    /// The certificate for which requests are enveloped: an RSA one, by keyUsage keyEncipherment,
    /// then dataEncipherment, then a CA where the server has nothing else.
    #[must_use]
    pub fn encryption(&self) -> Option<&Certificate> {
        self.encryption_where(|_| true)
    }

    /// [`Self::encryption`] among the certificates that `admit` lets pass.
    pub(crate) fn encryption_where(
        &self,
        admit: impl Fn(&Certificate) -> bool,
    ) -> Option<&Certificate> {
        let usable = || self.servants().filter(|c| c.has_rsa_key() && admit(c));
        let by_usage = |authority: bool| {
            usable().find(move |certificate| {
                certificate.is_authority() == authority
                    && certificate
                        .key_usage()
                        .map_or(!authority, |usage| usage.key_encipherment())
            })
        };
        let data = || {
            usable().find(|certificate| {
                certificate
                    .key_usage()
                    .is_some_and(|usage| usage.data_encipherment())
            })
        };
        let only_authorities = self.all.iter().all(Certificate::is_authority);
        by_usage(false)
            .or_else(|| by_usage(true))
            .or_else(data)
            .or_else(|| usable().find(|_| only_authorities))
    }

    /// The certificates that may sign replies: those with keyUsage digitalSignature (or without
    /// keyUsage), and the CAs where there is none.
    #[must_use]
    pub fn signers(&self) -> Vec<&Certificate> {
        let signing = |certificate: &&Certificate| {
            certificate
                .key_usage()
                .is_none_or(|usage| usage.digital_signature())
        };
        let signers: Vec<_> = self.servants().filter(signing).collect();
        if signers.is_empty() {
            self.authorities()
        } else {
            signers
        }
    }

    /// The CA certificates, issuing and root.
    #[must_use]
    pub fn authorities(&self) -> Vec<&Certificate> {
        self.all
            .iter()
            .filter(|certificate| certificate.is_authority())
            .collect()
    }

    /// Without the certificates that say of themselves that they are a device's or a server's.
    /// Whoever holds one of those under the same root could otherwise serve it here and be sent
    /// the challenges of others.
    fn servants(&self) -> impl Iterator<Item = &Certificate> {
        self.all
            .iter()
            .filter(|certificate| !certificate.is_end_entity_by_purpose())
    }
}
