//! How a content is listed (engine-contract.md 8.2): which segments there are when, and what is in them. Values only.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use super::super::media::Broadcast;
use crate::id::Digest;

/// How a content is listed, and what is wrong with that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hls {
    /// How much of the media is in a segment.
    pub segment: Duration,
    /// How many are listed at a time. The broadcast has gone on for so many when the content becomes known.
    pub window: u64,
    /// How long a segment is listed before it can be had.
    pub late: Duration,
    /// What the segments are.
    pub kind: HlsKind,
    /// Whether the playback leads to the list by way of one that lists it among others.
    pub has_variants: bool,
    /// From this segment on the media goes on elsewhere, so many segments later, behind `EXT-X-DISCONTINUITY`.
    pub jump: Option<(u64, u64)>,
    /// This segment is never there, though it is listed.
    pub missing: Option<u64>,
    /// The list ends (`EXT-X-ENDLIST`) with so many segments.
    pub end_after: Option<u64>,
    /// The list stands still at so many segments.
    pub stop_after: Option<u64>,
}

/// What segments are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HlsKind {
    /// MPEG-TS.
    #[default]
    Plain,
    /// MPEG-TS that needs a key.
    Encrypted,
    /// Fragmented MP4.
    Fragmented,
}

impl Hls {
    /// Six segments of this length, in good health.
    #[must_use]
    pub fn of(segment: Duration) -> Self {
        Self {
            segment,
            window: 6,
            late: Duration::ZERO,
            kind: HlsKind::default(),
            has_variants: false,
            jump: None,
            missing: None,
            end_after: None,
            stop_after: None,
        }
    }

    /// The numbers that are listed this long after the content became known.
    pub(super) fn listed(&self, since: Duration) -> Range<u64> {
        let due = since.as_nanos() / self.segment.as_nanos().max(1);
        let end = self.window + u64::try_from(due).unwrap_or(u64::MAX);
        let end = self.end_after.into_iter().chain(self.stop_after).fold(end, u64::min);
        end.saturating_sub(self.window)..end
    }

    /// How long after the content became known a segment can be had.
    pub(super) fn there_at(&self, number: u64) -> Duration {
        let listed_at =
            self.segment * u32::try_from((number + 1).saturating_sub(self.window)).unwrap_or(u32::MAX);
        // What was there from the beginning is late as of then.
        listed_at + self.late
    }

    /// The packets of a segment.
    pub(super) fn packets(&self, broadcast: &Broadcast, number: u64) -> (u64, u64) {
        let skipped = self.jump.filter(|(at, _)| number >= *at).map_or(0, |(_, segments)| segments);
        let place = u32::try_from(number + skipped).unwrap_or(u32::MAX);
        // A packet that is due right at the border belongs to the segment behind it.
        let border =
            |place| broadcast.due_by((self.segment * place).saturating_sub(Duration::from_nanos(1))).packet;
        let from = if place == 0 { 0 } else { border(place) };
        (from, border(place + 1))
    }

    /// The list this long after the content became known.
    pub(super) fn text(&self, base: &str, infohash: Digest, since: Duration) -> String {
        let listed = self.listed(since);
        let mut text = format!(
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:{}\n",
            self.segment.as_millis().div_ceil(1000),
            listed.start
        );
        match self.kind {
            HlsKind::Plain => {}
            HlsKind::Encrypted => text.push_str("#EXT-X-KEY:METHOD=AES-128,URI=\"/ace/k/0\"\n"),
            HlsKind::Fragmented => text.push_str("#EXT-X-MAP:URI=\"/ace/c/init.mp4\"\n"),
        }
        for number in listed.clone() {
            if self.jump.is_some_and(|(at, _)| at == number) {
                text.push_str("#EXT-X-DISCONTINUITY\n");
            }
            let seconds = self.segment.as_secs_f64();
            // Writing into a string does not fail.
            let _ = write!(text, "#EXTINF:{seconds:.6},\n{base}/ace/c/{}/{number}.ts\n", infohash);
        }
        if self.end_after == Some(listed.end) {
            text.push_str("#EXT-X-ENDLIST\n");
        }
        text
    }
}
