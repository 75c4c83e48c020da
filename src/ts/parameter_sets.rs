//! Size and rate of pictures, as parameter sets and sequence headers tell them (H.264 clause 7.3.2.1.1, H.265 clause
//! 7.3.2.2.1, H.262 clause 6.2.2.1).
//!
//! Every reader takes any bytes, does work in proportion to them, and gives nothing where they end too soon or say what
//! cannot be. It does not look for them in a stream.

/// No picture is larger: 16 K, twice over.
const MAX_SIDE: u32 = 32_768;

/// Frame rates that codes 1 to 8 stand for, in frames and seconds (H.262 table 6-4).
const MPEG2_RATES: [(u32, u32); 8] =
    [(24_000, 1001), (24, 1), (25, 1), (30_000, 1001), (30, 1), (50, 1), (60_000, 1001), (60, 1)];

/// What pictures are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureFormat {
    /// Pixels in a line that are shown.
    pub width: u32,
    /// Lines that are shown.
    pub height: u32,
    /// Frames in so many seconds, where that is told.
    pub rate: Option<(u32, u32)>,
}

impl PictureFormat {
    fn new(size: (u32, u32), rate: Option<(u32, u32)>) -> Option<Self> {
        let is_side = |side: u32| (1..=MAX_SIDE).contains(&side);
        let rate = rate.filter(|(frames, seconds)| *frames > 0 && *seconds > 0);
        (is_side(size.0) && is_side(size.1)).then_some(Self { width: size.0, height: size.1, rate })
    }

    /// Frames a second, where that is told.
    #[must_use]
    pub fn frames_per_second(&self) -> Option<f64> {
        self.rate.map(|(frames, seconds)| f64::from(frames) / f64::from(seconds))
    }
}

/// Reads a sequence parameter set of H.264, without start code, from its NAL unit's head on.
pub(super) fn h264(unit: &[u8]) -> Option<PictureFormat> {
    let rbsp = without_inserted(unit.get(1..)?);
    let mut bits = Bits::new(&rbsp);
    let profile = bits.take(8)?;
    bits.skip(16)?;
    bits.ue()?;
    let mut chroma = 1;
    // The profiles whose sets go on with these fields.
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma = bits.ue()?;
        if chroma == 3 && bits.flag()? {
            chroma = 0;
        }
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
        if bits.flag()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue()?;
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.skip(1)?;
            bits.ue()?;
            bits.ue()?;
            for _ in 0..bits.ue()?.min(255) {
                bits.ue()?;
            }
        }
        _ => {}
    }
    bits.ue()?;
    bits.skip(1)?;
    let (width_units, height_units) = (bits.ue()?, bits.ue()?);
    let fields = if bits.flag()? { 1 } else { 2 };
    if fields == 2 {
        bits.skip(1)?;
    }
    bits.skip(1)?;
    let full = (units(width_units, 16)?, units(height_units, 16 * fields)?);
    let (unit_x, unit_y) = chroma_unit(chroma);
    let size = if bits.flag()? { crop(&mut bits, full, (unit_x, unit_y * fields))? } else { full };
    let rate = if bits.flag()? { h264_rate(&mut bits) } else { None };
    PictureFormat::new(size, rate)
}

/// The timing in the video usability information (H.264 clause E.1.1). A frame has two ticks.
fn h264_rate(bits: &mut Bits<'_>) -> Option<(u32, u32)> {
    if bits.flag()? && bits.take(8)? == 255 {
        bits.skip(32)?;
    }
    if bits.flag()? {
        bits.skip(1)?;
    }
    if bits.flag()? {
        bits.skip(4)?;
        if bits.flag()? {
            bits.skip(24)?;
        }
    }
    if bits.flag()? {
        bits.ue()?;
        bits.ue()?;
    }
    if !bits.flag()? {
        return None;
    }
    let (ticks, scale) = (bits.take(32)?, bits.take(32)?);
    Some((scale, ticks.checked_mul(2)?))
}

