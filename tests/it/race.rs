//! The race that this project comes from: nothing is active before the fetcher itself has said so, and whoever waits
//! is told the outcome when it is there.
//!
//! | test | of the ancestor's 24 |
//! |---|---|
//! | `a_header_delayed_by_0_2_s_...` | race 1: not connected right after the start, wait(5 s) true, then connected, no error |
//! | `a_header_delayed_by_3_s_...` | race 2: wait(0.5 s) false, then a clean stop |
//! | `a_start_that_fails_at_once_...` | race 3: wait(2 s) false, error set |
//! | `a_start_returns_at_once_...` | race 4: delay 0.5 s, start back in less than 0.1 s, wait(2 s) true after 0.4 to 1.0 s |
//! | `a_start_that_fails_after_0_05_s_...` | race 5: wait(5 s) back in less than 1 s, false, error set |

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acerelay::id::ContentKey;
use acerelay::sim::{Entry, Head, PlaybackStep, Script};
use acerelay::stream::state::State;
use acerelay::stream::{
    client::{ClientRecord, Protocol},
    stream::Seat,
};

use super::harness::{
    Connection, ID, LONG, Proxy, Viewer, assert_all_stopped, engine, scripted, stream_path,
};

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A seat as a request takes it.
fn take_seat(proxy: &Proxy, client: u64) -> Seat {
    let key = ContentKey::from_query(None, [("id", ID.to_string())]).expect("a good id");
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let client = Arc::new(ClientRecord::new(client, Protocol::Ts, address, None));
    proxy.app().streams().seat(&key.into(), &client, || true).expect("there is room")
}

fn wait(seat: &Seat, limit: f64) -> Option<bool> {
    seat.wait_started(Instant::now() + seconds(limit)).map(|outcome| outcome.is_ok())
}

#[test]
fn a_header_delayed_by_0_2_s_is_waited_for_and_then_the_stream_is_active() {
    let late = PlaybackStep::head(Head::Late(seconds(0.2)));
    let engine = scripted(Script::new().playback(late));
    let proxy = Proxy::start(&[&engine]);
    let seat = take_seat(&proxy, 1);
    assert!(matches!(seat.stream().state(), State::Starting { .. }), "{:?}", seat.stream().state());
    assert_eq!(wait(&seat, 5.0), Some(true));
    assert_eq!(seat.stream().state(), State::Active);
    let session = proxy.session(ID);
    assert!(session["state"] == "active" && session["error"].is_null(), "{session:#}");
    drop(seat);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_header_delayed_by_3_s_is_not_there_after_0_5_s_and_the_start_can_be_stopped() {
    let late = PlaybackStep::head(Head::Late(seconds(3.0)));
    let engine = scripted(Script::new().playback(late));
    let proxy = Proxy::start(&[&engine]);
    let seat = take_seat(&proxy, 1);
    let began = Instant::now();
    assert_eq!(wait(&seat, 0.5), None);
    assert!(began.elapsed() >= seconds(0.5));
    assert!(matches!(seat.stream().state(), State::Starting { .. }));
    drop(seat);
    let took = proxy.shutdown();
    // It was stopped, not waited for.
    assert!(took < seconds(2.0), "{took:?}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_start_that_fails_at_once_says_so_at_once() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    engine.refuse().expect("the port is kept");
    let seat = take_seat(&proxy, 1);
    let began = Instant::now();
    assert_eq!(wait(&seat, 2.0), Some(false));
    assert!(began.elapsed() < seconds(2.0));
    let session = proxy.session(ID);
    let error = session["error"].as_str().expect("an error");
    assert!(error.contains("engine"), "{error}");
}

#[test]
fn a_start_returns_at_once_and_its_end_comes_when_it_comes() {
    let start = || {
        let late = PlaybackStep::entry(Entry::Late(seconds(0.5)));
        let engine = scripted(Script::new().playback(late));
        let proxy = Proxy::start(&[&engine]);
        let began = Instant::now();
        let seat = take_seat(&proxy, 1);
        let returned = began.elapsed();
        assert_eq!(wait(&seat, 20.0), Some(true));
        (returned, began.elapsed())
    };
    // At best of several, on a machine however busy; and never before it comes.
    let took = [start(), start(), start()];
    assert!(took.iter().all(|(_, started)| *started >= seconds(0.4)), "{took:?}");
    assert!(
        took.iter().any(|(returned, started)| *returned < seconds(0.1) && *started < seconds(1.0)),
        "{took:?}"
    );
}

#[test]
fn a_start_that_fails_after_0_05_s_does_not_keep_anybody_for_5_s() {
    let mut script = Script::new();
    script = script.playback(PlaybackStep::head(Head::Status(500, "it broke".to_owned())));
    let engine = scripted(script.getstream(acerelay::sim::Getstream::Slow(seconds(0.05))));
    let proxy = Proxy::start(&[&engine]);
    let seats = [take_seat(&proxy, 1), take_seat(&proxy, 2)];
    let began = Instant::now();
    for seat in &seats {
        assert_eq!(wait(seat, 5.0), Some(false));
        assert!(began.elapsed() < seconds(1.0), "{:?}", began.elapsed());
    }
    assert!(proxy.session(ID)["error"].as_str().expect("an error").contains("it broke"));
    assert_all_stopped(&engine, 1);
}

#[test]
fn no_client_has_a_status_before_the_first_packets_are_there() {
    let engine = scripted(Script::new().playback(PlaybackStep::first_byte_after(seconds(0.6))));
    let proxy = Proxy::start(&[&engine]);
    let mut waiting = proxy.ask(ID);
    let session = proxy.wait_session(ID, "somebody waits", |session| session["waiting_count"] == 1);
    assert_eq!((&session["is_active"], &session["client_count"]), (&false.into(), &0.into()));
    assert!(waiting.is_silent_for(seconds(0.2)));
    let mut viewer = Viewer::of(waiting.reply());
    viewer.take_packets(10);
    assert_eq!(proxy.session(ID)["waiting_count"], 0);
    // The other way round: a client that comes when it runs has its status at once.
    let began = Instant::now();
    Viewer::of(Connection::open(proxy.address).get(&stream_path(ID))).take_packets(1);
    assert!(began.elapsed() < LONG);
}
