//! What systemd is told (sd_notify(3)): ready, alive, how it goes, stopping. And the port that it passes, if it does
//! (sd_listen_fds(3)).
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is told. Alive is said only when the server has answered a
//! request of its own since the last time, so that a process that runs but serves nobody is started anew. It gives itself
//! no good answer when one of its service threads has stopped.

use std::time::Duration;
use std::{env, fmt, io};

use sd_notify::NotifyState;

use crate::http::listener::Inherited;

/// How often the status is looked at; a person who asks for it does not see it older.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Why what the service manager passes cannot be served.
#[derive(Debug)]
pub enum PassedError {
    /// `LISTEN_PID` or `LISTEN_FDS` is malformed, or tells of descriptors that are not there.
    Environment(io::Error),
    /// More than one socket.
    Several(usize),
    /// Something else than a TCP listener.
    Unfit(io::Error),
}

impl fmt::Display for PassedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(error) => write!(f, "the socket that LISTEN_FDS and LISTEN_PID pass: {error}"),
            Self::Several(count) => {
                write!(f, "{count} sockets are passed (LISTEN_FDS), and only one can be served")
            }
            Self::Unfit(error) => {
                write!(f, "the socket that is passed (LISTEN_FDS) cannot be served: {error}")
            }
        }
    }
}

impl std::error::Error for PassedError {}

/// The port that the service manager passes, if it passes one to this process.
///
/// # Errors
///
/// When it passes something else.
pub fn passed_port() -> Result<Option<Inherited>, PassedError> {
    let mut numbers = sd_notify::listen_fds().map_err(PassedError::Environment)?;
    match (numbers.len(), numbers.next()) {
        (_, None) => Ok(None),
        (1, Some(number)) => Inherited::take(number).map(Some).map_err(PassedError::Unfit),
        (count, Some(_)) => Err(PassedError::Several(count)),
    }
}

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    watchdog: Option<Duration>,
    /// Answers to the self-check when alive was last said.
    answers: u64,
    status: String,
}

impl Notifier {
    /// The one that the environment names, if it names one.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())?;
        Some(Self { watchdog: sd_notify::watchdog_enabled(), answers: 0, status: String::new() })
    }

    /// From one [`Notifier::beat`] to the next: several within the watchdog's time, since one may come late.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.watchdog.map_or(STATUS_INTERVAL, |limit| STATUS_INTERVAL.min(limit / 4))
    }

    /// The port is open.
    pub fn ready(&mut self, status: String) {
        send(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// Tells the status if it has changed, and that the server lives if it has `answers` more than at the last beat.
    pub fn beat(&mut self, answers: u64, status: String) {
        if answers != self.answers && self.watchdog.is_some() {
            send(&[NotifyState::Watchdog]);
            self.answers = answers;
        }
        if status != self.status {
            send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// It begins to shut down.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping, NotifyState::Status("Stopping streams and engine sessions")]);
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("The service manager could not be told: {error}");
    }
}
