use proptest::prelude::*;

use super::super::fixture::{Build, packetise, pat, pes_head, pmt, tables};
use super::super::packet::{PACKET_BYTES, packets};
use super::*;

mod codecs;
mod odd;
mod stand_in;

const KEY: StartKind = StartKind::Keyframe;
const PES: StartKind = StartKind::Pes;

const VIDEO: Pid = Pid::new(0x0100);
const AUDIO: Pid = Pid::new(0x0101);
const PMT: Pid = Pid::new(0x1000);

const MPEG2: u8 = 0x02;
const H264: u8 = 0x1B;
const HEVC: u8 = 0x24;

// Heads of H.264 NAL units behind a start code.
const AUD: &[u8] = &[0, 0, 0, 1, 0x09, 0xF0];
const SPS: &[u8] = &[0, 0, 0, 1, 0x67, 0x64, 0x00, 0x1F, 0xAC, 0xD9, 0x40];
const PPS: &[u8] = &[0, 0, 1, 0x68, 0xEB, 0xE3, 0xCB];
const IDR: &[u8] = &[0, 0, 1, 0x65, 0x88, 0x84, 0x00, 0x33];
const I_SLICE: &[u8] = &[0, 0, 1, 0x41, 0xB0, 0x12, 0x34];
const ALL_I_SLICE: &[u8] = &[0, 0, 1, 0x01, 0x88, 0x80];
const P_SLICE: &[u8] = &[0, 0, 1, 0x41, 0x9A, 0x21, 0x6C];
const RECOVERY: &[u8] = &[0, 0, 1, 0x06, 0x06, 0x01, 0xC4, 0x80];

fn found(packet: u64, kind: StartKind) -> Start {
    Start { packet, kind }
}

/// What is found in these bytes by tables that do not change.
fn starts(tables: &PsiCache, bytes: &[u8]) -> Vec<Start> {
    let mut finder = StartFinder::new();
    (0..).zip(packets(bytes)).filter_map(|(number, packet)| finder.observe(number, &packet, tables)).collect()
}

/// A unit in packets, one for each part.
fn in_parts<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for (counter, part) in parts.enumerate() {
        let build = Build::new(VIDEO, counter);
        out.extend(if counter == 0 { build.starts_unit() } else { build }.payload(part));
    }
    out
}

/// A PES packet of each PID, the first with a keyframe.
fn video_and_audio() -> Vec<u8> {
    let video = |counter| Build::new(VIDEO, counter);
    let audio = |counter| Build::new(AUDIO, counter);
    [
        video(0).payload(IDR).to_vec(),
        video(1).pes(0xE0, &[AUD, SPS, PPS, IDR, &[0xAA; 400]].concat()),
        audio(0).pes(0xC0, &[0xAA; 200]),
        video(4).pes(0xE0, P_SLICE),
        audio(2).random_access().pes(0xC0, &[0xAA; 20]),
    ]
    .concat()
}

#[test]
fn the_video_of_the_first_programme_with_one_decides() {
    let expected = [found(1, KEY), found(6, PES)];
    for streams in [[(H264, VIDEO), (0x0F, AUDIO)], [(0x0F, AUDIO), (H264, VIDEO)]] {
        assert_eq!(starts(&tables(&streams), &video_and_audio()), expected);
    }
    let mut two = PsiCache::new();
    let pids = [PMT, Pid::new(0x1001)];
    let bytes = [
        packetise(Pid::PAT, 0, &[pat(0, (0, 0), &[(1, pids[0]), (2, pids[1])])]),
        packetise(pids[0], 0, &[pmt(1, 0, AUDIO, &[(0x0F, AUDIO)], 0)]),
        packetise(pids[1], 0, &[pmt(2, 0, VIDEO, &[(H264, VIDEO), (H264, Pid::new(0x0102))], 0)]),
    ];
    packets(&bytes.concat()).for_each(|packet| {
        two.observe(&packet);
    });
    assert_eq!(starts(&two, &video_and_audio()), expected);
}

#[test]
fn every_pes_packet_of_a_programme_without_video_is_a_keyframe() {
    let expected = [found(4, KEY), found(7, KEY)];
    for stream_type in [0x0F, 0x03, 0x81, 0x06] {
        assert_eq!(starts(&tables(&[(stream_type, AUDIO)]), &video_and_audio()), expected);
    }
}

#[test]
fn without_tables_the_random_access_indicator_decides() {
    let tables = PsiCache::new();
    let pes = |packet| found(packet, PES);
    assert_eq!(starts(&tables, &video_and_audio()), [pes(1), pes(4), pes(6), found(7, KEY)]);
    let no_stream = [
        Build::new(Pid::PAT, 0).random_access().pes(0xE0, IDR),
        Build::new(Pid::new(0x11), 0).random_access().pes(0xE0, IDR),
        Build::new(Pid::NULL, 0).random_access().pes(0xE0, IDR),
        Build::new(VIDEO, 0).starts_unit().payload(&[0, 2, 0xB0, 0x12]).to_vec(),
        Build::new(VIDEO, 1).starts_unit().payload(&[0, 0, 1, 0xB3]).to_vec(),
        Build::new(VIDEO, 1).starts_unit().random_access().payload(&[]).to_vec(),
    ];
    assert_eq!(starts(&tables, &no_stream.concat()), []);
}

