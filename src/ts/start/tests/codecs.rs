//! Which access units are keyframes.

use super::*;

/// An access unit in a PES packet must be known for what it is, split at every byte, and a byte a packet.
#[track_caller]
fn check(stream_type: u8, access_unit: &[&[u8]], expected: StartKind) {
    let tables = tables(&[(stream_type, VIDEO)]);
    let unit = [&pes_head(0xE0)[..], &access_unit.concat()].concat();
    let verdict = |packets: &[u8]| {
        let starts = starts(&tables, packets);
        assert!(starts.iter().all(|start| start.packet == 0), "{starts:?}");
        let kinds: Vec<_> = starts.iter().map(|start| start.kind).collect();
        assert!(kinds.len() == 1 || kinds == [PES, KEY], "{kinds:?}");
        kinds[kinds.len() - 1]
    };
    for at in 1..unit.len() {
        let split = in_parts([&unit[..at], &unit[at..]].into_iter());
        assert_eq!(verdict(&split), expected, "split at {at} of {}", unit.len());
    }
    assert_eq!(verdict(&in_parts(unit.chunks(1))), expected, "a byte a packet");
}

#[test]
fn an_h264_idr_picture_is_a_keyframe() {
    check(H264, &[IDR], KEY);
    check(H264, &[AUD, SPS, PPS, IDR], KEY);
    // Many zeros in front of a start code, and another nal_ref_idc.
    check(H264, &[AUD, &[0; 9], &[0, 0, 1, 0x25, 0xB8]], KEY);
    check(H264, &[AUD, P_SLICE], PES);
    // A second PES packet of the same picture begins with a later slice.
    check(H264, &[&[0, 0, 1, 0x65, 0x04, 0x62]], PES);
    // The first picture decides.
    check(H264, &[P_SLICE, AUD, SPS, PPS, IDR], PES);
}

#[test]
fn an_h264_recovery_point_with_an_i_slice_is_a_keyframe() {
    check(H264, &[AUD, SPS, PPS, RECOVERY, I_SLICE], KEY);
    check(H264, &[RECOVERY, ALL_I_SLICE], KEY);
    // Data partition A begins like a slice.
    check(H264, &[RECOVERY, &[0, 0, 1, 0x42, 0xB0]], KEY);
    check(H264, &[AUD, PPS, I_SLICE], PES);
    check(H264, &[AUD, SPS, PPS, RECOVERY, P_SLICE], PES);
    // first_mb_in_slice 1, then slice_type 2.
    check(H264, &[RECOVERY, &[0, 0, 1, 0x41, 0b0100_1100]], PES);
}

/// Open groups of pictures, as broadcast encoders make them: no IDR picture, and no SEI message either.
#[test]
fn parameter_sets_in_front_of_an_intra_picture_make_a_keyframe() {
    const HEVC_SPS: &[u8] = &[0, 0, 0, 1, 0x42, 0x01, 0x01, 0x01];
    check(H264, &[AUD, SPS, PPS, I_SLICE], KEY);
    check(H264, &[SPS, PPS, ALL_I_SLICE], KEY);
    check(H264, &[AUD, SPS, PPS, P_SLICE], PES);
    // first_mb_in_slice 1: the middle of a picture.
    check(H264, &[SPS, &[0, 0, 1, 0x41, 0b0100_1100]], PES);
    // Parameter set 0 to 3, then slice_type 0 to 2.
    for (set, bits, len) in [(0, 0b1, 1), (1, 0b010, 3), (2, 0b011, 3), (3, 0b00100, 5)] {
        for (slice_type, kind) in [(0b100, PES), (0b010, PES), (0b011, if set < 3 { KEY } else { PES })] {
            let after = 7 - len;
            let byte =
                0x80 | bits << after | if after >= 3 { slice_type << (after - 3) } else { slice_type >> 1 };
            check(HEVC, &[HEVC_SPS, &[0, 0, 1, 0x02, 0x01, byte, 0x78]], kind);
        }
    }
    check(HEVC, &[HEVC_SPS, &[0, 0, 1, 0x02, 0x01, 0b0101_1000]], PES);
}

#[test]
fn what_the_multiplexer_announces_is_one_if_it_begins_with_an_intra_picture() {
    let first = |stream_type, content: &[&[u8]]| {
        let tables = tables(&[(stream_type, VIDEO)]);
        let unit = Build::new(VIDEO, 0).random_access().pes(0xE0, &content.concat());
        starts(&tables, &unit)[0].kind
    };
    assert_eq!(first(H264, &[AUD, PPS, I_SLICE]), KEY);
    assert_eq!(first(H264, &[AUD, PPS, P_SLICE]), PES, "some set it on every picture");
    assert_eq!(first(HEVC, &[&[0, 0, 1, 0x02, 0x01, 0b1101_1000]]), KEY);
    assert_eq!(first(HEVC, &[&[0, 0, 1, 0x02, 0x01, 0b1101_0000]]), PES);
    assert_eq!(first(MPEG2, &[&[0, 0, 1, 0x00, 0, 0x0F, 0xFF, 0xF8]]), KEY);
    assert_eq!(first(MPEG2, &[&[0, 0, 1, 0x00, 0, 0x17, 0xFF, 0xF8]]), PES);
}

