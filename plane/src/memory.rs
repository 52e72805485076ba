//! Keeps glibc's allocator small. Touches nothing else, and does nothing with another C library.

/// Tells malloc to use one arena and to give freed memory back early: otherwise one burst of reports stays resident.
/// To be called first in `main`, before there are threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn tune() {
    use std::ffi::c_int;

    // From <malloc.h>.
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;
    const M_ARENA_MAX: c_int = -8;
    /// Bytes.
    const THRESHOLD: c_int = 64 * 1024;

    #[allow(unsafe_code, reason = "glibc's own switch; there is no safe way to reach it")]
    // SAFETY: mallopt takes two integers, is declared as in <malloc.h>, and may be called at any time; the values are
    // documented ones. A refusal (0) leaves the default, which is correct as well, only larger.
    unsafe {
        unsafe extern "C" {
            fn mallopt(param: c_int, value: c_int) -> c_int;
        }
        mallopt(M_ARENA_MAX, 1);
        mallopt(M_MMAP_THRESHOLD, THRESHOLD);
        mallopt(M_TRIM_THRESHOLD, THRESHOLD);
    }
}

/// Nothing to do here.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn tune() {}
