//! What only a session's own parts can show: the order of two threads.

use std::net::SocketAddr;

use super::*;

#[test]
fn the_silence_before_a_recovery_does_not_end_it() {
    let key = ContentKey::from_query(None, [("id", "0123456789abcdef0123456789abcdef01234567")]);
    let stall = Duration::from_secs(1);
    let settings = config::Stream { stall_timeout: stall, ..config::Stream::default() };
    let client = Arc::new(ClientRecord::new(1, SocketAddr::from(([127, 0, 0, 1], 1)), None));
    let seat = Session::begin(key.expect("a good key"), &settings, Arc::default(), client, &Memory::new(0));
    let session = seat.session();
    session.flow.begin_source();
    session.apply(&Event::FirstPackets(0));
    let silence = crossbeam_channel::never::<()>().recv_timeout(stall);
    assert!(silence.is_err(), "nobody sends");
    session.tick();
    assert!(session.is_recovering(1), "{:?}", session.state());
    // The housekeeper is slow, the engine is not.
    let word = session.hear();
    session.flow.begin_source();
    session.flow.see_picture();
    session.apply(&Event::FirstPackets(1));
    session.judge(word);
    assert_eq!((session.state(), session.attempt()), (State::Active, 1));
}
