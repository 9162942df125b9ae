//! The wall clock and the identity of the boot it runs in.

use chancery_protocol::wire::Id;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z. A clock set to before that reads 0, which every high-water
/// mark refuses.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The kernel's random identifier of this boot. Read it before [`crate::sandbox::confine`], which
/// closes `/proc`.
///
/// # Errors
/// Of reading `/proc/sys/kernel/random/boot_id`, or if it holds no UUID.
pub fn boot_id() -> io::Result<Id> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Id::from_hex(&text.trim().replace('-', "")).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "/proc/sys/kernel/random/boot_id does not hold a UUID",
        )
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_boot_has_one_identifier() {
        let first = super::boot_id().unwrap();
        assert_ne!(first.as_bytes(), &[0; 16]);
        assert_eq!(first, super::boot_id().unwrap());
    }

    #[test]
    fn the_clock_counts_from_1970() {
        // 2024-01-01T00:00:00Z: later than this source, earlier than any machine that runs it.
        assert!(super::now() > 1_704_067_200);
    }
}
