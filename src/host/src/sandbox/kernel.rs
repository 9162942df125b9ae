//! What this kernel can do.

use nix::libc;

/// Landlock's ABI version on this kernel, `None` where it is missing or switched off. [`confine`]
/// needs 2.
///
/// [`confine`]: super::confine
#[must_use]
pub fn landlock_abi() -> Option<i64> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag, a null attribute and size 0, the call reads no memory, creates
    // nothing and only returns a number (landlock_create_ruleset(2)).
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            core::ptr::null::<libc::c_void>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    (version > 0).then_some(version)
}
