//! Bodies of the engine in every framing and with every damage, and how they end for the clients.

use std::time::Duration;

use acerelay::sim::{
    BodyEvent, Content, Delivery, Framing, Media, Numbered, Order, PlaybackStep, Report, Script,
};

use super::harness::{
    End, ID, INFOHASH, LONG, Proxy, Viewer, assert_all_stopped, assert_whole, broadcast, engine, engine_with,
    short, stream_path, whole, whole_in_time,
};

const PACKET_BYTES: u64 = 188;

/// What a client gets of this content, and how that ends.
fn play(content: Content) -> (Report, End) {
    let engine = engine_with(content);
    let proxy = Proxy::start(&[&engine]);
    let played = Viewer::open(proxy.address, ID).finish();
    assert_all_stopped(&engine, 1);
    played
}

#[track_caller]
fn check_framing(framing: Framing, write_bytes: &[usize]) {
    let delivery = Delivery { framing, write_bytes: write_bytes.to_vec(), ..whole() };
    let (report, end) = play(short(3000).delivery(delivery));
    assert_whole(&report);
    assert_eq!((report.first, report.last, end), (Some(0), Some(2999), End::Closed));
}

#[test]
fn a_body_that_ends_with_its_connection_comes_whole() {
    check_framing(Framing::Close, &[64 * 1024]);
    check_framing(Framing::Close, &[1391, 8191, 211, 4099]);
}

#[test]
fn a_chunked_body_comes_whole() {
    check_framing(Framing::Chunked, &[64 * 1024]);
    check_framing(Framing::Chunked, &[1, 187, 3, 1316, 189]);
}

#[test]
fn a_body_with_a_length_comes_whole() {
    let media = Media::Numbered(Numbered::at_rate(2_000_000));
    let delivery = Delivery { framing: Framing::Length(3000 * PACKET_BYTES), ..whole() };
    let (report, end) = play(Content::live(ID, INFOHASH, media).delivery(delivery));
    assert_whole(&report);
    // With two tables before each 330 numbered packets.
    assert_eq!((report.first, report.numbered, end), (Some(0), 2980, End::Closed));
}

#[test]
fn writes_of_every_odd_size_come_whole() {
    check_framing(Framing::Close, &[1, 2, 3, 5, 7, 11, 13, 188, 187, 189, 376]);
    check_framing(Framing::Close, &[65_535, 1, 65_537]);
}

#[test]
fn three_million_bytes_and_the_end_of_the_body_come_whole() {
    let media = Media::Numbered(Numbered::at_rate(2_000_000));
    let script = Script::new().playback(PlaybackStep::after(3_000_000, BodyEvent::End));
    let (report, end) = play(Content::live(ID, INFOHASH, media).delivery(whole()).script(script));
    assert_whole(&report);
    // The body ends in its packet 15,957; every whole one is there, and all but 98 of them are numbered.
    assert_eq!((report.first, report.numbered, end), (Some(0), 15_859, End::Closed));
}

/// What a client gets when this happens within packet number 992 of the stream, or right before it.
fn damaged(event: BodyEvent, within: u64) -> Report {
    // The thousandth packet: with two tables before each 330 numbered ones it has this number.
    let at = 1000 * PACKET_BYTES + within;
    let (report, _) = play(short(3000).script(Script::new().playback(PlaybackStep::after(at, event))));
    assert_eq!((report.first, report.last), (Some(0), Some(2999)), "{report:?}");
    let hurt = [report.doubles, report.psi_damaged, report.sync_losses, report.skipped_bytes];
    assert_eq!(hurt, [0; 4], "{event:?}: {report:?}");
    report
}

#[test]
fn garbage_in_front_costs_nothing() {
    for bytes in [1, 100, 187, 188, 5000] {
        let script = Script::new().playback(PlaybackStep::after(0, BodyEvent::Garbage(bytes)));
        let (report, _) = play(short(1000).script(script));
        assert_whole(&report);
        assert_eq!((report.first, report.last), (Some(0), Some(999)), "after {bytes} bytes");
    }
}

#[test]
fn garbage_between_two_packets_costs_nothing() {
    for bytes in [1, 100, 188, 5000] {
        let report = damaged(BodyEvent::Garbage(bytes), 0);
        assert_eq!(
            (report.gap_count, report.missing, report.damaged),
            (0, 0, 0),
            "{bytes} bytes: {report:?}"
        );
    }
}

#[test]
fn garbage_within_a_packet_hurts_that_packet_alone() {
    for bytes in [1, 100, 188, 5000] {
        let report = damaged(BodyEvent::Garbage(bytes), 50);
        assert_eq!((report.gap_count, report.missing), (1, 1), "{bytes} bytes: {report:?}");
        assert_eq!(report.gaps[0].after, 991);
        // It has its length, and looks like a whole one with garbage behind it, so it may come; alone.
        assert!(report.damaged <= 1, "{bytes} bytes: {report:?}");
    }
}

#[test]
fn a_torn_packet_costs_that_packet() {
    for bytes in [1, 40, 137] {
        let report = damaged(BodyEvent::Tear(bytes), 50);
        assert_eq!(
            (report.gap_count, report.missing, report.damaged),
            (1, 1, 0),
            "{bytes} bytes: {report:?}"
        );
        assert_eq!(report.gaps[0].after, 991);
    }
}

