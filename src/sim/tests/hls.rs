//! Playback as a list that slides (engine-contract.md 8.2).

use std::time::Duration;

use super::super::{Hls, Media, Settings, SimEngine};
use super::client::*;

/// Two seconds of media in a segment, six of them listed.
fn listed(change: impl FnOnce(&mut Hls)) -> SimEngine {
    let mut hls = Hls::of(Duration::from_secs(2));
    change(&mut hls);
    let engine = empty(Settings::default());
    engine.add(content(ID, INFOHASH).hls(hls));
    engine
}

/// The URL of the list that this session plays.
fn list_url(engine: &SimEngine, session: &Started) -> String {
    let redirect = get(engine, session.url("playback_url"));
    redirect.header("Location").expect("a Location").to_owned()
}

fn segment(engine: &SimEngine, number: u64) -> Answer {
    get(engine, &format!("/ace/c/{INFOHASH}/{number}.ts"))
}

#[test]
fn segments_joined_are_the_stream() {
    let engine = listed(|_| {});
    let session = start_as(&engine, "1");
    let mut list = get(&engine, &list_url(&engine, &session));
    assert_eq!(list.header("Content-Type"), Some("application/vnd.apple.mpegurl"));
    let text = list.text();
    let head =
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:2.000000,\n";
    assert!(text.starts_with(head) && !text.contains("ENDLIST"), "{text}");
    let urls: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!((urls.len(), urls[0]), (6, &*format!("{}/ace/c/{INFOHASH}/0.ts", engine.url())));
    let joined: Vec<u8> = (0..3).flat_map(|number| segment(&engine, number).read_to_end().0).collect();
    let Media::Numbered(shape) = content(ID, INFOHASH).media else {
        panic!("it is numbered");
    };
    // A packet that is due at the border belongs to what follows.
    let packets = shape.due_by(Duration::from_secs(6) - Duration::from_nanos(1));
    assert_eq!(joined.len() as u64, packets * 188);
    assert!(check(&joined).is_perfect() && check(&joined).first == Some(0));
    assert_eq!((engine.counts().lists, engine.counts().segments), (1, 3));
}

#[test]
fn what_is_not_listed_or_not_there_yet_is_not_found() {
    let engine = listed(|hls| hls.missing = Some(1));
    assert_eq!(segment(&engine, 0).status, 404, "nobody has a session");
    let _session = start_as(&engine, "1");
    let statuses = [0, 1, 40].map(|number| segment(&engine, number).status);
    assert_eq!(statuses, [200, 404, 404]);
    let engine = listed(|hls| hls.late = LONG);
    let _session = start_as(&engine, "1");
    let mut early = segment(&engine, 5);
    assert_eq!((early.status, &*early.text()), (404, "download not found"));
}

#[test]
fn a_list_is_its_session_s_alone_and_ends_with_it() {
    let engine = listed(|_| {});
    let first = start_as(&engine, "1");
    let url = list_url(&engine, &first);
    assert_eq!(get(&engine, &url).status, 200);
    let second = start_as(&engine, "2");
    let newer = list_url(&engine, &second);
    assert_eq!((get(&engine, &url).status, get(&engine, &newer).status), (403, 200));
    second.stop(&engine);
    assert_eq!(get(&engine, &newer).status, 500);
}
