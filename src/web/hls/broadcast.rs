//! The segments of each stream, shared by all who watch it.
//!
//! They are cut when somebody asks, by the thread that asks; nothing runs in between. What is kept here are numbers: the bytes
//! stay in the backlog, and are looked up when a segment is asked for.
//!
//! Lock rule: the lock of a broadcast may be held while the fan-out's is taken; the table's is taken alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::hls::segmenter::{Segment, Segmenter};
use crate::http::body::Part;
use crate::stream::fanout::Fanout;
use crate::stream::stream::Stream;

/// The segments of one stream.
#[derive(Debug)]
pub(super) struct Broadcast {
    segmenter: Mutex<Segmenter>,
    /// The highest number that any segment has had.
    highest: Arc<AtomicU64>,
}

/// A segment, ready to be sent.
#[derive(Debug)]
pub(super) struct SegmentBody {
    pub(super) parts: Vec<Part>,
    /// Offset in the stream of the byte behind it.
    pub(super) end: u64,
}

impl Broadcast {
    /// Cuts what can be cut by now, and reads what came of it.
    pub(super) fn read<R>(&self, fanout: &Fanout, read: impl FnOnce(&Segmenter) -> R) -> R {
        let mut segmenter = self.segmenter.lock();
        let outline = fanout.outline(segmenter.wants_from());
        segmenter.observe(&outline);
        self.highest.fetch_max(segmenter.next_sequence(), Ordering::Relaxed);
        let result = read(&segmenter);
        drop(segmenter);
        // Behind the lock: it may hold the last handle of a prefix.
        drop(outline);
        result
    }

    /// The segment of this number, if it is there still.
    pub(super) fn cut(&self, fanout: &Fanout, sequence: u64) -> Option<SegmentBody> {
        let segment = self.segmenter.lock().segment(sequence).cloned()?;
        let Segment { start, end, tables, .. } = segment;
        let slices = fanout.cut(start, end)?;
        let mut parts = Vec::with_capacity(slices.len() + 1);
        let length = tables.len();
        parts.extend(Part::new(tables, 0..length));
        for slice in slices {
            parts.push(Part::new(slice.chunk, slice.range)?);
        }
        Some(SegmentBody { parts, end })
    }
}

/// The segments of all streams that somebody has watched in segments.
#[derive(Debug, Default)]
pub(super) struct Broadcasts {
    highest: Arc<AtomicU64>,
    table: Mutex<Vec<(Weak<Stream>, Arc<Broadcast>)>>,
}

impl Broadcasts {
    /// The segments of this stream. They are kept as long as it is, watched or not, so that no number comes twice.
    pub(super) fn of(&self, stream: &Arc<Stream>) -> Arc<Broadcast> {
        let mut table = self.table.lock();
        // Streams that are gone: there are never more in the table than there were at once.
        let gone: Vec<_> = table.extract_if(.., |(stream, _)| stream.strong_count() == 0).collect();
        let found = table.iter().find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(stream)));
        let broadcast = match found {
            Some((_, broadcast)) => Arc::clone(broadcast),
            None => {
                let broadcast = Arc::new(self.begin());
                table.push((Arc::downgrade(stream), Arc::clone(&broadcast)));
                broadcast
            }
        };
        drop(table);
        drop(gone);
        broadcast
    }

    /// Segments play for more than a second, so that the time of day is above every number of an earlier life, of the stream or
    /// of the proxy. Where it is not, the clock was set back.
    fn begin(&self) -> Broadcast {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let first = now.max(self.highest.load(Ordering::Relaxed));
        self.highest.fetch_max(first, Ordering::Relaxed);
        Broadcast { segmenter: Mutex::new(Segmenter::new(first)), highest: Arc::clone(&self.highest) }
    }
}
