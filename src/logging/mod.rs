//! The log: lines to standard error, or appended to a file.
//!
//! A line is `2026-01-31T12:00:00.000Z [INFO] text`, in UTC; under systemd's journal, which stamps every
//! line itself, `[INFO] text`. There are no colours, and the local time zone is never asked for: that is
//! unsound in a program with threads.
//!
//! A file survives its rotation: renamed from outside, it is written to until [`LogFile::reopen`] is called.
//!
//! Lines go to a thread that writes them, so that a standard error which nobody reads holds nobody up; then lines are lost,
//! and it is told how many.
//!
//! Lock rule: simplelog holds one lock while it puts a line together, so nobody logs under a lock of the streams. The lock
//! of a [`LogFile`] is taken alone, for one write or for the change of files.

mod queue;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{Level, LevelFilter, Metadata, Record};
use parking_lot::Mutex;
use simplelog::{ConfigBuilder, WriteLogger, format_description};

use crate::config;

use self::queue::{LineWriter, Queue};

/// Starts the log for the rest of the program. `journal_stream` is the variable `JOURNAL_STREAM`, by which
/// systemd names the socket of its journal.
///
/// # Errors
///
/// When the file cannot be opened, there is no thread to be had, or the program has a log already.
pub fn start(settings: &config::Log, journal_stream: Option<&OsStr>) -> Result<Log, LogError> {
    let Some(path) = &settings.file else {
        let stamp = if is_journal(journal_stream) { Stamp::Journal } else { Stamp::Own };
        return install(settings.level, stamp, io::stderr()).map(|()| Log { file: None });
    };
    let file = LogFile::open(path).map_err(|source| LogError::Open { path: path.clone(), source })?;
    install(settings.level, Stamp::Own, file.clone())?;
    Ok(Log { file: Some(file) })
}

/// The log of the program. Dropping it waits until all lines are written, but not for long.
#[derive(Debug)]
pub struct Log {
    /// Where it goes, if that is a file.
    pub file: Option<LogFile>,
}

impl Drop for Log {
    fn drop(&mut self) {
        log::logger().flush();
    }
}

/// The file that is appended to. Clones write to the same.
#[derive(Clone, Debug)]
pub struct LogFile {
    path: Arc<PathBuf>,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = append_to(path)?;
        Ok(Self { path: Arc::new(path.to_owned()), file: Arc::new(Mutex::new(file)) })
    }

    /// Goes on in the file that has the name now, which is created if there is none: the old one was renamed.
    ///
    /// # Errors
    ///
    /// When it cannot be opened; the old one is written to further.
    pub fn reopen(&self) -> io::Result<()> {
        // What was logged before belongs into the old one.
        log::logger().flush();
        let file = append_to(&self.path)?;
        let old = std::mem::replace(&mut *self.file.lock(), file);
        drop(old);
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.lock().flush()
    }
}

/// Who says when a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    /// The line itself.
    Own,
    /// The journal.
    Journal,
}

/// Whether standard error is the journal's socket. The variable alone does not tell: whatever a service or
/// a desktop's terminal starts inherits it, also with standard error redirected (systemd.exec(5)).
fn is_journal(journal_stream: Option<&OsStr>) -> bool {
    let stderr = || io::stderr().as_fd().try_clone_to_owned().map(File::from)?.metadata();
    let Some(named) = journal_stream.and_then(OsStr::to_str) else {
        return false;
    };
    stderr().is_ok_and(|metadata| named == format!("{}:{}", metadata.dev(), metadata.ino()))
}

fn install(level: LevelFilter, stamp: Stamp, out: impl Write + Send + 'static) -> Result<(), LogError> {
    let queue = Queue::start(out).map_err(LogError::Thread)?;
    log::set_boxed_logger(Box::new(logger(level, stamp, queue))).map_err(LogError::Twice)?;
    log::set_max_level(level);
    Ok(())
}

fn logger(level: LevelFilter, stamp: Stamp, queue: Queue) -> Quiet {
    let mut format = ConfigBuilder::new();
    format
        .set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off);
    if stamp == Stamp::Journal {
        format.set_time_level(LevelFilter::Off);
    }
    // simplelog writes a line in pieces; together they are one write, which other writers cannot cut.
    let inner = WriteLogger::new(level, format.build(), LineWriter::new(queue.clone()));
    Quiet { inner, queue }
}

