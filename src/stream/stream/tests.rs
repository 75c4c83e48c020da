//! What only a session's own parts can show: the order of two threads.

use std::net::SocketAddr;

use super::super::client::Protocol;
use super::*;

#[test]
fn the_silence_before_a_recovery_does_not_end_it() {
    let key = ContentKey::from_query(None, [("id", "0123456789abcdef0123456789abcdef01234567")]);
    let stall = Duration::from_secs(1);
    let settings = config::Stream { stall_timeout: stall, ..config::Stream::default() };
    let client = Arc::new(ClientRecord::new(1, Protocol::Ts, SocketAddr::from(([127, 0, 0, 1], 1)), None));
    let seat = Stream::begin(
        key.expect("a good key").into(),
        &settings,
        Arc::default(),
        client,
        &Memory::new(0),
        Arc::new(Pool::new(Vec::new())),
        Arc::default(),
    );
    let stream = seat.stream();
    stream.flow.begin_source();
    stream.apply(&Event::FirstPackets(0));
    let silence = crossbeam_channel::never::<()>().recv_timeout(stall);
    assert!(silence.is_err(), "nobody sends");
    stream.tick();
    assert!(
        stream.is_current(1) && matches!(stream.state(), State::Recovering { .. }),
        "{:?}",
        stream.state()
    );
    // The housekeeper is slow, the engine is not.
    let report = stream.hear();
    stream.flow.begin_source();
    stream.flow.see(crate::stream::marks::Seen { media: true, picture: None });
    stream.apply(&Event::FirstPackets(1));
    stream.judge(report);
    assert_eq!((stream.state(), stream.attempt()), (State::Active, 1));
}
