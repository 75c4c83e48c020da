//! What the process takes of the system, for metrics.
//!
//! Read from `/proc/self` (proc(5)), which the unit's sandbox leaves open, unlike the rest of `/proc`. What the system
//! does not tell is absent, never zero.

use std::fs;
use std::time::Duration;

use rlimit::Resource;

/// The kernel tells times to programs in hundredths of a second, whatever its own clock (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// What it takes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Time of all its threads, in user and in kernel mode.
    pub cpu: Option<Duration>,
    /// Memory that is really there.
    pub resident_bytes: Option<u64>,
    /// Address space.
    pub virtual_bytes: Option<u64>,
    /// All threads, `tiny_http`'s included.
    pub threads: Option<u64>,
    /// Descriptors that are open.
    pub descriptors: Option<u64>,
    /// Descriptors that may be open.
    pub max_descriptors: Option<u64>,
}

impl Usage {
    /// As it is now. It takes as long as counting the descriptors does: microseconds, with thousands of clients some
    /// milliseconds.
    #[must_use]
    pub(super) fn read() -> Self {
        let mut usage = Self::default();
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            usage.read_status(&status);
        }
        usage.cpu = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_time(&stat));
        // The one through which they are counted is not one of ours.
        usage.descriptors =
            fs::read_dir("/proc/self/fd").ok().map(|list| list.count().saturating_sub(1) as u64);
        usage.max_descriptors = Resource::NOFILE.get_soft().ok();
        usage
    }

    /// Lines like `VmRSS:     5432 kB`.
    fn read_status(&mut self, status: &str) {
        for line in status.lines() {
            let Some((name, rest)) = line.split_once(':') else {
                continue;
            };
            let number = rest.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            match name {
                "VmRSS" => self.resident_bytes = number.map(|kib| kib * 1024),
                "VmSize" => self.virtual_bytes = number.map(|kib| kib * 1024),
                "Threads" => self.threads = number,
                _ => {}
            }
        }
    }
}

/// Fields 14 and 15 of `stat`, counted behind the name, which may have blanks and brackets in it.
fn cpu_time(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 150 75 0 0 20 0 9 0 1000 1 2";
        assert_eq!(cpu_time(stat), Some(Duration::from_millis(2250)));
        for stat in ["", "7 (a) S 1 7", "7 a S 1 7 7 0 -1 4194304 100 0 0 0 150 75"] {
            assert_eq!(cpu_time(stat), None, "{stat}");
        }
    }

    #[test]
    fn what_is_not_told_stays_unknown() {
        let mut usage = Usage::default();
        usage.read_status("Name:\tx: 1\nVmRSS:\t   5432 kB\nVmSize:\tmuch\nno line\n");
        assert_eq!(usage, Usage { resident_bytes: Some(5432 * 1024), ..Usage::default() });
    }

    #[test]
    fn it_follows_what_the_process_does() {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let before = Usage::read();
            let files: Vec<_> = (0..50).map(|_| File::open("/dev/null").expect("a descriptor")).collect();
            let memory = black_box(vec![1_u8; 64 << 20]);
            let after = Usage::read();
            drop((files, memory));
            assert!(after.descriptors <= after.max_descriptors && after.threads >= Some(1), "{after:?}");
            assert!(after.virtual_bytes >= after.resident_bytes, "{after:?}");
            let more = |of: fn(&Usage) -> Option<u64>| {
                of(&after).expect("told").saturating_sub(of(&before).expect("told"))
            };
            if more(|usage| usage.descriptors) >= 50 && more(|usage| usage.resident_bytes) >= 64 << 20 {
                break;
            }
            // Other tests of this process open and close something meanwhile, though not every time.
            assert!(Instant::now() < deadline, "{before:?} {after:?}");
        }
        let began = Usage::read().cpu.expect("told");
        while Usage::read().cpu.expect("told") < began + Duration::from_millis(50) {
            assert!(Instant::now() < deadline, "reading costs time, and it is not counted");
        }
    }
}
