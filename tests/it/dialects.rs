//! Engines that speak otherwise than the official one of today, each as strict as it is: they play all the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use acerelay::sim::{Dialect, Health, Order, Settings, SimEngine};

use super::harness::{
    ID, INFOHASH, LONG, OTHER_ID, OTHER_INFOHASH, Proxy, Viewer, assert_seamed, assert_whole, broadcast,
    stream_path, wait_engine,
};

/// An engine with two broadcasts that speaks so.
fn speaking(dialect: Dialect) -> SimEngine {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let settings = Settings { dialect, ..Settings::default() };
    let engine = SimEngine::start_with(address, settings).expect("a free port and a thread");
    engine.add(broadcast(ID, INFOHASH));
    engine.add(broadcast(OTHER_ID, OTHER_INFOHASH));
    engine
}

/// The pages that an independent engine lacks, its words for a session that is over, its paths, and what it says late.
#[test]
fn an_independent_engine_plays_and_is_up_through_many_checks_and_a_lost_session() {
    for pages in [Health::NoService, Health::NoStatus, Health::NoPages, Health::OnlyServerVersion] {
        let engine = speaking(Dialect::independent());
        engine.set_health(pages.clone());
        let proxy = Proxy::start_with(&[&engine], |config| {
            config.health.interval = Duration::from_millis(200);
            config.stream.recover_timeout = LONG;
        });
        let mut viewer = Viewer::open(proxy.address, ID);
        wait_engine(&engine, "it was checked", |counts| counts.health_checks >= 30);
        let told = proxy.status()["engines"][0].clone();
        assert!(told["healthy"] == true && told["last_error"].is_null(), "{pages:?}: {told}");
        // Another channel, and what is there not.
        Viewer::open(proxy.address, OTHER_ID).take_packets(100);
        let unknown = proxy.get("/ace/getstream?id=ffffffffffffffffffffffffffffffffffffffff");
        assert_eq!(unknown.status, 502, "{pages:?}");
        // Somebody else stops our session there.
        viewer.take_packets(1000);
        engine.forget_sessions();
        engine.order(ID, Order::End);
        viewer.take_seams(1);
        let told = proxy.status()["engines"][0].clone();
        assert!(told["healthy"] == true && told["last_error"].is_null(), "{pages:?}: {told}");
        assert_seamed(&viewer.leave(), 1);
    }
}

#[test]
fn two_channels_on_an_engine_that_knows_sid_alone_do_not_end_each_other() {
    let engine = speaking(Dialect::before_pid());
    let proxy = Proxy::start(&[&engine]);
    let mut viewers = [ID, OTHER_ID].map(|id| Viewer::open(proxy.address, id));
    for _ in 0..3 {
        viewers.iter_mut().for_each(|viewer| viewer.take_packets(1500));
    }
    let counts = engine.counts();
    assert_eq!((counts.getstreams, counts.sessions_superseded), (2, 0), "{counts:?}");
    viewers.into_iter().for_each(|viewer| assert_whole(&viewer.leave()));
    assert_eq!(proxy.get(&stream_path(ID)).status, 200);
}
