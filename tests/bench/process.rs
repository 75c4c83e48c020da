//! The process under test: started, asked what it costs, ended.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::Error;

/// A child process that serves on a port it told us; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// What a process has used up to now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) rss_kb: u64,
    pub(crate) threads: u64,
    pub(crate) switches: u64,
}

impl Server {
    /// Starts a program that prints `Listening on http://ADDRESS`.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Error> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("the output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address =
            line.trim().strip_prefix("Listening on http://").ok_or("no address was told")?.parse()?;
        Ok(Self { child, address })
    }

    pub(crate) fn usage(&self) -> Result<Usage, Error> {
        let pid = self.child.id();
        // Behind the name in brackets, which may hold blanks: utime and stime are fields 14 and 15 of the whole line.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let mut switches = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may have ended since the directory was read.
            let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
            let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
            switches +=
                counts.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(Usage {
            // The kernel counts in hundredths of a second on every platform that Rust has.
            cpu_s: ticks as f64 / 100.0,
            rss_kb: field("VmRSS:").unwrap_or(0),
            threads: field("Threads:").unwrap_or(0),
            switches,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
