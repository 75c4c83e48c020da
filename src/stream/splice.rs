//! Joins a new source to what the clients were sent of the old one.
//!
//! A decoder goes on without complaint if the new source begins at a keyframe, with its tables in front, and each of its
//! PIDs announces the jump of its counter. Of a stream that shows no keyframes, or no tables, none are waited for. What the engine repeats of the time before the loss is left out; an encoder that
//! begins anew with a clock that lies a little behind repeats nothing, and is taken at once. Packets in, packets out; it
//! reads no clock.

use std::time::{Duration, Instant};

use crate::ts::continuity::{Continuity, Sighting, indicator_before};
use crate::ts::follow::{ClockFollower, ClockStep};
use crate::ts::packet::{Packet, packets};
use crate::ts::psi::PsiCache;
use crate::ts::start::{StartFinder, StartKind};

use super::published::{Place, Print, Published};

/// So long a good place to go on is looked for; a picture that needs repair is better than none.
const SEARCH_LIMIT: Duration = Duration::from_secs(5);

/// A source that seems to begin before anything that was published has so long to come to something that was: an engine
/// sends its live buffer several times as fast as it plays.
const TELL_LIMIT: Duration = Duration::from_secs(2);

/// By then every PID of a stream has shown itself.
const JOIN_TIME: Duration = Duration::from_secs(5);

/// What is kept of a PES that may turn out to be a keyframe; the kind of picture is told within its first packets.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// The seam between two sources.
#[derive(Debug)]
pub(super) struct Splice {
    tables: PsiCache,
    phase: SeamPhase,
}

#[derive(Debug)]
enum SeamPhase {
    Searching(Box<Search>),
    Joining { continuity: Continuity, until: Instant },
}

/// The search for the keyframe to go on at.
#[derive(Debug)]
struct Search {
    finder: StartFinder,
    clock: ClockFollower,
    count: u64,
    /// From the last PES start on.
    pending: Pending,
    /// Something that was published has come again, and the source's clock has not jumped since: its time is the one of
    /// what was published.
    repeats: bool,
    /// When the first packet came: a source may take long to begin.
    began: Option<Instant>,
}

/// A PES that may turn out to be a keyframe.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// The number of its first packet.
    from: u64,
    /// The clock reference that held there.
    pcr: Option<u64>,
    was_published: bool,
}

impl Splice {
    /// A seam behind what was published.
    #[must_use]
    pub(super) fn new(published: &Published) -> Self {
        let search = Search {
            finder: StartFinder::new(),
            clock: ClockFollower::preferring(published.clock().map(|clock| clock.pid)),
            count: 0,
            pending: Pending::default(),
            repeats: false,
            began: None,
        };
        Self { tables: PsiCache::new(), phase: SeamPhase::Searching(Box::new(search)) }
    }

    /// A seam within a source that says itself where it does not go on: it begins a segment there, so nothing is left out.
    /// Until it repeats its tables they are these.
    #[must_use]
    pub(super) fn at_jump(tables: PsiCache, now: Instant) -> Self {
        let phase = SeamPhase::Joining { continuity: Continuity::new(), until: now + JOIN_TIME };
        Self { tables, phase }
    }

    /// Takes the next whole packets of the new source; appends what is to be published behind what was.
    pub(super) fn push(&mut self, aligned: &[u8], published: &Published, now: Instant, out: &mut Vec<u8>) {
        for packet in packets(aligned) {
            match &mut self.phase {
                SeamPhase::Searching(search) => {
                    let Some(tables) = search.push(&packet, &mut self.tables, published, now) else {
                        continue;
                    };
                    let found = std::mem::take(&mut search.pending.bytes);
                    self.phase = SeamPhase::Joining { continuity: Continuity::new(), until: now + JOIN_TIME };
                    out.extend(tables);
                    packets(&found).for_each(|packet| self.join(&packet, out));
                }
                SeamPhase::Joining { .. } => self.join(&packet, out),
            }
        }
    }

    /// Whether nothing of the new source is published yet.
    #[must_use]
    pub(super) fn is_searching(&self) -> bool {
        matches!(&self.phase, SeamPhase::Searching(_))
    }

    /// Whether the seam is sewn, so that the source needs no looking after any more.
    #[must_use]
    pub(super) fn is_done(&self, now: Instant) -> bool {
        matches!(&self.phase, SeamPhase::Joining { until, .. } if now >= *until)
    }

