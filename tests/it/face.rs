//! Programs that want an engine: they are answered as one answers, and share the streams of everybody.

use std::time::Duration;

use acerelay::id::Digest;
use acerelay::sim::{Delivery, Getstream, Health, Order, Script};
use serde_json::{Value, json};

use super::harness::{
    Connection, End, ID, INFOHASH, LONG, OTHER_ID, Proxy, Reply, Viewer, assert_all_stopped, assert_whole,
    broadcast, engine, engine_with, scripted, stream_path, wait_engine,
};

fn ask(proxy: &Proxy, query: &str) -> Value {
    json_of(proxy.get(&format!("/ace/getstream?format=json&{query}")))
}

fn json_of(mut reply: Reply) -> Value {
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("*"));
    reply.json()
}

/// A playback by its URLs, which an engine gives as whole ones.
struct Playback<'a> {
    proxy: &'a Proxy,
    answer: Value,
}

impl<'a> Playback<'a> {
    fn start(proxy: &'a Proxy, query: &str) -> Self {
        let answer = ask(proxy, query);
        assert_eq!(answer["error"], Value::Null, "{answer}");
        Self { proxy, answer: answer["response"].clone() }
    }

    fn path(&self, field: &str) -> String {
        let url = self.answer[field].as_str().expect("a URL");
        let base = format!("http://{}", self.proxy.address);
        url.strip_prefix(&base).unwrap_or_else(|| panic!("{url} is not on {base}")).to_owned()
    }

    fn play(&self) -> Viewer {
        Viewer::of(self.proxy.get(&self.path("playback_url")))
    }

    fn stat(&self) -> Value {
        json_of(self.proxy.get(&self.path("stat_url")))
    }

    fn stop(&self) -> Value {
        json_of(self.proxy.get(&format!("{}?method=stop", self.path("command_url"))))
    }

    /// Asks for the next event, without waiting for it.
    fn listen(&self) -> Connection {
        let mut connection = self.proxy.connect();
        connection.send_get(&self.path("event_url"));
        connection
    }
}

fn unknown() -> Value {
    json!({ "response": null, "error": "unknown playback session id" })
}

#[test]
fn a_program_starts_plays_asks_and_stops_as_at_an_engine() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.linger = LONG);
    let mut reply = proxy.get(&format!("/ace/getstream?format=json&id={ID}&pid=x&client_session_id=7"));
    let text = reply.text();
    assert!(text.starts_with("{\"response\": {\"playback_url\": \"http://"), "the bytes of Python: {text}");
    assert!(text.ends_with(", \"client_session_id\": 7}, \"error\": null}"), "{text}");
    let playback = Playback::start(&proxy, &format!("id={ID}"));
    let answer = &playback.answer;
    assert_eq!(answer["infohash"], INFOHASH.to_string());
    assert_eq!((&answer["is_live"], &answer["is_encrypted"]), (&1.into(), &0.into()));
    assert_eq!((&answer["client_session_id"], &answer["event_url"]), (&(-1).into(), &Value::Null));
    assert_eq!(answer["playback_session_id"].as_str().map(str::len), Some(40));
    let token = playback.path("playback_url").rsplit('/').next().map(str::to_owned).expect("a token");
    assert_eq!(token.len(), 32);
    assert_eq!(playback.path("stat_url"), format!("/ace/stat/{ID}/{token}"));
    assert_eq!(playback.path("command_url"), format!("/ace/cmd/{ID}/{token}"));

    let mut viewer = playback.play();
    let mut other = Viewer::open(proxy.address, ID);
    viewer.take_packets(300);
    proxy.wait_session(ID, "its swarm is known", |session| session["swarm"]["status"] == "dl");
    let stat = playback.stat()["response"].clone();
    assert_eq!((&stat["status"], &stat["peers"], &stat["speed_up"]), (&"dl".into(), &5.into(), &7.into()));
    assert!(stat["downloaded"].as_u64() > Some(0) && stat["speed_down"].is_u64(), "{stat}");
    assert_eq!(stat["livepos"]["is_live"], "1", "{stat}");
    assert_eq!(stat["playback_session_id"], answer["playback_session_id"]);
    proxy.wait_clients(ID, 2);

    let nonsense = json_of(proxy.get(&format!("{}?method=dance", playback.path("command_url"))));
    assert_eq!(nonsense, json!({ "response": null, "error": "unknown method" }));
    assert_eq!(playback.stop(), json!({ "response": "ok", "error": null }));
    let (report, end) = viewer.finish();
    assert_whole(&report);
    assert_eq!(end, End::Complete);
    assert_eq!((playback.stop(), playback.stat()), (unknown(), unknown()));
    assert_eq!(proxy.get(&playback.path("playback_url")).status, 404);
    // Only this one has ended.
    other.take_packets(500);
    assert_whole(&other.leave());
    assert_eq!((engine.counts().sessions_opened, engine.counts().stops), (1, 0));
}

