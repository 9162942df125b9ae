//! Packets: one DER value each, bounded, canonical.

use der::{
    Decode, DecodeValue, Encode, EncodeValue, FixedTag, Header, Length, Reader, Tag, Writer,
};
use zeroize::Zeroizing;

/// The largest packet on any socket, in octets. The kernel's default limit for `AF_UNIX`
/// datagrams is 212,960.
pub const MAX_PACKET: usize = 200 * 1024;

/// The largest pkiMessage, in octets. Front answers 413 above it.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// A packet that is no canonical DER value of the expected type, or is too large.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The packet does not decode.
    #[error("malformed packet: {0}")]
    Malformed(#[from] der::Error),
    /// The packet exceeds [`MAX_PACKET`].
    #[error("packet of {0} octets exceeds {MAX_PACKET}")]
    TooLarge(usize),
}

/// Encodes one packet. The buffer is wiped on drop, since some packets carry secrets.
///
/// # Errors
/// [`WireError::TooLarge`] above [`MAX_PACKET`].
pub fn encode<T: Encode>(value: &T) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let length = usize::try_from(value.encoded_len()?)?;
    if length > MAX_PACKET {
        return Err(WireError::TooLarge(length));
    }
    // One exact allocation: growing would leave copies of a secret behind.
    let mut packet = Zeroizing::new(vec![0; length]);
    let mut writer = der::SliceWriter::new(&mut packet);
    value.encode(&mut writer)?;
    Ok(packet)
}

/// Decodes one packet; trailing octets are an error.
///
/// # Errors
/// [`WireError`] if `packet` is not one canonical value of type `T`.
pub fn decode<T>(packet: &[u8]) -> Result<T, WireError>
where
    T: for<'a> Decode<'a, Error = der::Error>,
{
    if packet.len() > MAX_PACKET {
        return Err(WireError::TooLarge(packet.len()));
    }
    Ok(T::from_der(packet)?)
}

/// An OCTET STRING of exactly `N` octets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Octets<const N: usize>(pub [u8; N]);

/// A SHA-256 digest.
pub type Digest = Octets<32>;

/// A caller-made 128-bit identifier: of a request, or of a write that may be repeated.
pub type Id = Octets<16>;

impl<const N: usize> Octets<N> {
    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes exactly `N` octets.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads `2 N` hexadecimal digits of either case.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        Self::from_slice(&crate::hex::decode(text)?)
    }
}

impl<const N: usize> core::fmt::Display for Octets<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&crate::hex::encode(&self.0))
    }
}

impl<const N: usize> core::fmt::Debug for Octets<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FixedTag for Octets<N> {
    const TAG: Tag = Tag::OctetString;
}

impl<'a, const N: usize> DecodeValue<'a> for Octets<N> {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        if usize::try_from(header.length())? != N {
            return Err(reader.error(Tag::OctetString.length_error()));
        }
        let mut octets = [0; N];
        reader.read_into(&mut octets)?;
        Ok(Self(octets))
    }
}

impl<const N: usize> EncodeValue for Octets<N> {
    fn value_len(&self) -> der::Result<Length> {
        Length::try_from(N)
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(&self.0)
    }
}

/// An OCTET STRING that is wiped when dropped and never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `bytes`, which are wiped with this value.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret octets.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

impl FixedTag for Secret {
    const TAG: Tag = Tag::OctetString;
}

impl<'a> DecodeValue<'a> for Secret {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        let length = usize::try_from(header.length())?;
        if length > MAX_PACKET {
            return Err(reader.error(Tag::OctetString.length_error()));
        }
        let mut octets = Zeroizing::new(vec![0; length]);
        reader.read_into(&mut octets)?;
        Ok(Self(octets))
    }
}

impl EncodeValue for Secret {
    fn value_len(&self) -> der::Result<Length> {
        Length::try_from(self.0.len())
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_accept_their_length_only() {
        let packet = encode(&Octets([7u8; 16])).unwrap();
        assert_eq!(decode::<Id>(&packet).unwrap(), Octets([7; 16]));
        assert!(decode::<Digest>(&packet).is_err());
    }

    #[test]
    fn trailing_octets_are_refused() {
        let mut packet = encode(&Octets([7u8; 16])).unwrap().to_vec();
        packet.push(0);
        assert!(decode::<Id>(&packet).is_err());
    }

    #[test]
    fn a_packet_has_a_limit() {
        assert!(matches!(
            encode(&Secret::new(vec![0; MAX_PACKET])),
            Err(WireError::TooLarge(_))
        ));
        assert!(matches!(
            decode::<Id>(&vec![0; MAX_PACKET + 1]),
            Err(WireError::TooLarge(_))
        ));
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret");
    }
}
