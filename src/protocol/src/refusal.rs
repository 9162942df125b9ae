//! Why a request is refused, and what the device is told: the one place that maps one to the other.

use der::Enumerated;

use crate::scep::FailInfo;

/// Every reason to refuse a pkiMessage that could be parsed. A device learns [`Refusal::fail_info`],
/// the audit log learns [`Refusal::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumerated)]
#[repr(u8)]
pub enum Refusal {
    /// messageType is unassigned, or assigned and not served by this profile.
    MessageType = 0,
    /// A digest, signature, key transport or content encryption algorithm is not allowed here.
    Algorithm = 1,
    /// The message signer's key cannot receive an enveloped reply (an EC key).
    SignerKey = 2,
    /// signedAttrs are missing, lack a required attribute, or carry one twice.
    SignedAttributes = 3,
    /// messageDigest does not match the content.
    MessageDigest = 4,
    /// The signature over signedAttrs does not verify.
    Signature = 5,
    /// The signer's certificate may not sign this message (not self-signed, and no renewal here).
    Signer = 6,
    /// No recipientInfo names one of our decryption certificates.
    Recipient = 7,
    /// The decrypted content is no CertificationRequest: wrong key, bad padding or garbage.
    Plaintext = 8,
    /// The request's own signature does not verify.
    ProofOfPossession = 9,
    /// The message was signed by another key than the request's.
    SignerMismatch = 10,
    /// A requested name is malformed or of a kind that is not supported.
    Names = 11,
    /// The public key is of a kind, size or form that is not allowed.
    KeyQuality = 12,
    /// The public key belongs to one of our own authorities.
    KeyOfAuthority = 13,
    /// There is no challengePassword.
    ChallengeMissing = 14,
    /// No challenge of this value exists.
    ChallengeUnknown = 15,
    /// The row found was not sealed by our challenge key.
    ChallengeForged = 16,
    /// The challenge is for another profile.
    ChallengeProfile = 17,
    /// The challenge has expired or was revoked.
    ChallengeExpired = 18,
    /// The challenge has no use left, and this is no repetition of the enrolment that spent it.
    ChallengeSpent = 19,
    /// The requested names belong, under this challenge, to the key that took them first.
    ChallengeHeld = 20,
    /// The request asks for names that the challenge does not allow.
    ChallengeNames = 21,
    /// The certificate would break the profile or the lint rules.
    Policy = 22,
}

impl Refusal {
    /// What the device is told. From decryption onwards there is one answer only, so that it
    /// cannot serve as an oracle (RFC 3218 §2.3.2).
    #[must_use]
    pub fn fail_info(self) -> FailInfo {
        match self {
            Self::Algorithm | Self::SignerKey => FailInfo::BadAlg,
            Self::SignedAttributes | Self::MessageDigest | Self::Signature => {
                FailInfo::BadMessageCheck
            }
            Self::MessageType
            | Self::Signer
            | Self::Recipient
            | Self::Plaintext
            | Self::ProofOfPossession
            | Self::SignerMismatch
            | Self::Names
            | Self::KeyQuality
            | Self::KeyOfAuthority
            | Self::ChallengeMissing
            | Self::ChallengeUnknown
            | Self::ChallengeForged
            | Self::ChallengeProfile
            | Self::ChallengeExpired
            | Self::ChallengeSpent
            | Self::ChallengeHeld
            | Self::ChallengeNames
            | Self::Policy => FailInfo::BadRequest,
        }
    }

    /// Whether the reason was found before anything was decrypted: such an answer may differ in
    /// content and time.
    #[must_use]
    pub fn before_decryption(self) -> bool {
        self <= Self::Recipient
    }

    /// Whether the requester had proved to hold a genuine challenge. Only such refusals get an
    /// audit record each; the others are counted, so that strangers cannot fill the disk.
    #[must_use]
    pub fn after_proof(self) -> bool {
        match self {
            Self::ChallengeProfile
            | Self::ChallengeExpired
            | Self::ChallengeSpent
            | Self::ChallengeHeld
            | Self::ChallengeNames
            | Self::Policy => true,
            Self::MessageType
            | Self::Algorithm
            | Self::SignerKey
            | Self::SignedAttributes
            | Self::MessageDigest
            | Self::Signature
            | Self::Signer
            | Self::Recipient
            | Self::Plaintext
            | Self::ProofOfPossession
            | Self::SignerMismatch
            | Self::Names
            | Self::KeyQuality
            | Self::KeyOfAuthority
            | Self::ChallengeMissing
            | Self::ChallengeUnknown
            | Self::ChallengeForged => false,
        }
    }

    /// A stable name for audit records and scripts.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::MessageType => "message-type",
            Self::Algorithm => "algorithm",
            Self::SignerKey => "signer-key",
            Self::SignedAttributes => "signed-attributes",
            Self::MessageDigest => "message-digest",
            Self::Signature => "signature",
            Self::Signer => "signer",
            Self::Recipient => "recipient",
            Self::Plaintext => "plaintext",
            Self::ProofOfPossession => "proof-of-possession",
            Self::SignerMismatch => "signer-mismatch",
            Self::Names => "names",
            Self::KeyQuality => "key-quality",
            Self::KeyOfAuthority => "key-of-authority",
            Self::ChallengeMissing => "challenge-missing",
            Self::ChallengeUnknown => "challenge-unknown",
            Self::ChallengeForged => "challenge-forged",
            Self::ChallengeProfile => "challenge-profile",
            Self::ChallengeExpired => "challenge-expired",
            Self::ChallengeSpent => "challenge-spent",
            Self::ChallengeHeld => "challenge-held",
            Self::ChallengeNames => "challenge-names",
            Self::Policy => "policy",
        }
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_from_decryption_on_looks_the_same() {
        let all = (0..=255u8)
            .filter_map(|n| Refusal::try_from(n).ok())
            .collect::<Vec<_>>();
        assert_eq!(all.len(), 23);
        for refusal in all.iter().filter(|r| !r.before_decryption()) {
            assert_eq!(refusal.fail_info(), FailInfo::BadRequest, "{refusal}");
        }
        let codes: std::collections::BTreeSet<_> = all.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), all.len());
    }
}
