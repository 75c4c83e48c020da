//! Many clients of one stream.

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use acerelay::id::Digest;
use acerelay::sim::{Content, Getstream, Media, Numbered, PlaybackStep, Report, Script, Steps};

use super::harness::{
    Bystander, Connection, ID, INFOHASH, LONG, OTHER_ID, Proxy, Viewer, assert_all_stopped, assert_whole,
    broadcast, engine, engine_with, in_parallel, pause, scripted, stream_path, wait_engine, whole_in_time,
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
    let error = Getstream::Error("failed to load content".to_owned());
    let slow = Steps::first(1, Getstream::Slow(Duration::from_secs(2))).then(error);
    let engine = scripted(Script::new().getstream(slow).playback(PlaybackStep::status(404, "gone")));
    let proxy = Proxy::start(&[&engine]);
    let address = proxy.address;
    let answers = in_parallel(50, move |_| {
        let mut reply = Connection::open(address).get(&stream_path(ID));
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
        pause(Duration::from_millis(20 * number as u64));
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

#[test]
fn twelve_clients_that_zap_over_three_channels_leave_nothing_behind() {
    const OFFLINE: Digest = Digest::new([0x77; 20]);
    let engine = engine();
    let hangs = Script::new().getstream(Getstream::Hang);
    engine.add(broadcast(OFFLINE, Digest::new([0x78; 20])).script(hangs));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.linger = Duration::ZERO;
        config.stream.abandon = Duration::ZERO;
        config.stream.connect_timeout = Duration::from_secs(5);
    });
    let bystander = Bystander::watch(&proxy);
    let address = proxy.address;
    let reports = in_parallel(12, move |client| {
        let zap = |round| match (client + round) % 3 {
            // This one never comes, and is left after a moment.
            0 => {
                let mut connection = Connection::open(address);
                connection.send_get(&stream_path(OFFLINE));
                let _is_silent = connection.is_silent_for(Duration::from_millis(100));
                None
            }
            1 => Some(look_in(address, ID)),
            _ => Some(look_in(address, OTHER_ID)),
        };
        (0..12).filter_map(zap).collect::<Vec<_>>()
    });
    assert_eq!(reports.iter().flatten().count(), 12 * 8);
    for report in reports.iter().flatten() {
        assert_whole(report);
    }
    bystander.assert_undisturbed();
    for id in [ID, OTHER_ID, OFFLINE] {
        proxy.wait_gone(id);
    }
    wait_engine(&engine, "all is stopped", |counts| counts.sessions_open == 0 && counts.getstreams_now == 0);
    let counts = engine.counts();
    assert_eq!((counts.stops, counts.stops_unknown), (counts.sessions_opened, 0), "{counts:?}");
    assert_eq!((counts.second_readers, counts.sessions_stopped_along), (0, 0), "{counts:?}");
    assert_eq!(proxy.status()["total_clients"], 0);
}

fn look_in(address: SocketAddr, id: Digest) -> Report {
    let mut viewer = Viewer::open(address, id);
    viewer.take_packets(20);
    viewer.leave()
}
