//! What a stream consists of, as a person calls it: codings by the tables, size and rate of the picture by its parameter
//! sets.
//!
//! Of the first video stream the begin of a PES packet is kept until a parameter set was found in one; then it is looked for
//! again now and then, since a broadcaster may change it. It decides nothing: nobody is sent other packets for it.

use super::packet::{Packet, Pid};
use super::parameter_sets;
use super::pes::{PesHead, starts_pes};
use super::pmt::{ElementaryStream, StreamKind, VideoCodec};
use super::psi::PsiCache;

pub use super::parameter_sets::PictureFormat;

/// So much of a PES packet is kept. Parameter sets come first in it, and take some hundred bytes.
const LOOK_BYTES: usize = 1024;

/// PES packets from one parameter set to the search for the next: two seconds at 25 pictures a second.
const PAUSE: u32 = 50;

/// More streams of a kind than anybody reads are left out.
const MAX_NAMES: usize = 16;

/// What a stream consists of. Names are those that people use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// The first video stream.
    pub video: Option<Video>,
    /// Codings of its sound, in the order of the tables.
    pub audio: Vec<&'static str>,
    /// Its subtitles and its teletext.
    pub text: Vec<&'static str>,
}

/// A video stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Video {
    /// The coding's name.
    pub codec: &'static str,
    /// Size and rate, once they are known.
    pub format: Option<PictureFormat>,
}

/// Finds out what a stream consists of.
#[derive(Debug, Default)]
pub struct MediaReader {
    of: Option<(Pid, VideoCodec)>,
    format: Option<PictureFormat>,
    pause: u32,
    /// The PES packet that is kept the begin of.
    open: Option<(PesHead, u8)>,
    begin: Vec<u8>,
}

impl MediaReader {
    /// Looks at the next packet.
    pub fn observe(&mut self, packet: &Packet<'_>, tables: &PsiCache) {
        if packet.starts_unit() && starts_pes(packet) {
            self.begin(packet, tables);
        } else if self.open.is_some() && Some(packet.pid()) == self.of.map(|(pid, _)| pid) {
            self.go_on(packet);
        }
    }

    /// What the stream consists of by these tables; `None` while they list nothing. Costs nothing while it is what it was.
    #[must_use]
    pub fn changed(&self, tables: &PsiCache, before: Option<&Media>) -> Option<Media> {
        let video = tables.streams().find(|stream| stream.kind().is_video()).map(|stream| {
            let is_read = self.of.is_some_and(|(pid, _)| pid == stream.pid);
            Video { codec: stream.codec().unwrap_or("video"), format: self.format.filter(|_| is_read) }
        });
        let of_kind = |is_wanted: fn(&ElementaryStream) -> bool| {
            let names = tables.streams().filter(move |stream| is_wanted(stream));
            names.filter_map(ElementaryStream::codec).take(MAX_NAMES)
        };
        let audio = || of_kind(|stream| stream.kind() == StreamKind::Audio);
        let text = || of_kind(|stream| stream.kind() == StreamKind::Private);
        if before.is_some_and(|before| {
            before.video == video
                && before.audio.iter().copied().eq(audio())
                && before.text.iter().copied().eq(text())
        }) {
            return None;
        }
        let now = Media { video, audio: audio().collect(), text: text().collect() };
        (now != Media::default()).then_some(now)
    }

    fn begin(&mut self, packet: &Packet<'_>, tables: &PsiCache) {
        let video = tables.streams().find_map(|stream| match stream.kind() {
            StreamKind::Video(codec) => Some((stream.pid, codec)),
            _ => None,
        });
        if video != self.of {
            *self = Self { of: video, ..Self::default() };
        }
        if Some(packet.pid()) != self.of.map(|(pid, _)| pid) {
            return;
        }
        self.finish();
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        self.open = Some((PesHead::new(), packet.continuity().wrapping_sub(1) % 16));
        self.go_on(packet);
    }

