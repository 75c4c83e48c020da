//! The endpoints, in good health.

use serde_json::{Value, json};

use super::super::{HostName, Settings};
use super::client::*;

#[test]
fn getstream_answers_as_documented() {
    let engine = engine();
    let mut answer = get(&engine, &format!("/ace/getstream?id={ID}&format=json&pid=7&use_api_events=1"));
    assert_eq!(answer.header("Server"), Some("BaseHTTP/0.6 Python/3.8.16"));
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"));
    let text = answer.text();
    assert!(text.starts_with(r#"{"response": {""#) && text.ends_with(r#"}, "error": null}"#), "{text}");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let response = &json["response"];
    let playback_url = response["playback_url"].as_str().expect("a URL");
    let token = playback_url.rsplit('/').next().expect("a token");
    let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(hex(token, 32), "{token}");
    let session_id = response["playback_session_id"].as_str().expect("an id");
    assert!(hex(session_id, 40) && !session_id.contains(token));
    let url = engine.url();
    let at = |call: &str| json!(format!("{url}/ace/{call}/{INFOHASH}/{token}"));
    assert_eq!(response["playback_url"], at("r"));
    assert_eq!(response["stat_url"], at("stat"));
    assert_eq!(response["command_url"], at("cmd"));
    assert_eq!(response["event_url"], at("event"));
    assert_eq!(response["infohash"], json!(INFOHASH.to_string()));
    assert_eq!(response["is_live"], 1);
    assert_eq!(response["is_encrypted"], 0);
    assert_eq!(response["client_session_id"], -1);
    let other = start(&engine, &format!("content_id={ID}&client_session_id=9&pid=8"));
    assert_eq!(other.0["client_session_id"], 9);
    assert!(other.0["event_url"].is_null());
}

#[test]
fn content_ids_and_infohashes_are_two_name_spaces() {
    let engine = engine();
    let fails = |query: &str| {
        let mut answer = get(&engine, &format!("/ace/getstream?format=json&{query}"));
        assert_eq!(answer.status, 200, "{query}");
        assert_eq!(answer.text(), r#"{"response": null, "error": "failed to load content"}"#, "{query}");
    };
    fails(&format!("id={INFOHASH}"));
    fails(&format!("infohash={ID}"));
    fails("id=xyz");
    fails("url=http://example.org/x.acelive");
    fails(&format!("content_id={INFOHASH}&infohash={INFOHASH}"));
    let works = |query: &str, infohash| {
        let started = start(&engine, query);
        assert_eq!(started.0["infohash"], json!(infohash), "{query}");
    };
    works(&format!("infohash={INFOHASH}"), INFOHASH.to_string());
    works(&format!("id={ID}&content_id={OTHER_ID}"), OTHER_INFOHASH.to_string());
    works(&format!("infohash={OTHER_INFOHASH}&id={ID}"), INFOHASH.to_string());
    works(&format!("magnet=magnet:%3Fxt=urn:btih:{INFOHASH}%26dn=x"), INFOHASH.to_string());
    let mut none = get(&engine, "/ace/getstream?format=json&pid=1");
    assert_eq!((none.status, none.text().as_str()), (500, "Internal Server Error"));
    let mut text = get(&engine, &format!("/ace/getstream?id={INFOHASH}"));
    assert_eq!((text.status, text.text().as_str()), (500, "failed to load content"));
}

#[test]
fn the_redirects_lead_to_the_body_and_have_no_length() {
    let engine = engine();
    let mut url = format!("/ace/getstream?id={ID}");
    for step in ["/ace/r/", "/content/"] {
        let mut redirect = get(&engine, &url);
        assert_eq!(redirect.status, 302);
        for absent in ["Content-Length", "Transfer-Encoding", "Connection"] {
            assert_eq!(redirect.header(absent), None);
        }
        url = redirect.header("Location").expect("a Location").to_owned();
        assert!(url.starts_with(&format!("{}{step}{INFOHASH}/", engine.url())), "{url}");
        assert!(redirect.is_silent(), "the connection stays open");
    }
    let mut body = get(&engine, &url);
    assert_eq!((body.status, body.header("Content-Length")), (200, None));
    assert_eq!(body.take(376)[188], 0x47);
}

#[test]
fn a_redirect_keeps_its_socket_whatever_the_client_asks_and_tells_who_reuses_it() {
    let engine = engine();
    let target = format!("GET /ace/getstream?id={ID} HTTP/1.1\r\nHost: h\r\n");
    let mut redirect = raw(&engine, &format!("{target}Connection: close\r\n\r\n"));
    assert!(redirect.status == 302 && redirect.is_silent());
    assert_eq!(engine.counts().after_redirect, 0);
    raw(&engine, &format!("{target}\r\n{target}\r\n"));
    assert!(engine.wait_for(LONG, |counts| counts.after_redirect == 1));
}

#[test]
fn urls_carry_the_host_of_the_request_or_a_wrong_one() {
    let query = format!("GET /ace/getstream?format=json&id={ID} HTTP/1.");
    let playback_url = |engine: &_, rest: &str| {
        let json = raw(engine, &format!("{query}{rest}\r\n\r\n")).json();
        json["response"]["playback_url"].as_str().expect("a URL").to_owned()
    };
    let engine = engine();
    let url = playback_url(&engine, "1\r\nHost: acestream:6878");
    assert!(url.starts_with("http://acestream:6878/ace/r/"), "{url}");
    let url = playback_url(&engine, "0");
    assert!(url.starts_with(&engine.url()), "{url}");
    let wrong = empty(Settings { host: HostName::Fixed("127.0.0.9:1".to_owned()), ..Settings::default() });
    wrong.add(content(ID, INFOHASH));
    let url = playback_url(&wrong, "1\r\nHost: acestream:6878");
    assert!(url.starts_with("http://127.0.0.9:1/ace/r/"), "{url}");
}

#[test]
fn stop_ends_the_session_and_the_second_one_finds_none() {
    let engine = engine();
    let started = start_as(&engine, "1");
    let mut body = started.play(&engine);
    body.take(1000);
    assert_eq!(started.stop(&engine), r#"{"response": "ok", "error": null}"#);
    assert_eq!(body.read_to_end().1, End::Clean);
    let unknown = r#"{"response": null, "error": "unknown playback session id"}"#;
    assert_eq!(started.stop(&engine), unknown);
    assert_eq!(get(&engine, started.url("stat_url")).text(), unknown);
    let mut late = get(&engine, started.url("playback_url"));
    assert_eq!((late.status, late.text().as_str()), (500, "download not found"));
    let counts = engine.counts_of(ID);
    assert_eq!((counts.sessions_opened, counts.sessions_stopped, counts.sessions_open), (1, 1, 0));
    assert_eq!((counts.stops, counts.stops_unknown, counts.stats_unknown), (2, 1, 1));
    assert_eq!(engine.counts().stops, 2);
    let again = start_as(&engine, "1");
    let url = format!("{}?method=stop&api_version=2", again.url("command_url"));
    assert_eq!(get(&engine, &url).text(), r#"{"result": "ok"}"#);
}

#[test]
fn events_are_waited_for_until_the_session_ends() {
    let engine = engine();
    let started = start(&engine, &format!("id={ID}&use_api_events=1"));
    let path = started.url("event_url").replacen(&engine.url(), "", 1);
    let poll = send(&engine, &path);
    started.stop(&engine);
    assert_eq!(Answer::read(poll).json()["error"], "unknown playback session id");
}

#[test]
fn stat_tells_of_the_session() {
    let engine = engine();
    let started = start_as(&engine, "1");
    let mut body = started.play(&engine);
    body.take(100_000);
    let stat = get(&engine, &format!("{}?skip_player_activity=1", started.url("stat_url"))).json();
    let stat = &stat["response"];
    assert_eq!((&stat["status"], &stat["peers"], &stat["is_live"]), (&json!("dl"), &json!(5), &json!(1)));
    let downloaded = stat["downloaded"].as_u64().expect("a number");
    assert!(downloaded >= 100_000 && downloaded.is_multiple_of(16_384), "{downloaded}");
    assert_eq!(stat["infohash"], json!(INFOHASH.to_string()));
    assert_ne!(stat["playback_session_id"], started.0["playback_session_id"]);
    assert!(stat["livepos"]["live_last"].is_string());
}

#[test]
fn the_service_calls_answer_as_documented() {
    let engine = engine();
    let text = get(&engine, "/webui/api/service?method=get_version").text();
    let version = r#"{"code": 3017500, "platform": "linux", "version": "3.1.75"}"#;
    assert_eq!(text, format!(r#"{{"result": {version}, "error": null}}"#));
    let text = get(&engine, "/server/api?api_version=3&method=get_status").text();
    assert_eq!(text, format!(r#"{{"result": {{"playlist_loaded": true, "version": {version}}}}}"#));
    let files = |query: &str| get(&engine, &format!("/server/api?method=get_media_files&{query}")).json();
    let found = files(&format!("api_version=3&content_id={ID}"));
    assert_eq!(found["result"]["infohash"], json!(INFOHASH.to_string()));
    assert_eq!((&found["result"]["type"], found.get("error")), (&json!("live"), None));
    let missing = json!({"error": {"message": "cannot get transport file", "code": 0}});
    assert_eq!(files(&format!("api_version=3&content_id={INFOHASH}")), missing);
    let missing = json!({"result": null, "error": "cannot get transport file"});
    assert_eq!(files("infohash=1"), missing);
    let unknown = get(&engine, "/server/api?api_version=3&method=nonsense").json();
    assert_eq!(unknown["error"]["message"], "unknown method");
    let counts = engine.counts();
    assert_eq!((counts.sessions_opened, counts.health_checks), (0, 2));
}

#[test]
fn what_no_engine_serves_is_refused_as_python_does() {
    let engine = engine();
    let status = |line: &str| {
        let mut answer = raw(&engine, &format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(answer.header("Connection"), Some("close"), "{line}");
        (answer.status, answer.read_to_end().0.is_empty())
    };
    assert_eq!(status("HEAD /ace/getstream"), (501, true));
    assert_eq!(status("PUT /ace/getstream"), (501, false));
    assert_eq!(status("POST /ace/getstream"), (405, false));
    assert_eq!(status("GET /nothing"), (404, false));
    assert_eq!(status("GET /"), (404, false));
    assert_eq!(raw(&engine, "nonsense\r\n\r\n").status, 400);
    assert_eq!(get(&engine, "/ace/manifest.m3u8?id=1").status, 500);
}

#[test]
fn requests_are_kept_in_order_with_their_headers() {
    let engine = engine();
    let head = format!(
        "GET /ace/getstream?format=json&id={ID}&x=a%20b%2Bc HTTP/1.1\r\nHost: h\r\nUser-Agent: t\r\n\r\n"
    );
    raw(&engine, &head);
    let started = start_as(&engine, "9");
    let path = started.url("playback_url").replacen(&engine.url(), "", 1);
    let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\nRange: bytes=0-\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(raw(&engine, &head).status, 302);
    let requests = engine.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!((requests[0].param("x"), requests[0].header("user-agent")), (Some("a b+c"), Some("t")));
    assert_eq!((requests[1].path.as_str(), requests[1].param("pid")), ("/ace/getstream", Some("9")));
    assert_eq!(requests[2].path, path);
    let counts = engine.counts();
    assert_eq!((counts.playbacks_with_range, counts.playbacks_with_gzip), (1, 1));
}
