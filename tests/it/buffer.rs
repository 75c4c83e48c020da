//! What lies between the engine's bytes and a client's: aligned, whole, from the first packet to the last.
//!
//! | test | of the ancestor's 24 |
//! |---|---|
//! | `one_packet_alone_...` | buffer 1: one packet is taken and not yet a chunk (here: not yet a start) |
//! | `two_thousand_packets_...` | buffer 2: 2000 packets come out aligned, every packet begins with 0x47 |
//! | `what_comes_out_is_what_went_in` | buffer 3: a stored chunk comes back equal |
//! | `a_joiner_gets_what_is_kept_...` | buffer 4: several chunks from an index |
//! | `a_stream_starts_and_stops_...` | buffer 5: start and stop of the fetcher |
//! | `the_first_chunk_...` | buffer 6: first chunk to a client |
//! | `an_empty_stream_...` | buffer 7: an empty stream ends its client |
//! | `a_client_far_behind_...` | buffer 8: a client 56 behind of 59 catches up |

use std::time::Duration;

use acerelay::sim::{BodyEvent, Content, Media, Numbered, PlaybackStep, Report, Script};

use super::harness::{
    Connection, End, ID, INFOHASH, Proxy, Viewer, assert_all_stopped, assert_whole, broadcast, empty_engine,
    engine, engine_with, nth_id, short, stream_path, wait_engine, whole, whole_in_time,
};

const PACKET_BYTES: usize = 188;

#[test]
fn one_packet_alone_is_taken_and_starts_nothing_yet() {
    // A second packet might show that the first was none.
    let pause = PlaybackStep::after(PACKET_BYTES as u64, BodyEvent::Pause(Duration::from_secs(2)));
    let engine = engine_with(short(5000).script(Script::new().playback(pause)));
    let proxy = Proxy::start(&[&engine]);
    let waiting = proxy.ask(ID);
    wait_engine(&engine, "a packet is sent", |counts| counts.bytes_sent == PACKET_BYTES as u64);
    assert!(proxy.session(ID)["started_at"].is_null());
    let (report, _) = Viewer::of(waiting.reply()).finish();
    assert_whole(&report);
    assert_eq!((report.first, report.last), (Some(0), Some(4999)));
}

#[test]
fn two_thousand_packets_come_out_aligned() {
    let mut delivery = whole();
    // The engine begins in mid-packet and never writes a whole one.
    delivery.skip_bytes = 71;
    delivery.write_bytes = vec![1, 187, 189, 376, 1000, 37];
    let engine = engine_with(short(4000).delivery(delivery));
    let proxy = Proxy::start(&[&engine]);
    let (body, end) = proxy.get(&stream_path(ID)).bytes();
    assert_eq!(end, End::Closed);
    // The first table is torn, so the stream begins at the first keyframe behind the second.
    assert!(
        body.len() >= 2000 * PACKET_BYTES && body.len().is_multiple_of(PACKET_BYTES),
        "{} bytes",
        body.len()
    );
    assert!(body.chunks(PACKET_BYTES).all(|packet| packet[0] == 0x47));
}

#[test]
fn what_comes_out_is_what_went_in() {
    let engine = engine_with(short(4000));
    let proxy = Proxy::start(&[&engine]);
    let (body, _) = proxy.get(&stream_path(ID)).bytes();
    wait_engine(&engine, "all is sent", |counts| counts.readers == 0);
    let sent = engine.counts().bytes_sent;
    // Tables and an announced break may be put in front.
    assert!((sent..sent + 4 * PACKET_BYTES as u64).contains(&(body.len() as u64)), "{sent}, {}", body.len());
    let report = report_of(&body);
    assert_whole(&report);
    assert_eq!((report.first, report.last, report.numbered), (Some(0), Some(3999), 4000));
}

fn report_of(body: &[u8]) -> Report {
    let mut checker = acerelay::sim::Checker::new();
    checker.feed(body);
    checker.finish()
}

#[test]
fn a_joiner_gets_what_is_kept_from_a_place_in_the_past_on() {
    let engine = engine_with(broadcast(ID, INFOHASH).delivery(whole_in_time()));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.start_behind = Duration::from_secs(1));
    let mut first = Viewer::open(proxy.address, ID);
    // Two seconds beyond the burst.
    first.take_packets(1300 * 3);
    let head = first.report().last.expect("packets");
    let mut second = Viewer::open(proxy.address, ID);
    second.take_packets(1);
    let begin = second.report().first.expect("a packet");
    // At least a second of it, that is 1329 packets, if not cut to the pace of reads.
    assert!(begin < head, "{begin} is not in the past of {head}");
    second.take_until("the head", |report| report.last >= Some(head));
    assert_whole(second.report());
}

#[test]
fn a_stream_starts_and_stops_and_starts_again() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for round in 1..=3 {
        let mut viewer = Viewer::open(proxy.address, ID);
        viewer.take_packets(100);
        assert_whole(&viewer.leave());
        assert_all_stopped(&engine, round);
        proxy.wait_gone(ID);
    }
    assert_eq!(proxy.status()["total_sessions"], 3);
}

