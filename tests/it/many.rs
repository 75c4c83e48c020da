//! Many clients of one stream.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use acerelay::sim::{Content, Media, Numbered};

use super::harness::{
    ID, INFOHASH, LONG, Proxy, Viewer, assert_all_stopped, assert_whole, broadcast, engine, engine_with,
    in_parallel, stream_path, whole_in_time,
};

#[test]
fn fifty_first_clients_at_once_make_one_session() {
    const CLIENTS: usize = 50;
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let address = proxy.address;
    let (gate, exit) = (Arc::new(Barrier::new(CLIENTS)), Arc::new(Barrier::new(CLIENTS)));
    let reports = in_parallel(CLIENTS, move |_| {
        gate.wait();
        let mut viewer = Viewer::open(address, ID);
        viewer.take_packets(1500);
        exit.wait();
        viewer.leave()
    });
    for report in &reports {
        assert_whole(report);
    }
    let counts = engine.counts();
    assert_eq!((counts.getstreams, counts.sessions_opened, counts.playbacks), (1, 1, 1), "{counts:?}");
    assert_eq!(counts.readers_max, 1);
    // All have left, and the linger time passes.
    assert_all_stopped(&engine, 1);
    proxy.wait_gone(ID);
    let status = proxy.status();
    assert_eq!((&status["total_sessions"], &status["total_clients"]), (&1.into(), &0.into()));
}

#[test]
fn fifty_first_clients_of_a_start_that_fails_get_one_answer() {
    let error = acerelay::sim::Getstream::Error("failed to load content".to_owned());
    let engine = super::harness::scripted(
        acerelay::sim::Script::new()
            .getstream(
                acerelay::sim::Steps::first(1, acerelay::sim::Getstream::Slow(Duration::from_secs(2)))
                    .then(error),
            )
            .playback(acerelay::sim::Playback::status(404, "gone")),
    );
    let proxy = Proxy::start(&[&engine]);
    let address = proxy.address;
    let answers = in_parallel(50, move |_| {
        let mut reply = super::harness::Connection::open(address).get(&stream_path(ID));
        (reply.status, reply.json()["detail"].clone())
    });
    for (status, detail) in &answers {
        assert_eq!((*status, detail), (502, &answers[0].1));
    }
    assert_eq!(engine.counts().getstreams, 1);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_hundred_clients_that_come_in_mid_stream_miss_nothing() {
    const CLIENTS: usize = 100;
    let media = Media::Numbered(Numbered::at_rate(1_000_000));
    let engine = engine_with(Content::live(ID, INFOHASH, media));
    let proxy = Proxy::start(&[&engine]);
    let address = proxy.address;
    let mut first = Viewer::open(address, ID);
    first.take_packets(100);
    let exit = Arc::new(Barrier::new(CLIENTS));
    let reports = in_parallel(CLIENTS, move |number| {
        // One after the other, over two seconds.
        super::harness::pause(Duration::from_millis(20 * number as u64));
        let mut viewer = Viewer::open(address, ID);
        viewer.take_packets(1500);
        exit.wait();
        viewer.leave()
    });
    for report in &reports {
        assert_whole(report);
    }
    first.take_packets(1);
    assert_whole(&first.leave());
    let counts = engine.counts();
    assert_eq!((counts.getstreams, counts.playbacks), (1, 1));
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_joiner_begins_with_the_tables_and_a_whole_packet() {
    let engine = engine_with(broadcast(ID, INFOHASH).delivery(whole_in_time()));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.start_behind = Duration::ZERO);
    let mut first = Viewer::open(proxy.address, ID);
    for _ in 0..5 {
        first.take_packets(400);
        let mut reply = proxy.get(&stream_path(ID));
        let mut bytes = Vec::new();
        while bytes.len() < 3 * 188 {
            bytes.extend_from_slice(reply.read().expect("the stream goes on"));
        }
        let pids: Vec<_> = bytes
            .chunks_exact(188)
            .map(|packet| {
                assert_eq!(packet[0], 0x47);
                u16::from_be_bytes([packet[1] & 0x1f, packet[2]])
            })
            .collect();
        assert_eq!(pids[..2], [0, 0x1000], "PAT and PMT come first");
    }
    assert_whole(&first.leave());
}

#[test]
fn joiners_and_leavers_do_not_disturb_who_stays() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.linger = LONG);
    let address = proxy.address;
    let mut stays = Viewer::open(address, ID);
    stays.take_packets(10);
    let reports = in_parallel(10, move |_| {
        let visits = (0..10).map(|_| {
            let mut viewer = Viewer::open(address, ID);
            viewer.take_packets(20);
            viewer.leave()
        });
        visits.collect::<Vec<_>>()
    });
    for report in reports.iter().flatten() {
        assert_whole(report);
    }
    stays.take_packets(500);
    assert_whole(&stays.leave());
    assert_eq!(engine.counts().getstreams, 1);
}
