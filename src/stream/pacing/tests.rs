use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The pauses of a source that brings so many bytes in a millisecond, for so many clients, from a time on.
fn settle(pacing: &mut Pacing, bytes_a_ms: usize, clients: usize, mut now: Instant) -> Duration {
    let mut pause = Duration::ZERO;
    for _ in 0..1000 {
        now += pause;
        let came = bytes_a_ms * pause.as_millis() as usize;
        pause = pacing.after_read(came.max(188), clients, now).expect("it is little");
    }
    pacing.pause
}

#[test]
fn the_longest_pause_goes_by_cost() {
    let begin = Instant::now();
    let later = begin + FRESH_FOR;
    // 8 Mbit/s.
    for (clients, longest) in [(0, 100), (1, 50), (10, 50), (31, 50), (32, 100), (1000, 100)] {
        let mut pacing = Pacing::new(begin);
        pacing.clients = clients;
        // Such a stream fills a buffer in less than the longest pause: it comes near it, now and then.
        let reached = settle(&mut pacing, 900, clients, later);
        assert_eq!(reached, ms(longest), "{clients} clients");
    }
    // A radio, or a picture for a telephone.
    assert_eq!(settle(&mut Pacing::new(begin), 40, 1, later + FRESH_FOR), ms(100));
}

#[test]
fn it_is_short_while_somebody_waits_for_the_first_picture() {
    let begin = Instant::now();
    let mut pacing = Pacing::new(begin);
    let (mut now, mut pause) = (begin, FRESH);
    while now < begin + FRESH_FOR {
        assert!(pause <= FRESH, "{pause:?}");
        now += pause;
        pause = pacing.after_read(900 * pause.as_millis() as usize, 1, now).expect("it is little");
    }
    let alone = settle(&mut pacing, 900, 1, begin + 2 * FRESH_FOR);
    assert_eq!(alone, LONG);
    // Somebody joins.
    let later = begin + 20 * FRESH_FOR;
    let pause = pacing.after_read(1000, 2, later);
    assert!(pause <= Some(FRESH), "{pause:?}");
    assert!(settle(&mut pacing, 900, 2, later + FRESH_FOR) == LONG);
    // Of many one more.
    let later = later + 20 * FRESH_FOR;
    settle(&mut pacing, 900, 100, later);
    let pause = pacing.after_read(1000, 101, later);
    assert!(pause > Some(FRESH), "{pause:?}");
}

#[test]
fn a_source_that_sends_in_pieces_is_not_taken_for_one_that_is_held_back() {
    let begin = Instant::now();
    let mut pacing = Pacing::new(begin);
    let (mut now, mut sent) = (begin, 0);
    let mut at = 0;
    // 2 Mbit/s in writes of an engine, read as they come: at most one or two in a pause.
    for piece in [1391, 8191, 211, 4099].into_iter().cycle().take(5000) {
        sent += piece;
        let there = begin + Duration::from_micros(4 * sent as u64);
        at += piece;
        if there >= now {
            now = there + pacing.after_read(at, 1, there).expect("it is little");
            at = 0;
        }
    }
    assert_eq!(pacing.pause, LONGEST);
}

#[test]
fn a_machine_that_was_busy_is_forgotten() {
    let begin = Instant::now();
    let mut pacing = Pacing::new(begin);
    // However short a pause, as much has come: the source was behind.
    for _ in 0..500 {
        let _pause = pacing.after_read(60_000, 100, begin + FRESH_FOR);
    }
    assert!(pacing.ceiling < FRESH, "{:?}", pacing.ceiling);
    let (mut now, mut pause) = (begin + FRESH_FOR, SHORTEST);
    let recovered_by = now + Duration::from_secs(10);
    while pacing.pause < LONGEST && now < recovered_by {
        now += pause;
        pause = pacing.after_read(900 * pause.as_millis() as usize, 100, now).expect("it is little");
    }
    assert_eq!(pacing.pause, LONGEST);
}

#[test]
fn it_shrinks_while_much_comes_and_grows_back() {
    let begin = Instant::now();
    let mut pacing = Pacing::new(begin);
    assert_eq!(pacing.after_read(MUCH_BYTES, 1, begin), None, "there is more to read");
    assert_eq!(pacing.after_read(1000, 1, begin), Some(FRESH / 2), "much came since the last pause");
    assert_eq!(pacing.after_read(1000, 1, begin), Some(FRESH / 2 + FRESH / 8));
    for _ in 0..10 {
        let _much = pacing.after_read(MUCH_BYTES, 1, begin);
        let _pause = pacing.after_read(1, 1, begin);
    }
    assert_eq!(pacing.pause, SHORTEST);
}

