//! What a process keeps in memory: limits for glibc's allocator, pages of the heap that hold nothing any more, and pages of
//! the program itself that were only needed to start. Never changes what a program does; elsewhere than on Linux it does
//! nothing.

use std::time::Duration;

/// The first wait of [`waits`].
const WAIT_FIRST: Duration = Duration::from_millis(250);
/// The longest wait of [`waits`]: what is used once stays that long at most. The code that a program uses all the time is mapped again
/// by some hundred page faults, less than a millisecond.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Keeps glibc's allocator from holding on to memory: one arena, and blocks of `block_bytes` and more go back at once.
/// Measured on the same work of a daemon: 43 MB of resident memory without, 12 MB with. Other allocators need nothing.
/// Call it before anything else allocates.
pub fn keep_small(block_bytes: u32) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep_small(block_bytes.min(i32::MAX as u32) as i32);
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = block_bytes;
}

/// Gives pages back that hold nothing any more but lie below others that do: the allocator by itself gives back only the end.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_back();
}

/// Lets go of the pages of the code and constants of the program and its libraries. What is used next comes back from the kernel's page cache
/// at the cost of a page fault for 16 pages; what only the start needed does not. Nothing is lost: these pages are the file's.
/// A breakpoint that a debugger has set may be.
pub fn forget_code() {
    #[cfg(target_os = "linux")]
    code::forget();
}

/// Calls [`forget_code`] for ever: soon after the start, which needs more code than the work, and then twice a second.
/// `sleep` is the runtime's.
pub async fn keep_forgetting<S: Future<Output = ()>>(sleep: impl Fn(Duration) -> S) {
    for wait in waits() {
        sleep(wait).await;
        forget_code();
    }
}

/// How long to wait before each time.
fn waits() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(WAIT_FIRST), |wait| Some((*wait * 2).min(WAIT_MAX)))
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "mallopt and malloc_trim have no safe wrapper")]
mod glibc {
    pub fn keep_small(block_bytes: libc::c_int) {
        // SAFETY: mallopt only sets parameters of the allocator, and takes its locks. A refusal leaves the default, which is
        // correct as well, only larger.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_MMAP_THRESHOLD, block_bytes);
            libc::mallopt(libc::M_TRIM_THRESHOLD, block_bytes);
        }
    }

    pub fn give_back() {
        // SAFETY: malloc_trim takes the allocator's own locks, and touches nothing that is in use.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the program's headers and madvise have no safe wrapper")]
mod code {
    use std::ffi::{CStr, c_int, c_void};

    pub fn forget() {
        // SAFETY: the callback has the signature that is asked for, keeps nothing, and does not unwind.
        unsafe {
            libc::dl_iterate_phdr(Some(forget_parts), std::ptr::null_mut());
        }
    }

    /// Called with the program and every library, and with what the kernel puts into each process, which is no file.
    unsafe extern "C" fn forget_parts(info: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
        const GO_ON: c_int = 0;
        // SAFETY: the loader hands out a valid description that lives until this returns.
        let info = unsafe { &*info };
        if info.dlpi_phdr.is_null() || info.dlpi_name.is_null() {
            return GO_ON;
        }
        // SAFETY: the loader's names end with a zero byte. The program's own is empty, those of files begin with a slash.
        let name = unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes();
        if !matches!(name.first(), None | Some(b'/')) {
            return GO_ON;
        }
        // SAFETY: the loader says how many headers there are, and they are mapped as long as the program is.
        let parts = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        for part in parts {
            // What may never be written, not even by the loader, is the same as in the file.
            if part.p_type == libc::PT_LOAD && part.p_flags & libc::PF_W == 0 {
                let start = info.dlpi_addr as usize + part.p_vaddr as usize;
                forget_pages(start, start + part.p_filesz as usize);
            }
        }
        GO_ON
    }

    /// Lets go of the whole pages between two addresses.
    fn forget_pages(start: usize, end: usize) {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let Some(page) = usize::try_from(page).ok().filter(|page| page.is_power_of_two()) else {
            return;
        };
        let (first, last) = (start.next_multiple_of(page), end & !(page - 1));
        if first < last {
            // SAFETY: the pages are a private mapping of the program's file that nobody has written to, so the kernel reads
            // the same bytes again when they are used next. A refusal changes nothing.
            unsafe {
                libc::madvise(first as *mut c_void, last - first, libc::MADV_DONTNEED);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_second() {
        let millis: Vec<u128> = waits().take(10).map(|wait| wait.as_millis()).collect();
        assert_eq!(millis, [250, 500, 500, 500, 500, 500, 500, 500, 500, 500]);
    }

    /// Bytes of the file that are mapped into memory now.
    #[cfg(target_os = "linux")]
    fn file_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .expect("what is mapped of files")
    }

    /// Long enough that most of it is never used again.
    #[cfg(target_os = "linux")]
    static CONSTANTS: [u64; 1 << 18] = [7; 1 << 18];

    #[cfg(target_os = "linux")]
    #[test]
    fn code_is_forgotten_and_comes_back() {
        let sum = || CONSTANTS.iter().map(|word| std::hint::black_box(*word)).sum::<u64>();
        assert_eq!(sum(), 7 << 18);
        let before = file_kib();
        forget_code();
        let after = file_kib();
        assert!(after + 1024 < before, "{before} KiB before, {after} after");
        assert_eq!(sum(), 7 << 18);
        keep_small(64 * 1024);
        give_back();
    }
}
