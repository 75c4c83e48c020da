//! Channels as they really are: the clip in other dresses. Each plays, is never taken for lost, and whoever joins later begins
//! near the live edge, with tables in front if there are any.

use std::time::{Duration, Instant};

use acerelay::sim::{Content, Dress, Media};
use acerelay::ts::crc::crc32;
use serde_json::{Value, json};

use super::harness::{
    ID, INFOHASH, LONG, Proxy, Reply, assert_all_stopped, engine_with, in_parallel, stream_path,
    whole_in_time,
};

const PACKET_BYTES: usize = 188;

type Packet = [u8; PACKET_BYTES];

// Where the clip has its parts, and how many packets it is: eight seconds.
const MAP: u16 = 0x1000;
const VIDEO: u16 = 0x100;
const AUDIO: u16 = 0x101;
const CLIP_PACKETS: u64 = 2655;

// Types of streams.
const H264: u8 = 0x1B;
const AAC: u8 = 0x0F;
const PRIVATE: u8 = 0x06;

/// No clock, or a PID where there is nothing.
const NOWHERE: u16 = 0x1FFF;

/// How long the first one watches: far longer than a joiner may be behind.
const WATCHED: Duration = Duration::from_secs(8);

/// A joiner begins at the newest keyframe that is a second old, and the clip has one each second.
const NEAR: i64 = 4 * 90_000;

fn pid(packet: &Packet) -> u16 {
    u16::from_be_bytes([packet[1] & 0x1F, packet[2]])
}

fn on(pid: u16, packet: &Packet) -> Packet {
    let mut packet = *packet;
    let [high, low] = pid.to_be_bytes();
    (packet[1], packet[2]) = (packet[1] & 0xE0 | high, low);
    packet
}

fn has_clock(packet: &Packet) -> bool {
    packet[3] & 0x20 != 0 && packet[4] >= 7 && packet[5] & 0x10 != 0
}

/// A section in packets of the PID and with the counter of the one that it replaces.
fn send_section(table: u8, number: u16, version: u8, body: &[u8], like: &Packet, out: &mut Vec<u8>) {
    let mut section = vec![0, table];
    section.extend((0xB000 | (body.len() + 9) as u16).to_be_bytes());
    section.extend(number.to_be_bytes());
    section.extend([0xC1 | version << 1, 0, 0]);
    section.extend(body);
    section.extend(crc32(&section[1..]).to_be_bytes());
    let count = section.len().div_ceil(PACKET_BYTES - 4) as u8;
    for (part, bytes) in (0..).zip(section.chunks(PACKET_BYTES - 4)) {
        let mut packet = [0xFF; PACKET_BYTES];
        packet[..4].copy_from_slice(&like[..4]);
        packet[1] = like[1] & 0x1F | if part == 0 { 0x40 } else { 0 };
        packet[3] = 0x10 | ((like[3] & 0x0F) * count + part) & 0x0F;
        packet[4..4 + bytes.len()].copy_from_slice(bytes);
        out.extend(packet);
    }
}

fn send_pat(programmes: &[(u16, u16)], like: &Packet, out: &mut Vec<u8>) {
    let entry = |&(number, pid): &(u16, u16)| [number.to_be_bytes(), (0xE000 | pid).to_be_bytes()].concat();
    send_section(0, 1, 0, &programmes.iter().flat_map(entry).collect::<Vec<_>>(), like, out);
}

