//! A reader's place at its session: who may read, what it has been told to do, and how it waits.
//!
//! It must not know what is sent.

use std::sync::Arc;
use std::time::Instant;

use super::super::media::Broadcast;
use super::call::Request;
use super::script::Order;
use super::sessions::EndedReaders;
use super::state::{Body, State, WaitEnd};

/// How a body came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    Clean,
    Reset,
}

/// What becomes of a body.
pub(super) enum Course {
    GoOn,
    Stall,
    End(BodyEnd),
}

/// A place at a session, counted from entering to dropping.
pub(super) struct Reader<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) content: usize,
    pub(super) token: String,
    number: u64,
}

impl<'a> Reader<'a> {
    /// Takes a place; `None` if the rules give a second reader broken HTTP.
    pub(super) fn enter(request: &'a Request<'a>, content: usize, token: String) -> Option<Self> {
        let rules = request.shared.settings.rules;
        let number = request.shared.control(|state| {
            let session = state.sessions.get_mut(&token, content);
            let newest_reads = session.is_some_and(|session| session.newest_reads);
            state.free_if_quiet(content, Instant::now());
            // One whose client has closed already is about to end by itself.
            let has_reader = state.is_read(&token);
            if newest_reads {
                let older = state.bodies.values_mut().filter(|body| body.token == token);
                older.for_each(|body| body.order = Order::End);
            }
            // A film is read from several places at once, by any player that seeks.
            let is_live = state.contents[content].content.is_live;
            if has_reader && !newest_reads && is_live {
                state.count(Some(content), |counts| counts.second_readers += 1);
                if rules.second_reader_is_broken {
                    return None;
                }
            }
            if let Some(session) = state.sessions.get_mut(&token, content) {
                session.readers += 1;
            }
            state.count(Some(content), |counts| {
                counts.readers += 1;
                counts.readers_max = counts.readers_max.max(counts.readers);
            });
            let number = state.number();
            let body = Body {
                content,
                token: token.clone(),
                socket: Arc::downgrade(request.connection.socket()),
                order: Order::Resume,
            };
            state.bodies.insert(number, body);
            Some(number)
        })?;
        Some(Self { request, content, token, number })
    }

    /// What it reads, as it is now.
    pub(super) fn broadcast(&self) -> Arc<Broadcast> {
        Arc::clone(&self.request.shared.lock().contents[self.content].broadcast)
    }

    /// What is to be done now: its session's end counts as an order too.
    pub(super) fn order(&self, state: &State) -> Order {
        let order = state.bodies.get(&self.number).map_or(Order::End, |body| body.order);
        if matches!(order, Order::Resume | Order::Stall) && !state.sessions.contains(&self.token) {
            return match self.request.shared.settings.rules.ended_readers {
                EndedReaders::End => Order::End,
                EndedReaders::Stall => Order::Stall,
            };
        }
        let is_stuck = state.contents[self.content].stuck.is_some();
        if order == Order::Resume && is_stuck { Order::Stall } else { order }
    }

    /// What becomes of its body now.
    pub(super) fn course(&self) -> Course {
        let state = self.request.shared.lock();
        match self.order(&state) {
            _ if state.is_stopping => Course::End(BodyEnd::Clean),
            _ if state.is_frozen => Course::Stall,
            Order::Resume => Course::GoOn,
            Order::Stall => Course::Stall,
            Order::End => Course::End(BodyEnd::Clean),
            Order::Reset => Course::End(BodyEnd::Reset),
        }
    }

    /// Whether a write that blocks is to be tried again.
    pub(super) fn goes_on(&self) -> bool {
        if self.request.shared.pass().is_err() {
            return false;
        }
        let state = self.request.shared.lock();
        !state.is_stopping && !matches!(self.order(&state), Order::End | Order::Reset)
    }

    /// Waits, at most until then, through stalls too: `Released` by an order to end.
    pub(super) fn wait_until(&self, until: Option<Instant>) -> WaitEnd {
        self.request.hold(until, |state| matches!(self.order(state), Order::End | Order::Reset))
    }

    /// Falls silent, until an order.
    pub(super) fn stall(&self) {
        self.request.shared.control(|state| {
            if let Some(body) = state.bodies.get_mut(&self.number)
                && body.order == Order::Resume
            {
                body.order = Order::Stall;
            }
        });
    }

    /// Waits while the order is to stall.
    pub(super) fn wait_out_stall(&self) -> WaitEnd {
        self.request.hold(None, |state| self.order(state) != Order::Stall)
    }

    pub(super) fn end(&self) -> BodyEnd {
        let state = self.request.shared.lock();
        if self.order(&state) == Order::Reset { BodyEnd::Reset } else { BodyEnd::Clean }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.request.shared.control(|state| {
            state.bodies.remove(&self.number);
            if let Some(session) = state.sessions.get_mut(&self.token, self.content) {
                session.readers -= 1;
                session.active = Instant::now();
            }
            state.contents[self.content].note_reader_left(Instant::now());
            state.count(Some(self.content), |counts| counts.readers -= 1);
        });
    }
}
