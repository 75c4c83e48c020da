//! Engines that word things in other ways, and what they count against a careless client.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::{Call, Dialect, Script, Settings, SimEngine};
use super::client::*;

fn speaking(dialect: Dialect) -> SimEngine {
    let engine = empty(Settings { dialect, ..Settings::default() });
    engine.add(content(ID, INFOHASH));
    engine.add(content(OTHER_ID, OTHER_INFOHASH));
    engine
}

#[test]
fn an_independent_engine_has_words_tokens_and_names_of_its_own() {
    let engine = speaking(Dialect::independent());
    let started = start_as(&engine, "1");
    assert_eq!(started.0["infohash"], ID.to_string());
    let url = started.url("playback_url").to_owned();
    let token = url.rsplit('/').next().expect("a token").to_owned();
    assert_eq!(token.len(), 64);
    assert_eq!(url, format!("{}/ace/r/cid:{ID}/{token}", engine.url()));
    let stat = || get(&engine, started.url("stat_url")).json()["response"].clone();
    let before = stat();
    let number = |stat: &Value, field: &str| stat[field].as_u64();
    assert_eq!(before["status"], "dl");
    assert_eq!((number(&before, "peers"), number(&before, "downloaded")), (Some(0), Some(0)));
    assert!(before.get("speed_down").is_none() && before.get("livepos").is_none(), "{before}");
    let mut body = started.play(&engine);
    assert!(body.head.contains("200"), "{}", body.head);
    body.take(100_000);
    let after = stat();
    assert!(number(&after, "downloaded") > Some(0) && after.get("speed_down").is_none(), "{after}");
    assert_eq!(after["infohash"], ID.to_string());
    started.stop(&engine);
    let error = get(&engine, started.url("stat_url")).json()["error"].clone();
    assert_eq!(error, "invalid or expired playback session");
    assert!(started.stop(&engine).contains("invalid or expired playback session"));
}

#[test]
fn an_independent_engine_tells_of_unknown_content_only_when_it_is_played() {
    let engine = speaking(Dialect::independent());
    let unknown = "77".repeat(20);
    for key in ["id", "infohash"] {
        let started = start(&engine, &format!("{key}={unknown}&pid=1"));
        let began = Instant::now();
        let mut answer = get(&engine, started.url("playback_url"));
        assert_eq!((answer.status, answer.text().as_str()), (404, ""), "{key}");
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(started.stop(&engine).contains("ok"));
    }
    let mut nonsense = get(&engine, "/ace/getstream?format=json&id=xyz&pid=1");
    assert_eq!(nonsense.json()["error"], "failed to load content");
}

#[test]
fn stat_can_be_hollow_or_lack_any_field() {
    let without = Call::Without(vec!["status", "peers", "infohash"]);
    let engine = scripted(Script::new().stat(super::super::Steps::each([Call::Hollow, without])));
    let started = start_as(&engine, "1");
    let stat = || get(&engine, started.url("stat_url")).json()["response"].clone();
    let hollow = stat();
    assert_eq!((&hollow["status"], &hollow["peers"]), (&"dl".into(), &0.into()), "{hollow}");
    assert!(hollow.get("speed_down").is_none() && hollow["downloaded"] == 0, "{hollow}");
    let lacking = stat();
    for field in ["status", "peers", "infohash"] {
        assert!(lacking.get(field).is_none(), "{lacking}");
    }
    assert!(lacking["downloaded"].is_number());
}

#[test]
fn an_old_engine_knows_players_by_sid_alone() {
    let engine = speaking(Dialect::before_pid());
    start_as(&engine, "1");
    start(&engine, &format!("id={OTHER_ID}&pid=2"));
    // For it they were one player, who has none.
    assert_eq!(engine.counts().sessions_superseded, 1);
    start(&engine, &format!("id={ID}&pid=3&sid=3"));
    start(&engine, &format!("id={OTHER_ID}&pid=4&sid=4"));
    let counts = engine.counts();
    assert_eq!((counts.sessions_superseded, counts.sessions_open), (1, 3));
}

#[test]
fn what_a_real_engine_would_punish_is_counted() {
    let (engine, other) = (engine(), engine());
    let started = start(&engine, &format!("id={ID}"));
    assert_eq!(engine.counts().getstreams_without_player, 1);
    start(&engine, &format!("id={ID}&sid=1"));
    start_as(&engine, "2");
    assert_eq!(engine.counts().getstreams_without_player, 1);
    get(&engine, &format!("{}?skip_player_activity=1", started.url("stat_url")));
    get(&engine, started.url("stat_url"));
    assert_eq!(engine.counts().stats_as_player, 1);
    let mut body = started.play(&engine);
    body.take(1000);
    assert_eq!(engine.counts().playbacks_at_once, 0);
    assert_eq!(get(&engine, started.url("playback_url")).status, 302);
    assert_eq!(engine.counts().playbacks_at_once, 1);
    let foreign = start_as(&other, "1");
    let command = foreign.url("command_url").replacen(&other.url(), "", 1);
    get(&engine, &format!("{command}?method=stop"));
    started.stop(&engine);
    started.stop(&engine);
    let counts = engine.counts();
    assert_eq!((counts.stops, counts.stops_unknown, counts.stops_never_opened), (3, 2, 1));
}

#[test]
fn two_requests_for_one_playback_at_once_are_counted_while_both_wait() {
    let engine = empty(Settings::default());
    let mut content = content(ID, INFOHASH);
    content.delivery.prebuffer = LONG;
    engine.add(content);
    let started = start_as(&engine, "1");
    let path = started.url("playback_url").replacen(&engine.url(), "", 1);
    let _first = send(&engine, &path);
    assert!(engine.wait_for(LONG, |counts| counts.playback_requests == 1));
    let _second = send(&engine, &path);
    assert!(engine.wait_for(LONG, |counts| counts.playbacks_at_once == 1));
}