/// A PMT: PID of the clock, then type, PID and descriptors of each stream.
type Map<'a> = (u16, &'a [(u8, u16, &'a [u8])]);

fn map_body((clock, streams): Map<'_>, info: &[u8]) -> Vec<u8> {
    let mut body = [(0xE000 | clock).to_be_bytes(), (0xF000 | info.len() as u16).to_be_bytes()].concat();
    body.extend(info);
    for (stream_type, pid, descriptors) in streams {
        body.push(*stream_type);
        body.extend((0xE000 | pid).to_be_bytes());
        body.extend((0xF000 | descriptors.len() as u16).to_be_bytes());
        body.extend(*descriptors);
    }
    body
}

fn send_map(map: Map<'_>, version: u8, like: &Packet, out: &mut Vec<u8>) {
    send_section(2, 1, version, &map_body(map, &[]), like, out);
}

const PLAIN_MAP: Map<'_> = (VIDEO, &[(H264, VIDEO, &[]), (AAC, AUDIO, &[])]);

// The dresses.

fn low_pids(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    match pid(packet) {
        MAP => send_map((0x14, &[(H264, 0x14, &[]), (AAC, 0x15, &[])]), 0, packet, out),
        VIDEO => out.extend(on(0x14, packet)),
        AUDIO => out.extend(on(0x15, packet)),
        _ => out.extend(packet),
    }
}

fn no_pat(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    if pid(packet) != 0 {
        out.extend(packet);
    }
}

fn clock_on_its_own(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    match pid(packet) {
        MAP => send_map((0x1F0, PLAIN_MAP.1), 0, packet, out),
        VIDEO if has_clock(packet) => {
            let mut clock = on(0x1F0, packet);
            clock[1] &= 0x1F;
            clock[3..6].copy_from_slice(&[0x20, 183, 0x10]);
            clock[12..].fill(0xFF);
            out.extend(clock);
            without_its_clock(packet, out);
        }
        _ => out.extend(packet),
    }
}

fn without_its_clock(packet: &Packet, out: &mut Vec<u8>) {
    let mut packet = *packet;
    packet[5] &= !0x10;
    packet[6..12].fill(0xFF);
    out.extend(packet);
}

fn no_clock(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    match pid(packet) {
        MAP => send_map((NOWHERE, PLAIN_MAP.1), 0, packet, out),
        VIDEO if has_clock(packet) => without_its_clock(packet, out),
        _ => out.extend(packet),
    }
}

fn scrambled(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    let mut packet = *packet;
    if [VIDEO, AUDIO].contains(&pid(&packet)) {
        packet[3] |= 0x80;
    }
    out.extend(packet);
}

fn network_first_and_a_programme_that_never_comes(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    match pid(packet) {
        0 => send_pat(&[(0, 0x10), (2, 0x1001), (1, MAP)], packet, out),
        _ => out.extend(packet),
    }
}

fn five_programmes_on_one_pid(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    match pid(packet) {
        0 => send_pat(&[(1, MAP), (2, MAP), (3, MAP), (4, MAP), (5, MAP)], packet, out),
        MAP => {
            // Five packets for each of the clip's.
            for number in 1..=5 {
                let mut like = *packet;
                like[3] = 0x10 | ((packet[3] & 0x0F).wrapping_mul(5) + number as u8) & 0x0F;
                let other = [(H264, 0x500 + number, &[][..])];
                let map = if number == 1 { PLAIN_MAP } else { (NOWHERE, &other[..]) };
                send_section(2, number, 0, &map_body(map, &[]), &like, out);
            }
        }
        _ => out.extend(packet),
    }
}

fn a_map_of_three_packets(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    let info = [&[0x80, 0xF0][..], &[b'x'; 0xF0], &[0x80, 0xF0], &[b'y'; 0xF0]].concat();
    match pid(packet) {
        MAP => send_section(2, 1, 0, &map_body(PLAIN_MAP, &info), packet, out),
        _ => out.extend(packet),
    }
}

fn a_new_version_each_second(place: u64, packet: &Packet, out: &mut Vec<u8>) {
    match pid(packet) {
        MAP => send_map(PLAIN_MAP, (place / 332 % 32) as u8, packet, out),
        _ => out.extend(packet),
    }
}

fn everything_twice(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    out.extend(packet);
    out.extend(packet);
}

fn broken_now_and_then(place: u64, packet: &Packet, out: &mut Vec<u8>) {
    let mut packet = *packet;
    if place % 97 == 5 && pid(&packet) == VIDEO && packet[1] & 0x40 == 0 {
        packet[1] |= 0x80;
    }
    out.extend(packet);
}

fn sound_alone_of(stream_type: u8, descriptors: &[u8], packet: &Packet, out: &mut Vec<u8>) {
    match pid(packet) {
        MAP => send_map((NOWHERE, &[(stream_type, AUDIO, descriptors)]), 0, packet, out),
        VIDEO => {}
        _ => out.extend(packet),
    }
}

fn latm_alone(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    sound_alone_of(0x11, &[], packet, out);
}

fn ac3_alone(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    sound_alone_of(0x81, &[], packet, out);
}

fn mp2_alone(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    sound_alone_of(0x03, &[], packet, out);
}

fn teletext_alone(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    sound_alone_of(PRIVATE, &[0x56, 5, b'd', b'e', b'u', 9, 0], packet, out);
}

fn video_of_an_unknown_coding(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    match pid(packet) {
        MAP => send_map((VIDEO, &[(0x99, VIDEO, &[]), (AAC, AUDIO, &[])]), 0, packet, out),
        _ => out.extend(packet),
    }
}

fn other_pids_in_mid_stream(place: u64, packet: &Packet, out: &mut Vec<u8>) {
    let moved = place >= CLIP_PACKETS / 2;
    match pid(packet) {
        MAP if moved => send_map((0x200, &[(H264, 0x200, &[]), (AAC, 0x201, &[])]), 1, packet, out),
        of @ (VIDEO | AUDIO) if moved => out.extend(on(of + 0x100, packet)),
        _ => out.extend(packet),
    }
}

fn sound_that_comes_later_under_the_same_version(place: u64, packet: &Packet, out: &mut Vec<u8>) {
    let has_sound = place >= CLIP_PACKETS / 2;
    match pid(packet) {
        MAP if !has_sound => send_map((VIDEO, &[(H264, VIDEO, &[])]), 0, packet, out),
        MAP => send_map(PLAIN_MAP, 0, packet, out),
        AUDIO if !has_sound => {}
        _ => out.extend(packet),
    }
}

fn parameter_sets_once_at_the_start(place: u64, packet: &Packet, out: &mut Vec<u8>) {
    let mut packet = *packet;
    if place > 300 && pid(&packet) == VIDEO {
        for at in 4..PACKET_BYTES - 3 {
            // Filler in the place of both.
            if packet[at..at + 3] == [0, 0, 1] && matches!(packet[at + 3], 0x67 | 0x68) {
                packet[at + 3] = 0x6C;
            }
        }
    }
    out.extend(packet);
}

fn stuffing_before_the_first_picture(place: u64, packet: &Packet, out: &mut Vec<u8>) {
    if place < CLIP_PACKETS / 4 {
        let mut packet = [0xFF; PACKET_BYTES];
        packet[..4].copy_from_slice(&[0x47, 0x1F, 0xFF, 0x10]);
        out.extend(packet);
    } else {
        out.extend(packet);
    }
}

fn a_keyframe_said_of_every_picture(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    let mut packet = *packet;
    if packet[1] & 0x40 != 0 && packet[3] & 0x20 != 0 && packet[4] > 0 {
        packet[5] |= 0x40;
    }
    out.extend(packet);
}

fn of_192_bytes(place: u64, packet: &Packet, out: &mut Vec<u8>) {
    out.extend((place as u32).to_be_bytes());
    out.extend(packet);
}

fn of_204_bytes(_: u64, packet: &Packet, out: &mut Vec<u8>) {
    out.extend(packet);
    out.extend([0xA5; 16]);
}

/// What a client takes, read by a parser of the test's own.
struct Watcher {
    reply: Reply,
    rest: Vec<u8>,
    pids: Vec<u16>,
    first_time: Option<i64>,
    last_time: Option<i64>,
}

impl Watcher {
    fn open(proxy: &Proxy) -> Self {
        let mut reply = proxy.get(&stream_path(ID));
        if reply.status != 200 {
            let text = reply.text();
            panic!("{}: {text}", reply.status);
        }
        Self { reply, rest: Vec::new(), pids: Vec::new(), first_time: None, last_time: None }
    }

    fn take(&mut self) {
        let bytes = self.reply.read().expect("it goes on").to_vec();
        self.rest.extend(bytes);
        let whole = self.rest.len() / PACKET_BYTES * PACKET_BYTES;
        let taken: Vec<_> = self.rest.drain(..whole).collect();
        for packet in taken.as_chunks::<PACKET_BYTES>().0 {
            assert_eq!(packet[0], 0x47);
            if self.pids.len() < 4 {
                self.pids.push(pid(packet));
            }
            if let Some(time) = time_of(packet) {
                self.first_time.get_or_insert(time);
                self.last_time = self.last_time.max(Some(time));
            }
        }
    }

    fn take_for(&mut self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            self.take();
        }
    }
}

/// The PTS of a PES packet that begins here.
fn time_of(packet: &Packet) -> Option<i64> {
    let begin = 4 + if packet[3] & 0x20 == 0 { 0 } else { 1 + usize::from(packet[4]) };
    let head = packet.get(begin..begin + 14).filter(|_| packet[1] & 0x40 != 0)?;
    if head[..3] != [0, 0, 1] || head[7] & 0x80 == 0 {
        return None;
    }
    let field = |at: usize| i64::from(head[at]);
    Some(
        (field(9) >> 1 & 7) << 30
            | field(10) << 22
            | (field(11) >> 1) << 15
            | field(12) << 7
            | field(13) >> 1,
    )
}

/// A dress, the PID of its PMT if a joiner is to have tables, and what the status says that it is.
type Case = (&'static str, Dress, Option<u16>, fn() -> Value);

fn picture_and_sound() -> Value {
    let video = json!({"codec": "H.264", "width": 640, "height": 360, "fps": 25.0});
    json!({"video": video, "audio": ["AAC"], "text": []})
}

fn size_unknown() -> Value {
    let video = json!({"codec": "H.264", "width": null, "height": null, "fps": null});
    json!({"video": video, "audio": ["AAC"], "text": []})
}

fn sound(codec: &str) -> Value {
    json!({"video": null, "audio": [codec], "text": []})
}

const CASES: [Case; 21] = [
    ("low PIDs", low_pids, Some(MAP), picture_and_sound),
    ("no PAT", no_pat, None, || Value::Null),
    ("clock on its own PID", clock_on_its_own, Some(MAP), picture_and_sound),
    ("no clock", no_clock, Some(MAP), picture_and_sound),
    ("scrambled", scrambled, Some(MAP), size_unknown),
    ("network first", network_first_and_a_programme_that_never_comes, Some(MAP), picture_and_sound),
    ("five programmes", five_programmes_on_one_pid, Some(MAP), picture_and_sound),
    ("long PMT", a_map_of_three_packets, Some(MAP), picture_and_sound),
    ("new versions", a_new_version_each_second, Some(MAP), picture_and_sound),
    ("twice", everything_twice, Some(MAP), picture_and_sound),
    ("broken", broken_now_and_then, Some(MAP), picture_and_sound),
    ("LATM", latm_alone, Some(MAP), || sound("AAC")),
    ("AC-3", ac3_alone, Some(MAP), || sound("AC-3")),
    ("MP2", mp2_alone, Some(MAP), || sound("MPEG audio")),
    ("teletext", teletext_alone, Some(MAP), || json!({"video": null, "audio": [], "text": ["teletext"]})),
    ("unknown video", video_of_an_unknown_coding, Some(MAP), || sound("AAC")),
    ("other PIDs", other_pids_in_mid_stream, Some(MAP), picture_and_sound),
    ("late sound", sound_that_comes_later_under_the_same_version, Some(MAP), picture_and_sound),
    ("sets once", parameter_sets_once_at_the_start, Some(MAP), picture_and_sound),
    ("stuffing first", stuffing_before_the_first_picture, Some(MAP), picture_and_sound),
    ("keyframes all over", a_keyframe_said_of_every_picture, Some(MAP), picture_and_sound),
];

fn content(dress: Dress) -> Content {
    Content::live(ID, INFOHASH, Media::Clip).delivery(whole_in_time()).dress(dress)
}

fn check((name, dress, map, media): Case) {
    let engine = engine_with(content(dress));
    let proxy = Proxy::start_with(&[&engine], |config| {
        config.stream.stall_timeout = Duration::from_secs(3);
        config.stream.recover_timeout = LONG;
    });
    let mut first = Watcher::open(&proxy);
    first.take_for(WATCHED);
    let mut joiner = Watcher::open(&proxy);
    while joiner.first_time.is_none() || joiner.pids.len() < 4 {
        joiner.take();
    }
    let behind = first.last_time.zip(joiner.first_time).map(|(last, first)| last - first);
    assert!(behind.is_some_and(|behind| behind < NEAR), "{name}: the joiner is {behind:?} behind");
    if let Some(map) = map {
        assert_eq!(joiner.pids[..2], [0, map], "{name}: tables come first");
    }
    let session = proxy.session(ID);
    assert_eq!(
        (&session["state"], &session["restarts"]),
        (&"active".into(), &0.into()),
        "{name}: {session:#}"
    );
    assert_eq!(session["media"], media(), "{name}");
    let missing = session["picture_missing_s"].as_f64();
    assert!(missing.is_none_or(|seconds| seconds < 2.0), "{name}: {session:#}");
    drop((first, joiner));
    proxy.wait_gone(ID);
    assert_all_stopped(&engine, 1);
}

#[test]
fn every_dress_plays_and_its_joiners_begin_near_the_live_edge() {
    in_parallel(CASES.len(), |number| check(CASES[number]));
}

#[test]
fn packets_of_another_length_are_named() {
    for (dress, length) in [(of_192_bytes as Dress, "192"), (of_204_bytes, "204")] {
        let engine = engine_with(content(dress));
        let proxy = Proxy::start(&[&engine]);
        let mut reply = proxy.get(&stream_path(ID));
        let json = reply.json();
        let detail = json["detail"].as_str().expect("a sentence");
        assert!(reply.status == 502 && detail.contains(length), "{json}");
        proxy.wait_gone(ID);
        assert_all_stopped(&engine, 1);
    }
}
