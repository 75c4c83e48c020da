//! Clients that watch a numbered stream and judge every packet of it.

use std::net::SocketAddr;
use std::time::Duration;

use acerelay::id::Digest;
use acerelay::sim::{Checker, Report};
use acerelay::threads::Threads;
use crossbeam_channel::{Receiver, Sender};

use super::{Connection, End, LONG, OTHER_ID, Proxy, Reply, STACK_BYTES, stream_path};

/// A client of a stream that has started.
pub(crate) struct Viewer {
    pub(crate) reply: Reply,
    checker: Checker,
    /// Breaks announced in front of the first packet: that of joining.
    joined_with: Option<u64>,
}

impl Viewer {
    /// Asks for a stream and waits for its start.
    pub(crate) fn open(address: SocketAddr, id: Digest) -> Self {
        Self::of(Connection::open(address).get(&stream_path(id)))
    }

    /// The client that got this answer.
    pub(crate) fn of(mut reply: Reply) -> Self {
        if reply.status != 200 {
            let text = reply.text();
            panic!("no stream but {}: {text}", reply.status);
        }
        assert_eq!(reply.header("Content-Type"), Some("video/mp2t"));
        Self { reply, checker: Checker::new(), joined_with: None }
    }

    /// What has come so far.
    pub(crate) fn report(&self) -> &Report {
        self.checker.report()
    }

    /// Takes what comes next, or tells how the body ended.
    pub(crate) fn take(&mut self) -> Result<(), End> {
        let bytes = self.reply.read()?;
        self.checker.feed(bytes);
        let report = self.checker.report();
        if report.numbered > 0 {
            self.joined_with.get_or_insert(report.announced_breaks);
        }
        Ok(())
    }

    /// How often its source was lost and found again, as far as it was told.
    pub(crate) fn seams(&self) -> u64 {
        self.report().announced_breaks - self.joined_with.unwrap_or(self.report().announced_breaks)
    }

    /// Takes what comes until its source was found again so often, and some more.
    pub(crate) fn take_seams(&mut self, count: u64) {
        while self.seams() < count {
            if let Err(end) = self.take() {
                panic!("the stream ended ({end:?}) before {count} seams: {:?}", self.report());
            }
        }
        self.take_packets(300);
    }

    /// Takes at least so many more numbered packets.
    pub(crate) fn take_packets(&mut self, count: u64) {
        let wanted = self.report().numbered + count;
        self.take_until("packets", |report| report.numbered >= wanted);
    }

    /// Takes what comes until it is so.
    pub(crate) fn take_until(&mut self, what: &str, is_met: impl Fn(&Report) -> bool) {
        while !is_met(self.report()) {
            if let Err(end) = self.take() {
                panic!("the stream ended ({end:?}) before {what}: {:?}", self.report());
            }
        }
    }

    /// Takes everything up to the end of the body.
    pub(crate) fn take_to_end(&mut self) -> End {
        loop {
            if let Err(end) = self.take() {
                return end;
            }
        }
    }

    /// Leaves, and gives what came.
    pub(crate) fn leave(self) -> Report {
        // A client that leaves in mid-packet has part of one.
        self.checker.report().clone()
    }

    /// Takes everything up to the end of the body, and gives what came and how it ended.
    pub(crate) fn finish(mut self) -> (Report, End) {
        let end = self.take_to_end();
        (self.checker.finish(), end)
    }
}

/// Holds that every packet came once and whole from the first to the last. A joiner's first packets may announce the
/// break that his joining is.
#[track_caller]
pub(crate) fn assert_whole(report: &Report) {
    let mut rest = report.clone();
    rest.announced_breaks = 0;
    assert!(rest.is_perfect() && report.announced_breaks <= 1, "{report:?}");
}

/// Holds that a stream whose source was lost so often came without doubles and damage, with gaps only where it was lost, and
/// each break announced. The counters of tables jump there unannounced, as they have to.
#[track_caller]
pub(crate) fn assert_seamed(report: &Report, losses: u64) {
    let mut rest = report.clone();
    (rest.announced_breaks, rest.gap_count, rest.discontinuities) = (0, 0, 0);
    assert!(rest.is_perfect(), "{report:?}");
    assert!(report.gap_count <= losses && report.discontinuities <= 2 * losses, "{losses}: {report:?}");
    // A joiner's first packets may announce the break that his joining is.
    assert!((losses..=losses + 1).contains(&report.announced_breaks), "{losses}: {report:?}");
}

/// A client of the other content on a thread of its own, who is not to notice anything.
pub(crate) struct Bystander {
    /// Dropped to have the report.
    watching: Option<Sender<()>>,
    reports: Receiver<Report>,
}

/// A second of the stream.
const A_WHILE_PACKETS: u64 = 1300;

impl Bystander {
    /// Begins to watch; returns once packets come.
    pub(crate) fn watch(proxy: &Proxy) -> Self {
        Self::watch_at(proxy.address)
    }

    /// Begins to watch through the proxy at this address.
    pub(crate) fn watch_at(proxy: SocketAddr) -> Self {
        let (watching, over) = crossbeam_channel::bounded::<()>(0);
        let (give, reports) = crossbeam_channel::bounded(1);
        let mut viewer = Viewer::open(proxy, OTHER_ID);
        viewer.take_packets(1);
        let body = move || {
            while over.recv_timeout(Duration::ZERO).is_err_and(|error| error.is_timeout()) {
                viewer.take_packets(1);
            }
            // The stream goes on whatever happened meanwhile.
            viewer.take_packets(A_WHILE_PACKETS / 4);
            drop(give.send(viewer.leave()));
        };
        Threads::new().spawn("bystander", STACK_BYTES, body).expect("a thread");
        Self { watching: Some(watching), reports }
    }

    /// Watches on for a while, then holds that nothing was missed.
    #[track_caller]
    pub(crate) fn assert_undisturbed(mut self) {
        drop(self.watching.take());
        let report = self.reports.recv_timeout(LONG).expect("the bystander's stream goes on");
        assert_whole(&report);
    }
}
