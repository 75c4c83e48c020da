//! What players ask for, and what of it reaches the engine.

use std::collections::HashSet;

use acerelay::sim::{RequestRecord, SimEngine};

use super::harness::{ID, INFOHASH, LONG, OTHER_ID, Proxy, Viewer, assert_whole, engine, stream_path};

fn getstreams(engine: &SimEngine) -> Vec<RequestRecord> {
    engine.requests().into_iter().filter(|request| request.path == "/ace/getstream").collect()
}

/// The query of a getstream call without its player id, and that id.
fn query_of(request: &RequestRecord) -> (Vec<(&str, &str)>, &str) {
    let pid = request.param("pid").expect("a player id");
    let pairs = request.query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    (pairs.filter(|(name, _)| !matches!(*name, "pid" | "sid")).collect(), pid)
}

fn lingering(engine: &SimEngine) -> Proxy {
    Proxy::start_with(&[engine], |config| config.stream.linger = LONG)
}

fn play(proxy: &Proxy, target: &str) {
    let mut viewer = Viewer::of(proxy.get(target));
    viewer.take_packets(1);
    assert_whole(&viewer.leave());
}

#[test]
fn every_spelling_of_an_id_is_one_stream() {
    let engine = engine();
    let proxy = lingering(&engine);
    let id = ID.to_string();
    let upper = id.to_uppercase();
    for target in [
        format!("/ace/getstream?id={id}"),
        format!("/ace/getstream/?id={id}"),
        format!("/ace/getstream?id={upper}"),
        format!("/ace/getstream?content_id={id}"),
        format!("/ace/getstream?id=acestream://{id}"),
        format!("/ace/getstream?id=acestream%3A%2F%2F{upper}"),
        format!("/ace/getstream?id=%20{id}%20"),
        format!("/ace/getstream?id=+{id}+"),
        format!("/ace/getstream?id=acestream:?content_id={id}"),
        format!("/ace/getstream?id=acestream:%3Fcontent_id={id}"),
        format!("/ace/getstream?id=acestream%3A%253Fcontent_id%3D{id}"),
        format!("/ace/getstream?%69d={id}"),
        format!("/ace/getstream?id={id}&_idx=0"),
        format!("/ace/getstream?id={id}&pid=1&sid=2&rand=77&.ts"),
        format!("/ace/getstream?rand=78&id={id}&quality="),
        format!("/ace/{id}.ts"),
        format!("/ace/{upper}"),
        format!("/ace/{id}.ts?nocache=5"),
        format!("http://{}/ace/getstream?id={id}", proxy.address),
    ] {
        play(&proxy, &target);
        let requests = getstreams(&engine);
        assert_eq!(requests.len(), 1, "{target} made a second stream");
    }
    let requests = getstreams(&engine);
    let (query, pid) = query_of(&requests[0]);
    assert_eq!(query, [("id", id.as_str()), ("format", "json")]);
    assert!(pid.len() == 16 && pid.bytes().all(|byte| byte.is_ascii_hexdigit()), "{pid}");
    assert_eq!(proxy.session(ID)["stream_id"], id.as_str());
}

