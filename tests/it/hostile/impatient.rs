//! The proxy with little patience, as a process of its own: what it does to those who take too long is seen in seconds, and
//! its threads, descriptors and memory can be counted.

use std::io::Read;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use std::{env, io};

use acerelay::app::App;
use acerelay::config::{self, Config};
use acerelay::http::guard::Patience;
use acerelay::sim::SimEngine;
use acerelay::{logging, threads};

use crate::harness::{alone_in_a_process, is_alone};

/// A tenth of the program's, but for what a busy machine needs.
pub(super) const PATIENCE: Patience =
    Patience { silence: Duration::from_secs(1), head: Duration::from_secs(2), end: Duration::from_secs(3) };

/// Where its engine is.
const ENGINE: &str = "ACERELAY_TEST_ENGINE";

/// Such a proxy before this engine.
pub(super) fn program(engine: &SimEngine) -> Command {
    let mut command = alone_in_a_process("hostile::impatient::proxy");
    command.env(ENGINE, engine.addr().to_string());
    command
}

#[test]
#[ignore = "not a test, but a proxy that tests start and attack"]
fn proxy() {
    if !is_alone() {
        return;
    }
    let engine = env::var(ENGINE).expect("who started this names the engine");
    let engine: SocketAddr = engine.parse().expect("an address");
    let mut config = Config::default();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.engines = vec![config::Engine::at(engine.ip().into(), engine.port())];
    config.stream.linger = Duration::from_millis(200);
    config.health.interval = Duration::from_millis(300);
    config.log.level = log::LevelFilter::Debug;
    logging::start(&config.log, None).expect("no log was started");
    threads::log_panics();
    let app = App::start_with(config, None, PATIENCE).expect("a free port and some threads");
    println!("Listening on http://{}", app.address());
    // Until who started this is gone.
    let _gone = io::stdin().read_to_end(&mut Vec::new());
}