    fn join(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        let SeamPhase::Joining { continuity, .. } = &mut self.phase else {
            return;
        };
        self.tables.observe(packet);
        if continuity.observe(packet, &self.tables) == Sighting::First {
            out.extend_from_slice(&indicator_before(packet));
        }
        out.extend_from_slice(packet.bytes());
    }
}

impl Search {
    /// Takes the next packet. If the place to go on is found, or the search has taken too long, gives the tables to begin
    /// with; what is pending follows them.
    fn push(
        &mut self,
        packet: &Packet<'_>,
        tables: &mut PsiCache,
        published: &Published,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let began = *self.began.get_or_insert(now);
        if let Some(ClockStep::Jump { .. }) = self.clock.observe(packet, tables) {
            self.repeats = false;
        }
        let start = self.finder.observe(self.count, packet, tables);
        tables.observe(packet);
        if start.is_some_and(|start| start.packet == self.count) {
            let was_published = published.knows(Print::of(packet));
            self.repeats |= was_published;
            self.begin_pending(was_published);
        } else if self.pending.bytes.len() >= MAX_PENDING_BYTES {
            self.begin_pending(false);
        }
        self.pending.bytes.extend_from_slice(packet.bytes());
        self.count += 1;
        let waited = now.saturating_duration_since(began);
        let is_wanted = |kind| kind == StartKind::Keyframe || !published.expects_keyframe();
        let is_place = start.is_some_and(|start| start.packet == self.pending.from && is_wanted(start.kind));
        // Before there are tables, nobody can say whose keyframe it is; in a stream without any, nobody ever can.
        let tables_now = || tables.prefix().or_else(|| (!published.expects_tables()).then(Vec::new));
        let good = if is_place && !self.is_repeated(published, waited) { tables_now() } else { None };
        good.or_else(|| (waited >= SEARCH_LIMIT).then(|| tables.prefix().unwrap_or_default()))
    }

    fn begin_pending(&mut self, was_published: bool) {
        let bytes = std::mem::take(&mut self.pending.bytes);
        let pcr = self.clock.last().map(|last| last.pcr);
        self.pending = Pending { bytes, from: self.count, pcr, was_published };
        self.pending.bytes.clear();
    }

