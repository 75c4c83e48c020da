//! What engines answer: any JSON, and what is none.

use std::time::{Duration, Instant};

use acerelay::engine::api::{Api, Opening};
use acerelay::engine::url::Target;
use acerelay::id::ContentKey;
use acerelay::sim::{Call, Getstream, Script, SimEngine};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::check;
use crate::harness::{Connection, ID, LONG, Proxy, SLACK, Viewer, engine, stream_path, wait_engine};

/// Words that mean something in an answer.
const WORDS: [&str; 16] = [
    "response",
    "result",
    "error",
    "message",
    "playback_url",
    "stat_url",
    "command_url",
    "infohash",
    "is_live",
    "status",
    "peers",
    "downloaded",
    "playback_session_id",
    "progress",
    "version",
    "speed_down",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => prop::sample::select(vec![
            "", "dl", "prebuf", "unknown playback session id", "failed to load content", "http://evil.example/ace/r/a/b",
            "/ace/r/a/b", "/ace/../server/api", "http://10.0.0.1:1/content/a", "//x/hls/a?b#c", "http://", "/ace/cmd/a/b",
        ]).prop_map(str::to_owned),
        1 => "[0-9a-fA-F]{40}",
        1 => "-?[0-9]{1,22}",
        1 => "\\PC{0,40}",
        1 => "[\\x00-\\x7f]{0,40}",
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        2 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        4 => text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let name = prop_oneof![6 => prop::sample::select(WORDS.to_vec()).prop_map(str::to_owned), 1 => text()];
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => prop::collection::vec((name, inner), 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The text of an answer: JSON that often looks like one, JSON that breaks off, or anything.
fn any_answer() -> impl Strategy<Value = String> {
    let wrapped = (
        prop::sample::select(vec!["response", "result"]),
        any_json(),
        prop::option::weighted(0.3, any_json()),
    );
    let wrapped = wrapped.prop_map(|(name, answer, error)| json!({name: answer, "error": error}).to_string());
    let torn = (any_json(), any::<prop::sample::Index>()).prop_map(|(json, at)| {
        let text = json.to_string();
        text.chars().take(at.index(text.len() + 1)).collect()
    });
    prop_oneof![5 => wrapped, 1 => any_json().prop_map(|json| json.to_string()), 1 => torn, 1 => "\\PC{0,80}"]
}

/// Statuses with a body that is read.
fn status() -> impl Strategy<Value = u16> {
    prop_oneof![6 => Just(200_u16), 1 => prop::sample::select(vec![201, 302, 400, 403, 404, 500, 503])]
}

fn key() -> ContentKey {
    ContentKey::from_query(None, [("id", ID.to_string())]).expect("a good key")
}

#[test]
fn any_answer_to_getstream_is_an_error_or_a_session_on_the_engine_itself() {
    let engine = engine();
    let api = Api::new(&engine.addr().to_string());
    let own = format!("http://{}", engine.addr());
    let is_ours = |target: &Target| {
        let url = target.on(&engine.addr().to_string());
        let path = url.strip_prefix(&own).unwrap_or_default();
        ["/ace/", "/content/", "/hls/"].iter().any(|prefix| path.starts_with(prefix))
            && !path.contains("..")
            && url.bytes().all(|byte| byte.is_ascii_graphic())
    };
    check(700, &(status(), any_answer()), |(status, text)| {
        engine.set_script(ID, Script::new().getstream(Getstream::Status(status, text.clone())));
        match api.open(&key(), Opening::Plain, Instant::now() + LONG) {
            Ok(session) => {
                prop_assert!((200..300).contains(&status), "{status}");
                let parsed: Value =
                    serde_json::from_str(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert!(parsed.is_object(), "{parsed}");
                let targets = session.playback.iter().chain(&session.stat);
                prop_assert!(targets.into_iter().all(is_ours), "{session:?}");
                // It is stopped on the engine, which may say what it likes to that.
                let _stopped = api.stop(session, LONG);
            }
            Err(error) => {
                let sentence = error.to_string();
                prop_assert!(sentence.contains(' ') && !sentence.contains(char::is_control), "{sentence:?}");
            }
        }
        Ok(())
    });
    assert!(engine.requests().iter().all(|request| request.path.starts_with("/ace/")
        || request.path.starts_with("/content/")
        || request.path.starts_with("/hls/")));
}

#[test]
fn any_answer_to_getstream_reaches_the_player_as_a_clear_error() {
    let engine = engine();
    let limit = Duration::from_millis(300);
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.connect_timeout = limit;
        config.stream.first_data_timeout = limit;
        config.stream.linger = Duration::ZERO;
    });
    let number = std::cell::Cell::new(0);
    check(60, &(status(), any_answer()), |(status, text)| {
        engine.set_script(ID, Script::new().getstream(Getstream::Status(status, text)));
        // Another stream each time: failures are remembered.
        number.set(number.get() + 1);
        let began = Instant::now();
        let mut reply = proxy.get(&format!("{}&_idx={}", stream_path(ID), number.get()));
        prop_assert!(began.elapsed() < 2 * limit + SLACK, "{:?}", began.elapsed());
        let json = reply.json();
        let (code, detail) =
            (json["error"].as_str().unwrap_or_default(), json["detail"].as_str().unwrap_or_default());
        prop_assert!(
            matches!((reply.status, code), (502, "engine_error") | (504, "start_timeout")),
            "{json}"
        );
        prop_assert!(detail.contains(' ') && !detail.contains(char::is_control), "{json}");
        Ok(())
    });
    engine.set_script(ID, Script::new());
    let deadline = Instant::now() + LONG;
    let reply = loop {
        number.set(number.get() + 1);
        let mut reply = proxy.get(&format!("{}&_idx={}", stream_path(ID), number.get()));
        if reply.status == 200 {
            break reply;
        }
        // A busy machine may not make it within that limit.
        let text = reply.text();
        assert!(text.contains("start_timeout") && Instant::now() < deadline, "{text}");
    };
    Viewer::of(reply).take_packets(20);
    assert_eq!(proxy.get("/healthz").status, 200);
}

/// The start of a session that is really there.
fn open_by_hand(engine: &SimEngine, player: u32) -> Map<String, Value> {
    engine.set_script(ID, Script::new());
    let target = format!("/ace/getstream?id={ID}&format=json&pid=byhand{player}");
    let mut answer: Value = Connection::open(engine.addr()).get(&target).json();
    match answer["response"].take() {
        Value::Object(start) => start,
        other => panic!("no session: {other}"),
    }
}

#[test]
fn a_good_answer_is_one_whatever_stands_beside_it_and_whichever_host_it_names() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.linger = Duration::ZERO);
    let noise = || prop::collection::vec(("x[a-z_]{0,12}", any_json()), 0..6);
    let host = "(http|https|HTTP)://([a-z0-9.-]{1,20}(:[0-9]{1,5})?|\\[::1\\]:80|user:pass@evil\\.example)";
    let envelope = prop::sample::select(vec!["response", "result"]);
    let good = (noise(), noise(), host, envelope, prop::option::of(any::<bool>()));
    let number = std::cell::Cell::new(0_u32);
    check(12, &good, |(inside, outside, host, envelope, is_text)| {
        number.set(number.get() + 1);
        let mut start = open_by_hand(&engine, number.get());
        for (name, value) in &mut start {
            match (value.as_str(), is_text) {
                (Some(url), _) if name.ends_with("_url") => {
                    *value = format!("{host}{}", url.trim_start_matches(&engine.url())).into();
                }
                (None, Some(true)) => *value = value.to_string().into(),
                _ => {}
            }
        }
        start.extend(inside);
        let mut answer: Map<String, Value> = outside.into_iter().collect();
        answer.insert(envelope.to_owned(), start.into());
        let text = Value::from(answer).to_string();
        engine.set_script(ID, Script::new().getstream(Getstream::Status(200, text.clone())));
        let mut reply = proxy.get(&format!("{}&_idx={}", stream_path(ID), number.get()));
        if reply.status != 200 {
            return Err(TestCaseError::fail(format!("{}: {text}", reply.text())));
        }
        let mut viewer = Viewer::of(reply);
        viewer.take_packets(20);
        drop(viewer);
        // A stop ends every session of a content, also the next one.
        wait_engine(&engine, "the session is stopped", |counts| counts.sessions_open == 0);
        Ok(())
    });
}