#[test]
fn what_cannot_be_read_is_believed_by_its_random_access_indicator() {
    let build = |counter| Build::new(VIDEO, counter);
    let scrambled = [
        build(0).scrambled().random_access().starts_unit().payload(&[0xAA; 170]).to_vec(),
        build(1).scrambled().pes(0xE0, IDR),
        build(2).random_access().pes(0xE0, P_SLICE),
    ];
    assert_eq!(
        starts(&tables(&[(H264, VIDEO)]), &scrambled.concat()),
        [found(0, KEY), found(1, PES), found(2, PES)]
    );
    let open = [build(0).random_access().pes(0xE0, P_SLICE), build(1).pes(0xE0, IDR)];
    for unknown in [0x10, 0x33, 0x42, 0xEA] {
        assert_eq!(starts(&tables(&[(unknown, VIDEO)]), &open.concat()), [found(0, KEY), found(1, PES)]);
    }
    // Scrambled inside the PES packet.
    let mut inside = build(0).random_access().pes(0xE0, IDR);
    let flags = inside.len() - IDR.len() - 8;
    inside[flags] |= 0x10;
    assert_eq!(starts(&tables(&[(H264, VIDEO)]), &inside), [found(0, KEY)]);
}

#[test]
fn a_pes_packet_without_any_slice_is_settled_by_the_next() {
    let build = |counter| Build::new(VIDEO, counter);
    let tables = tables(&[(H264, VIDEO)]);
    let marked = [build(0).random_access().pes(0xE0, &[0xAA; 100]), build(1).pes(0xE0, P_SLICE)];
    assert_eq!(starts(&tables, &marked.concat()), [found(0, PES), found(0, KEY)]);
    let unmarked = [build(0).pes(0xE0, &[0xAA; 100]), build(1).pes(0xE0, P_SLICE)];
    assert_eq!(starts(&tables, &unmarked.concat()), [found(0, PES), found(1, PES)]);
    // Or after 64 KiB.
    let endless = build(0).random_access().pes(0xE0, &[0xAA; 70_000]);
    assert_eq!(starts(&tables, &endless), [found(0, PES), found(0, KEY)]);
}

#[test]
fn nothing_is_made_of_a_pes_packet_with_a_gap() {
    let unit = [&pes_head(0xE0)[..], AUD, SPS, PPS, IDR].concat();
    let whole = in_parts(unit.chunks(5));
    let tables = tables(&[(H264, VIDEO)]);
    let count = whole.len() / PACKET_BYTES;
    assert_eq!(starts(&tables, &whole).len(), 2);
    for lost in 1..count - 1 {
        let mut torn = whole.clone();
        torn.drain(lost * PACKET_BYTES..(lost + 1) * PACKET_BYTES);
        assert_eq!(starts(&tables, &torn), [found(0, PES)], "packet {lost} lost");
        let mut broken = whole.clone();
        broken[lost * PACKET_BYTES + 1] |= 0x80;
        assert_eq!(starts(&tables, &broken), [found(0, PES)], "packet {lost} broken");
        let mut scrambled = whole.clone();
        scrambled[lost * PACKET_BYTES + 3] |= 0x80;
        assert_eq!(starts(&tables, &scrambled), [found(0, PES)], "packet {lost} scrambled");
        // A packet of another PID, and one without a payload, are no gap.
        let mut filled = whole.clone();
        let between = [Build::new(AUDIO, 3).payload(IDR), Build::new(VIDEO, lost - 1).pcr(9).payload(&[])];
        filled.splice(lost * PACKET_BYTES..lost * PACKET_BYTES, between.concat());
        assert_eq!(starts(&tables, &filled).len(), 2, "packets before {lost}");
    }
}

#[test]
fn a_packet_known_to_be_broken_starts_nothing() {
    let mut broken = Build::new(VIDEO, 0).random_access().pes(0xE0, IDR);
    broken[1] |= 0x80;
    for tables in [PsiCache::new(), tables(&[(H264, VIDEO)]), tables(&[(0x0F, VIDEO)])] {
        assert_eq!(starts(&tables, &broken), []);
    }
}

