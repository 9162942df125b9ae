//! Decryption of the content (RFC 5652 §6.3, RFC 3565), which must tell nobody how it went.

use core::hint::black_box;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey,
};
use aws_lc_rs::digest;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use chancery_protocol::wire::Secret;
use zeroize::Zeroizing;

use crate::algorithm::ContentCipher;

/// A decrypted content, or garbage. Wiped when dropped.
pub struct Plaintext {
    buffer: Zeroizing<Vec<u8>>,
    /// Octets in front of the padding; all of them if the padding is wrong.
    length: usize,
    padded: bool,
}

impl Plaintext {
    /// The octets without their padding; with a wrong padding all of them, so that the same work is
    /// done on them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// Whether the padding was right. To be asked last: until then nothing may depend on it.
    pub(crate) fn is_padded(&self) -> bool {
        self.padded
    }
}

/// Decrypts `ciphertext`.
///
/// A ciphertext that is empty or ends inside a block gives an empty plaintext: its length is no
/// secret. A key of another length than the cipher's is replaced by one that nobody can have
/// encrypted for. Neither the key nor the plaintext decide what is done, with one exception: how
/// long the unpadded plaintext is, which shows to whoever works on it next.
pub(crate) fn decrypt(
    cipher: ContentCipher,
    vector: &[u8; BLOCK],
    ciphertext: &[u8],
    content_key: &Secret,
) -> Plaintext {
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    if buffer.is_empty() || !buffer.len().is_multiple_of(BLOCK) {
        buffer.clear();
    }
    let substitute = substitute_key(ciphertext, content_key);
    // RSA key transport gives a key of any length; the token that decrypted it has already put a
    // random one in the place of one that does not fit, so this choice is seldom taken.
    let key = if content_key.expose().len() == cipher.key_len() {
        content_key.expose()
    } else {
        substitute.get(..cipher.key_len()).unwrap_or_default()
    };
    // With a key of the right length and whole blocks, the library has no reason to fail. If it
    // does, there is no plaintext.
    if !buffer.is_empty() && decrypt_blocks(cipher, key, vector, &mut buffer).is_err() {
        buffer.clear();
    }
    let padding = padding_length(&buffer);
    Plaintext {
        length: buffer.len().saturating_sub(padding),
        padded: padding != 0,
        buffer,
    }
}

fn decrypt_blocks(
    cipher: ContentCipher,
    key: &[u8],
    vector: &[u8; BLOCK],
    buffer: &mut [u8],
) -> Result<(), Unspecified> {
    let algorithm = match cipher {
        ContentCipher::Aes128Cbc => &AES_128,
        ContentCipher::Aes192Cbc => &AES_192,
        ContentCipher::Aes256Cbc => &AES_256,
    };
    let key = DecryptingKey::cbc(UnboundCipherKey::new(algorithm, key)?)?;
    let context = DecryptionContext::Iv128(FixedLength::from(vector));
    key.decrypt(buffer, context)?;
    Ok(())
}

/// A key in the place of one that does not fit. It depends on the ciphertext, so that nobody can
/// choose one that makes sense under it, and on the key, so that nobody else can know it.
fn substitute_key(ciphertext: &[u8], content_key: &Secret) -> Zeroizing<[u8; 32]> {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(content_key.expose());
    context.update(ciphertext);
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(context.finish().as_ref());
    key
}

/// The octets of the padding at the end of whole blocks (RFC 5652 §6.3): 1 to 16, each of that
/// value. 0 if it is wrong, or if there is nothing.
///
/// All sixteen octets are looked at, and no branch depends on one: sums and masks only. The
/// compiler is asked not to see through them; it gives no promise.
fn padding_length(buffer: &[u8]) -> usize {
    let Some(block) = buffer.last_chunk::<BLOCK>() else {
        return 0;
    };
    let [.., last] = *block;
    let length = u16::from(last);
    // A length of 0 needs no mask.
    let mut wrong = is_less(BLOCK_U16, length);
    for (distance, octet) in (1u16..).zip(block.iter().rev()) {
        // Octets as far from the end as the padding reaches have to equal its last one.
        let within = !is_less(length, distance);
        let differs = !is_zero(u16::from(octet ^ last));
        wrong |= black_box(within & differs);
    }
    usize::from(length & !black_box(wrong))
}

/// All ones if `value` is 0; values stay below 2¹⁵.
fn is_zero(value: u16) -> u16 {
    is_less(value, 1)
}

/// All ones if `left` is less than `right`; values stay below 2¹⁵.
fn is_less(left: u16, right: u16) -> u16 {
    black_box(0u16.wrapping_sub(left.wrapping_sub(right) >> 15))
}