#[test]
fn any_answer_to_stat_is_an_error_or_as_many_numbers_as_it_has() {
    let engine = engine();
    let api = Api::new(&engine.addr().to_string());
    let session = api.open(&key(), Opening::Plain, Instant::now() + LONG).expect("the engine is well");
    let stat = session.stat.clone().expect("it tells where to ask");
    check(400, &any_answer(), |text| {
        engine.set_script(ID, Script::new().stat(Call::Text(text.clone())));
        let outcome = api.stat(&stat, LONG);
        let parsed: Value = serde_json::from_str(&text).unwrap_or_default();
        let answer = ["response", "result"]
            .iter()
            .find_map(|name| parsed.get(name))
            .filter(|answer| !answer.is_null());
        let Ok(stat) = outcome else {
            let has_error = parsed.get("error").is_some_and(|error| *error != Value::Null);
            prop_assert!(
                answer.is_none() || has_error || !parsed.is_object(),
                "{text} is an answer: {outcome:?}"
            );
            return Ok(());
        };
        let answer = answer.ok_or_else(|| TestCaseError::fail(format!("{text} is no answer")))?;
        for (name, number) in
            [("peers", stat.peers), ("downloaded", stat.downloaded), ("progress", stat.progress)]
        {
            match &answer[name] {
                Value::Number(given) => {
                    prop_assert_eq!(number, given.as_u64().filter(|_| given.as_i64().is_some()));
                }
                Value::Null | Value::Array(_) | Value::Object(_) => prop_assert_eq!(number, None),
                _ => {}
            }
        }
        if let Value::String(status) = &answer["status"] {
            prop_assert_eq!(&stat.status, status);
        }
        Ok(())
    });
    engine.set_script(ID, Script::new());
    assert!(api.stat(&stat, LONG).is_ok(), "the session is there all the time");
    api.stop(session, LONG).expect("it can be stopped");
}
