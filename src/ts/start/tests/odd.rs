//! Streams that put their pictures elsewhere, or say so in another way.

use super::*;

/// PES packets, each of these pictures.
fn groups(count: usize, pictures: &[&[u8]]) -> Vec<u8> {
    let filling = [0xAA; 150];
    let content: Vec<_> = pictures.iter().flat_map(|picture| [*picture, &filling[..]].concat()).collect();
    let mut counter = 0;
    let pes = |_| {
        let pes = Build::new(VIDEO, counter).pes(0xE0, &content);
        counter += pes.len() / PACKET_BYTES;
        pes
    };
    (0..count).flat_map(pes).collect()
}

#[test]
fn a_keyframe_behind_other_pictures_of_its_pes_packet_is_found_after_a_while() {
    let tables = tables(&[(H264, VIDEO), (0x0F, AUDIO)]);
    let found = starts(&tables, &groups(150, &[P_SLICE, P_SLICE, &[AUD, SPS, PPS, IDR].concat()]));
    let keyframes: Vec<_> = found.iter().filter(|start| start.kind == KEY).collect();
    assert_eq!((found.len() - keyframes.len(), keyframes.len()), (150, 51));
    assert!(
        keyframes.iter().all(|key| found.contains(&Start { kind: PES, ..**key })),
        "where its packet begins"
    );
    // Pictures without any stay without.
    let none = starts(&tables, &groups(150, &[P_SLICE, I_SLICE, P_SLICE]));
    assert!(none.len() == 150 && none.iter().all(|start| start.kind == PES));
    // One at the begin is found at once, however the rest of its packet looks.
    let first = starts(&tables, &groups(3, &[IDR, P_SLICE, P_SLICE]));
    assert_eq!(first.iter().map(|start| start.kind).collect::<Vec<_>>(), [KEY; 3]);
}

#[test]
fn a_pes_packet_that_never_ends_shows_its_keyframes_too() {
    let tables = tables(&[(H264, VIDEO)]);
    let mut stream = groups(120, &[P_SLICE]);
    let mut unit = [P_SLICE, &[0xAA; 100_000]].concat();
    unit.extend([AUD, SPS, PPS, IDR].concat());
    stream.extend(Build::new(VIDEO, stream.len() / PACKET_BYTES).pes(0xE0, &unit));
    let found = starts(&tables, &stream);
    assert_eq!(found.last().map(|start| start.kind), Some(KEY), "behind 100 kB");
}

#[test]
fn a_picture_that_spans_pes_packets_is_a_keyframe_where_it_begins() {
    let tables = tables(&[(H264, VIDEO)]);
    let key = [AUD, SPS, PPS, IDR].concat();
    let second = Build::new(VIDEO, 1).pes(0xE0, &[0xAA; 100]);
    let later_slice = Build::new(VIDEO, 2).pes(0xE0, &[0, 0, 1, 0x65, 0x04, 0x62]);
    let stream = [Build::new(VIDEO, 0).pes(0xE0, &key), second, later_slice].concat();
    assert_eq!(starts(&tables, &stream), [found(0, KEY), found(1, PES), found(2, PES)]);
    // Without delimiters, and with parameter sets only at the very begin.
    let bare = [Build::new(VIDEO, 0).pes(0xE0, IDR), Build::new(VIDEO, 1).pes(0xE0, P_SLICE)];
    assert_eq!(starts(&tables, &bare.concat()), [found(0, KEY), found(1, PES)]);
}

#[test]
fn packets_that_are_sent_twice_count_once() {
    let tables = tables(&[(H264, VIDEO), (0x0F, AUDIO)]);
    let behind_sei = [AUD, SPS, PPS, &[0, 0, 1, 0x06, 0x05, 0xFF, 0xFF, 0x10], &[0xAA; 526], IDR].concat();
    let plain = [
        Build::new(VIDEO, 0).pes_at(0xE0, 90_000, &behind_sei),
        Build::new(AUDIO, 0).pes_at(0xC0, 90_000, &[0xAA; 300]),
        Build::new(VIDEO, 4).pes_at(0xE0, 93_600, P_SLICE),
    ]
    .concat();
    let expected = starts(&tables, &plain);
    assert_eq!(expected.iter().filter(|start| start.kind == KEY).count(), 1, "{expected:?}");
    let twice: Vec<_> = plain.chunks(PACKET_BYTES).flat_map(|packet| packet.repeat(2)).collect();
    let found: Vec<_> = starts(&tables, &twice)
        .into_iter()
        .map(|start| Start { packet: start.packet / 2, ..start })
        .collect();
    assert_eq!(found, expected);
}

/// A PMT of one stream with these descriptors, on a PID where ATSC has its base tables.
fn described(stream_type: u8, descriptors: &[u8]) -> PsiCache {
    let [network, map] = [Pid::new(0x10), Pid::new(0x1FFB)];
    let mut body = vec![0xE1, 0x00, 0xF0, 0x00, stream_type, 0xE1, 0x00, 0xF0, descriptors.len() as u8];
    body.extend(descriptors);
    let mut tables = PsiCache::new();
    let bytes = [
        packetise(Pid::PAT, 0, &[pat(0, (0, 0), &[(0, network), (1, map)])]),
        packetise(map, 0, &[super::super::super::fixture::section(0x02, 1, 0, (0, 0), &body)]),
    ];
    packets(&bytes.concat()).for_each(|packet| tables.observe(&packet));
    tables
}

#[test]
fn video_that_only_descriptors_tell_of_decides() {
    let hevc = [5, 4, b'H', b'E', b'V', b'C'];
    let cra = Build::new(VIDEO, 0).pes(0xE0, &[0, 0, 1, 21 << 1, 0x01, 0xAF, 0x78]);
    let other = Build::new(VIDEO, 1).pes(0xE0, &[0, 0, 1, 0x02, 0x01, 0xD0, 0x78]);
    for stream_type in [0x06, 0x27] {
        let found = starts(&described(stream_type, &hevc), &[cra.clone(), other.clone()].concat());
        assert_eq!(found, [super::found(0, KEY), super::found(1, PES)]);
    }
    let sound = starts(&described(0x06, &[0x6A, 1, 0]), &[cra, other].concat());
    assert_eq!(sound, [found(0, KEY), found(1, KEY)], "of sound every packet is a place to start");
}