#[test]
fn what_was_added_to_a_url_on_its_way_does_no_harm() {
    let engine = engine();
    let proxy = lingering(&engine);
    let id = ID.to_string();
    for target in [
        format!("/ace/getstream?id={id}|User-Agent=VLC"),
        format!("/ace/getstream?id={id}%7CUser-Agent=VLC&Referer=http://x/&_idx=7"),
        format!("/ace/{id}.ts|User-Agent=VLC&Referer=x"),
        format!("/ace/{id}%7cUser-Agent%3DVLC"),
        format!("//ace/getstream?id={id}"),
        format!("/ace//{id}.ts"),
        format!("/ace/getstream//?id={id}"),
        format!("http://{}//ace///getstream?id={id}", proxy.address),
        format!("/ace/getstream?x=y&amp;id={id}"),
        format!("/ace/getstream?id={id}?cache=5"),
        format!("/ace/getstream?id={id}#t=5"),
        format!("/ace/getstream?id={id}%20%09%0D%0A"),
        format!("/ace/getstream%3Fid%3D{id}"),
        format!("/ace/getstream?id%3D{id}%26_idx%3D0"),
        format!("/ace/getstream?id={id}.TS"),
        format!("/ace/{id}.TS%20"),
        format!("/ace/acestream://{id}"),
    ] {
        let mut connection = proxy.connect();
        connection.send(&format!("GET {target} HTTP/1.0\r\n\r\n"));
        let mut viewer = Viewer::of(connection.reply());
        viewer.take_packets(1);
        assert_whole(&viewer.leave());
        assert_eq!(getstreams(&engine).len(), 1, "{target} made a second stream");
    }
    let requests = getstreams(&engine);
    assert_eq!(query_of(&requests[0]).0, [("id", id.as_str()), ("format", "json")]);
    play(&proxy, &format!("/ace/getstream?id={OTHER_ID}&_idx=3|User-Agent=VLC"));
    assert_eq!(getstreams(&engine)[1].param("_idx"), Some("3"));
    for target in ["/ace%2Fgetstream?id=1", "/proxy/sessions%2Fx", "/ace/getstream%2F?id=1"] {
        assert_eq!(proxy.get(target).status, 404, "{target}");
    }
}

#[test]
fn an_infohash_is_asked_for_as_one() {
    let engine = engine();
    let proxy = lingering(&engine);
    let infohash = INFOHASH.to_string();
    play(&proxy, &format!("/ace/getstream?infohash={infohash}"));
    play(&proxy, &format!("/ace/getstream?id=acestream:?infohash={infohash}"));
    let requests = getstreams(&engine);
    assert_eq!(requests.len(), 1);
    assert_eq!(query_of(&requests[0]).0, [("infohash", infohash.as_str()), ("format", "json")]);
}

#[test]
fn an_engine_parameter_makes_another_stream_and_reaches_the_engine() {
    let (engine, other) = (engine(), engine());
    let proxy = Proxy::start_with(&[&engine, &other], |config| config.stream.linger = LONG);
    play(&proxy, &stream_path(ID));
    play(&proxy, &format!("{}&_idx=2&preferred_audio_language=fra&x=y", stream_path(ID)));
    play(&proxy, &format!("{}&x=z&preferred_audio_language=fra&_idx=02", stream_path(ID)));
    let requests = [getstreams(&engine), getstreams(&other)].concat();
    assert_eq!(requests.len(), 2);
    let id = ID.to_string();
    let expected =
        [("id", id.as_str()), ("format", "json"), ("_idx", "2"), ("preferred_audio_language", "fra")];
    assert_eq!(query_of(&requests[1]).0, expected);
    let mut reply = proxy.get("/proxy/sessions");
    let json = reply.json();
    let ids: HashSet<_> = json["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|session| session["stream_id"].as_str().expect("an id").to_owned())
        .collect();
    assert!(ids.contains(&id) && ids.len() == 2, "{ids:?}");
    let variant = ids.iter().find(|other| **other != id).expect("two ids");
    assert!(variant.len() == 49 && variant.starts_with(&format!("{id}-")), "{variant}");
    assert_eq!(proxy.get(&format!("/proxy/sessions/{variant}")).status, 200);
}

#[test]
fn every_session_has_a_player_id_of_its_own() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    for round in 1..=3 {
        play(&proxy, &format!("{}&pid=abc&sid=def", stream_path(ID)));
        super::harness::assert_all_stopped(&engine, round);
        proxy.wait_gone(ID);
    }
    play(&proxy, &stream_path(OTHER_ID));
    let requests = getstreams(&engine);
    let pids: HashSet<_> = requests.iter().map(|request| query_of(request).1).collect();
    assert!(pids.len() == 4 && !pids.contains("abc") && !pids.contains("def"), "{pids:?}");
    // Under both its names, for engines that know but the old one.
    assert!(requests.iter().all(|request| request.param("sid") == request.param("pid")));
}

