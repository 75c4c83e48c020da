//! A channel that has several sources, known by its own name: what a list of channels will ask for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acerelay::id::ContentKey;
use acerelay::sim::{BodyEvent, Getstream, PlaybackStep, Script, SimEngine};
use acerelay::stream::{
    client::{ClientRecord, Protocol},
    stream::Seat,
};
use acerelay::wanted::Wanted;

use super::harness::{LONG, Proxy, Viewer, assert_whole, engine_of_nine, nth_id, pause};

fn channel() -> Wanted {
    let content = |number| {
        let key = ContentKey::from_query(None, [("id", nth_id(number).to_string())]);
        key.expect("a good id")
    };
    let slug = "canal-faro".parse().expect("a slug");
    Wanted::channel(slug, [content(1), content(2)]).expect("two sources")
}

fn take_seat(proxy: &Proxy) -> Seat {
    let client = Arc::new(ClientRecord::new(1000, Protocol::Ts, SocketAddr::from(([127, 0, 0, 1], 9)), None));
    proxy.app().streams().seat(&channel(), &client, || true).expect("there is room")
}

/// A proxy before an engine whose first content behaves so.
fn start(first: Script) -> (SimEngine, Proxy) {
    let engine = engine_of_nine(&Script::new());
    engine.set_script(nth_id(1), first);
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = LONG);
    (engine, proxy)
}

#[test]
fn a_channel_whose_first_source_is_not_there_plays_the_second_in_the_same_start() {
    let dead = Script::new().getstream(Getstream::Error("failed to load content".to_owned()));
    let (engine, proxy) = start(dead);
    let seat = take_seat(&proxy);
    assert_eq!(seat.wait_started(Instant::now() + LONG), Some(Ok(())));
    let view = seat.stream().view();
    assert_eq!((&*view.stream_id, view.content.name.digest()), ("ch-canal-faro", nth_id(2)));
    assert_eq!(engine.counts_of(nth_id(2)).sessions_opened, 1);
    // Who asks for that content by its own name gets the same engine session.
    let mut viewer = Viewer::open(proxy.address, nth_id(2));
    viewer.take_packets(100);
    assert_whole(&viewer.leave());
    assert_eq!(engine.counts_of(nth_id(2)).sessions_opened, 1);
}

#[test]
fn a_channel_goes_on_with_its_second_source_when_the_first_is_lost_for_good() {
    let ends = PlaybackStep::after(400_000, BodyEvent::End);
    let (engine, proxy) = start(Script::new().playback(ends));
    let seat = take_seat(&proxy);
    assert_eq!(seat.wait_started(Instant::now() + LONG), Some(Ok(())));
    assert_eq!(seat.stream().view().content.name.digest(), nth_id(1));
    engine.set_script(
        nth_id(1),
        Script::new().getstream(Getstream::Error("failed to load content".to_owned())),
    );
    let deadline = Instant::now() + LONG;
    let has_moved = || {
        let view = seat.stream().view();
        view.content.name.digest() == nth_id(2) && view.restarts == 1
    };
    while !has_moved() {
        assert!(Instant::now() < deadline, "{:?}", seat.stream().view());
        pause(Duration::from_millis(50));
    }
    assert_eq!(engine.counts_of(nth_id(2)).sessions_opened, 1);
}