#[test]
fn h264_slice_types_are_read_bit_by_bit() {
    // ue(v) of 0 for first_mb_in_slice, then of slice_type 0 to 9, then ones.
    let slice_types = [0xFF, 0b1010_1111, 0b1011_1111, 0b1001_0011, 0b1001_0111, 0b1001_1011, 0b1001_1111];
    let slice_types = slice_types.into_iter().chain([0b1000_1000, 0b1000_1001, 0b1000_1010]);
    for (slice_type, byte) in slice_types.enumerate() {
        let kind = if matches!(slice_type, 2 | 7) { KEY } else { PES };
        check(H264, &[RECOVERY, &[0, 0, 1, 0x41, byte]], kind);
    }
}

#[test]
fn sei_messages_are_stepped_over_by_their_lengths() {
    let sei = |body: &[u8]| [&[0, 0, 1, 0x06][..], body, &[0x80]].concat();
    let recovery = [0x06, 0x01, 0xC4];
    // Behind buffering period and picture timing, in one unit.
    check(H264, &[&sei(&[&[0, 2, 9, 9, 1, 1, 6][..], &recovery].concat()), I_SLICE], KEY);
    // Behind 300 bytes of user data, whose length takes two bytes, and a type above 255.
    let long = [&[5, 255, 45][..], &[6; 300], &[255, 3, 0], &recovery].concat();
    let unit = [&pes_head(0xE0)[..], &sei(&long), I_SLICE].concat();
    let tables = tables(&[(H264, VIDEO)]);
    let expected = [found(0, PES), found(0, KEY)];
    assert_eq!(starts(&tables, &in_parts(unit.chunks(184))), expected);
    // A slip of 255 in that length would find a recovery point in the user data.
    let inside = [&[5, 255, 45][..], &[9; 45], &recovery, &[9; 252]].concat();
    let unit = [&pes_head(0xE0)[..], &sei(&inside), I_SLICE].concat();
    assert_eq!(starts(&tables, &in_parts(unit.chunks(184))), [found(0, PES)]);
    // The same with the number only inside.
    check(H264, &[&sei(&[&[5, 6][..], &[6; 6]].concat()), I_SLICE], PES);
    check(H264, &[&sei(&[255, 6, 1, 6]), I_SLICE], PES);
    // The next unit does not continue the message.
    check(H264, &[&[0, 0, 1, 0x06, 5, 200, 7], PPS, RECOVERY, I_SLICE], KEY);
}

#[test]
fn emulation_prevention_bytes_do_not_count() {
    // Four bytes of user data, 00 00 01 07, take five; so does 00 00 00 09.
    for user_data in [[0, 0, 3, 1, 7], [0, 0, 3, 0, 9]] {
        let sei = [&[0, 0, 1, 0x06, 5, 4][..], &user_data, &[0x06, 0x01, 0xC4, 0x80]].concat();
        check(H264, &[&sei, I_SLICE], KEY);
    }
    // Where two are inserted and one is payload: the 6 is the last byte of the message.
    let sei = [0, 0, 1, 0x06, 5, 6, 0, 0, 3, 0, 0, 3, 3, 6, 0x80];
    check(H264, &[&sei, I_SLICE], PES);
}

#[test]
fn an_hevc_picture_with_random_access_is_a_keyframe() {
    const AUD: &[u8] = &[0, 0, 0, 1, 0x46, 0x01, 0x50];
    const VPS: &[u8] = &[0, 0, 0, 1, 0x40, 0x01, 0x0C, 0x01];
    const SEI: &[u8] = &[0, 0, 1, 0x4E, 0x01, 0x05, 0x02, 0xAA, 0xAA, 0x80];
    for unit_type in 0..32 {
        let slice = [0, 0, 1, unit_type << 1, 0x01, 0xAF, 0x78];
        let kind = if (16..=21).contains(&unit_type) { KEY } else { PES };
        check(HEVC, &[&slice], kind);
        check(HEVC, &[AUD, VPS, SEI, &slice], kind);
    }
    // A later slice segment of a CRA picture; one of a layer above the base, of which only the base counts.
    check(HEVC, &[&[0, 0, 1, 21 << 1, 0x01, 0x2F]], PES);
    check(HEVC, &[&[0, 0, 1, 21 << 1, 0x09, 0xAF]], PES);
    check(HEVC, &[&[0, 0, 1, 21 << 1 | 1, 0x01, 0xAF]], PES);
    check(HEVC, &[&[0, 0, 1, 0x02, 0x09, 0xAF], &[0, 0, 1, 21 << 1, 0x01, 0xAF]], KEY);
}

#[test]
fn an_mpeg2_i_picture_behind_a_sequence_header_is_a_keyframe() {
    const SEQUENCE: &[u8] = &[0, 0, 1, 0xB3, 0x2D, 0x02, 0x40, 0x33, 0x24, 0x9F, 0x23, 0x81];
    const GOP: &[u8] = &[0, 0, 1, 0xB8, 0x00, 0x08, 0x00, 0x40];
    const END_OF_SLICE: &[u8] = &[0, 0, 1, 0x13, 0x1A, 0xF0];
    let picture = |coding_type: u8, reference: u16| {
        [0, 0, 1, 0x00, (reference >> 2) as u8, (reference << 6) as u8 | coding_type << 3 | 7, 0xFF, 0xF8]
    };
    for stream_type in [0x01, MPEG2] {
        for reference in [0, 1, 2, 7, 1023] {
            let intra = picture(1, reference);
            check(stream_type, &[SEQUENCE, GOP, &intra], KEY);
            check(stream_type, &[END_OF_SLICE, SEQUENCE, GOP, &intra], KEY);
            check(stream_type, &[GOP, &intra], PES);
            check(stream_type, &[SEQUENCE, GOP, &picture(2, reference)], PES);
            check(stream_type, &[&picture(3, reference), SEQUENCE, &intra], PES);
        }
    }
}
