//! Broadcasters that begin anew, engines that send what they have sent before, and bursts behind a silence.

use std::time::{Duration, Instant};

use super::super::media::numbered::STREAM_PID;
use super::super::media::packet::{self, PACKET_BYTES, Packet};
use super::super::{
    Begin, Burst, Checker, Content, Delivery, Media, Numbered, PlaybackStep, Restart, Script, Settings,
    SimEngine,
};
use super::client::*;

const SILENCE: Duration = Duration::from_millis(300);

fn broadcasting(media: Media, delivery: Delivery) -> SimEngine {
    let engine = empty(Settings::default());
    engine.add(Content::live(ID, INFOHASH, media).delivery(Delivery { skip_bytes: 0, ..delivery }));
    engine
}

fn numbered() -> Media {
    Media::Numbered(Numbered::at_rate(4_000_000))
}

/// What came of a body, packet by packet.
#[derive(Default)]
struct Seen {
    checker: Checker,
    clocks: Vec<u64>,
    /// The last packet of the picture's PID before the clock went back, and whether one began right after it.
    last: Option<Packet>,
    is_torn: bool,
}

impl Seen {
    /// Reads until the clock has gone back and two more pictures have begun.
    fn read_over_restart(&mut self, body: &mut Answer) {
        let mut after = 0;
        while after < 3 {
            let bytes = body.take(PACKET_BYTES);
            self.checker.feed(&bytes);
            let packet = bytes.as_chunks::<PACKET_BYTES>().0[0];
            assert_eq!(packet[0], 0x47);
            if packet::pid(&packet) != STREAM_PID {
                continue;
            }
            let pcr = packet::pcr(&packet);
            let has_gone_back = pcr.zip(self.clocks.last()).is_some_and(|(now, last)| now < *last);
            if has_gone_back && after == 0 {
                // A last picture of one packet would be whole.
                self.is_torn = self.last.is_some();
                after = 1;
            } else if after > 0 && packet::starts_unit(&packet) {
                after += 1;
            }
            self.clocks.extend(pcr);
            self.last = Some(packet);
        }
    }

    /// The first clock after the restart.
    fn new_clock(&self) -> u64 {
        let back = self.clocks.windows(2).position(|pair| pair[1] < pair[0]).expect("a restart");
        self.clocks[back + 1]
    }
}

#[test]
fn a_broadcaster_that_begins_anew_is_seen_in_the_body_that_is_open_and_by_those_who_come_later() {
    for pace in [Delivery::default(), Delivery { begin: Begin::Live, ..Delivery::unlimited() }] {
        let engine = broadcasting(numbered(), pace);
        let mut body = play(&engine);
        let mut seen = Seen::default();
        let first = body.take(1880 * 40);
        seen.checker.feed(&first);
        seen.clocks = first.as_chunks::<PACKET_BYTES>().0.iter().filter_map(packet::pcr).collect();
        let began = Instant::now();
        engine.restart_broadcast(ID, Restart::after(SILENCE));
        seen.read_over_restart(&mut body);
        assert!(began.elapsed() >= SILENCE);
        let report = seen.checker.report().clone();
        assert_eq!(report.restarts, 1);
        assert_eq!((report.gap_count, report.doubles, report.damaged), (0, 0, 0), "{report:?}");
        assert_eq!((report.psi_damaged, report.sync_losses), (0, 0), "{report:?}");
        // The counters of the tables and of the picture begin anew, unless one of them happens to be at its beginning.
        assert!((1..=3).contains(&report.discontinuities), "{report:?}");
        let Media::Numbered(shape) = numbered() else { unreachable!("as made above") };
        assert_ne!(report.restarted_at[0] % shape.pes_every, 0, "the last picture is torn");
        assert!(seen.new_clock() < 27_000_000 / 10, "{}", seen.new_clock());
        engine.restart_broadcast(ID, Restart::after(Duration::ZERO).clock(90_000 * 1000));
        let (mut later, mut checker) = (start_as(&engine, "2").play(&engine), Checker::new());
        while checker.report().key_frames < 3 {
            checker.feed(&later.take(1880));
        }
        let report = checker.report();
        assert_eq!((report.gap_count, report.doubles), (0, 0), "{report:?}");
    }
}

#[test]
fn the_clip_can_begin_anew_too() {
    let engine = broadcasting(Media::Clip, Delivery::default());
    let mut body = play(&engine);
    let mut seen = Seen::default();
    seen.clocks.push(packet_clock(&mut body));
    engine.restart_broadcast(ID, Restart::after(SILENCE));
    seen.read_over_restart(&mut body);
    assert!(seen.is_torn && seen.new_clock() < 27_000_000 / 10, "{}", seen.new_clock());
    assert_eq!(seen.checker.report().psi_damaged, 0);
}

/// Reads up to the first clock.
fn packet_clock(body: &mut Answer) -> u64 {
    loop {
        let bytes = body.take(PACKET_BYTES);
        if let Some(clock) = packet::pcr(&bytes.as_chunks::<PACKET_BYTES>().0[0]) {
            return clock;
        }
    }
}

#[test]
fn what_is_lost_over_a_restart_is_told_from_what_is_not() {
    let engine = broadcasting(numbered(), Delivery::default());
    let mut checker = Checker::new();
    checker.feed(&play(&engine).take(1880 * 10));
    let last = checker.report().last.expect("numbers");
    engine.restart_broadcast(ID, Restart::after(Duration::ZERO));
    // The first reader was not sent all that there was; the second is sent some of it again, and the rest is lost.
    let until = Instant::now() + LONG;
    let mut body = start_as(&engine, "2").play(&engine);
    while checker.report().restarts == 0 {
        assert!(Instant::now() < until);
        checker.feed(&body.take(188));
    }
    let report = checker.report();
    let new = report.restarted_at[0];
    assert!(new > last, "{report:?}");
    let all = new + 1 - report.first.expect("numbers");
    assert_eq!(report.numbered - report.doubles + report.missing, all, "{report:?}");
}

#[test]
fn an_engine_can_send_again_what_it_has_sent_before() {
    const BEHIND: Duration = Duration::from_millis(500);
    let delivery =
        Delivery { begin: Begin::Behind(BEHIND), burst: Burst::Time(Duration::ZERO), ..Delivery::default() };
    let engine = broadcasting(numbered(), delivery);
    let mut checker = Checker::new();
    let mut body = play(&engine);
    checker.feed(&body.take(188 * 1000));
    drop(body);
    assert_eq!((checker.report().doubles, checker.report().gap_count), (0, 0));
    checker.feed(&play(&engine).take(188 * 1000));
    let report = checker.report();
    // It may have been longer away than the engine looks back; with a gap then, and nothing twice.
    assert!(report.doubles > 0 || report.gap_count == 1, "{report:?}");
    assert!(report.damaged == 0 && report.restarts == 0, "{report:?}");
}

#[test]
fn what_fell_due_in_the_silence_after_a_head_comes_in_one_burst() {
    const WAIT: Duration = Duration::from_secs(2);
    let delivery = Delivery { burst: Burst::Time(Duration::ZERO), ..Delivery::default() };
    let engine = broadcasting(numbered(), delivery);
    engine.set_script(ID, Script::new().playback(PlaybackStep::first_byte_after(WAIT)));
    let mut body = play(&engine);
    assert!(body.status == 200 && body.is_silent());
    body.take(1);
    let began = Instant::now();
    let bytes = body.take(4_000_000 / 8 * 19 / 10);
    assert!(began.elapsed() < WAIT * 19 / 20, "{:?}: it came at its own pace", began.elapsed());
    assert!(check(&bytes).gap_count == 0);
}