/// Steps over a list of scaling factors (H.264 clause 7.3.2.1.1.1).
fn skip_scaling_list(bits: &mut Bits<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..size {
        if next != 0 {
            next = bits.se()?.wrapping_add(last).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

/// Reads a sequence parameter set of HEVC, without start code, from its NAL unit's head on. Its rate stands behind what would
/// take a decoder to step over.
pub(super) fn hevc(unit: &[u8]) -> Option<PictureFormat> {
    let rbsp = without_inserted(unit.get(2..)?);
    let mut bits = Bits::new(&rbsp);
    bits.skip(4)?;
    let sub_layers = bits.take(3)?;
    bits.skip(1)?;
    // General profile, tier and level, then what of it the sub-layers have of their own (clause 7.3.3).
    bits.skip(96)?;
    let mut own_bits = 0;
    for _ in 0..sub_layers {
        own_bits += if bits.flag()? { 88 } else { 0 };
        own_bits += if bits.flag()? { 8 } else { 0 };
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers))?;
    }
    bits.skip(own_bits)?;
    bits.ue()?;
    let chroma = bits.ue()?;
    if chroma == 3 {
        bits.skip(1)?;
    }
    let full = (bits.ue()?, bits.ue()?);
    let size = if bits.flag()? { crop(&mut bits, full, chroma_unit(chroma))? } else { full };
    PictureFormat::new(size, None)
}

/// Reads an MPEG-2 sequence header, from behind its start code on, and its extension if that is there.
pub(super) fn mpeg2(header: &[u8]) -> Option<PictureFormat> {
    let mut bits = Bits::new(header);
    let (mut width, mut height) = (bits.take(12)?, bits.take(12)?);
    bits.skip(4)?;
    let code = bits.take(4)? as usize;
    let rate = code.checked_sub(1).and_then(|index| MPEG2_RATES.get(index)).copied();
    // extension_start_code, then the number of the sequence extension (H.262 clause 6.2.2.3).
    let at = header.windows(5).position(|bytes| bytes[..4] == [0, 0, 1, 0xB5] && bytes[4] >> 4 == 1);
    if let Some(upper) = at.and_then(|at| header.get(at + 4..at + 7)) {
        let mut bits = Bits::new(upper);
        bits.skip(15)?;
        width |= bits.take(2)? << 12;
        height |= bits.take(2)? << 12;
    }
    PictureFormat::new((width, height), rate)
}

/// Samples of brightness, across and down, for one of colour (H.264 table 6-1, H.265 table 6-1).
const fn chroma_unit(chroma: u32) -> (u32, u32) {
    match chroma {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    }
}

fn units(minus_one: u32, size: u32) -> Option<u32> {
    minus_one.checked_add(1)?.checked_mul(size)
}

/// Reads how much is cut off at each side: left, right, top, bottom.
fn crop(bits: &mut Bits<'_>, full: (u32, u32), unit: (u32, u32)) -> Option<(u32, u32)> {
    let across = bits.ue()?.checked_add(bits.ue()?)?.checked_mul(unit.0)?;
    let down = bits.ue()?.checked_add(bits.ue()?)?.checked_mul(unit.1)?;
    Some((full.0.checked_sub(across)?, full.1.checked_sub(down)?))
}

/// Without the bytes that keep start codes out of it (H.264 clause 7.3.1, H.265 clause 7.3.1.1).
fn without_inserted(unit: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    let mut out = Vec::with_capacity(unit.len());
    for &byte in unit {
        if zeros == 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { (zeros + 1).min(2) } else { 0 };
        out.push(byte);
    }
    out
}

/// Reads bits, the highest first; nothing behind the end.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// A number of so many bits, at most 32.
    fn take(&mut self, bits: u32) -> Option<u32> {
        (0..bits).try_fold(0, |number, _| Some(number << 1 | u32::from(self.flag()?)))
    }

    fn skip(&mut self, bits: u32) -> Option<()> {
        self.at += bits as usize;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// An Exp-Golomb code, `ue(v)` (H.264 clause 9.1).
    fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros == 32 {
                return None;
            }
        }
        Some((1_u32 << zeros) - 1 + self.take(zeros)?)
    }

    /// The same with a sign, `se(v)` (H.264 clause 9.1.1).
    fn se(&mut self) -> Option<i32> {
        let code = self.ue()?;
        let size = code.div_ceil(2) as i32;
        Some(if code % 2 == 1 { size } else { -size })
    }
}

#[cfg(test)]
mod tests;
