//! A stage for players of others: a stream that is lost now and then, at an address to open.

use std::time::Duration;

use acerelay::sim::{Content, Media, Order};

use super::super::harness::{ID, INFOHASH, LONG, Proxy, empty_engine, pause};

/// Five minutes of the clip. After a quarter of the time the source is reset, after the half the engine dies, and another one has
/// the content. The address is printed:
///
/// `ACERELAY_HLS_SECONDS=300 cargo test --release --test it hls::stage -- --ignored --nocapture`
#[test]
#[ignore = "for players that are started by hand; as long as ACERELAY_HLS_SECONDS says"]
fn a_stage_for_players() {
    let seconds =
        std::env::var("ACERELAY_HLS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let (first, second) = (empty_engine(), empty_engine());
    first.add(Content::live(ID, INFOHASH, Media::Clip));
    let proxy = Proxy::start_with(&[&first, &second], |config| {
        config.stream.recover_timeout = 2 * LONG;
        config.stream.stall_timeout = Duration::from_secs(5);
        config.stream.linger = LONG;
    });
    println!("http://{}/ace/manifest.m3u8?id={ID}", proxy.address);
    let part = Duration::from_secs(seconds) / 4;
    pause(part);
    println!("reset: {} readers", first.order(ID, Order::Reset));
    pause(part);
    second.add(Content::live(ID, INFOHASH, Media::Clip));
    println!("the engine dies: {:?}", first.crash());
    pause(2 * part);
    println!("{:#}", proxy.session(ID));
}
