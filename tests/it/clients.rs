//! Who is on a stream: counts through seats and through `/proxy/status`, ids, leaving, idle time.
//!
//! | test | of the ancestor's 24 |
//! |---|---|
//! | `clients_are_counted_...` | clients 1: add counts 1, 2, the same id stays 2 |
//! | `clients_that_leave_...` | clients 2: remove, unknown id harmless, all gone is 0 |
//! | `what_a_client_was_sent_grows` | clients 3: activity moves forward |
//! | `idle_time_begins_...` | clients 4: idle time below 0.1 s, then at least 0.2 s |
//! | `a_list_of_clients_...` | clients 5: the list is a copy |
//! | `ten_clients_at_once_...` | clients 6: 10 parallel adds and removes end at 10 and 0 |

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use acerelay::id::{ContentKey, Digest};
use acerelay::stream::{
    client::{ClientRecord, Protocol},
    stream::Seat,
};
use serde_json::Value;

use super::harness::{
    Connection, ID, LONG, Proxy, Viewer, assert_all_stopped, engine, engine_of_nine, in_parallel, nth_id,
    pause, stream_path,
};

fn record(number: u64) -> Arc<ClientRecord> {
    Arc::new(ClientRecord::new(
        number,
        Protocol::Ts,
        SocketAddr::from(([192, 0, 2, 7], 7)),
        Some("a player".to_owned()),
    ))
}

fn take_seat(proxy: &Proxy, record: &Arc<ClientRecord>) -> Seat {
    take_seat_on(proxy, ID, record)
}

fn take_seat_on(proxy: &Proxy, id: Digest, record: &Arc<ClientRecord>) -> Seat {
    let key = ContentKey::from_query(None, [("id", id.to_string())]).expect("a good id");
    proxy.app().streams().seat(&key.into(), record, || true).expect("there is room")
}

fn clients_of(session: &Value) -> Vec<&Value> {
    session["clients"].as_array().expect("a list of clients").iter().collect()
}

/// A proxy whose streams outlive their clients.
fn lingering(engine: &acerelay::sim::SimEngine) -> Proxy {
    Proxy::start_with(&[engine], |config| config.stream.linger = LONG)
}

