use proptest::prelude::*;

use super::*;

// As encoders write them; what they say is what ffprobe says.

/// x264, interlaced, so in pairs of fields, with eight lines cut off.
const H264_1080I: &[u8] = &[
    0x67, 0x4D, 0x40, 0x28, 0xF4, 0x03, 0xC0, 0x22, 0x7E, 0xF0, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00,
    0x00, 0x03, 0x00, 0x32, 0x1F, 0x16, 0x2E, 0xA0,
];
/// x264, baseline.
const H264_720P: &[u8] = &[
    0x67, 0x42, 0xC0, 0x20, 0xDA, 0x01, 0x40, 0x16, 0xEC, 0x04, 0x40, 0x00, 0x00, 0xFA, 0x40, 0x00, 0x75,
    0x30, 0x03, 0xC6, 0x0C, 0xA8,
];
/// x264, high 4:2:2, ten columns cut off.
const H264_480P: &[u8] = &[
    0x67, 0x7A, 0x00, 0x1F, 0xB6, 0xCB, 0x40, 0x6C, 0x1E, 0xF3, 0x78, 0x08, 0x80, 0x00, 0x00, 0x03, 0x00,
    0x80, 0x00, 0x00, 0x1E, 0x07, 0x8C, 0x19, 0x50,
];
/// x265, main 10, eight lines cut off.
const HEVC_1080P: &[u8] = &[
    0x42, 0x01, 0x01, 0x02, 0x20, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00,
    0x7B, 0xA0, 0x03, 0xC0, 0x80, 0x11, 0x07, 0xCA, 0xD9, 0x65, 0x65, 0x4A, 0x4C, 0x2F, 0x01, 0x68, 0x08,
    0x00, 0x00, 0x03, 0x00, 0x08, 0x00, 0x00, 0x03, 0x01, 0x90, 0x40,
];
const MPEG2_576: &[u8] = &[
    0x2D, 0x02, 0x40, 0x13, 0xFF, 0xFF, 0xE0, 0x18, 0x00, 0x00, 0x01, 0xB5, 0x14, 0x8A, 0x00, 0x01, 0x00,
    0x00,
];

#[track_caller]
fn check(found: Option<PictureFormat>, width: u32, height: u32, rate: Option<f64>) {
    let found = found.expect("a format");
    assert_eq!((found.width, found.height), (width, height));
    assert_eq!(found.frames_per_second(), rate);
}

#[test]
fn sets_of_encoders_say_what_they_should() {
    check(h264(H264_1080I), 1920, 1080, Some(25.0));
    check(h264(H264_720P), 1280, 720, Some(60_000.0 / 1001.0));
    check(h264(H264_480P), 854, 480, Some(30.0));
    check(hevc(HEVC_1080P), 1920, 1080, None);
    check(mpeg2(MPEG2_576), 720, 576, Some(25.0));
    check(mpeg2(&MPEG2_576[..8]), 720, 576, Some(25.0));
    // 4096 lines more, by the extension; a rate that is none.
    let mut large = MPEG2_576.to_vec();
    (large[3], large[14]) = (0x10, large[14] | 0x20);
    check(mpeg2(&large), 720, 576 + 4096, None);
}

#[test]
fn scaling_lists_and_the_second_kind_of_order_are_stepped_over() {
    // High profile, bits from there on: set 0, 4:2:0, 8 and 8 bits, no bypass, lists: the first falls to zero at once, the
    // others are absent; then the order of kind 1 with two offsets; 2 frames; 40 by 30 units, frames alone; no cropping.
    let fields = "1 010 1 1 0 1 1 000010001 0000000 1 010 0 1 1 011 1 1 011 0 \
                  00000101000 000011110 1 1 0 0 1";
    let bits: Vec<_> = fields.bytes().filter(|byte| *byte != b' ').map(|byte| byte - b'0').collect();
    let mut unit = vec![0x67, 100, 0, 30];
    unit.extend(
        bits.chunks(8)
            .map(|eight| eight.iter().enumerate().fold(0, |byte, (at, bit)| byte | bit << (7 - at))),
    );
    check(h264(&unit), 640, 480, None);
}

#[test]
fn a_set_that_ends_too_soon_says_nothing_or_the_same() {
    type Read = fn(&[u8]) -> Option<PictureFormat>;
    for (read, set) in [(h264 as Read, H264_1080I), (h264, H264_480P), (hevc, HEVC_1080P), (mpeg2, MPEG2_576)]
    {
        let whole = read(set).expect("a format");
        for bytes in 0..set.len() {
            let part = read(&set[..bytes]);
            assert!(
                part.is_none_or(|part| (part.width, part.height) == (whole.width, whole.height)),
                "{bytes}: {part:?}"
            );
        }
        assert_eq!(read(&[]), None);
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_read_to_an_end(mut bytes in prop::collection::vec(any::<u8>(), 0..200), high in any::<bool>()) {
        if high && bytes.len() > 1 {
            bytes[1] = 100;
        }
        for found in [h264(&bytes), hevc(&bytes), mpeg2(&bytes)].into_iter().flatten() {
            prop_assert!((1..=MAX_SIDE).contains(&found.width) && (1..=MAX_SIDE).contains(&found.height));
            prop_assert!(found.frames_per_second().is_none_or(|rate| rate.is_finite() && rate > 0.0));
        }
    }

    #[test]
    fn damage_is_no_panic(set in prop::sample::select(vec![H264_1080I, H264_480P, HEVC_1080P, MPEG2_576]),
                          flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut set = set.to_vec();
        for (at, byte) in flips {
            let at = at.index(set.len());
            set[at] ^= byte;
        }
        for found in [h264(&set), hevc(&set), mpeg2(&set)].into_iter().flatten() {
            prop_assert!(found.width > 0 && found.height > 0);
        }
    }
}