#[test]
fn the_answer_comes_before_the_picture_and_says_how_far_it_is() {
    let delivery = Delivery { prebuffer: Duration::from_secs(2), ..Delivery::default() };
    let engine = engine_with(broadcast(ID, INFOHASH).delivery(delivery));
    let proxy = Proxy::start(&[&engine]);
    let playback = Playback::start(&proxy, &format!("infohash={INFOHASH}&sid=x"));
    assert_eq!(proxy.status()["sessions"][0]["state"], "starting");
    assert_eq!(playback.stat()["response"]["status"], "prebuf");
    let mut viewer = playback.play();
    viewer.take_packets(50);
    assert_eq!(playback.stat()["response"]["status"], "dl");
    assert_whole(&viewer.leave());
}

#[test]
fn what_cannot_be_played_is_refused_in_the_words_of_the_engine() {
    let engine = scripted(Script::new().getstream(Getstream::Error("cannot load transport file".to_owned())));
    let proxy = Proxy::start(&[&engine]);
    let check = |query: &str, error: &str| {
        assert_eq!(ask(&proxy, query), json!({ "response": null, "error": error }), "{query}");
    };
    check(&format!("id={ID}"), "cannot load transport file");
    check(&format!("id={}", Digest::new([9; 20])), "failed to load content");
    check("id=7", "failed to load content");
    assert!(ask(&proxy, "pid=1")["error"].as_str().is_some_and(|text| text.contains("names no stream")));
    // As a redirect they have a status.
    let mut refused = proxy.get(&format!("/ace/getstream?format=redirect&id={ID}"));
    assert_eq!((refused.status, &refused.json()["error"]), (502, &"engine_error".into()));
    assert_eq!(proxy.get("/ace/getstream?format=redirect&id=7").status, 400);
}

#[test]
fn a_redirect_leads_to_the_stream_and_no_format_is_the_stream() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut reply = proxy.get(&format!("/ace/getstream?format=redirect&id={ID}"));
    let location = reply.header("Location").expect("a place").to_owned();
    assert_eq!((reply.status, reply.text().as_str()), (302, ""));
    let path = location.strip_prefix(&format!("http://{}", proxy.address)).expect("a URL of ours");
    let mut viewers = [Viewer::of(proxy.get(path)), Viewer::open(proxy.address, ID)];
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(50));
    viewers.into_iter().for_each(|viewer| assert_whole(&viewer.leave()));
    assert_all_stopped(&engine, 1);
}

#[test]
fn the_same_player_replaces_its_playback_and_nobody_else_s() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let first = Playback::start(&proxy, &format!("id={ID}&pid=one"));
    let other = Playback::start(&proxy, &format!("id={ID}&pid=two"));
    let (mut watched, mut undisturbed) = (first.play(), other.play());
    watched.take_packets(50);
    undisturbed.take_packets(50);
    let second = Playback::start(&proxy, &format!("id={OTHER_ID}&pid=one"));
    assert_eq!(watched.take_to_end(), End::Complete);
    assert_eq!(first.stat(), unknown());
    let mut viewer = second.play();
    viewer.take_packets(50);
    undisturbed.take_packets(500);
    assert_whole(&undisturbed.leave());
    assert_whole(&viewer.leave());
    assert_eq!(engine.counts_of(ID).sessions_opened, 1);
}

#[test]
fn a_playback_has_its_place_between_its_players_and_loses_it_when_nobody_comes() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let playback = Playback::start(&proxy, &format!("id={ID}&pid=x"));
    proxy.wait_session(ID, "it runs for nobody yet", |session| {
        session["state"] == "active" && session["waiting_count"] == 1
    });
    // Longer than the stream lingers, which is 0.2 s here.
    for _ in 0..2 {
        let mut viewer = playback.play();
        viewer.take_packets(50);
        assert_whole(&viewer.leave());
        proxy.wait_session(ID, "its place is kept", |session| {
            session["client_count"] == 0 && session["waiting_count"] == 1
        });
    }
    let two = [playback.play(), playback.play()];
    proxy.wait_clients(ID, 2);
    two.into_iter().for_each(|viewer| drop(viewer.leave()));
    assert_eq!(engine.counts().stops, 0);
    // The housekeeper does this after 20 s.
    proxy.wait_session(ID, "its place is kept", |session| {
        session["client_count"] == 0 && session["waiting_count"] == 1
    });
    proxy.app().streams().leases().clear();
    assert_eq!(playback.stat(), unknown());
    assert_all_stopped(&engine, 1);
}

