//! A getstream in flight, on a thread of its own.
//!
//! A getstream is never cut: the engine opens the session all the same, and only the answer tells how to stop it. So it is
//! awaited here, and whoever asked may wait for it, or go on to another engine and let the session be stopped when it comes.
//! It must not know what the session is for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::engine::api::{EngineSession, Opening as Manner};
use crate::engine::error::EngineError;
use crate::engine::pool::{Engine, Reservation};
use crate::id::ContentKey;
use crate::threads::{LARGE_STACK_BYTES, Threads};

use super::stopping::Opened;

/// An engine that wakes answers at once what it was asked before. One that has not done so after this time was begun anew, and
/// has never heard of it.
const ANSWER_OF_WOKEN: Duration = Duration::from_secs(5);

/// What an engine answered.
pub(super) type Answer = Result<Opened, EngineError>;

/// A getstream whose answer nobody has taken yet. Dropped, its session is stopped as soon as it is there.
pub(super) struct Opening {
    /// Which engine was asked.
    pub(super) engine: Arc<Engine>,
    answer: Receiver<Answer>,
    asked_at: Instant,
    deadline: Instant,
}

/// What is asked of an engine.
pub(super) struct Question {
    /// Who asks, for names and log lines.
    pub(super) stream_id: String,
    /// Which content.
    pub(super) content: ContentKey,
    /// Whether to begin anew.
    pub(super) manner: Manner,
    /// When the answer is not waited for any more.
    pub(super) deadline: Instant,
}

impl Opening {
    /// Asks, on one of these threads; where the system has none, here.
    pub(super) fn begin(threads: &Threads, reservation: Reservation, question: Question) -> Self {
        let engine = Arc::clone(&reservation.engine);
        let deadline = question.deadline;
        let (tell, answer) = crossbeam_channel::bounded(1);
        let name = format!("open-{:.8}", question.stream_id);
        let asking = Asking { reservation: Some(reservation), question, tell };
        // Without a thread the closure is dropped here, and asks in its drop.
        if let Err(error) = threads.spawn(&name, LARGE_STACK_BYTES, move || drop(asking)) {
            log::warn!("No thread to ask an engine: {error}");
        }
        Self { engine, answer, asked_at: Instant::now(), deadline }
    }

    /// Is ready when the answer is there.
    pub(super) fn answer(&self) -> &Receiver<Answer> {
        &self.answer
    }

    /// Whether the engine was down since it was asked, and is back without an answer: it does not know of the question.
    pub(super) fn is_forgotten(&self) -> bool {
        let since = self.engine.came_back_at().filter(|at| *at > self.asked_at);
        self.answer.is_empty() && since.is_some_and(|at| at.elapsed() >= ANSWER_OF_WOKEN)
    }

    /// Has the session stopped without waiting for it.
    pub(super) fn give_up(self, threads: &Threads) {
        if let Ok(Ok(opened)) = self.answer.try_recv() {
            opened.stop_beside(threads);
        }
        // Else the thread that asks finds nobody who takes the answer, and stops it.
    }

    /// Waits for the answer, and stops the session that it brings.
    pub(super) fn settle(self) {
        match self.answer.recv_deadline(self.deadline) {
            Ok(answer) => drop(answer),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

/// A question that is asked by whoever drops it.
struct Asking {
    reservation: Option<Reservation>,
    question: Question,
    tell: crossbeam_channel::Sender<Answer>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let Some(reservation) = self.reservation.take() else { return };
        let Question { stream_id, content, manner, deadline } = &self.question;
        let answer = open_under_either_name(&reservation.engine, content, *manner, *deadline);
        let answer = answer.map(|session| Opened::new(stream_id, reservation, session));
        // Nobody takes it any more: then the drop of the answer stops the session.
        let _given_up = self.tell.send(answer);
    }
}

/// Many published ids are infohashes, and the other way round (engine-contract.md section 1.1).
fn open_under_either_name(
    engine: &Engine,
    content: &ContentKey,
    manner: Manner,
    deadline: Instant,
) -> Result<EngineSession, EngineError> {
    let error = match engine.api.open(content, manner, deadline) {
        Err(error) if error.is_unknown_content() => error,
        outcome => return outcome,
    };
    let other = ContentKey { name: content.name.other(), params: content.params.clone() };
    // The first answer is the one that fits what was asked for.
    engine.api.open(&other, manner, deadline).map_err(|_| error)
}