const BLOCK: usize = 16;
const BLOCK_U16: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::cipher::{EncryptingKey, EncryptionContext};
    use proptest::prelude::*;

    /// Encrypts whole blocks, whatever their padding.
    fn encrypt(key: &[u8], vector: &[u8; BLOCK], blocks: &[u8]) -> Vec<u8> {
        let algorithm = match key.len() {
            16 => &AES_128,
            24 => &AES_192,
            _ => &AES_256,
        };
        let key = EncryptingKey::cbc(UnboundCipherKey::new(algorithm, key).unwrap()).unwrap();
        let mut buffer = blocks.to_vec();
        key.less_safe_encrypt(
            &mut buffer,
            EncryptionContext::Iv128(FixedLength::from(vector)),
        )
        .unwrap();
        buffer
    }

    fn ciphers() -> [ContentCipher; 3] {
        [
            ContentCipher::Aes128Cbc,
            ContentCipher::Aes192Cbc,
            ContentCipher::Aes256Cbc,
        ]
    }

    /// The definition, with all the branches that the code avoids.
    fn expected_padding(block: &[u8]) -> usize {
        let Some(&last) = block.last() else { return 0 };
        let length = usize::from(last);
        let right = (1..=16).contains(&length)
            && block.iter().rev().take(length).all(|octet| *octet == last);
        if right { length } else { 0 }
    }

    #[test]
    fn every_last_octet_and_every_broken_padding_is_judged_right() {
        for last in 0..=255u8 {
            assert_eq!(padding_length(&[last; 16]), expected_padding(&[last; 16]));
            for at in 0..15 {
                let mut block = [last; 16];
                block[at] ^= 0x40;
                assert_eq!(padding_length(&block), expected_padding(&block));
            }
        }
        assert_eq!(padding_length(&[]), 0);
    }

    proptest! {
        #[test]
        fn padding_is_judged_as_defined(mut block: [u8; 16], length in 0usize..=17) {
            for octet in block.iter_mut().rev().take(length) {
                *octet = u8::try_from(length).unwrap();
            }
            prop_assert_eq!(padding_length(&block), expected_padding(&block));
        }

        #[test]
        fn what_was_encrypted_comes_back(text in proptest::collection::vec(any::<u8>(), 0..100), key: [u8; 32], vector: [u8; 16]) {
            for cipher in ciphers() {
                let key = &key[..cipher.key_len()];
                let padding = 16 - text.len() % 16;
                let mut blocks = text.clone();
                blocks.resize(text.len() + padding, u8::try_from(padding).unwrap());
                let plaintext = decrypt(cipher, &vector, &encrypt(key, &vector, &blocks), &Secret::new(key.to_vec()));
                prop_assert_eq!(plaintext.as_bytes(), text.as_slice());
                prop_assert!(plaintext.is_padded());
            }
        }

        #[test]
        fn no_input_fails(ciphertext in proptest::collection::vec(any::<u8>(), 0..70), key in proptest::collection::vec(any::<u8>(), 0..40), vector: [u8; 16]) {
            for cipher in ciphers() {
                let plaintext = decrypt(cipher, &vector, &ciphertext, &Secret::new(key.clone()));
                if ciphertext.len() % 16 == 0 {
                    prop_assert!(plaintext.is_padded() || plaintext.as_bytes().len() == ciphertext.len());
                } else {
                    prop_assert!(plaintext.as_bytes().is_empty() && !plaintext.is_padded());
                }
            }
        }
    }

    #[test]
    fn a_wrong_padding_leaves_everything() {
        let (key, vector) = ([7; 16], [9; 16]);
        let blocks = [*b"sixteen octets..", *b"and then sixteen"].concat();
        let ciphertext = encrypt(&key, &vector, &blocks);
        let plaintext = decrypt(
            ContentCipher::Aes128Cbc,
            &vector,
            &ciphertext,
            &Secret::new(key.to_vec()),
        );
        assert_eq!(plaintext.as_bytes(), blocks);
        assert!(!plaintext.is_padded());
    }

    #[test]
    fn a_key_of_another_length_gives_garbage() {
        let vector = [9; 16];
        let mut blocks = b"sixteen octets..".to_vec();
        blocks.extend([16; 16]);
        let ciphertext = encrypt(&[7; 16], &vector, &blocks);
        for length in [0, 1, 15, 17, 24, 32, 53] {
            let plaintext = decrypt(
                ContentCipher::Aes128Cbc,
                &vector,
                &ciphertext,
                &Secret::new(vec![7; length]),
            );
            assert!(!plaintext.as_bytes().starts_with(b"sixteen"), "{length}");
            assert!(!plaintext.as_bytes().is_empty(), "{length}");
        }
    }

    #[test]
    fn nobody_can_encrypt_for_the_key_in_the_place_of_another() {
        let (content_key, vector) = ([1; 5], [9; 16]);
        let guess = digest::digest(&digest::SHA256, &content_key);
        let ciphertext = encrypt(&guess.as_ref()[..16], &vector, b"sixteen octets..");
        let content_key = Secret::new(content_key.to_vec());
        let plaintext = decrypt(ContentCipher::Aes128Cbc, &vector, &ciphertext, &content_key);
        assert_ne!(plaintext.as_bytes(), b"sixteen octets..");
    }
}
