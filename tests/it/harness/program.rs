//! The program itself as a child process, and what it takes of the system.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use acerelay::sim::SimEngine;
use acerelay::threads::{SMALL_STACK_BYTES, Threads};
use crossbeam_channel::Receiver;

use super::{LONG, pause};

/// The program with this environment and no other, in a directory without a configuration.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acerelay"));
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let is_systemd = ["CREDENTIALS_DIRECTORY", "JOURNAL_STREAM", "NOTIFY_SOCKET", "WATCHDOG_USEC"]
            .contains(&&*name)
            || name.starts_with("LISTEN_");
        if name.starts_with("ACERELAY_") || is_systemd {
            command.env_remove(&*name);
        }
    }
    command.args(arguments).current_dir(directory()).stdin(Stdio::null());
    command
}

/// A test of ours, alone in a process: `module::name`. It has to be marked as ignored, and to do its work only if it [`is_alone`].
pub(crate) fn alone_in_a_process(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("the program of the tests"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--quiet"]).env(ALONE, "");
    // Held open as long as the one who started it lives, and has it.
    command.current_dir(directory()).stdin(Stdio::piped());
    command
}

/// Says that a process is [`alone_in_a_process`].
const ALONE: &str = "ACERELAY_TEST_ALONE";

/// Whether this process is for one test alone. Else somebody has asked for all that is ignored.
pub(crate) fn is_alone() -> bool {
    env::var_os(ALONE).is_some()
}

/// The same program under limits that a shell sets. As this user, if one is given.
pub(crate) fn under(limits: &str, user: Option<u32>, program: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{{ {limits}; }} && exec \"$0\" \"$@\"")]).arg(program.get_program());
    shell.args(program.get_args()).current_dir(directory()).stdin(Stdio::piped());
    if let Some(user) = user {
        shell.uid(user);
    }
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// A directory of cargo's for the files of tests.
pub(crate) fn directory() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// The program at work. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdout: Receiver<String>,
    stderr: Receiver<String>,
    pub(crate) address: SocketAddr,
}

/// Hands on the lines of a pipe, so that waiting for one has a deadline and a full pipe holds nobody up.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (give, lines) = crossbeam_channel::bounded(10_000);
    let read = move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // A line too many is nobody's loss.
            let _full = give.try_send(line);
        }
    };
    Threads::new().spawn("lines", SMALL_STACK_BYTES, read).expect("a thread");
    lines
}

impl Running {
    /// Starts it with these variables in its environment.
    pub(crate) fn start_in(environment: &[(&str, &OsStr)], arguments: &[&str]) -> Self {
        let mut command = command(&[]);
        command.envs(environment.iter().copied());
        Self::start_as(command, arguments)
    }

    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_as(command(&[]), arguments)
    }

    /// Under limits that a shell sets: `ulimit -n 200`. As this user, if one is given.
    pub(crate) fn start_under(limits: &str, user: Option<u32>, arguments: &[&str]) -> Self {
        Self::start_as(under(limits, user, &command(&[])), arguments)
    }

    fn start_as(mut command: Command, arguments: &[&str]) -> Self {
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        Self::start_this(command)
    }

    /// This program, which tells where it listens as ours does.
    pub(crate) fn start_this(mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        Self::start_this_with_stderr(command)
    }

    /// The same, with a standard error of the test's own.
    pub(crate) fn start_this_with_stderr(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        // Else our own end would keep a pipe of the test's open.
        drop(command);
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = child.stderr.take().map_or_else(crossbeam_channel::never, lines);
        let mut running = Self { child, stdout, stderr, address: SocketAddr::from(([0; 4], 0)) };
        loop {
            let line = running.stdout.recv_timeout(LONG).expect("the line that tells where it listens");
            if let Some((_, address)) = line.split_once("Listening on http://") {
                running.address = address.parse().expect("an address");
                return running;
            }
        }
    }

    pub(crate) fn before(engine: &SimEngine) -> Self {
        Self::start(&["--engine", &engine.addr().to_string()])
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([name, &id]).status().expect("kill runs");
        assert!(status.success(), "{status}");
    }

    /// What it takes of the system now.
    pub(crate) fn usage(&self) -> Usage {
        let directory = Path::new("/proc").join(self.child.id().to_string());
        let status = fs::read_to_string(directory.join("status")).expect("it lives");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells");
            line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
        };
        let names = fs::read_dir(directory.join("task")).expect("it lives").filter_map(|task| {
            // One that has just ended has no name.
            fs::read_to_string(task.ok()?.path().join("comm")).ok()
        });
        let wakes_of = |task: fs::DirEntry| -> Option<u64> {
            // One that has just ended has waited for the last time.
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
        };
        let tasks = fs::read_dir(directory.join("task")).expect("it lives");
        let is_worker = |name: &String| WORKERS.iter().any(|worker| name.starts_with(worker));
        Usage {
            workers: names.filter(is_worker).count() as u64,
            threads: number("Threads:"),
            descriptors: fs::read_dir(directory.join("fd")).expect("it lives").count() as u64,
            resident_kb: number("VmRSS:"),
            peak_kb: number("VmHWM:"),
            wakes: tasks.filter_map(|task| wakes_of(task.ok()?)).sum(),
        }
    }

    /// The seconds of processor time that it has taken.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it lives");
        // Behind the name in brackets, which may hold blanks: utime and stime are fields 14 and 15 of the whole line.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        // The kernel counts in hundredths of a second on every platform that Rust has.
        ticks as f64 / 100.0
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it has not ended within {limit:?}");
            pause(Duration::from_millis(10));
        }
    }

    /// The lines of the log up to the first that has this in it.
    pub(crate) fn log_until(&self, text: &str) -> Vec<String> {
        let deadline = Instant::now() + LONG;
        let mut log = Vec::new();
        while let Ok(line) = self.stderr.recv_deadline(deadline) {
            let is_last = line.contains(text);
            log.push(line);
            if is_last {
                return log;
            }
        }
        panic!("no line of the log has {text:?} in it: {log:#?}");
    }

    /// Waits for a line of the log that has this in it, and gives it.
    pub(crate) fn wait_log(&self, text: &str) -> String {
        let line = self.line_within(LONG, text);
        line.unwrap_or_else(|| panic!("no line of the log has {text:?} in it"))
    }

    /// Whether a line of the log that has this in it comes within this time.
    pub(crate) fn logs_within(&self, limit: Duration, text: &str) -> bool {
        self.line_within(limit, text).is_some()
    }

    fn line_within(&self, limit: Duration, text: &str) -> Option<String> {
        let deadline = Instant::now() + limit;
        while let Ok(line) = self.stderr.recv_deadline(deadline) {
            if line.contains(text) {
                return Some(line);
            }
        }
        None
    }

    /// Ends it, and gives the lines of the log that were not read.
    pub(crate) fn end(mut self) -> Vec<String> {
        self.signal("-TERM");
        self.wait(LONG);
        let deadline = Instant::now() + LONG;
        std::iter::from_fn(|| self.stderr.recv_deadline(deadline).ok()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// How the names begin of threads that live as long as a client or a stream.
const WORKERS: [&str; 4] = ["client-", "fetch-", "open-", "stop-"];

/// What a process takes of the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// All of them, with those of `tiny_http`, which come and go as they like.
    pub(crate) threads: u64,
    /// Those of ours that live as long as a client or a stream.
    pub(crate) workers: u64,
    pub(crate) descriptors: u64,
    pub(crate) resident_kb: u64,
    pub(crate) peak_kb: u64,
    /// How often the threads that live have gone to sleep, and so will have woken.
    pub(crate) wakes: u64,
}