#[test]
fn the_engine_is_made_to_wait_only_for_so_long() {
    let begin = Instant::now();
    let mut pacing = Pacing::new(begin);
    let at = |seconds| begin + Duration::from_secs(seconds);
    assert!(pacing.may_hold(true, at(0)));
    assert!(pacing.may_hold(true, at(9)));
    assert!(!pacing.may_hold(true, at(10)));
    assert!(!pacing.may_hold(true, at(11)), "not again before somebody has caught up");
    assert!(!pacing.may_hold(false, at(12)));
    assert!(pacing.may_hold(true, at(13)));
}

/// A source behind a connection.
#[derive(Clone, Copy, Debug)]
struct Source {
    bytes_a_second: u64,
    /// It has something to send so often; what it has by then, it sends in one go.
    burst: Duration,
    /// What may be under way or unread, as far as the kernel lets it.
    window: u64,
    /// From our read until what it made room for is there.
    round_trip: Duration,
}

/// How the kernel of this machine and the sleep of this thread are in the model.
const STEP_US: u64 = 500;
const SECONDS: u64 = 12;
/// How long a sleep takes longer than it was to, and a read and the publishing of what it gave.
const WORK_US: u64 = 200;

/// Bytes that come through in so many seconds, of those that were produced.
fn passed(source: Source, mut pause_after: impl FnMut(usize, Instant) -> Option<Duration>) -> u64 {
    let begin = Instant::now();
    let Source { bytes_a_second, burst, window, round_trip } = source;
    let (burst_us, trip_steps) = (burst.as_micros() as u64, round_trip.as_micros() as u64 / STEP_US);
    // What the window lets through, by the step in which it is there.
    let mut under_way = std::collections::VecDeque::from(vec![0; trip_steps as usize]);
    let (mut sent, mut unread, mut passed, mut reads_at) = (0, 0, 0, 0);
    for step in 0..SECONDS * 1_000_000 / STEP_US {
        let now_us = step * STEP_US;
        let produced = now_us / burst_us * burst_us * bytes_a_second / 1_000_000;
        let room = window - (sent - passed);
        let sends = room.min(produced - sent);
        sent += sends;
        under_way.push_back(sends);
        unread += under_way.pop_front().unwrap_or_default();
        while now_us >= reads_at && unread > 0 {
            let read = unread.min(READ_BYTES as u64);
            unread -= read;
            passed += read;
            let pause = pause_after(read as usize, begin + Duration::from_micros(now_us));
            reads_at = now_us + WORK_US + pause.unwrap_or_default().as_micros() as u64;
        }
    }
    passed
}

/// Whether as much comes through as for one who never pauses, but for what is still on its way.
fn check(source: Source, clients: usize) {
    let eager = passed(source, |_, _| None);
    let mut pacing = Pacing::new(Instant::now());
    let paced = passed(source, |read, now| pacing.after_read(read, clients, now));
    let on_its_way = source.bytes_a_second / 5 + source.window.min(source.bytes_a_second / 5);
    assert!(
        paced + on_its_way >= eager && paced as f64 >= eager as f64 * 0.95,
        "{paced} of {eager} bytes of {source:?} for {clients} clients"
    );
}

#[test]
fn every_rate_that_broadcasts_have_comes_through() {
    for half_megabits in [1, 2, 4, 8, 16, 20, 25, 40, 60, 100] {
        for window in [64, 128, 256, 1024, 6144] {
            for clients in [0, 1, 100] {
                let source = Source {
                    bytes_a_second: half_megabits * 62_500,
                    burst: Duration::from_micros(STEP_US),
                    window: window * 1024,
                    round_trip: Duration::ZERO,
                };
                check(source, clients);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_source_and_the_window_it_comes_through(
        kilobits in 500u64..50_000,
        burst_ms in 1u64..1000,
        window_kib in (READ_BYTES as u64 / 1024)..8192,
        round_trip_ms in 0u64..8,
        clients in 0usize..2000,
    ) {
        let source = Source {
            bytes_a_second: kilobits * 125,
            burst: ms(burst_ms),
            window: window_kib * 1024,
            round_trip: ms(round_trip_ms),
        };
        // What a connection does not carry with ease is none of ours.
        prop_assume!(source.window * 1000 > 3 * round_trip_ms * source.bytes_a_second);
        check(source, clients);
    }
}