#[test]
fn the_first_chunk_reaches_its_client_without_waiting_for_a_second() {
    // Few packets, then silence: they must not wait for a chunk to be full.
    let bytes = 20 * PACKET_BYTES as u64;
    let engine =
        engine_with(short(5000).script(Script::new().playback(PlaybackStep::after(bytes, BodyEvent::Stall))));
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_until("the silence", |report| report.bytes >= bytes);
    assert_whole(&viewer.leave());
}

#[test]
fn an_empty_stream_ends_its_client_with_a_status_of_its_own() {
    let empty = PlaybackStep::after(0, BodyEvent::End);
    let engine = engine_with(short(5000).script(Script::new().playback(empty)));
    let proxy = Proxy::start(&[&engine]);
    let mut reply = proxy.get(&stream_path(ID));
    assert_eq!(reply.status, 502);
    let json = reply.json();
    assert_eq!(json["error"], "engine_error");
    assert!(json["detail"].as_str().expect("a sentence").contains("ended"), "{json}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_client_far_behind_catches_up() {
    // 8 Mbyte at once: the slow one has taken none of them when the fast one has them all.
    let media = Media::Numbered(Numbered::default());
    let mut delivery = whole_in_time();
    delivery.burst = acerelay::sim::Burst::Bytes(8_000_000);
    let engine = engine_with(Content::live(ID, INFOHASH, media).delivery(delivery));
    let proxy = Proxy::start(&[&engine]);
    let mut slow = Viewer::open(proxy.address, ID);
    let mut fast = Viewer::open(proxy.address, ID);
    fast.take_until("the burst", |report| report.bytes >= 8_000_000);
    let head = fast.report().last.expect("packets");
    slow.take_until("the head", |report| report.last >= Some(head));
    assert_whole(fast.report());
    assert_whole(slow.report());
    assert_eq!(slow.report().first, Some(0));
}

#[test]
fn a_burst_beyond_a_small_backlog_costs_a_client_that_reads_nothing() {
    let engine = engine_with(short(100_000));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.backlog_bytes = 1024 * 1024);
    let (report, _) = Viewer::open(proxy.address, ID).finish();
    assert_whole(&report);
    assert_eq!((report.first, report.last), (Some(0), Some(99_999)));
}

#[test]
fn a_client_beyond_the_bound_is_moved_ahead_and_its_stream_stays_whole_packets() {
    let media = Media::Numbered(Numbered::at_rate(40_000_000));
    let engine = engine_with(Content::live(ID, INFOHASH, media).delivery(whole()));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.backlog_bytes = 1024 * 1024);
    let mut slow = Viewer::open(proxy.address, ID);
    slow.take_packets(10);
    let mut fast = Viewer::of(Connection::open(proxy.address).get(&stream_path(ID)));
    // More than all buffers of the slow one's socket and its queue hold.
    let target = fast.report().bytes + 40_000_000;
    fast.take_until("far ahead", |report| report.bytes >= target);
    assert_whole(fast.report());
    slow.take_until("the gap", |report| report.gap_count > 0);
    let report = slow.leave();
    assert_eq!(
        (report.doubles, report.damaged, report.sync_losses, report.skipped_bytes),
        (0, 0, 0, 0),
        "{report:?}"
    );
    let session = proxy.session(ID);
    let clients = session["clients"].as_array().expect("clients");
    assert!(clients.iter().any(|client| client["skipped"] == 0), "{session:#}");
}

#[test]
fn all_backlogs_together_stay_within_their_memory() {
    const MEMORY_BYTES: u64 = 3 << 20;
    let script = Script::new().playback(PlaybackStep::after(4_000_000, BodyEvent::Stall));
    let engine = empty_engine();
    for number in 1..=3 {
        engine.add(broadcast(nth_id(number), nth_id(number | 0x80)).delivery(whole()).script(script.clone()));
    }
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.memory_bytes = MEMORY_BYTES;
        config.stream.start_behind = Duration::from_secs(600);
    });
    // What a newcomer gets who begins as far in the past as there is something.
    let kept_bytes = |number, head| {
        let mut viewer = Viewer::open(proxy.address, nth_id(number));
        viewer.take_packets(1);
        (head - viewer.report().first.expect("a packet")) * PACKET_BYTES as u64
    };
    let mut viewers = Vec::new();
    for number in 1..=3 {
        let mut viewer = Viewer::open(proxy.address, nth_id(number));
        viewer.take_until("the silence", |report| report.bytes > 3_990_000);
        let head = viewer.report().last.expect("packets");
        if number == 1 {
            assert!(kept_bytes(1, head) > MEMORY_BYTES / 2, "alone it has all of it");
        }
        viewers.push((number, head, viewer));
    }
    let kept: Vec<_> = viewers.iter().map(|(number, head, _)| kept_bytes(*number, *head)).collect();
    // The oldest keyframe may lie a good way behind the oldest chunk.
    assert!(kept.iter().all(|bytes| *bytes < MEMORY_BYTES / 2), "{kept:?}: the silent gave up some too");
    assert!(kept.iter().sum::<u64>() <= MEMORY_BYTES, "{kept:?}");
    assert!(kept.iter().sum::<u64>() > MEMORY_BYTES / 3, "{kept:?}");
}
