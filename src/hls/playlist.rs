//! Lists as text.
//!
//! Version 3 and nothing that is not needed (draft-pantos-hls-rfc8216bis section 8): the fewer tags, the fewer players that read
//! one differently. It must not know how URIs are answered.

use std::fmt::Write as _;

use super::segmenter::Segmenter;

/// The type of lists (draft-pantos-hls-rfc8216bis section 4).
pub const CONTENT_TYPE: &str = "application/vnd.apple.mpegurl";

/// What is announced of a stream whose rate is not known yet: more than channels have, since it decides nothing where there is
/// nothing to choose.
const UNKNOWN_BANDWIDTH: u64 = 10_000_000;

/// The least that is announced: a stream that has just stalled will be faster.
const MIN_BANDWIDTH: u64 = 100_000;

/// The one choice there is, at this URI. The rate is that of the last seconds, zero if it is not known.
#[must_use]
pub fn multivariant(uri: &str, bitrate_bps: u64, size: Option<(u32, u32)>) -> String {
    // Segments may be above what the last seconds were, and none is to be above what was announced.
    let bandwidth = match bitrate_bps {
        0 => UNKNOWN_BANDWIDTH,
        bitrate_bps => (bitrate_bps.saturating_mul(3) / 2).max(MIN_BANDWIDTH),
    };
    let size = size.map_or_else(String::new, |(width, height)| format!(",RESOLUTION={width}x{height}"));
    format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-STREAM-INF:BANDWIDTH={bandwidth}{size}\n{uri}\n")
}

/// The segments that are listed; each has its number with `.ts` behind this URI.
#[must_use]
pub fn media(segmenter: &Segmenter, base: &str) -> String {
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:{}\n\
         #EXT-X-DISCONTINUITY-SEQUENCE:{}\n",
        segmenter.target(),
        segmenter.first_sequence(),
        segmenter.discontinuities(),
    );
    for segment in segmenter.listed() {
        if segment.is_discontinuity {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        // Never more than it is: no segment is to be above the target.
        let micros = segment.ticks * 100 / 9;
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        // Writing to a string cannot fail.
        let _written = writeln!(text, "#EXTINF:{seconds}.{fraction:06},\n{base}{}.ts", segment.sequence);
    }
    if segmenter.is_ended() {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::stream::ending::Ending;
    use crate::stream::marks::Mark;
    use crate::stream::outline::Outline;
    use crate::ts::start::StartKind;

    fn keyframe(offset: u64, time: u64, is_jump: bool) -> Mark {
        let arrived = Instant::now();
        let prefix = Some(Arc::new(crate::stream::chunk::Chunk::inserted(arrived, &[0x47; 188])));
        Mark { offset, kind: StartKind::Keyframe, prefix, arrived, time: Some(time), is_jump }
    }

    #[test]
    fn a_list_says_what_it_must_and_no_more() {
        let mut segmenter = Segmenter::new(1_764_050_000);
        let marks = vec![
            keyframe(0, 0, false),
            keyframe(1880, 360_000, false),
            keyframe(3760, 90_000, true),
            keyframe(5640, 435_600, false),
        ];
        let mut outline = Outline { marks, head: 7520, ..Outline::default() };
        segmenter.observe(&outline);
        let begin = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:6\n#EXT-X-MEDIA-SEQUENCE:1764050000\n\
                     #EXT-X-DISCONTINUITY-SEQUENCE:0\n#EXTINF:4.000000,\nabc/1764050000.ts\n#EXTINF:0.040000,\n\
                     abc/1764050001.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:3.840000,\nabc/1764050002.ts\n";
        assert_eq!(media(&segmenter, "abc/"), begin);
        outline.ending = Some(Ending::Complete);
        segmenter.observe(&outline);
        let end = "#EXTINF:0.040000,\nabc/1764050003.ts\n#EXT-X-ENDLIST\n";
        assert_eq!(media(&segmenter, "abc/"), format!("{begin}{end}"));
    }

    #[test]
    fn there_is_one_choice_and_it_says_too_much_rather_than_too_little() {
        let text = multivariant("m/x.m3u8", 8_000_000, Some((1280, 720)));
        let expected =
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-STREAM-INF:BANDWIDTH=12000000,RESOLUTION=1280x720\nm/x.m3u8\n";
        assert_eq!(text, expected);
        assert!(multivariant("x", 0, None).contains("BANDWIDTH=10000000\nx\n"));
        assert!(multivariant("x", 1, None).contains("BANDWIDTH=100000\n"));
    }
}
