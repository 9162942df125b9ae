//! The Merkle tree of the audit log (RFC 6962 §2.1). The hash function is an argument: this crate
//! holds no cryptography.

use der::Sequence;

use crate::wire::Digest;

/// SHA-256 over the concatenation of its arguments.
pub type Sha256 = fn(&[&[u8]]) -> [u8; 32];

/// The hash of a leaf.
#[must_use]
pub fn leaf(sha256: Sha256, record: &[u8]) -> Digest {
    crate::wire::Octets(sha256(&[&[0], record]))
}

fn node(sha256: Sha256, left: &Digest, right: &Digest) -> Digest {
    crate::wire::Octets(sha256(&[&[1], left.as_bytes(), right.as_bytes()]))
}

/// The head of a growing tree: its size and the roots of its perfect subtrees, largest first, one
/// for each bit set in the size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Sequence)]
pub struct CompactRange {
    size: u64,
    subtrees: Vec<Digest>,
}

impl CompactRange {
    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether a decoded value has one subtree for each bit of its size.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        u32::try_from(self.subtrees.len()) == Ok(self.size.count_ones())
    }

    /// Appends a leaf hash.
    pub fn append(&mut self, sha256: Sha256, leaf: Digest) {
        let mut subtree = leaf;
        let mut bits = self.size;
        while bits & 1 == 1 {
            if let Some(left) = self.subtrees.pop() {
                subtree = node(sha256, &left, &subtree);
            }
            bits >>= 1;
        }
        self.subtrees.push(subtree);
        self.size = self.size.saturating_add(1);
    }

    /// The root hash.
    #[must_use]
    pub fn root(&self, sha256: Sha256) -> Digest {
        let mut subtrees = self.subtrees.iter().rev();
        match subtrees.next() {
            None => crate::wire::Octets(sha256(&[])),
            Some(last) => subtrees.fold(*last, |right, left| node(sha256, left, &right)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Octets;

    /// No hash, but any function of the right shape shows the structure.
    fn toy(parts: &[&[u8]]) -> [u8; 32] {
        let mut state = [17u8; 32];
        for (index, octet) in parts.iter().flat_map(|p| p.iter()).enumerate() {
            let slot = &mut state[index % 32];
            *slot = slot.wrapping_mul(31).wrapping_add(*octet).rotate_left(3);
            state.rotate_left(1);
        }
        state
    }

    /// RFC 6962 §2.1, by its definition.
    fn definition(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Octets(toy(&[])),
            [one] => *one,
            _ => {
                let k = (leaves.len() - 1).ilog2();
                let (left, right) = leaves.split_at(1 << k);
                node(toy, &definition(left), &definition(right))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_definition() {
        let leaves: Vec<Digest> = (0..64u8).map(|n| leaf(toy, &[n])).collect();
        let mut range = CompactRange::default();
        for size in 0..=leaves.len() {
            assert_eq!(range.root(toy), definition(&leaves[..size]));
            assert!(range.is_valid());
            if let Some(next) = leaves.get(size) {
                range.append(toy, *next);
            }
        }
    }
}