    fn go_on(&mut self, packet: &Packet<'_>) {
        let Some(payload) = packet.payload() else { return };
        let Some((mut head, before)) = self.open else { return };
        if packet.continuity() == before {
            // Sent twice, which is allowed (clause 2.4.3.3).
            return;
        }
        if packet.continuity() != (before + 1) % 16 || packet.has_error() || packet.is_scrambled() {
            self.open = None;
            self.begin.clear();
            return;
        }
        let mut rest = payload;
        while let (PesHead::Open { .. }, Some((byte, behind))) = (head, rest.split_first()) {
            head.push(*byte);
            rest = behind;
        }
        if head == PesHead::Unreadable {
            self.open = None;
            return;
        }
        self.open = Some((head, packet.continuity()));
        if head == PesHead::Read {
            self.begin.extend_from_slice(&rest[..rest.len().min(LOOK_BYTES - self.begin.len())]);
        }
        if self.begin.len() == LOOK_BYTES {
            self.finish();
        }
    }

    /// Reads what was kept.
    fn finish(&mut self) {
        self.open = None;
        let Some((_, codec)) = self.of else { return };
        if let Some(found) = units(&self.begin).find_map(|unit| format_in(unit, codec)) {
            self.format = Some(found);
            self.pause = PAUSE;
        }
        self.begin.clear();
    }
}

/// What stands behind start codes, each up to the next one but for a sequence header, which goes on with its extension.
fn units(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts = bytes.windows(3).enumerate().filter(|(_, code)| *code == [0, 0, 1]);
    starts.map(|(at, _)| &bytes[at + 3..])
}

fn format_in(unit: &[u8], codec: VideoCodec) -> Option<PictureFormat> {
    let head = *unit.first()?;
    let end = unit.windows(3).position(|code| code == [0, 0, 1]).unwrap_or(unit.len());
    match codec {
        VideoCodec::H264 if head & 0x1F == 7 => parameter_sets::h264(&unit[..end]),
        VideoCodec::Hevc if head >> 1 & 0x3F == 33 => parameter_sets::hevc(&unit[..end]),
        VideoCodec::Mpeg2 if head == 0xB3 => parameter_sets::mpeg2(&unit[1..]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Build, tables};
    use super::super::packet::packets;
    use super::*;

    const CLIP: &[u8] = include_bytes!("../sim/clip.ts");

    fn read(bytes: &[u8]) -> Option<Media> {
        let (mut tables, mut reader) = (PsiCache::new(), MediaReader::default());
        for packet in packets(bytes) {
            tables.observe(&packet);
            reader.observe(&packet, &tables);
        }
        reader.changed(&tables, None)
    }

    #[test]
    fn a_clip_is_what_ffprobe_says() {
        let media = read(CLIP).expect("tables");
        let video = media.video.expect("video");
        let format = video.format.expect("a parameter set");
        assert_eq!((video.codec, format.width, format.height), ("H.264", 640, 360));
        assert_eq!((format.frames_per_second(), &media.audio[..]), (Some(25.0), &["AAC"][..]));
        assert!(media.text.is_empty());
        let by_tables = read(&CLIP[..3 * 188]).and_then(|media| media.video);
        assert_eq!(by_tables, Some(Video { codec: "H.264", format: None }));
        assert_eq!(read(&CLIP[..2 * 188]), None);
    }

    #[test]
    fn what_is_known_is_told_once_and_what_changes_again() {
        let video = Pid::new(0x100);
        let tables_of = |stream_type| tables(&[(stream_type, video), (0x03, Pid::new(0x101))]);
        let mpeg2 = tables_of(0x02);
        let mut reader = MediaReader::default();
        let header = |width: u8| [0, 0, 1, 0xB3, width, 0x02, 0x40, 0x33, 0x24, 0x9F, 0x23, 0x81, 0, 0, 1, 0];
        let mut show = |counter, content: &[u8], tables: &PsiCache| {
            packets(&Build::new(video, counter).pes(0xE0, content))
                .for_each(|packet| reader.observe(&packet, tables));
            reader.changed(tables, None).expect("something").video.expect("video")
        };
        assert_eq!(show(0, &header(0x2D), &mpeg2).format, None, "its end has not been seen");
        let width = |video: Video| video.format.map(|format| format.width);
        assert_eq!(width(show(1, &[0xAA], &mpeg2)), Some(720));
        let after = (2..60).find(|counter| width(show(*counter, &header(0x16), &mpeg2)) == Some(352));
        assert!(after.is_some(), "it is looked for now and then");
        let hevc = tables_of(0x24);
        assert_eq!(show(60, &[0xAA], &hevc), Video { codec: "HEVC", format: None });
        let now = reader.changed(&hevc, None);
        assert_eq!(reader.changed(&hevc, now.as_ref()), None);
        assert_eq!(now.expect("media").audio, ["MPEG audio"]);
    }
}