    /// Whether what is pending comes before the end of what was published.
    fn is_repeated(&self, published: &Published, waited: Duration) -> bool {
        if self.pending.was_published {
            return true;
        }
        match published.place_of(self.pending.pcr) {
            Place::Elsewhere => false,
            // On the clock of what was published it is a picture that got lost the first time; else there is no such picture,
            // so that the clock must be another one.
            Place::Within => self.repeats,
            Place::Before => self.repeats || waited < TELL_LIMIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::marks::Marker;
    use super::*;
    use crate::ts::clock::pcr_behind;
    use crate::ts::fixture::{packetise, pat, pmt};
    use crate::ts::packet::{PACKET_BYTES, Pid};

    /// 25 pictures a second, a keyframe each second, eight seconds.
    const CLIP: &[u8] = include_bytes!("../sim/clip.ts");

    const VIDEO: Pid = Pid::new(0x0100);

    /// The first packet of each keyframe of the clip.
    fn keyframes() -> Vec<usize> {
        let is_keyframe = |(_, packet): &(usize, Packet<'_>)| packet.pid() == VIDEO && packet.random_access();
        packets(CLIP).enumerate().filter(is_keyframe).map(|(number, _)| number).collect()
    }

    /// So many packets of the clip from this one on.
    fn clip(from: usize, to: usize) -> &'static [u8] {
        &CLIP[from * PACKET_BYTES..to * PACKET_BYTES]
    }

    fn clip_packets() -> usize {
        CLIP.len() / PACKET_BYTES
    }

    /// One that has seen all this published.
    fn publisher(parts: &[&[u8]]) -> Marker {
        let mut marker = Marker::new();
        for part in parts {
            marker.observe(part, Instant::now(), &mut Vec::new());
        }
        marker
    }

    /// What comes out of a source behind what was published, if all of it comes at once.
    fn spliced_behind(marker: &Marker, source: &[u8]) -> Vec<u8> {
        let now = Instant::now();
        let mut splice = Splice::new(marker.published());
        let mut out = Vec::new();
        for part in source.chunks(7 * PACKET_BYTES) {
            splice.push(part, marker.published(), now, &mut out);
        }
        out
    }

    fn pcr_of(bytes: &[u8]) -> Option<u64> {
        packets(bytes).find_map(|packet| packet.pcr())
    }

    /// What comes out of a clip that begins at this packet, after a loss at another.
    fn spliced(from: usize, published: usize) -> Vec<u8> {
        spliced_behind(&publisher(&[clip(0, published)]), clip(from, clip_packets()))
    }

    /// Where in a source its packets begin in what came out of it.
    #[track_caller]
    fn begins_at(source: &[u8], out: &[u8]) -> usize {
        let is_media = |packet: &Packet<'_>| packet.pid() == VIDEO && packet.has_payload();
        let first = packets(out).find(is_media).expect("something came out");
        let number = packets(source).position(|packet| packet.bytes() == first.bytes());
        number.expect("it is of the source")
    }

    /// The same pictures by another run of the encoder: its clock is so much behind, its time stamps a tick beside.
    fn of_another_run(source: &[u8], behind: Duration) -> Vec<u8> {
        let mut run = source.to_vec();
        let ticks = behind.as_micros() as u64 * 9 / 100;
        for packet in run.as_chunks_mut::<PACKET_BYTES>().0 {
            let view = Packet::new(packet);
            let pcr = view.pcr();
            let payload = PACKET_BYTES - view.payload().map_or(0, <[u8]>::len);
            let has_stamp = view.starts_unit() && packet[payload..].starts_with(&[0, 0, 1]);
            if let Some(pcr) = pcr {
                let base = (pcr / 300 + (1 << 33) - ticks) % (1 << 33);
                packet[6..10].copy_from_slice(&((base >> 1) as u32).to_be_bytes());
                packet[10] = packet[10] & 0x7F | (base << 7) as u8 & 0x80;
            }
            if has_stamp {
                packet[payload + 13] ^= 0x02;
            }
        }
        run
    }

    #[test]
    fn it_goes_on_at_a_keyframe_behind_tables_and_announcements() {
        let out = spliced(400, 0);
        let mut packets = packets(&out);
        let first = packets.next().expect("packets");
        assert_eq!(first.pid(), Pid::PAT);
        let mut announced = Vec::new();
        let mut counters = std::collections::HashMap::new();
        let mut is_keyframe = None;
        for packet in packets {
            if packet.discontinuity() && !packet.has_payload() {
                announced.push(packet.pid());
                counters.insert(packet.pid(), packet.continuity());
            } else if packet.has_payload() && announced.contains(&packet.pid()) {
                is_keyframe.get_or_insert_with(|| packet.random_access());
                let expected = (counters[&packet.pid()] + 1) % 16;
                assert_eq!(packet.continuity(), expected, "{}", packet.pid());
                counters.insert(packet.pid(), packet.continuity());
            }
        }
        assert_eq!(announced.len(), 2, "video and sound, each once: {announced:?}");
        assert_eq!(is_keyframe, Some(true));
        // Nothing behind the first keyframe is lost: what was added are the tables and two announcements.
        assert!(CLIP.ends_with(&out[out.len() - 100 * PACKET_BYTES..]));
    }

    #[test]
    fn what_was_published_before_is_left_out() {
        let at_4_s = clip_packets() / 2;
        let published = pcr_of(clip(at_4_s, clip_packets()));
        let (all, rest) = (spliced(0, 0), spliced(0, at_4_s));
        let begins_at = pcr_of(&rest).expect("a clock");
        let behind = pcr_behind(begins_at, published.expect("a clock")).expect("the rest begins behind it");
        assert!(behind <= Duration::from_millis(1100), "{behind:?}: at the next keyframe");
        assert!(rest.len() < all.len() * 6 / 10);
    }

    #[test]
    fn at_a_jump_nothing_is_left_out_and_everything_is_announced() {
        let now = Instant::now();
        let mut tables = PsiCache::new();
        for packet in packets(CLIP).take(20) {
            tables.observe(&packet);
        }
        // In the midst of a picture.
        let rest = &CLIP[405 * PACKET_BYTES..];
        let mut out = Vec::new();
        Splice::at_jump(tables, now).push(rest, &Published::default(), now, &mut out);
        let is_announcement = |packet: &Packet<'_>| packet.discontinuity() && !packet.has_payload();
        let kept: Vec<u8> =
            packets(&out).filter(|packet| !is_announcement(packet)).fold(Vec::new(), |mut all, packet| {
                all.extend_from_slice(packet.bytes());
                all
            });
        assert_eq!(kept, rest);
        let announced: Vec<_> = packets(&out).filter(is_announcement).map(|packet| packet.pid()).collect();
        assert_eq!(announced.len(), 2, "video and sound, each once: {announced:?}");
        let first =
            packets(rest).find(|packet| announced.contains(&packet.pid())).expect("a packet of the video");
        assert_eq!(packets(&out).find(is_announcement).expect("one").pid(), first.pid());
    }

    #[test]
    fn a_source_that_takes_long_to_begin_is_still_begun_at_a_keyframe() {
        let now = Instant::now();
        let nothing = Published::default();
        let mut splice = Splice::new(&nothing);
        let mut out = Vec::new();
        splice.push(clip(400, 407), &nothing, now + 4 * SEARCH_LIMIT, &mut out);
        assert!(out.is_empty(), "the search has just begun");
    }

    #[test]
    fn a_keyframe_that_may_have_been_published_is_not_begun_again() {
        let (third, fourth) = (keyframes()[2], keyframes()[3]);
        // Its clock comes behind it: the source may have been lost in between.
        let mut source = CLIP.to_vec();
        source[third * PACKET_BYTES + 5] &= !0x10;
        let out = spliced_behind(&publisher(&[clip(0, third)]), &source);
        assert_eq!(begins_at(&source, &out), fourth);
    }

    #[test]
    fn a_replay_that_begins_before_all_that_was_published_is_left_out() {
        let keyframes = keyframes();
        let marker = publisher(&[clip(0, 20), clip(keyframes[4] - 10, keyframes[6] + 5)]);
        let out = spliced_behind(&marker, CLIP);
        assert_eq!(begins_at(CLIP, &out), keyframes[7]);
        // What clients missed of it comes too late.
        let with_a_hole = publisher(&[clip(0, keyframes[2]), clip(keyframes[4], keyframes[6] + 5)]);
        assert_eq!(begins_at(CLIP, &spliced_behind(&with_a_hole, CLIP)), keyframes[7]);
    }

    #[test]
    fn an_encoder_that_begins_anew_a_little_behind_repeats_nothing() {
        for (behind, published) in [(0, 4), (2, 7), (7, 7)] {
            let marker = publisher(&[clip(0, keyframes()[published] + 100)]);
            let source = of_another_run(CLIP, Duration::from_secs(behind));
            let out = spliced_behind(&marker, &source);
            let begins_at = begins_at(&source, &out);
            let lies =
                pcr_behind(marker.published().clock().expect("a clock").pcr, pcr_of(&source).expect("one"));
            assert!(lies > Some(Duration::from_secs(3)), "it is behind, or this shows nothing");
            if behind == 0 {
                assert_eq!(begins_at, keyframes()[0]);
            } else {
                // Before anything that was published: it might be a replay.
                assert!(begins_at <= keyframes()[behind as usize], "{behind} s: {begins_at}");
            }
        }
    }

    #[test]
    fn a_clock_that_lies_before_all_that_was_published_is_believed_after_a_while() {
        let marker = publisher(&[clip(0, 20), clip(keyframes()[6], clip_packets())]);
        let source = of_another_run(clip(0, keyframes()[5]), Duration::from_secs(20));
        let (mut splice, mut out) = (Splice::new(marker.published()), Vec::new());
        let mut now = Instant::now();
        let mut halves = source.chunks(keyframes()[2] * PACKET_BYTES);
        splice.push(halves.next().expect("a half"), marker.published(), now, &mut out);
        assert!(out.is_empty(), "it may yet come to what was published");
        now += TELL_LIMIT;
        splice.push(halves.next().expect("another"), marker.published(), now, &mut out);
        assert_eq!(begins_at(&source, &out), keyframes()[2]);
    }

    #[test]
    fn a_clock_that_begins_anew_in_the_middle_of_a_replay_ends_it() {
        let keyframes = keyframes();
        let marker = publisher(&[clip(0, keyframes[6] + 50)]);
        let replay = clip(keyframes[2], keyframes[4] + 30);
        let source = [replay, &of_another_run(CLIP, Duration::ZERO)].concat();
        let out = spliced_behind(&marker, &source);
        assert_eq!(begins_at(&source, &out), keyframes[4] + 30 - keyframes[2] + keyframes[0]);
    }

    #[test]
    fn a_stream_that_is_looped_repeats_nothing() {
        let marker = publisher(&[CLIP, CLIP, clip(0, keyframes()[6] + 50)]);
        let out = spliced_behind(&marker, CLIP);
        assert_eq!(begins_at(CLIP, &out), keyframes()[0]);
    }

    /// The clip on other PIDs, with tables of their own.
    fn on_other_pids(source: &[u8]) -> Vec<u8> {
        let map = Pid::new(0x1002);
        let [video, audio] = [Pid::new(0x0200), Pid::new(0x0201)];
        let mut moved = packetise(Pid::PAT, 0, &[pat(9, (0, 0), &[(1, map)])]);
        moved.extend(packetise(map, 0, &[pmt(1, 9, video, &[(0x1B, video), (0x0F, audio)], 0)]));
        for packet in packets(source).filter(|packet| [VIDEO, Pid::new(0x0101)].contains(&packet.pid())) {
            let mut packet = *packet.bytes();
            packet[1] += 1;
            moved.extend(packet);
        }
        moved
    }

    #[test]
    fn the_clock_follows_the_tables_to_other_pids() {
        let keyframes = keyframes();
        let moved = on_other_pids(clip(keyframes[3], keyframes[6] + 50));
        let marker = publisher(&[clip(0, keyframes[3]), &moved]);
        let clock = marker.published().clock().expect("a clock");
        assert_eq!(clock.pid, Pid::new(0x0200));
        let source = on_other_pids(clip(keyframes[1], clip_packets()));
        let out = spliced_behind(&marker, &source);
        let first = pcr_of(&out).expect("a clock");
        assert_eq!(pcr_behind(clock.pcr, first), None, "nothing comes twice");
        assert_eq!(Some(first), pcr_of(clip(keyframes[7], clip_packets())));
    }

    /// The clip without keyframes: each IDR slice becomes another one, each indicator is cleared.
    fn without_keyframes(source: &[u8]) -> Vec<u8> {
        let mut packets_of = source.to_vec();
        for packet in packets_of.as_chunks_mut::<PACKET_BYTES>().0 {
            let view = Packet::new(packet);
            let (is_marked, is_video) = (view.random_access(), view.pid() == VIDEO);
            if is_marked {
                packet[5] &= !0x40;
            }
            if is_video {
                let idr = packet.windows(4).position(|bytes| bytes == [0, 0, 1, 0x65]);
                // A slice of type P, of another picture than an IDR one.
                idr.into_iter().for_each(|at| packet[at + 3..at + 5].copy_from_slice(&[0x41, 0x9A]));
            }
        }
        packets_of
    }

    #[test]
    fn no_seam_waits_for_what_the_stream_has_not_shown() {
        let clip = without_keyframes(CLIP);
        let source = without_keyframes(&of_another_run(CLIP, Duration::from_secs(100)));
        let short = publisher(&[&clip]);
        assert!(spliced_behind(&short, &source).is_empty(), "8 s say little");
        let long = publisher(&[&clip, &clip, &clip]);
        let out = spliced_behind(&long, &source);
        assert!(out.len() > source.len() * 9 / 10, "it goes on at the first picture");
        assert_eq!(packets(&out).next().expect("packets").pid(), Pid::PAT, "with its tables");
        let is_table = |packet: &Packet<'_>| ![VIDEO, Pid::new(0x0101)].contains(&packet.pid());
        let bare = |source: &[u8]| -> Vec<u8> {
            packets(source).filter(|packet| !is_table(packet)).flat_map(|packet| *packet.bytes()).collect()
        };
        let out = spliced_behind(
            &publisher(&[&bare(CLIP)]),
            &bare(&of_another_run(CLIP, Duration::from_secs(100))),
        );
        assert!(!out.is_empty(), "nor does a stream without tables wait for any");
    }

    #[test]
    fn what_was_published_stays_published_however_often_a_source_is_lost() {
        let keyframes = keyframes();
        let mut marker = publisher(&[clip(0, keyframes[6] + 50)]);
        for _attempt in 0..3 {
            marker.break_off();
            let out = spliced_behind(&marker, clip(keyframes[1], clip_packets()));
            assert_eq!(begins_at(CLIP, &out), keyframes[7]);
        }
    }

    #[test]
    fn a_source_without_a_keyframe_is_taken_as_it_is_in_the_end() {
        let now = Instant::now();
        let nothing = Published::default();
        let mut splice = Splice::new(&nothing);
        let mut packet = [0xff; PACKET_BYTES];
        packet[..4].copy_from_slice(&[0x47, 0x01, 0x00, 0x10]);
        let mut out = Vec::new();
        splice.push(&packet, &nothing, now, &mut out);
        assert!(out.is_empty());
        splice.push(&packet, &nothing, now + SEARCH_LIMIT, &mut out);
        assert_eq!(out, [packet, packet].concat());
        assert!(!splice.is_done(now + SEARCH_LIMIT));
        assert!(splice.is_done(now + SEARCH_LIMIT + JOIN_TIME));
    }
}