/// Where our own lines come from, library and program alike.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Lets other crates speak from `warn` up only, so that `debug` is about streams and not about sockets. `tiny_http`
/// says nothing: what befalls it is dealt with, and told, by `http::server`.
struct Quiet {
    inner: Box<WriteLogger<LineWriter>>,
    queue: Queue,
}

impl log::Log for Quiet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let is_wanted = match target.split("::").next() {
            Some(OURS) => true,
            Some("tiny_http") => false,
            _ => metadata.level() <= Level::Warn,
        };
        is_wanted && self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.inner.log(record);
        }
    }

    fn flush(&self) {
        self.queue.flush();
    }
}

/// Why there is no log.
#[derive(Debug)]
pub enum LogError {
    /// The file of `[log] file` cannot be opened.
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no thread to write it.
    Thread(io::Error),
    /// The program has a log already.
    Twice(log::SetLoggerError),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, source } => {
                write!(f, "log.file: cannot append to {}: {source}", path.display())
            }
            Self::Thread(error) => write!(f, "the system gives no thread for the log: {error}"),
            Self::Twice(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { source, .. } | Self::Thread(source) => Some(source),
            Self::Twice(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use log::Log;

    use super::*;

    /// A writer that keeps each write by itself.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(level: LevelFilter, stamp: Stamp, records: &[(Level, &str)]) -> Vec<String> {
        let writes = Writes::default();
        let logger = logger(level, stamp, Queue::start(writes.clone()).expect("a thread"));
        for (level, target) in records {
            logger.log(
                &Record::builder()
                    .level(*level)
                    .target(target)
                    .args(format_args!("hello from {target}"))
                    .build(),
            );
        }
        logger.flush();
        std::mem::take(&mut *writes.0.lock())
    }

    #[test]
    fn a_line_is_one_write_with_the_level_in_front() {
        let lines = written(
            LevelFilter::Info,
            Stamp::Journal,
            &[(Level::Info, "acerelay::engine"), (Level::Debug, "acerelay::engine")],
        );
        assert_eq!(lines, ["[INFO] hello from acerelay::engine\n"]);
    }

    #[test]
    fn our_own_stamp_is_utc_with_milliseconds() {
        let lines = written(LevelFilter::Info, Stamp::Own, &[(Level::Warn, "acerelay")]);
        let [line] = &*lines else {
            panic!("one line: {lines:?}");
        };
        let (stamp, rest) = line.split_once(' ').expect("a stamp");
        let shape: String =
            stamp.chars().map(|character| if character.is_ascii_digit() { '0' } else { character }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z");
        assert_eq!(rest, "[WARN] hello from acerelay\n");
    }

    #[test]
    fn other_crates_are_heard_from_warn_up() {
        let lines = written(
            LevelFilter::Trace,
            Stamp::Journal,
            &[
                (Level::Info, "ureq::run"),
                (Level::Debug, "tiny_http"),
                (Level::Info, "acerelayed"),
                (Level::Warn, "ureq"),
                (Level::Error, "tiny_http"),
                (Level::Trace, "acerelay::stream::fanout"),
            ],
        );
        assert_eq!(lines, ["[WARN] hello from ureq\n", "[TRACE] hello from acerelay::stream::fanout\n"]);
    }

    #[test]
    fn the_journal_is_known_by_its_socket_not_by_the_variable() {
        assert!(!is_journal(None));
        assert!(!is_journal(Some(OsStr::new("1:1"))));
        assert!(!is_journal(Some(OsStr::new(""))));
        let metadata = File::from(io::stderr().as_fd().try_clone_to_owned().expect("stderr"))
            .metadata()
            .expect("its metadata");
        let own = format!("{}:{}", metadata.dev(), metadata.ino());
        assert!(is_journal(Some(OsStr::new(&own))));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let settings =
            config::Log { file: Some(PathBuf::from("/nonexistent/acerelay.log")), ..config::Log::default() };
        let error = start(&settings, None).expect_err("there is no such directory");
        assert_eq!(
            error.to_string(),
            "log.file: cannot append to /nonexistent/acerelay.log: No such file or directory (os error 2)"
        );
    }
}
