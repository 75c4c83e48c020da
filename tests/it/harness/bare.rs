//! The server without the proxy: what is asked of it goes to a handler of the test's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acerelay::config::{self, Live};
use acerelay::http::guard::Patience;
use acerelay::http::listener::Listener;
use acerelay::http::parked::ParkedThreads;
use acerelay::http::request::Request;
use acerelay::http::server::{Server, ServerLimits};
use acerelay::http::socket::Options;
use acerelay::threads::Threads;

use super::LONG;

/// A server on a free port. Its end is part of the test: all its threads have to end.
pub(crate) struct BareServer {
    server: Server,
    threads: Threads,
}

impl BareServer {
    /// Serves with this handler. A connection that takes nothing is looked at every `write_slice`, and ended after
    /// `write_timeout`.
    pub(crate) fn start(
        write_slice: Duration,
        write_timeout: Duration,
        handler: impl Fn(Request) + Send + Sync + 'static,
    ) -> Self {
        let options = Options { read_limit: Duration::from_secs(1), write_slice };
        let listener = Listener::open(SocketAddr::from(([127, 0, 0, 1], 0)), options).expect("a free port");
        let settings = config::Server { max_clients: 10, write_timeout, ..config::Server::default() };
        let limits = ServerLimits { descriptors: 1000, patience: Patience::default() };
        let (parked, threads) = (Arc::new(ParkedThreads::new(1000)), Threads::new());
        let (settings, handler) = (Live::new(settings), Arc::new(handler));
        let server = Server::start(listener, settings, limits, parked, &threads, threads.clone(), handler)
            .expect("some threads");
        Self { server, threads }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        self.server.stop();
        let outcome = self.threads.join_all(Instant::now() + LONG);
        if !std::thread::panicking() {
            outcome.expect("all threads of the server end");
        }
    }
}
