//! Lines on their way to where the log goes: a bounded queue, and the one thread that writes them.
//!
//! Whatever takes the lines may stop taking them: a pager that somebody has scrolled up in, a full disk over the network.
//! Whoever logs must not wait for that, since the thread that keeps all deadlines logs, too. So while nothing is taken,
//! lines are counted in place of being kept, once the queue is full. It must not know what a line says.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TryRecvError, TrySendError};

use crate::threads::{SMALL_STACK_BYTES, Threads};

/// Lines that may wait: a burst of `debug` when a hundred clients come at once, at some 150 bytes each.
const MAX_LINES: usize = 2048;

/// A full queue is waited for so long once, until it has been empty again: at full speed a writer has room long before, and
/// a limit of seconds does not feel it.
const PATIENCE: Duration = Duration::from_millis(20);

/// At the end, and at a panic, what waits is written within this time or lost.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

enum Item {
    Line(Vec<u8>),
    /// All lines before it are written.
    Flush(Sender<()>),
}

/// The way to the thread that writes. Clones lead to the same.
#[derive(Clone)]
pub(super) struct Queue {
    items: Sender<Item>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    lost: AtomicU64,
    /// It was full for longer than is waited for, and has not been empty since.
    is_stuck: AtomicBool,
}

impl Queue {
    /// Starts the thread. It ends when all queues to it are dropped, and else with the process, since nothing ends a write
    /// that blocks.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (items, taken) = crossbeam_channel::bounded(MAX_LINES);
        let state = Arc::new(State::default());
        let writer = Writer { items: taken, state: Arc::clone(&state), out };
        Threads::new().spawn("log", SMALL_STACK_BYTES, move || writer.run())?;
        Ok(Self { items, state })
    }

    fn put(&self, line: Vec<u8>) {
        let State { lost, is_stuck } = &*self.state;
        let rest = match self.items.try_send(Item::Line(line)) {
            Ok(()) => return,
            Err(TrySendError::Full(line)) if !is_stuck.load(Ordering::Acquire) => line,
            Err(_) => {
                lost.fetch_add(1, Ordering::AcqRel);
                return;
            }
        };
        if let Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Disconnected(_)) =
            self.items.send_timeout(rest, PATIENCE)
        {
            lost.fetch_add(1, Ordering::AcqRel);
            is_stuck.store(true, Ordering::Release);
        }
    }

    /// Waits until all that was put in is written, but not for long.
    pub(super) fn flush(&self) {
        if self.state.is_stuck.load(Ordering::Acquire) {
            return;
        }
        let (written, is_written) = crossbeam_channel::bounded(1);
        if self.items.send_timeout(Item::Flush(written), FLUSH_LIMIT).is_ok() {
            // An error means that it takes too long.
            let _in_time = is_written.recv_timeout(FLUSH_LIMIT);
        }
    }
}

/// Gathers the pieces of a line, and puts it into the queue whole.
pub(super) struct LineWriter {
    queue: Queue,
    line: Vec<u8>,
}

impl LineWriter {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, line: Vec::new() }
    }
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.last() == Some(&b'\n') {
            self.queue.put(std::mem::take(&mut self.line));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that writes.
struct Writer<W> {
    items: Receiver<Item>,
    state: Arc<State>,
    out: W,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        loop {
            let item = match self.items.try_recv() {
                Ok(item) => item,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    self.tell_what_was_lost();
                    match self.items.recv() {
                        Ok(item) => item,
                        Err(_) => return,
                    }
                }
            };
            match item {
                // Nobody can be told when the log itself fails.
                Item::Line(line) => drop(self.out.write_all(&line)),
                Item::Flush(written) => {
                    let _flushed = self.out.flush();
                    // Whoever waited may have given up.
                    let _told = written.try_send(());
                }
            }
        }
    }

    /// Here where the lines are missing: behind those that were kept, before those that come from now on.
    fn tell_what_was_lost(&self) {
        self.state.is_stuck.store(false, Ordering::Release);
        let lost = self.state.lost.swap(0, Ordering::AcqRel);
        if lost > 0 {
            // It goes the way of every line. That is empty now, so this does not wait for itself.
            log::warn!("{lost} lines were lost here, since nobody took the lines of the log");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use parking_lot::Mutex;

    use super::*;

    /// Takes a line for each word on the channel; all at once when that is closed.
    struct Gate {
        may: Receiver<()>,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.may.recv();
            self.lines.lock().push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_logs_does_not_wait_for_one_who_takes_nothing() {
        let (open, may) = crossbeam_channel::bounded(0);
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let queue = Queue::start(Gate { may, lines: Arc::clone(&lines) }).expect("a thread");
        let mut writer = LineWriter::new(queue.clone());
        let began = Instant::now();
        for number in 0..10 * MAX_LINES {
            writeln!(writer, "line {number}").expect("it never fails");
        }
        // Once for a full queue, whatever comes after that.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let lost = queue.state.lost.load(Ordering::Acquire);
        // One is in the writer's hands.
        assert!((8 * MAX_LINES as u64..=9 * MAX_LINES as u64).contains(&lost), "{lost}");
        let began = Instant::now();
        queue.flush();
        assert!(began.elapsed() < FLUSH_LIMIT, "it is known to be stuck");
        drop(open);
        let deadline = Instant::now() + Duration::from_secs(30);
        while queue.state.is_stuck.load(Ordering::Acquire) {
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::yield_now();
        }
        writeln!(writer, "after").expect("it never fails");
        queue.flush();
        let lines = lines.lock();
        let kept = lines.len() - 1;
        assert_eq!(kept as u64 + lost, 10 * MAX_LINES as u64);
        let expected = (0..kept).map(|number| format!("line {number}\n")).chain(["after\n".to_owned()]);
        assert!(lines.iter().cloned().eq(expected), "in their order, without a gap");
    }

    #[test]
    fn nothing_is_lost_to_one_who_takes_lines_as_they_come() {
        let (open, may) = crossbeam_channel::bounded(0);
        drop(open);
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let queue = Queue::start(Gate { may, lines: Arc::clone(&lines) }).expect("a thread");
        let mut writer = LineWriter::new(queue.clone());
        for number in 0..10 * MAX_LINES {
            write!(writer, "line ").expect("it never fails");
            writeln!(writer, "{number}").expect("it never fails");
        }
        queue.flush();
        assert_eq!((lines.lock().len(), queue.state.lost.load(Ordering::Acquire)), (10 * MAX_LINES, 0));
    }
}
