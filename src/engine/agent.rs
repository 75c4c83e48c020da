//! A line to one engine: HTTP calls that are cut together.
//!
//! `ureq` starts a thread of its own for each call that has a deadline, unless it has a resolver of ours: the addresses are
//! found before the call, and the resolver only hands them on. It must not know what is asked.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::header::{RANGE, VIA};
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body};

use super::error::{EngineError, classify};
use super::file::Span;
use super::halt::Halt;
use super::host::Host;
use super::url::Target;

/// An engine in the same house answers a connect at once; one behind a VPN within a few round trips. ureq cannot
/// interrupt a connect, so this is also the longest that a shutdown waits for one.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// What the time of a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounded {
    /// The whole answer.
    Answer,
    /// Its head: the body has no end.
    Head,
    /// Its head; then each wait for more of the body may take so long.
    Steps(Duration),
}

/// A line to one engine. One connection a call: an engine restarted in between must not be met on a stale one.
pub(super) struct Line {
    agent: Agent,
    host: Arc<Host>,
    cut: Halt,
}

impl Line {
    pub(super) fn new(host: &Arc<Host>) -> Self {
        let config = Agent::config_builder()
            // An engine is on the LAN; a proxy of the environment must not come between.
            .proxy(None)
            // The texts of error answers are wanted.
            .http_status_as_error(false)
            // Redirects are followed by hand: their bodies never end, their hosts may be wrong.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT_LIMIT))
            // Measured by others: compression confuses engines (engine-contract.md section 8.1).
            .accept_encoding("identity")
            .accept("*/*")
            .user_agent("VLC/3.0.21 LibVLC/3.0.21")
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), KnownAddresses(Arc::clone(host)));
        Self { agent, host: Arc::clone(host), cut: Halt::default() }
    }

    /// Asks, and gives the answer once its head is there.
    ///
    /// # Errors
    ///
    /// When there is none until `deadline`, or the line was cut.
    pub(super) fn get(
        &self,
        target: &Target,
        deadline: Instant,
        bounded: Bounded,
    ) -> Result<Response<Body>, EngineError> {
        self.get_part(target, None, deadline, bounded)
    }

    /// The same for a part of what is there, if one is given: not every engine knows parts.
    ///
    /// # Errors
    ///
    /// The same.
    pub(super) fn get_part(
        &self,
        target: &Target,
        part: Option<Span>,
        deadline: Instant,
        bounded: Bounded,
    ) -> Result<Response<Body>, EngineError> {
        let whole = deadline.saturating_duration_since(Instant::now());
        self.host.find(deadline, || !self.is_cut())?;
        let limit = deadline.saturating_duration_since(Instant::now());
        let mut request = self.agent.get(target.on(self.host.authority())).header(VIA, self.host.via());
        if let Some(part) = part {
            request = request.header(RANGE, part.header());
        }
        let request = request.config();
        let request = match bounded {
            Bounded::Answer => request.timeout_global(Some(limit)),
            Bounded::Head => request.timeout_recv_response(Some(limit)),
            Bounded::Steps(step) => request.timeout_recv_response(Some(limit)).timeout_per_read(Some(step)),
        };
        let answer = request.build().call();
        answer.map_err(|error| {
            let error = classify(error, whole);
            if matches!(error, EngineError::Unreachable(_)) {
                self.host.doubt();
            }
            error
        })
    }

    /// Ends all calls in progress and refuses further ones. Does not block.
    pub(super) fn cut(&self) {
        // First: who ends by the next line is to find why.
        self.cut.call();
        self.agent.clone().shutdown();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_called()
    }

    /// Waits until then, or until the line is cut: whether it was.
    pub(super) fn wait_until(&self, deadline: Instant) -> bool {
        self.cut.wait_until(deadline)
    }
}

/// Hands on what is known; finding it is not for `ureq`.
struct KnownAddresses(Arc<Host>);

impl Resolver for KnownAddresses {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        for address in self.0.known().iter() {
            addresses.push(*address);
        }
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

impl fmt::Debug for KnownAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use super::*;
    use crate::sim::SimEngine;

    #[test]
    fn all_addresses_of_a_name_are_tried() {
        let engine = SimEngine::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let port = engine.addr().port();
        let addresses =
            move |_: &str| Ok(vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()]);
        let host = Host::with_look_up(&format!("localhost:{port}"), Box::new(addresses));
        let deadline = Instant::now() + Duration::from_secs(20);
        let answer = Line::new(&host).get(&Target::GET_VERSION, deadline, Bounded::Answer);
        assert_eq!(answer.map(|answer| answer.status().as_u16()), Ok(200));
    }

    #[test]
    fn a_line_that_was_cut_looks_nothing_up() {
        let host = Host::with_look_up("engine.example:1", Box::new(|_| Ok(vec![])));
        let line = Line::new(&host);
        line.cut();
        let deadline = Instant::now() + Duration::from_secs(20);
        assert!(line.get(&Target::GET_VERSION, deadline, Bounded::Head).is_err());
    }
}