#[test]
fn the_engine_is_asked_as_a_player_asks_it_whatever_the_client_sends() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut connection = proxy.connect();
    let lines = "Range: bytes=0-\r\nAccept-Encoding: gzip, br\r\nIcy-MetaData: 1\r\nX-Forwarded-For: evil\r\n\
                 Cookie: a=b\r\nAuthorization: Basic eDp5\r\n";
    connection.send_request("GET", &stream_path(ID), lines);
    let reply = connection.reply();
    assert_eq!((reply.status, reply.header("Accept-Ranges")), (200, Some("none")));
    assert_eq!((reply.header("Content-Encoding"), reply.header("Content-Range")), (None, None));
    let mut viewer = Viewer::of(reply);
    viewer.take_packets(10);
    drop(viewer.leave());
    super::harness::assert_all_stopped(&engine, 1);
    let mut paths = Vec::new();
    for request in engine.requests() {
        assert_eq!(request.header("User-Agent"), Some("VLC/3.0.21 LibVLC/3.0.21"), "{request:?}");
        assert_eq!(request.header("Accept-Encoding"), Some("identity"), "{request:?}");
        assert_eq!(request.header("Host"), Some(engine.addr().to_string().as_str()), "{request:?}");
        for absent in ["Range", "Icy-MetaData", "X-Forwarded-For", "Cookie", "Authorization"] {
            assert_eq!(request.header(absent), None, "{request:?}");
        }
        assert_eq!((request.method.as_str(), request.minor_version), ("GET", 1));
        paths.push(request.path);
    }
    for part in ["/ace/getstream", "/ace/r/", "/content/", "/ace/cmd/", "/webui/api/service", "/server/api"] {
        assert!(paths.iter().any(|path| path.starts_with(part)), "{part} in {paths:?}");
    }
    let counts = engine.counts();
    assert_eq!((counts.playbacks_with_gzip, counts.playbacks_with_range), (0, 0));
}

#[test]
fn what_is_no_id_is_refused_and_nothing_of_it_reaches_the_engine() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let id = ID.to_string();
    let other = OTHER_ID.to_string();
    for query in [
        String::new(),
        "?".to_owned(),
        "?id=".to_owned(),
        "?id=abc".to_owned(),
        format!("?id={id}0"),
        format!("?id={}g", &id[1..]),
        format!("?id={id}%26pid=evil"),
        format!("?id={id}%26pid%3Devil"),
        format!("?id={id}%0d%0aX:%20y"),
        format!("?id={id}%00"),
        "?id=..%2f..%2fserver%2fapi".to_owned(),
        format!("?id={id}&id={other}"),
        format!("?id={id}&infohash={id}"),
        format!("?id={id}&content_id={other}"),
        format!("?id=acestream://{id}%26x=y"),
        "?id=acestream:?content_id=".to_owned(),
        "?infohash=xyz".to_owned(),
        format!("?infohash=acestream://{id}"),
        format!("?id={id}&_idx=abc"),
        format!("?id={id}&_idx=-1"),
        format!("?id={id}&quality=a%26pid%3Devil"),
        format!("?id={id}&quality=a%20b"),
        format!("?id={id}&_idx=1&_idx=2"),
        format!("?id={id}&preferred_audio_language={}", "a".repeat(33)),
        "?id=%FF%FE".to_owned(),
    ] {
        let mut reply = proxy.get(&format!("/ace/getstream{query}"));
        let json = reply.json();
        assert_eq!((reply.status, &json["error"]), (400, &"bad_request".into()), "{query}");
        let detail = json["detail"].as_str().expect("a sentence");
        assert!(detail.contains(' ') && !detail.contains(char::is_control), "{query}: {detail}");
    }
    assert!(getstreams(&engine).is_empty());
    assert_eq!(proxy.status()["total_sessions"], 0);
}