#[test]
fn clients_are_counted_and_a_client_that_takes_two_seats_is_one() {
    let engine = engine();
    let proxy = lingering(&engine);
    let (one, two) = (record(1001), record(1002));
    let first = take_seat(&proxy, &one);
    assert_eq!(first.stream().view().waiting, 1);
    let second = take_seat(&proxy, &two);
    assert_eq!(second.stream().view().waiting, 2);
    let again = take_seat(&proxy, &two);
    assert_eq!(again.stream().view().waiting, 2);
    assert!(Arc::ptr_eq(first.stream(), second.stream()) && Arc::ptr_eq(first.stream(), again.stream()));

    let mut viewers = Vec::new();
    for count in 1..=3 {
        viewers.push(Viewer::open(proxy.address, ID));
        proxy.wait_clients(ID, count);
    }
    let session = proxy.session(ID);
    let mut ids: Vec<u64> = clients_of(&session)
        .iter()
        .map(|client| client["client_id"].as_str().expect("a text").parse().expect("decimal digits"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{session:#}");
    assert_eq!(proxy.status()["total_clients"], 3);
}

#[test]
fn clients_that_leave_are_counted_off_down_to_none() {
    let engine = engine();
    let proxy = lingering(&engine);
    let mut viewers: Vec<_> = (0..3).map(|_| Viewer::open(proxy.address, ID)).collect();
    for count in (0..3).rev() {
        drop(viewers.pop());
        proxy.wait_clients(ID, count);
    }
    let session = proxy.session(ID);
    assert_eq!((&session["state"], &session["waiting_count"]), (&"lingering".into(), &0.into()));
    // A client that is unknown, or has gone already, is nobody's trouble.
    let mut reply = proxy.get(&format!("/proxy/sessions/{ID}/clients/99999"));
    assert_eq!((reply.status, &reply.json()["error"]), (404, &"not_found".into()));
    assert_eq!(engine.counts().stops, 0);
}

#[test]
fn what_a_client_was_sent_grows() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    let mut last = 0;
    for _ in 0..3 {
        viewer.take_packets(300);
        let taken = viewer.report().bytes;
        // What is written is counted a moment later.
        let session = proxy.wait_session(ID, "more was sent", |session| {
            let sent = clients_of(session)[0]["bytes_sent"].as_u64();
            sent > Some(last) && sent >= Some(taken)
        });
        last = clients_of(&session)[0]["bytes_sent"].as_u64().expect("a number");
    }
    let session = proxy.session(ID);
    assert!(
        session["bytes_in"].as_u64() >= Some(last) && session["bytes_out"].as_u64() >= Some(last),
        "{session:#}"
    );
}

#[test]
fn idle_time_begins_when_the_last_client_leaves() {
    let engine = engine();
    let proxy = lingering(&engine);
    let idle = |seat: &Seat| seat.stream().view().idle_for;
    let watching = take_seat(&proxy, &record(1001));
    assert_eq!(watching.wait_started(std::time::Instant::now() + LONG), Some(Ok(())));
    assert_eq!(idle(&watching), Duration::ZERO);
    assert_eq!(proxy.session(ID)["idle_seconds"], 0.0);
    let stream = Arc::clone(watching.stream());
    let left = std::time::Instant::now();
    drop(watching);
    // As long as it is since then, however busy the machine is.
    let idle_for = stream.view().idle_for;
    assert!(idle_for <= left.elapsed(), "{idle_for:?}");
    pause(Duration::from_millis(200));
    assert!(stream.view().idle_for >= Duration::from_millis(200));
    assert!(proxy.session(ID)["idle_seconds"].as_f64() >= Some(0.2));
    // Whoever comes back ends it.
    let back = take_seat(&proxy, &record(1002));
    assert_eq!(idle(&back), Duration::ZERO);
}

#[test]
fn a_list_of_clients_is_a_picture_of_its_moment() {
    let engine = engine();
    let proxy = lingering(&engine);
    let mut connection = proxy.connect();
    connection.send_request("GET", &stream_path(ID), "X-Odd: 1\r\n");
    let mut viewer = Viewer::of(connection.reply());
    viewer.take_packets(10);
    let seat = take_seat(&proxy, &record(1001));
    let view = seat.stream().view();
    assert_eq!((view.clients.len(), view.waiting), (1, 1));
    let client = &view.clients[0];
    assert!(client.record.address.ip().is_loopback() && client.record.user_agent.as_deref() == Some("test"));
    drop(viewer);
    proxy.wait_clients(ID, 0);
    assert_eq!((view.clients.len(), view.waiting), (1, 1));
}

#[test]
fn ten_clients_at_once_end_at_ten_and_at_none() {
    const CLIENTS: usize = 10;
    let engine = engine();
    let proxy = lingering(&engine);
    let mut stays = Viewer::open(proxy.address, ID);
    stays.take_packets(1);
    let address = proxy.address;
    let (inside, leave) = (Arc::new(Barrier::new(CLIENTS + 1)), Arc::new(Barrier::new(CLIENTS + 1)));
    let (inside_too, leave_too) = (Arc::clone(&inside), Arc::clone(&leave));
    let (give, take) = crossbeam_channel::bounded(1);
    let crowd = move || {
        let viewers = in_parallel(CLIENTS, move |_| {
            let mut viewer = Viewer::open(address, ID);
            viewer.take_packets(1);
            inside_too.wait();
            leave_too.wait();
        });
        give.send(viewers.len()).expect("the test waits for it");
    };
    let threads = acerelay::threads::Threads::new();
    threads.spawn("crowd", 256 * 1024, crowd).expect("a thread");
    inside.wait();
    proxy.wait_clients(ID, CLIENTS + 1);
    drop(stays);
    proxy.wait_clients(ID, CLIENTS);
    assert_eq!(proxy.status()["total_clients"], CLIENTS);
    leave.wait();
    assert_eq!(take.recv_timeout(LONG), Ok(CLIENTS));
    proxy.wait_clients(ID, 0);

    // And the seats themselves, without sockets between.
    let seats = Arc::new(proxy);
    let shared = Arc::clone(&seats);
    let taken = in_parallel(CLIENTS, move |number| take_seat(&shared, &record(2000 + number as u64)));
    assert_eq!(taken[0].stream().view().waiting, CLIENTS);
    let stream = Arc::clone(taken[0].stream());
    let (give, take) = crossbeam_channel::bounded(CLIENTS);
    taken.into_iter().for_each(|seat| give.send(seat).expect("there is room"));
    in_parallel(CLIENTS, move |_| drop(take.recv_timeout(LONG).expect("a seat each")));
    assert_eq!(stream.view().waiting, 0);
    assert_eq!(engine.counts().getstreams, 1);
}

#[test]
fn a_client_that_goes_while_the_source_is_silent_is_noticed() {
    let engine = engine();
    let proxy = lingering(&engine);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(10);
    let mut closing = proxy.connect();
    // What most players say; the server then shuts its reading side.
    closing.send_request("GET", &stream_path(ID), "Connection: close\r\n");
    let mut closing = Viewer::of(closing.reply());
    closing.take_packets(10);
    engine.order(ID, acerelay::sim::Order::Stall);
    proxy.wait_clients(ID, 2);
    let began = std::time::Instant::now();
    drop(viewer);
    proxy.wait_clients(ID, 1);
    drop(closing);
    proxy.wait_clients(ID, 0);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_client_that_takes_nothing_is_closed_and_the_others_do_not_notice() {
    let media = acerelay::sim::Media::Numbered(acerelay::sim::Numbered::at_rate(20_000_000));
    let engine =
        super::harness::engine_with(acerelay::sim::Content::live(ID, super::harness::INFOHASH, media));
    let limit = Duration::from_secs(1);
    let proxy = Proxy::start_with(&[&engine], |config| config.server.write_timeout = limit);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(10);
    let frozen = Connection::open(proxy.address).get(&stream_path(ID));
    assert_eq!(frozen.status, 200);
    proxy.wait_clients(ID, 2);
    let (stop, over) = crossbeam_channel::bounded::<()>(0);
    let (give, take) = crossbeam_channel::bounded(1);
    let watch = move || {
        while over.recv_timeout(Duration::ZERO).is_err_and(|error| error.is_timeout()) {
            viewer.take_packets(100);
        }
        drop(give.send(viewer.leave()));
    };
    let threads = acerelay::threads::Threads::new();
    threads.spawn("watching", 512 * 1024, watch).expect("a thread");
    proxy.wait_clients(ID, 1);
    drop(stop);
    super::harness::assert_whole(&take.recv_timeout(LONG).expect("the stream goes on"));
    drop(frozen);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_status_of_many_clients_with_long_names_stays_small() {
    const CLIENTS: u64 = 500;
    let engine = engine_of_nine(&acerelay::sim::Script::new());
    let proxy = lingering(&engine);
    let agent = "Mozilla/5.0 (\u{e9})".repeat(1000);
    let seats: Vec<_> = (0..CLIENTS)
        .map(|number| {
            // As large as they come.
            let address = SocketAddr::from(([192, 168, 100, 100], 60_000));
            let record = ClientRecord::new(1_000_000 + number, Protocol::Ts, address, Some(agent.clone()));
            let id = nth_id(1 + (number % 9) as u8);
            let seat = take_seat_on(&proxy, id, &Arc::new(record));
            let started = seat.wait_started(std::time::Instant::now() + LONG);
            started.expect("its time is not over").expect("it starts");
            let subscription = seat.join();
            (subscription, seat)
        })
        .collect();
    let text = proxy.get("/proxy/status").text();
    assert!(text.len() < 250_000, "{} bytes", text.len());
    eprintln!("a status of {CLIENTS} clients: {} bytes", text.len());
    let status: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(status["total_clients"], CLIENTS);
    let told = status["sessions"][0]["clients"][0]["user_agent"].as_str().expect("a name");
    assert!(told.chars().count() == 256 && agent.starts_with(told), "{told}");
    // The same from a player.
    let mut connection = Connection::open(proxy.address);
    let long = "x".repeat(15_000);
    connection.send(&format!("GET {} HTTP/1.1\r\nUser-Agent: {long}\r\n\r\n", stream_path(nth_id(1))));
    let mut reply = connection.reply();
    assert_eq!(reply.status, 200);
    reply.read().expect("a stream");
    let clients = proxy.session(nth_id(1))["clients"].to_string();
    assert!(clients.contains(&long[..256]) && !clients.contains(&long[..257]));
    drop((reply, seats));
}