#[test]
fn a_new_table_moves_the_search_at_once() {
    let moved = Pid::new(0x0200);
    let key = [AUD, SPS, PPS, IDR, &[0xAA; 300]].concat();
    let open = [&pes_head(0xE0)[..], AUD].concat();
    let bytes = [
        packetise(Pid::PAT, 0, &[pat(0, (0, 0), &[(1, PMT)])]),
        packetise(PMT, 0, &[pmt(1, 0, VIDEO, &[(H264, VIDEO)], 0)]),
        Build::new(VIDEO, 0).pes(0xE0, &key),
        Build::new(moved, 0).pes(0xE0, &key),
        Build::new(VIDEO, 3).starts_unit().payload(&open).to_vec(),
        packetise(PMT, 1, &[pmt(1, 1, moved, &[(H264, moved)], 0)]),
        Build::new(VIDEO, 4).payload(IDR).to_vec(),
        Build::new(VIDEO, 5).pes(0xE0, &key),
        Build::new(moved, 3).pes(0xE0, &key),
    ]
    .concat();
    let mut tables = PsiCache::new();
    let mut finder = StartFinder::new();
    let mut starts = Vec::new();
    for (number, packet) in (0..).zip(packets(&bytes)) {
        tables.observe(&packet);
        starts.extend(finder.observe(number, &packet, &tables));
    }
    assert_eq!(starts, [found(2, KEY), found(6, PES), found(11, KEY)]);
}

#[test]
fn after_a_gap_nothing_is_left_of_what_came_before() {
    let tables = tables(&[(H264, VIDEO)]);
    let mut finder = StartFinder::new();
    let begun = Build::new(VIDEO, 0).starts_unit().payload(&[&pes_head(0xE0)[..], AUD].concat());
    assert!(finder.observe(0, &Packet::new(&begun), &tables).is_some());
    finder.clear();
    let rest = Build::new(VIDEO, 1).payload(IDR);
    assert_eq!(finder.observe(1, &Packet::new(&rest), &tables), None);
}

#[test]
fn the_state_is_small() {
    assert!(size_of::<StartFinder>() <= 96, "{} bytes", size_of::<StartFinder>());
}

/// Numbers from `ffprobe -select_streams v -show_entries packet=flags,pos src/sim/clip.ts`: the positions of
/// the packets with the flag K, divided by 188.
#[test]
fn the_keyframes_of_a_real_clip_are_those_that_ffprobe_sees() {
    let clip = include_bytes!("../../sim/clip.ts");
    let mut tables = PsiCache::new();
    let mut finder = StartFinder::new();
    let mut keyframes = Vec::new();
    let mut others = 0;
    for (number, packet) in (0..).zip(packets(clip)) {
        tables.observe(&packet);
        match finder.observe(number, &packet, &tables) {
            Some(Start { packet, kind: KEY }) => keyframes.push(packet),
            Some(_) => others += 1,
            None => {}
        }
    }
    assert_eq!(keyframes, [3, 285, 623, 966, 1315, 1641, 1964, 2312]);
    assert_eq!(others, 192);
}

/// Bytes of which start codes, heads and lengths are made often.
fn telling_bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let telling =
        prop::sample::select(vec![0, 0, 0, 1, 1, 3, 5, 6, 0x2A, 0x41, 0x65, 0x88, 0xB3, 0xE0, 0xFF]);
    prop::collection::vec(telling, 1..=most)
}

proptest! {
    #[test]
    fn garbage_neither_panics_nor_is_reported_out_of_order(
        stream_type in prop::sample::select(vec![0x02, 0x0F, 0x10, 0x1B, 0x24]),
        bodies in prop::collection::vec((telling_bytes(170), 0..8u8, any::<u8>()), 0..60),
    ) {
        let tables = tables(&[(stream_type, VIDEO)]);
        let mut finder = StartFinder::new();
        let mut last = 0;
        for (number, (body, form, flags)) in (0..).zip(bodies) {
            let build = Build::new(VIDEO, number as usize);
            let mut bytes = match form {
                0 | 1 => build.starts_unit().payload(&[&pes_head(0xE0)[..], &body].concat()),
                2 => build.starts_unit().payload(&body),
                _ => build.payload(&body),
            };
            if form == 7 {
                [1, 3, 4, 5].into_iter().for_each(|at| bytes[at] ^= flags);
            }
            if let Some(start) = finder.observe(number, &Packet::new(&bytes), &tables) {
                prop_assert!((last..=number).contains(&start.packet));
                prop_assert!(start.kind == KEY || start.packet == number);
                last = start.packet;
            }
        }
    }

    #[test]
    fn the_answer_does_not_hang_on_how_a_unit_is_split(
        stream_type in prop::sample::select(vec![MPEG2, H264, HEVC]),
        content in telling_bytes(160),
        cuts in prop::collection::vec(1..40usize, 1..20),
    ) {
        let tables = tables(&[(stream_type, VIDEO)]);
        let unit = [&pes_head(0xE0)[..], &content].concat();
        let is_key = |bytes: &[u8]| starts(&tables, bytes).iter().any(|start| start.kind == KEY);
        let mut rest = &unit[..];
        let parts = cuts.iter().chain(std::iter::repeat(&40)).map_while(|&cut| {
            let (part, behind) = rest.split_at(cut.min(rest.len()));
            rest = behind;
            (!part.is_empty()).then_some(part)
        });
        prop_assert_eq!(is_key(&in_parts(parts)), is_key(&in_parts(unit.chunks(184))));
    }
}
