//! Whether a request whose body was announced and never comes can be dropped.
//!
//! `tiny_http` allocates as much as was announced, in one piece, when such a request is dropped; an allocation that fails
//! there aborts the process. So the allocator is asked first. Its answer holds as long as only one such request is dropped
//! at a time, and it is not asked for what would leave nothing to the rest of the process. It must not know what a request
//! is.
//!
//! Lock rule: the one lock is held while a request is dropped whose connection has ended, which waits for nothing.

use std::fs;
use std::hint::black_box;
use std::mem;
use std::sync::OnceLock;

use parking_lot::Mutex;

/// Below this the rest of the process asks for as much in one piece itself, and would abort as well.
const USUAL_BYTES: usize = 1024 * 1024;

/// Where room for addresses or promises of memory are short, what others need while so much is taken for a moment may be
/// missing; so only so much is ever taken there. Web pages that send a file rarely have larger ones.
const MAX_BYTES_WHERE_SHORT: usize = 256 * 1024 * 1024;

/// Asked for on top, where they are short: what the rest of the process may need meanwhile.
const SPARE_BYTES: usize = 32 * 1024 * 1024;

/// One at a time in the whole process, which has one allocator.
static DROPPING: Mutex<()> = Mutex::new(());

/// Drops what allocates so many bytes when it is dropped, and does not touch them, or forgets it for good. Tells whether it
/// was dropped.
pub(super) fn drop_or_forget<T>(announced: T, bytes: usize) -> bool {
    if bytes <= USUAL_BYTES {
        drop(announced);
        return true;
    }
    let _one_at_a_time = DROPPING.lock();
    if !can_be_had(bytes, is_memory_short()) {
        mem::forget(announced);
        return false;
    }
    // Before the lock is released.
    drop(announced);
    true
}

/// Whether the allocator would give so many bytes in one piece. Nothing of them is touched, so they cost no memory.
///
/// `malloc`, which is asked here, and the `calloc` of a `vec![0; n]` go the same way in glibc and in musl: sizes like these
/// are mapped each on its own, and given back as soon as they are free.
fn can_be_had(bytes: usize, is_short: bool) -> bool {
    if is_short && bytes > MAX_BYTES_WHERE_SHORT {
        return false;
    }
    let mut probe = Vec::<u8>::new();
    let spare_bytes = if is_short { SPARE_BYTES } else { 0 };
    let is_given = probe.try_reserve_exact(bytes.saturating_add(spare_bytes)).is_ok();
    // Else the compiler sees that nothing is done with it, and leaves the question out.
    black_box(&mut probe);
    is_given
}

/// Whether what one allocation takes untouched is missing elsewhere: a small address space, a limit of it, or a system that
/// promises no more memory than it has.
fn is_memory_short() -> bool {
    static IS_SHORT: OnceLock<bool> = OnceLock::new();
    *IS_SHORT.get_or_init(|| {
        let is_limited = rlimit::Resource::AS.get().is_ok_and(|(soft, _)| soft != rlimit::INFINITY);
        // Where it cannot be read, it is as systems have it by custom.
        let mode = fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
        size_of::<usize>() < 8 || is_limited || mode.trim() == "2"
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_could_be_had_is_dropped_and_all_else_forgotten() {
        for (bytes, is_dropped) in
            [(0, true), (1025, true), (USUAL_BYTES, true), (70_000_000, true), (usize::MAX, false)]
        {
            let held = Arc::new(());
            assert_eq!(drop_or_forget(Arc::clone(&held), bytes), is_dropped, "{bytes}");
            assert_eq!(Arc::strong_count(&held) == 1, is_dropped, "{bytes}");
        }
        // More than any system has addresses for: the question was really asked.
        assert!(!can_be_had(isize::MAX as usize, false));
        assert!(can_be_had(MAX_BYTES_WHERE_SHORT, false));
        assert!(!can_be_had(MAX_BYTES_WHERE_SHORT + 1, true));
    }
}
