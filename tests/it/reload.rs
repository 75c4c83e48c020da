//! Other settings for a proxy that runs: who comes next goes by them, and whoever plays goes on.

use std::time::Duration;

use acerelay::config::Config;

use super::harness::{
    ID, LONG, OTHER_ID, Proxy, Reply, Viewer, assert_all_stopped, assert_whole, engine, settings, stream_path,
};

/// The reason why there is no room, if there is none.
fn refusal(mut reply: Reply) -> Option<String> {
    match reply.status {
        200 => None,
        503 => Some(reply.json()["detail"].as_str().expect("a sentence").to_owned()),
        other => panic!("{other}: {}", reply.text()),
    }
}

#[test]
fn other_limits_count_for_who_comes_next_and_end_nobodys_stream() {
    let engine = engine();
    let one_client = |config: &mut Config| config.server.max_clients = 1;
    let proxy = Proxy::start_with(&[&engine], one_client);
    let reload = |change: fn(&mut Config)| {
        let mut config = settings(&[&engine]);
        change(&mut config);
        assert_eq!(proxy.app().reload(config), [""; 0], "all of it counts at once");
    };
    let ask = || refusal(proxy.get(&stream_path(ID)));
    let mut first = Viewer::open(proxy.address, ID);
    first.take_packets(50);
    let detail = ask().expect("there is room for one");
    assert!(detail.contains("(max_clients)"), "{detail}");

    reload(|config| config.server.max_clients = 2);
    let second = Viewer::open(proxy.address, ID);
    let detail = ask().expect("there is room for two");
    assert!(detail.contains("(max_clients)"), "{detail}");

    reload(|config| {
        config.server.max_clients_per_address = Some(2.try_into().expect("not zero"));
        config.stream.max_streams = 1;
    });
    let detail = ask().expect("there is room for two of one address");
    assert!(detail.contains("(max_clients_per_address)"), "{detail}");
    drop(second);
    proxy.wait_clients(ID, 1);
    let detail = refusal(proxy.get(&stream_path(OTHER_ID))).expect("there is room for one stream");
    assert!(detail.contains("(max_streams)"), "{detail}");

    // One client fewer than there are.
    reload(|_| {});
    let mut second = Viewer::open(proxy.address, ID);
    second.take_packets(50);
    reload(|config| config.server.max_clients = 1);
    assert!(ask().is_some());
    second.take_packets(500);
    assert_whole(&second.leave());
    first.take_packets(500);
    assert_whole(&first.leave());
    drop(proxy);
    assert_all_stopped(&engine, 1);
}

#[test]
fn a_stream_keeps_its_limits_and_the_next_one_has_the_new_ones() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(50);
    let mut config = settings(&[&engine]);
    config.stream.linger = LONG;
    assert_eq!(proxy.app().reload(config), [""; 0]);
    drop(viewer);
    proxy.wait_gone(ID);

    drop(Viewer::open(proxy.address, ID));
    proxy.wait_session(ID, "it lingers", |session| session["state"] == "lingering");
    super::harness::pause(Duration::from_secs(1));
    assert_eq!(proxy.session(ID)["state"], "lingering", "longer than the first one did");
    drop(proxy);
    assert_all_stopped(&engine, 2);
}

#[test]
fn a_token_that_is_new_is_asked_for() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let delete = |lines: &str| {
        let mut connection = proxy.connect();
        connection.send_request("DELETE", "/proxy/sessions/none", lines);
        connection.reply().status
    };
    assert_eq!(delete(""), 404);
    let mut config = settings(&[&engine]);
    config.server.admin_token = Some("secret".parse().expect("a token"));
    assert_eq!(proxy.app().reload(config), [""; 0]);
    assert_eq!((delete(""), delete("Authorization: Bearer secret\r\n")), (401, 404));
}

#[test]
fn what_needs_a_restart_is_told_each_time() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut config = settings(&[&engine]);
    config.server.listen.set_port(1);
    config.engines[0].max_streams += 1;
    config.log.file = Some("/nonexistent".into());
    config.health.failures += 1;
    for _ in 0..2 {
        let told = proxy.app().reload(config.clone());
        assert_eq!(told, ["server.listen", "health", "log.file"]);
    }
    assert_eq!(proxy.app().reload(settings(&[&engine])), [""; 0], "it is as it was");
}
