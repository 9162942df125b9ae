//! Certificates as PEM.

use der::pem::{LineEnding, encode_string};

use crate::end::End;

/// A certificate in PEM.
pub(crate) fn certificate(der: &[u8]) -> Result<String, End> {
    encode_string("CERTIFICATE", LineEnding::LF, der)
        .map_err(|error| End::Failed(format!("a certificate does not encode as PEM: {error}")))
}
