//! What is in the bodies, and how it is framed and paced.

use std::time::{Duration, Instant};

use super::super::{Begin, Burst, Checker, Content, Delivery, Framing, Media, Numbered, Settings};
use super::client::*;

fn body_of(content: Content) -> (super::super::SimEngine, Answer) {
    let engine = empty(Settings::default());
    engine.add(content);
    let answer = play(&engine);
    (engine, answer)
}

fn short(packets: u64, delivery: Delivery) -> Content {
    let media = Media::Numbered(Numbered::default().end_after(packets));
    Content::live(ID, INFOHASH, media).delivery(delivery)
}

#[test]
fn a_numbered_stream_arrives_whole() {
    let (engine, mut answer) = body_of(short(20_000, Delivery::unlimited()));
    let (bytes, end) = answer.read_to_end();
    assert_eq!(end, End::Clean);
    let report = check(&bytes);
    assert!(report.is_perfect(), "{report:?}");
    assert_eq!((report.first, report.last), (Some(0), Some(19_999)));
    assert!(report.key_frames > 0 && report.latency.count == 20_000);
    assert_eq!(engine.counts().bytes_sent, bytes.len() as u64);
}

#[test]
fn a_chunked_body_is_coded_rightly() {
    let delivery =
        Delivery { framing: Framing::Chunked, write_bytes: vec![1, 1391, 37], ..Delivery::unlimited() };
    let (_engine, mut answer) = body_of(short(300, delivery));
    assert_eq!(answer.header("Transfer-Encoding"), Some("chunked"));
    let (mut bytes, end) = answer.read_to_end();
    assert_eq!(end, End::Clean);
    let mut body = Vec::new();
    loop {
        let line = bytes.iter().position(|byte| *byte == b'\r').expect("a size line");
        let size = std::str::from_utf8(&bytes[..line]).expect("ASCII");
        let size = usize::from_str_radix(size, 16).expect("a hex number");
        let rest = bytes.split_off(line + 2);
        body.extend_from_slice(&rest[..size]);
        assert_eq!(&rest[size..size + 2], b"\r\n");
        bytes = rest[size + 2..].to_vec();
        if size == 0 {
            break;
        }
    }
    assert!(bytes.is_empty());
    let report = check(&body);
    assert!(report.is_perfect() && report.last == Some(299), "{report:?}");
}

#[test]
fn a_body_with_a_length_ends_there() {
    let delivery = Delivery { framing: Framing::Length(100_000), ..Delivery::unlimited() };
    let (_engine, mut answer) = body_of(short(20_000, delivery));
    assert_eq!(answer.header("Content-Length"), Some("100000"));
    assert_eq!(answer.read_to_end().0.len(), 100_000);
}

#[test]
fn a_live_body_begins_in_mid_packet_and_comes_at_its_own_pace() {
    let began = Instant::now();
    let delivery = Delivery { burst: Burst::Time(Duration::from_millis(100)), ..Delivery::default() };
    let media = Media::Numbered(Numbered::at_rate(4_000_000));
    let (_engine, mut answer) = body_of(Content::live(ID, INFOHASH, media).delivery(delivery));
    let bytes = answer.take(150_000);
    // 100 ms of it, 50,000 bytes, were there at once; the rest takes 200 ms on any machine, or longer.
    assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
    let report = check(&bytes);
    assert_eq!((report.skipped_bytes, report.sync_losses, report.gap_count), (117, 0, 0));
}

#[test]
fn a_reader_who_comes_back_gets_the_burst_again_but_not_the_beginning() {
    let delivery = Delivery { burst: Burst::Bytes(50_000), skip_bytes: 0, ..Delivery::default() };
    let media = Media::Numbered(Numbered::at_rate(4_000_000));
    let (engine, mut answer) = body_of(Content::live(ID, INFOHASH, media).delivery(delivery));
    let first = check(&answer.take(150_000));
    drop(answer);
    let second = check(&play(&engine).take(10_000));
    let (begin, end) = (first.first.expect("numbers"), first.last.expect("numbers"));
    let again = second.first.expect("numbers");
    assert!(again > begin, "{again} after {begin}..{end}");
}

#[test]
fn a_film_begins_at_its_start_for_everybody() {
    let media = Media::Numbered(Numbered::default().end_after(100));
    let (engine, mut answer) = body_of(Content::film(ID, INFOHASH, media));
    assert_eq!(start_as(&engine, "2").0["is_live"], 0);
    for _ in 0..2 {
        let report = check(&answer.read_to_end().0);
        assert!(report.is_perfect() && report.first == Some(0), "{report:?}");
        answer = play(&engine);
    }
}

#[test]
fn the_clip_is_sent_over_its_seam() {
    let delivery = Delivery::unlimited();
    let (_engine, mut answer) = body_of(Content::live(ID, INFOHASH, Media::Clip).delivery(delivery));
    let bytes = answer.take(6000 * 188);
    assert!(bytes.as_chunks::<188>().0.iter().all(|packet| packet[0] == 0x47));
    let mut checker = Checker::new();
    checker.feed(&bytes);
    let report = checker.finish();
    assert_eq!((report.discontinuities, report.sync_losses), (0, 0));
    assert_eq!((report.packets, report.psi_damaged), (6000, 0));
}

#[test]
fn a_live_clip_begins_where_the_broadcast_is() {
    let delivery = Delivery { begin: Begin::Live, ..Delivery::unlimited() };
    let content = Content::live(ID, INFOHASH, Media::Clip).delivery(delivery);
    let (_engine, mut answer) = body_of(content);
    assert_eq!(answer.take(188)[0], 0x47);
}
