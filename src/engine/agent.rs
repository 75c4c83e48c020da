//! What every call to an engine has in common, as `ureq` is told.
//!
//! It must not know what is asked.

use std::time::Duration;

use ureq::Agent;

/// An engine in the same house answers a connect at once; one behind a VPN within a few round trips. ureq cannot
/// interrupt a connect, so this is also the longest that a shutdown waits for one.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// What every call to an engine has in common.
pub(super) fn base_config() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Agent::config_builder()
        // An engine is on the LAN; a proxy of the environment must not come between.
        .proxy(None)
        // The texts of error answers are wanted.
        .http_status_as_error(false)
        // Redirects are followed by hand: their bodies never end, their hosts may be wrong.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_LIMIT))
        .timeout_resolve(Some(CONNECT_LIMIT))
        // Measured by others: compression confuses engines (engine-contract.md section 8.1).
        .accept_encoding("identity")
        .accept("*/*")
        .user_agent("VLC/3.0.21 LibVLC/3.0.21")
}
