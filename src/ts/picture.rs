//! With what picture an elementary stream goes on: one that can be decoded by itself, or another.
//!
//! A state machine over single bytes, so that a start code, a NAL unit's head or a length in an SEI message
//! may be split anywhere, and that a few bytes of state are all it holds. It stops at the first coded slice
//! (or MPEG-2 picture header): the packets behind it need not be looked at.
//!
//! It reads just so much of a slice as says that it is the first of its picture, and of which type. Whether
//! the rest can be decoded it does not know.

use super::pmt::VideoCodec;

/// Bytes after which the search for a slice is given up. Parameter sets and SEI messages in front of a slice
/// rarely exceed 2 KiB; a bounded PES packet has 64 KiB (ISO/IEC 13818-1 clause 2.4.3.7, `PES_packet_length`).
const LOOK_BYTES: u32 = 64 * 1024;

/// `payloadType` of a recovery point SEI message (H.264 clause D.1.1).
const RECOVERY_POINT: u32 = 6;

/// `nal_unit_type` of sequence parameter sets (H.264 table 7-1, H.265 table 7-1).
const H264_SPS: u8 = 7;
const HEVC_SPS: u8 = 33;

/// `sequence_header_code` without its prefix (H.262 table 6-1).
const SEQUENCE_HEADER: u8 = 0xB3;

/// What picture comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Picture {
    /// One that a decoder may start with.
    Key,
    /// One that refers to others, or the middle of one.
    Other,
    /// No slice in so many bytes.
    Unreadable,
}

/// Reads the begin of an elementary stream's access unit.
#[derive(Debug)]
pub(super) struct PictureFinder {
    codec: VideoCodec,
    unit: Unit,
    /// Zero bytes in a row just before, up to two.
    zeros: u8,
    /// Something says that a decoder may start here, if the picture is an intra picture: the multiplexer, a sequence
    /// parameter set or a recovery point SEI message (H.264), a sequence header (MPEG-2). Broadcast encoders often send
    /// open groups of pictures without any IDR picture, and repeat their parameter sets just there.
    announced: bool,
    looked_bytes: u32,
}

/// Where in a NAL unit, or behind an MPEG-2 start code, the next byte belongs.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// Before the first start code, or in a unit that says nothing here.
    Skipped,
    /// Right behind a start code.
    Head,
    /// H.264: `first_mb_in_slice` and `slice_type`.
    Slice(SliceOf),
    /// H.264: `payloadType` so far (clause 7.3.2.3.1).
    SeiType(u32),
    /// H.264: `payloadSize` so far.
    SeiSize(u32),
    /// H.264: bytes of the message that are left, at least one.
    SeiBody(u32),
    /// HEVC: second byte of the head of this type and upper bit of its layer (clause 7.3.1.2).
    HevcHead { unit_type: u8, layer_bit: u8 },
    /// HEVC: `first_slice_segment_in_pic_flag` (clause 7.3.6.1).
    HevcSlice { unit_type: u8 },
    /// MPEG-2: upper byte of `temporal_reference` (H.262 clause 6.2.3).
    PictureHead,
    /// MPEG-2: its rest and `picture_coding_type`.
    PictureType,
}

/// Of what picture an H.264 slice is.
#[derive(Debug, Clone, Copy)]
enum SliceOf {
    Idr,
    NonIdr,
}

impl PictureFinder {
    /// At the begin of a PES packet's content, which the multiplexer may have announced as a place to start.
    pub(super) const fn new(codec: VideoCodec, announced: bool) -> Self {
        Self { codec, unit: Unit::Skipped, zeros: 0, announced, looked_bytes: 0 }
    }

    /// Goes on behind a picture that was another: with the next one in the same PES packet.
    pub(super) fn go_on(&mut self) {
        *self = Self { zeros: self.zeros, ..Self::new(self.codec, false) };
    }

    /// Takes the next byte; gives an answer once. What comes after it means nothing, unless the search goes on.
    pub(super) fn push(&mut self, byte: u8) -> Option<Picture> {
        self.looked_bytes += 1;
        if self.zeros == 2 && byte == 1 {
            self.unit = Unit::Head;
            self.zeros = 0;
            return None;
        }
        // emulation_prevention_three_byte (H.264 clause 7.3.1, H.265 clause 7.3.1.1). MPEG-2 has none, but
        // neither does a 3 behind two zeros mean anything in the few bytes that are read there.
        let is_inserted = self.zeros == 2 && byte == 3;
        self.zeros = if byte == 0 { (self.zeros + 1).min(2) } else { 0 };
        let picture = if is_inserted { None } else { self.take(byte) };
        picture.or_else(|| (self.looked_bytes >= LOOK_BYTES).then_some(Picture::Unreadable))
    }