#[test]
fn at_the_end_of_a_broadcast_every_client_has_every_byte_and_then_no_last_chunk() {
    let quiet = PlaybackStep::after(0, BodyEvent::Stall);
    let engine = engine_with(short(5000).script(Script::new().playback(quiet)));
    let proxy = Proxy::start(&[&engine]);
    let waiting: Vec<_> = (0..8).map(|_| proxy.ask(ID)).collect();
    proxy.wait_session(ID, "all of them wait", |session| session["waiting_count"] == 8);
    proxy.wait_session(ID, "the picture comes", |session| {
        // The body may not have fallen silent yet.
        engine.order(ID, Order::Resume);
        session["first_data_ms"].is_number()
    });
    let viewers: Vec<_> = waiting.into_iter().map(|connection| Viewer::of(connection.reply())).collect();
    for (report, end) in viewers.into_iter().map(Viewer::finish) {
        assert_whole(&report);
        assert_eq!((report.first, report.last, end), (Some(0), Some(4999), End::Closed));
    }
    assert_all_stopped(&engine, 1);
    assert_eq!(engine.counts().getstreams, 1);
    proxy.wait_gone(ID);
    let session = proxy.session(ID);
    assert!(session["error"].as_str().expect("a lost source").contains("ended"), "{session:#}");
}

#[test]
fn at_the_end_of_a_film_comes_the_last_chunk_and_the_connection_goes_on() {
    let media = Media::Numbered(Numbered::at_rate(2_000_000).end_after(5000));
    let engine = engine_with(Content::film(ID, INFOHASH, media).delivery(whole()));
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::of(proxy.get(&stream_path(ID)));
    assert_eq!(viewer.take_to_end(), End::Complete);
    assert_whole(viewer.report());
    assert_eq!((viewer.report().first, viewer.report().last), (Some(0), Some(4999)));
    let mut reply = viewer.reply.into_connection().get("/healthz");
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok\n"));
    // And once more on the same connection: the end of a film is no error.
    proxy.wait_gone(ID);
    let mut status = reply.into_connection().get(&format!("/proxy/sessions/{ID}"));
    let json = status.json();
    assert!(json["is_live"] == false && json["error"].is_null(), "{json:#}");
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_client_of_http_1_0_gets_raw_bytes_until_the_connection_closes() {
    for ask in ["", "Connection: keep-alive\r\n"] {
        let engine = engine_with(short(3000));
        let proxy = Proxy::start(&[&engine]);
        let mut connection = proxy.connect();
        connection.send(&format!("GET {} HTTP/1.0\r\n{ask}\r\n", stream_path(ID)));
        let reply = connection.reply();
        assert_eq!((reply.version.as_str(), reply.header("Transfer-Encoding")), ("HTTP/1.0", None));
        assert_eq!(reply.header("Connection"), Some("close"));
        let (report, end) = Viewer::of(reply).finish();
        assert_whole(&report);
        assert_eq!((report.first, report.last, end), (Some(0), Some(2999), End::Closed));
    }
}

#[test]
fn a_film_over_http_1_0_ends_with_its_connection() {
    let media = Media::Numbered(Numbered::at_rate(2_000_000).end_after(3000));
    let engine = engine_with(Content::film(ID, INFOHASH, media).delivery(whole()));
    let proxy = Proxy::start(&[&engine]);
    let mut connection = proxy.connect();
    connection.send(&format!("GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", stream_path(ID)));
    let (report, end) = Viewer::of(connection.reply()).finish();
    assert_whole(&report);
    assert_eq!((report.last, end), (Some(2999), End::Closed));
}

#[test]
fn a_source_that_falls_silent_ends_its_clients_after_the_stall_limit() {
    let engine = engine();
    let limit = Duration::from_secs(1);
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.stall_timeout = limit);
    let mut viewers = [Viewer::open(proxy.address, ID), Viewer::open(proxy.address, ID)];
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(100));
    assert_eq!(engine.order(ID, Order::Stall), 1);
    for viewer in viewers {
        let (report, end) = viewer.finish();
        assert_whole(&report);
        assert_eq!(end, End::Closed);
    }
    assert_all_stopped(&engine, 1);
    proxy.wait_gone(ID);
    let error = proxy.session(ID)["error"].clone();
    assert!(error.as_str().expect("a stall").contains("sent nothing for 1."), "{error}");
}

#[test]
fn a_source_that_is_reset_ends_its_clients() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(100);
    assert_eq!(engine.order(ID, Order::Reset), 1);
    let (report, end) = viewer.finish();
    assert_whole(&report);
    assert_eq!(end, End::Closed);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_stream_goes_on_for_longer_than_every_limit() {
    let limit = Duration::from_secs(1);
    let engine = engine_with(broadcast(ID, INFOHASH).delivery(whole_in_time()));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.server.write_timeout = limit;
        config.health.timeout = limit;
        config.stream.connect_timeout = limit;
        config.stream.first_data_timeout = limit;
        config.stream.stall_timeout = limit;
        config.stream.recover_timeout = limit;
        config.stream.linger = limit;
        config.stream.abandon = limit;
        config.stream.backlog = limit;
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    // Five seconds, and the burst.
    viewer.take_until("its end", |report| report.last >= Some(6 * 1329));
    assert_whole(viewer.report());
    assert_eq!(viewer.report().first, Some(0));
    assert!(engine.wait_for(LONG, |counts| counts.readers == 1 && counts.getstreams == 1));
}
