//! Taking the clock away from a process, against measuring what it should not.

use super::SandboxError;
use nix::errno::Errno;
use nix::sys::mman::munmap;
use std::ffi::c_void;
use std::ptr::NonNull;

/// The pages through which a process reads clocks without a system call: the vDSO's code and data.
/// A child of a fork has them where its parent has them.
#[derive(Clone, Debug)]
pub struct ClockPages(Vec<(NonNull<c_void>, usize)>);

impl ClockPages {
    /// Finds them in `/proc/self/maps`; so before [`super::confine`].
    ///
    /// # Errors
    /// [`SandboxError`] if the map cannot be read or understood.
    pub fn find() -> Result<Self, SandboxError> {
        Self::from_maps(&std::fs::read_to_string("/proc/self/maps")?)
    }

    fn from_maps(maps: &str) -> Result<Self, SandboxError> {
        maps.lines()
            .filter_map(|line| {
                let name = line.split_ascii_whitespace().nth(5)?;
                (name == "[vdso]" || name.starts_with("[vvar")).then_some(line)
            })
            .map(|line| range(line).ok_or_else(|| SandboxError::ClockPages(line.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// From here on this process cannot tell the time: the time-stamp counter raises SIGSEGV
    /// (`PR_SET_TSC`), and so does what the C library calls in the vDSO. The system calls are the
    /// filter's business. For a process with one thread, which is about to be sealed.
    ///
    /// # Errors
    /// [`SandboxError::Process`] if the processor or kernel cannot do it; a kernel that seals its
    /// system mappings (`CONFIG_MSEAL_SYSTEM_MAPPINGS`) is one.
    pub fn hide(&self) -> Result<(), SandboxError> {
        // SAFETY: PR_SET_TSC takes an integer and touches no memory.
        let result = unsafe {
            nix::libc::prctl(
                nix::libc::PR_SET_TSC,
                nix::libc::PR_TSC_SIGSEGV as nix::libc::c_ulong,
                0,
                0,
                0,
            )
        };
        Errno::result(result)
            .map_err(|e| SandboxError::process("disable the time-stamp counter", e))?;
        for &(start, length) in &self.0 {
            // SAFETY: the range is one whole kernel-made mapping (the vDSO or its data), in which
            // no Rust object lives; jumping there afterwards faults, which is the purpose.
            unsafe { munmap(start, length) }
                .map_err(|e| SandboxError::process("unmap the kernel's clock pages", e))?;
        }
        Ok(())
    }
}

/// `7ffc1000-7ffc3000 r-xp … [vdso]` as start and length.
fn range(line: &str) -> Option<(NonNull<c_void>, usize)> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let length = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
    Some((NonNull::new(start as *mut c_void)?, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_clock_and_nothing_else() {
        let maps = "5600-5700 r-xp 00000000 00:00 0 /bin/true\n\
                    7000-9000 r--p 00000000 00:00 0    [vvar]\n\
                    9000-a000 r--p 00000000 00:00 0    [vvar_vclock]\n\
                    a000-c000 r-xp 00000000 00:00 0    [vdso]\n\
                    d000-e000 rw-p 00000000 00:00 0 \n\
                    e000-f000 rw-p 00000000 00:00 0    [stack]\n";
        let pages: Vec<(usize, usize)> = ClockPages::from_maps(maps)
            .unwrap()
            .0
            .iter()
            .map(|(start, length)| (start.as_ptr() as usize, *length))
            .collect();
        assert_eq!(
            pages,
            [(0x7000, 0x2000), (0x9000, 0x1000), (0xa000, 0x2000)]
        );
    }

    #[test]
    fn refuses_a_range_that_it_cannot_read() {
        for line in [
            "zz-c000 r-xp 0 00:00 0 [vdso]",
            "c000-a000 r-xp 0 00:00 0 [vdso]",
        ] {
            assert!(matches!(
                ClockPages::from_maps(line),
                Err(SandboxError::ClockPages(_))
            ));
        }
    }

    #[test]
    fn this_process_has_clock_pages() {
        assert!(!ClockPages::find().unwrap().0.is_empty());
    }
}