    /// Takes a byte of a unit. The zeros of the next start code come here too, and change nothing: no unit
    /// becomes a picture by zeros at its end.
    fn take(&mut self, byte: u8) -> Option<Picture> {
        let decided = |is_key| Some(if is_key { Picture::Key } else { Picture::Other });
        self.unit = match self.unit {
            Unit::Skipped => Unit::Skipped,
            Unit::Head => match self.codec {
                VideoCodec::H264 => {
                    self.announced |= byte & 0x1F == H264_SPS;
                    h264_unit(byte)
                }
                VideoCodec::Hevc => Unit::HevcHead { unit_type: byte >> 1 & 0x3F, layer_bit: byte & 1 },
                VideoCodec::Mpeg2 => self.mpeg2_head(byte),
            },
            Unit::Slice(of) => {
                return decided(match of {
                    SliceOf::Idr => byte & 0x80 != 0,
                    SliceOf::NonIdr => self.announced && begins_intra_picture(byte),
                });
            }
            Unit::SeiType(sum) if byte == 0xFF => Unit::SeiType(sum.saturating_add(255)),
            Unit::SeiType(sum) => {
                self.announced |= sum.saturating_add(u32::from(byte)) == RECOVERY_POINT;
                Unit::SeiSize(0)
            }
            Unit::SeiSize(sum) if byte == 0xFF => Unit::SeiSize(sum.saturating_add(255)),
            Unit::SeiSize(sum) => match sum.saturating_add(u32::from(byte)) {
                0 => Unit::SeiType(0),
                left => Unit::SeiBody(left),
            },
            Unit::SeiBody(1) => Unit::SeiType(0),
            Unit::SeiBody(left) => Unit::SeiBody(left - 1),
            // Types up to 31 are slices (H.265 table 7-1). A layer above the base decodes nothing alone.
            Unit::HevcHead { unit_type, layer_bit } if unit_type < 32 && layer_bit == 0 && byte >> 3 == 0 => {
                Unit::HevcSlice { unit_type }
            }
            Unit::HevcHead { unit_type, .. } => {
                self.announced |= unit_type == HEVC_SPS;
                Unit::Skipped
            }
            Unit::HevcSlice { unit_type } => {
                // BLA, IDR and CRA: the pictures with intra random access (H.265 table 7-1).
                let has_random_access = (16..=21).contains(&unit_type) && byte & 0x80 != 0;
                return decided(has_random_access || self.announced && begins_hevc_intra_picture(byte));
            }
            Unit::PictureHead => Unit::PictureType,
            // 1 is an I picture (H.262 table 6-12).
            Unit::PictureType => return decided(self.announced && byte >> 3 & 7 == 1),
        };
        None
    }

    fn mpeg2_head(&mut self, code: u8) -> Unit {
        match code {
            0x00 => Unit::PictureHead,
            SEQUENCE_HEADER => {
                self.announced = true;
                Unit::Skipped
            }
            _ => Unit::Skipped,
        }
    }
}

/// What to read of the NAL unit with this head (H.264 table 7-1): slices and SEI messages.
const fn h264_unit(head: u8) -> Unit {
    match head & 0x1F {
        // 2 is data partition A, which begins like a slice (clause 7.3.2.9.1).
        1 | 2 => Unit::Slice(SliceOf::NonIdr),
        5 => Unit::Slice(SliceOf::Idr),
        6 => Unit::SeiType(0),
        _ => Unit::Skipped,
    }
}

/// Whether a slice that begins with this byte is the first of a picture and an I slice (H.264 clause 7.3.3):
/// `first_mb_in_slice` is 0, the code `1`, and `slice_type` 2 or 7, `011` or `0001000` (clause 9.1). All
/// values of `slice_type` fit into the seven bits, and with the first bit set no byte was inserted before.
const fn begins_intra_picture(byte: u8) -> bool {
    byte >> 4 == 0b1011 || byte == 0b1000_1000
}

/// The same of an HEVC slice segment of another picture than one with random access (H.265 clause 7.3.6.1):
/// `first_slice_segment_in_pic_flag`, `slice_pic_parameter_set_id` 0 to 2, `1`, `010` or `011`, and `slice_type` 2, `011`. It
/// is read as if no parameter set told of further bits in between: encoders in use do not.
const fn begins_hevc_intra_picture(byte: u8) -> bool {
    byte >> 3 == 0b1_1011 || byte >> 1 == 0b101_0011 || byte >> 1 == 0b101_1011
}
