//! One thread per engine that asks it how it is.
//!
//! It tells the pool and the log; it knows nothing of streams.

use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::config;

use super::api::Api;
use super::pool::{Change, Engine};

/// Watches one engine.
pub struct Watch {
    engine: Arc<Engine>,
    /// Its own, so that ending the watch ends no stop call of a stream.
    api: Api,
    rhythm: config::Health,
}

impl Watch {
    /// A watch of this engine in this rhythm.
    #[must_use]
    pub fn new(engine: Arc<Engine>, rhythm: config::Health) -> Self {
        let api = Api::new(engine.settings.authority());
        Self { engine, api, rhythm }
    }

    /// Checks the engine again and again, until `stop` is closed.
    pub fn run(&self, stop: &Receiver<()>) {
        let name = &self.engine.settings.name;
        loop {
            let outcome = self.api.check_health(self.rhythm.timeout);
            let error = outcome.as_ref().err().map(ToString::to_string);
            match (self.engine.record_check(outcome, self.rhythm.failures), error) {
                (Some(Change::Up), _) => log::info!("Engine {name} is up"),
                (Some(Change::Down), Some(error)) => log::warn!("Engine {name} is down: {error}"),
                _ => {}
            }
            if stop.recv_timeout(self.rhythm.interval) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Ends a call in progress. To be used after `stop` was closed.
    pub fn interrupt(&self) {
        self.api.interrupt();
    }
}