#[test]
fn events_tell_the_start_and_the_end() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let playback = Playback::start(&proxy, &format!("id={ID}&use_api_events=1"));
    let name = |reply: Reply| json_of(reply)["response"]["name"].clone();
    assert_eq!(name(playback.listen().reply()), "download_started");
    let mut waiting = playback.listen();
    assert!(waiting.is_silent_for(Duration::from_secs(1)), "it is told once");
    playback.stop();
    assert_eq!(name(waiting.reply()), "download_stopped");
    assert_eq!(json_of(playback.listen().reply()), unknown());

    let lost = Playback::start(&proxy, &format!("id={OTHER_ID}&use_api_events=1"));
    assert_eq!(name(lost.listen().reply()), "download_started");
    let waiting = lost.listen();
    assert_eq!(engine.order(OTHER_ID, Order::Reset), 1);
    let told = json_of(waiting.reply());
    assert_eq!(told["response"]["name"], "download_stopped");
    assert!(told["response"]["params"]["reason"].as_str().is_some_and(|why| !why.is_empty()), "{told}");
    assert_eq!(json_of(lost.listen().reply()), unknown());
}

#[test]
fn a_look_starts_and_stops_nothing() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let head = |target: &str| {
        let mut connection = proxy.connect();
        connection.send_request("HEAD", target, "");
        connection.reply_to_head()
    };
    let reply = head(&format!("/ace/getstream?format=json&id={ID}"));
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(engine.counts().getstreams, 0);
    let playback = Playback::start(&proxy, &format!("id={ID}"));
    let reply = head(&playback.path("playback_url"));
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("video/mp2t")));
    head(&format!("{}?method=stop", playback.path("command_url")));
    let mut viewer = playback.play();
    viewer.take_packets(50);
    assert_whole(&viewer.leave());
}

#[test]
fn no_url_of_a_playback_can_be_invented() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for token in ["0123456789abcdef0123456789abcdef", "x", "%00"] {
        for what in ["stat", "cmd", "event"] {
            let path = format!("/ace/{what}/{ID}/{token}?method=stop");
            assert_eq!(json_of(proxy.get(&path)), unknown(), "{path}");
        }
        let mut reply = proxy.get(&format!("/ace/r/{ID}/{token}"));
        assert_eq!((reply.status, &reply.json()["error"]), (404, &"not_found".into()), "{token}");
    }
}

#[test]
fn the_engine_s_service_is_answered_for_the_engines_behind() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    proxy.wait_status("the engine is up", |status| status["engines"][0]["healthy"] == true);
    let get = |path: &str| json_of(proxy.get(path));
    let version = get("/webui/api/service?method=get_version&format=json");
    assert!(version["result"]["code"].as_u64() >= Some(3_012_900), "{version}");
    assert_eq!((&version["result"]["platform"], &version["error"]), (&"linux".into(), &Value::Null));
    let api = "/server/api?api_version=3&method=";
    let status = get(&format!("{api}get_status"));
    assert_eq!((&status["result"]["playlist_loaded"], status.get("error")), (&true.into(), None));
    assert_eq!(
        get(&format!("{api}get_network_connection_status")),
        json!({ "result": { "connected": true } })
    );
    assert_eq!(get(&format!("{api}get_version"))["result"]["version"], version["result"]["version"]);
    assert_eq!(
        get(&format!("{api}get_api_access_token"))["result"]["token"].as_str().map(str::len),
        Some(64)
    );
    let files = get(&format!("{api}get_media_files&content_id={ID}"));
    assert_eq!(files["result"]["infohash"], INFOHASH.to_string(), "{files}");
    assert_eq!(engine.counts().getstreams, 0);
    let none = json!({ "message": "cannot get transport file", "code": 0 });
    assert_eq!(get(&format!("{api}get_media_files&content_id=7")), json!({ "error": none }));
    let unknown = json!({ "error": { "message": "unknown method", "code": 0 } });
    assert_eq!(get(&format!("{api}open_in_player")), unknown);
    let old = json!({ "result": null, "error": "unknown method" });
    assert_eq!(get("/server/api?method=x"), old);
    assert_eq!(get("/webui/api/service"), old);
    let mut reply = proxy.get("/webui/api/service?method=get_version&format=jsonp&callback=a.b");
    assert_eq!(reply.header("Content-Type"), Some("application/javascript"));
    assert!(reply.text().starts_with("a.b({\"result\": {"));
    let mut reply = proxy.get("/webui/api/service?method=get_version&format=jsonp&callback=alert(1)");
    assert!(reply.text().starts_with("{\"result\": {"));
    engine.set_health(Health::Loading);
    proxy.wait_status("the engine is down", |status| status["engines"][0]["healthy"] == false);
    assert_eq!(get(&format!("{api}get_status"))["result"]["playlist_loaded"], false);
}

#[test]
fn an_impatient_program_leaves_nothing_behind() {
    let slow = Getstream::Slow(Duration::from_secs(1));
    let engine = scripted(Script::new().getstream(slow));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.abandon = Duration::ZERO);
    let mut connection = proxy.connect();
    connection.send_get(&format!("{}&format=json&pid=x", stream_path(ID)));
    wait_engine(&engine, "it is asked for", |counts| counts.getstreams_now == 1);
    drop(connection);
    assert_all_stopped(&engine, 1);
    assert_eq!(proxy.app().streams().leases().count(), 0);
}
