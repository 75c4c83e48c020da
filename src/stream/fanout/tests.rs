//! The hub, tried in one thread where order matters, and in many.

use super::*;
use crate::stream::memory::Memory;
use crate::threads::{SMALL_STACK_BYTES, Threads};
use crate::ts::start::StartKind;

const PACKETS: &[u8] = &[0x47; 188];
const BOUNDS: Bounds = Bounds { bytes: 100 * 188, age: Duration::from_secs(60) };

fn hub_with(bounds: Bounds) -> Arc<Fanout> {
    Fanout::new(bounds, &Arc::default())
}

fn hub() -> Arc<Fanout> {
    hub_with(BOUNDS)
}

fn publish(hub: &Fanout, count: usize) {
    for _ in 0..count {
        hub.publish(PACKETS, &mut Vec::new(), Instant::now());
    }
}

/// Publishes one packet that is a keyframe, with a prefix of this byte.
fn publish_keyframe(hub: &Fanout, byte: u8) {
    let arrived = Instant::now();
    let prefix = Some(Arc::new(Chunk::inserted(arrived, &[byte; 376])));
    let mark =
        Mark { offset: hub.head(), kind: StartKind::Keyframe, prefix, arrived, time: None, is_jump: false };
    hub.publish(PACKETS, &mut vec![mark], arrived);
}

impl Subscription {
    /// Takes its place; how many chunks lie ahead of its queue.
    fn attach_now(&mut self) -> usize {
        let at = self.joining.expect("it has not joined yet");
        self.attach(at, Instant::now()).expect("there is a place");
        self.ahead.len() - 1
    }
}

/// Takes chunks until it is quiet or over; their starts, in packets, and the end.
fn take(client: &mut Subscription) -> (Vec<u64>, Option<Ending>) {
    let mut starts = Vec::new();
    loop {
        match client.next(Instant::now()) {
            Next::Chunk(chunk) => {
                starts.push(chunk.start() / 188);
                client.record_sent(&chunk);
            }
            Next::Quiet => return (starts, None),
            Next::End(ending) => return (starts, Some(ending)),
        }
    }
}

#[test]
fn a_joiner_begins_at_a_keyframe_with_its_tables() {
    let hub = hub();
    publish(&hub, 1);
    publish_keyframe(&hub, 1);
    publish(&hub, 1);
    publish_keyframe(&hub, 2);
    publish(&hub, 1);
    let first = |at| {
        let mut client = hub.join(at);
        let Next::Chunk(chunk) = client.next(Instant::now()) else { panic!("there are chunks") };
        (chunk.packets()[0], take(&mut client).0)
    };
    assert_eq!(first(JoinAt::First), (1, vec![1, 2, 3, 4]));
    assert_eq!(first(JoinAt::Behind(Duration::ZERO)), (2, vec![3, 4]));
    assert_eq!(first(JoinAt::Behind(Duration::from_secs(60))), (1, vec![1, 2, 3, 4]));
}

#[test]
fn a_joiner_may_begin_in_the_middle_of_a_chunk() {
    let hub = hub();
    let arrived = Instant::now();
    let mark =
        Mark { offset: 188, kind: StartKind::Keyframe, prefix: None, arrived, time: None, is_jump: false };
    let packets: Vec<u8> = (0..3 * 188).map(|index| (index / 188) as u8).collect();
    hub.publish(&packets, &mut vec![mark], arrived);
    publish(&hub, 1);
    let mut client = hub.join(JoinAt::First);
    let Next::Chunk(chunk) = client.next(Instant::now()) else { panic!("there are chunks") };
    assert_eq!((chunk.start(), chunk.packets()), (188, &packets[188..]));
    assert_eq!(take(&mut client).0, [3]);
}

#[test]
fn what_is_put_in_front_is_no_progress() {
    let hub = hub();
    publish_keyframe(&hub, 1);
    let mut client = hub.join(JoinAt::First);
    let Next::Chunk(tables) = client.next(Instant::now()) else { panic!("there are tables") };
    client.record_sent(&tables);
    assert_eq!((client.progress().offset(), client.progress().sent_bytes()), (0, 376));
    publish(&hub, 1);
    assert_eq!(take(&mut client).0, [0, 1]);
}

#[test]
fn the_first_client_waits_for_the_first_keyframe_but_not_long() {
    let hub = hub();
    publish(&hub, 2);
    let mut early = hub.join(JoinAt::First);
    assert!(matches!(early.next(Instant::now()), Next::Quiet));
    publish_keyframe(&hub, 7);
    assert_eq!(take(&mut early).0, [0, 2], "the tables count from nowhere");
    let hub = self::hub();
    publish(&hub, 2);
    let mut patient = hub.join(JoinAt::First);
    let Next::Chunk(chunk) = patient.next(Instant::now() + Duration::from_secs(20)) else {
        panic!("it begins without a keyframe");
    };
    assert_eq!(chunk.start(), 0);
}

#[test]
fn a_cut_shares_the_chunks_and_costs_nobody_anything() {
    let hub = hub();
    publish_keyframe(&hub, 1);
    publish(&hub, 2);
    let mut client = hub.join(JoinAt::First);
    client.attach_now();
    let slices = hub.cut(100, 500).expect("it is there");
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.as_ref().to_vec()).collect();
    assert_eq!(bytes, [0x47; 400]);
    let parts: Vec<Arc<dyn AsRef<[u8]> + Send + Sync>> =
        slices.iter().map(|slice| Arc::clone(&slice.chunk) as Arc<_>).collect();
    assert!(parts.iter().all(|part| part.as_ref().as_ref().len() == 188), "the packets without their frame");
    let marks: Vec<_> = hub.outline(0).marks.iter().map(|mark| (mark.offset, mark.kind)).collect();
    assert_eq!((marks, hub.outline(1).marks.len()), (vec![(0, StartKind::Keyframe)], 0));
    assert_eq!(take(&mut client).0, [0, 0, 1, 2]);
    assert!(hub.cut(0, 565).is_none(), "not yet there");
    publish(&hub, 201);
    assert!(hub.cut(100, 500).is_none(), "not there any more");
    assert_eq!(slices[0].as_ref().len(), 88, "whoever has it keeps it");
}

#[test]
fn at_the_end_everybody_gets_everything_first() {
    let hub = hub();
    let mut early = hub.join(JoinAt::First);
    publish(&hub, 3);
    hub.close(Ending::Complete);
    hub.close(Ending::Broken);
    assert!(!hub.publish(PACKETS, &mut Vec::new(), Instant::now()), "it takes nothing any more");
    let everything = (vec![0, 1, 2], Some(Ending::Complete));
    assert_eq!(take(&mut early), everything);
    assert_eq!(take(&mut hub.join(JoinAt::First)), everything);
    hub.clear();
    assert_eq!(take(&mut hub.join(JoinAt::First)), (vec![], Some(Ending::Complete)));
}

#[test]
fn who_is_left_behind_loses_its_queue_and_joins_again_ahead() {
    let hub = hub();
    publish_keyframe(&hub, 1);
    let (mut slow, mut fast) = (hub.join(JoinAt::First), hub.join(JoinAt::First));
    assert_eq!((take(&mut fast).0, slow.attach_now()), (vec![0, 0], 1));
    publish(&hub, 200);
    assert_eq!(take(&mut fast).0.len(), 200);
    assert_eq!(hub.shared.lock().clients.len(), 2, "at the bound it is not beyond it");
    publish_keyframe(&hub, 2);
    assert_eq!(hub.shared.lock().clients.len(), 1);
    assert!(slow.queue.is_empty(), "its queue is freed at once");
    publish(&hub, 1);
    slow.ahead.clear();
    assert_eq!(take(&mut slow), (vec![0, 201, 202], None));
    assert_eq!((slow.progress().skips(), fast.progress().skips()), (1, 0));
    publish(&hub, 2);
    assert_eq!(take(&mut slow).0, [203, 204]);
    assert_eq!(take(&mut fast).0.len(), 4);
}

#[test]
fn the_engine_waits_only_while_everybody_is_behind() {
    let bounds = Bounds { bytes: 100 << 20, age: Duration::from_secs(60) };
    let hub = hub_with(bounds);
    let megabytes = |count| {
        for _ in 0..count {
            hub.publish(&[0x47; 1 << 20], &mut Vec::new(), Instant::now());
        }
    };
    megabytes(4);
    assert!(!hub.is_everybody_behind());
    megabytes(1);
    assert!(hub.is_everybody_behind(), "the first client is on its way");
    let mut one = hub.join(JoinAt::First);
    let mut other = hub.join(JoinAt::First);
    let old = Instant::now() + FIRST_KEYFRAME_WAIT;
    assert_eq!((one.attach(JoinAt::First, old), other.attach(JoinAt::First, old)), (Ok(()), Ok(())));
    assert!(hub.is_everybody_behind());
    take(&mut one);
    assert!(!hub.is_everybody_behind());
    drop(one);
    assert!(hub.is_everybody_behind());
    drop(other);
    megabytes(5);
    assert!(!hub.is_everybody_behind(), "nobody watches a lingering stream");
}

#[test]
fn joining_and_leaving_under_load_makes_no_gap_and_no_double() {
    let hub = hub_with(Bounds { bytes: u64::MAX, age: Duration::from_millis(5) });
    let threads = Threads::new();
    for _ in 0..4 {
        let hub = Arc::clone(&hub);
        let body = move || {
            for round in 0..100_u32 {
                let behind = Duration::from_millis(u64::from(round % 4));
                let mut client = hub.join(JoinAt::Behind(behind));
                let mut expected = None;
                for _ in 0..50 {
                    match client.next(Instant::now() + Duration::from_secs(30)) {
                        Next::Chunk(chunk) => {
                            assert_eq!(chunk.start(), *expected.get_or_insert(chunk.start()));
                            expected = Some(chunk.end);
                            client.record_sent(&chunk);
                        }
                        Next::Quiet => panic!("a wake-up was lost"),
                        Next::End(_) => panic!("the source still publishes"),
                    }
                }
            }
        };
        threads.spawn("joiner", SMALL_STACK_BYTES, body).expect("a thread");
    }
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let source = Arc::clone(&hub);
    let body = move || {
        while stopped.try_recv().is_err_and(|error| error.is_empty()) {
            publish(&source, 1);
            std::thread::yield_now();
        }
    };
    let sources = Threads::new();
    sources.spawn("source", SMALL_STACK_BYTES, body).expect("a thread");
    let joined = threads.join_all(Instant::now() + Duration::from_secs(60));
    drop(stop);
    sources.join_all(Instant::now() + Duration::from_secs(60)).expect("it is told to end");
    joined.expect("no joiner waits in vain");
}

#[test]
fn what_memory_took_from_the_backlog_does_not_live_on_in_a_queue() {
    let memory = Memory::new(2 << 20);
    let hub = Fanout::new(Bounds { bytes: 100 << 20, age: Duration::from_secs(60) }, memory.budget());
    memory.add(&hub);
    let publish = |chunks| {
        for _ in 0..chunks {
            hub.publish(&[0x47; 1 << 16], &mut Vec::new(), Instant::now());
            memory.settle();
        }
    };
    publish(1);
    let mut slow = hub.join(JoinAt::Behind(Duration::ZERO));
    slow.attach_now();
    // It may be as far behind as memory allows, and no further, although it has just joined.
    publish(31);
    assert_eq!((hub.kept_bytes(), hub.clients()), (2 << 20, 1));
    publish(1);
    assert_eq!((hub.kept_bytes(), hub.clients(), slow.queue.len()), (2 << 20, 0, 0));
}

#[test]
fn who_falls_twice_as_far_behind_by_time_as_the_backlog_is_long_is_left_behind() {
    let (age, began) = (Duration::from_secs(10), Instant::now());
    let hub = hub_with(Bounds { bytes: u64::MAX, age });
    let publish_at = |seconds: u32| {
        hub.publish(PACKETS, &mut Vec::new(), began + Duration::from_secs(1) * seconds);
    };
    publish_at(0);
    let join = || {
        let mut client = hub.join(JoinAt::Behind(Duration::ZERO));
        client.attach_now();
        client.ahead.clear();
        client
    };
    let (slow, mut fast, mut late) = (join(), join(), join());
    for seconds in 1..=20 {
        publish_at(seconds);
        take(&mut fast);
        if seconds == 10 {
            take(&mut late);
        }
        assert_eq!(hub.clients(), 3, "{seconds}");
        // Its queue is longer than the backlog, and counted.
        assert_eq!(hub.kept_bytes(), u64::from(seconds + 1) * 188);
    }
    publish_at(22);
    assert_eq!((hub.clients(), slow.queue.len()), (2, 0));
    assert_eq!(hub.kept_bytes(), 11 * 188, "from the place of the one that is late");
    drop(late);
    assert!(hub.kept_bytes() <= 11 * 188);
    take(&mut fast);
    // A stream that was silent for long leaves nobody behind who had everything.
    publish_at(100);
    assert_eq!((hub.clients(), hub.kept_bytes()), (1, 188));
}

#[test]
fn memory_takes_from_queues_what_the_backlog_does_not_have() {
    let memory = Memory::new(4 << 20);
    let bounds = Bounds { bytes: 100 << 20, age: Duration::from_millis(1) };
    let began = Instant::now();
    let [one, other] = [(); 2].map(|()| {
        let hub = Fanout::new(bounds, memory.budget());
        memory.add(&hub);
        hub
    });
    let publish = |hub: &Fanout, number: u32| {
        let arrived = began + Duration::from_millis(10) * number;
        hub.publish(&[0x47; 1 << 16], &mut Vec::new(), arrived);
        memory.settle();
    };
    let mut slow = one.join(JoinAt::Behind(Duration::ZERO));
    publish(&one, 0);
    slow.attach_now();
    let mut near = other.join(JoinAt::Behind(Duration::ZERO));
    publish(&other, 0);
    near.attach_now();
    for number in 1..16 {
        publish(&other, number);
    }
    for number in 1..47 {
        publish(&one, number);
    }
    assert_eq!((one.kept_bytes(), one.clients()), (47 << 16, 1), "all that the slow one has not taken");
    assert_eq!(memory.budget().kept_bytes(), 63 << 16);
    publish(&one, 47);
    assert_eq!((one.clients(), memory.budget().kept_bytes()), (1, 4 << 20), "it fits to the byte");
    publish(&one, 48);
    assert_eq!((one.clients(), one.kept_bytes(), slow.queue.len()), (0, 1 << 16, 0));
    assert_eq!((other.clients(), other.kept_bytes()), (1, 1 << 20), "who is hardly behind keeps its place");
}

#[test]
fn a_client_lags_by_the_age_of_what_it_has_not_been_sent() {
    let hub = hub();
    let arrived = Instant::now();
    let at = |milliseconds| arrived + Duration::from_millis(milliseconds);
    let mut client = hub.join(JoinAt::Behind(Duration::from_secs(1)));
    let lag = |client: &Subscription, now| hub.lag_of(client.progress(), now);
    assert_eq!(lag(&client, at(50)), Duration::ZERO, "nothing was published");
    for milliseconds in [0, 10] {
        hub.publish(PACKETS, &mut Vec::new(), at(milliseconds));
    }
    assert_eq!(lag(&client, at(50)), Duration::from_millis(50));
    let Next::Chunk(first) = client.next(arrived) else { panic!("there is a chunk") };
    client.record_sent(&first);
    assert_eq!(lag(&client, at(50)), Duration::from_millis(40), "that of the second chunk");
    take(&mut client);
    assert_eq!(lag(&client, at(50)), Duration::ZERO, "it has everything");
    hub.close(Ending::Complete);
    hub.clear();
    assert_eq!(lag(&client, at(50)), Duration::ZERO);
}

#[test]
fn who_takes_pieces_is_never_behind_and_has_more_kept() {
    let hub = hub();
    let longer = Bounds { bytes: 300 * 188, age: BOUNDS.age };
    publish(&hub, 200);
    assert_eq!(hub.outline(0).tail, 100 * 188);
    let one = hub.take_pieces(longer);
    let other = hub.take_pieces(Bounds { bytes: 1, age: Duration::ZERO });
    publish(&hub, 500);
    let outline = hub.outline(0);
    assert_eq!((outline.head, outline.tail), (700 * 188, 400 * 188));
    hub.publish(&[0x47; 5 << 20], &mut Vec::new(), Instant::now());
    assert!(!hub.is_everybody_behind());
    drop(one);
    publish(&hub, 200);
    assert_eq!(hub.outline(0).head - hub.outline(0).tail, 200 * 188, "the other one is still there");
    drop(other);
    publish(&hub, 1);
    assert_eq!(hub.outline(0).head - hub.outline(0).tail, 100 * 188);
}

#[test]
fn a_piece_counts_as_sent_and_its_age_as_lag() {
    let hub = hub();
    publish(&hub, 10);
    let pieces = hub.take_pieces(BOUNDS);
    let later = Instant::now() + Duration::from_secs(5);
    assert_eq!(hub.lag_of(pieces.progress(), later), Duration::ZERO);
    publish(&hub, 10);
    pieces.record_sent(5 * 188, 940);
    pieces.record_skip();
    assert!(hub.lag_of(pieces.progress(), later) >= Duration::from_secs(4));
    assert_eq!((pieces.progress().sent_bytes(), pieces.progress().skips()), (940, 1));
}

#[test]
fn who_waits_for_an_event_is_woken_by_what_is_published_and_by_the_end() {
    let hub = hub();
    let soon = Instant::now();
    let seen = hub.event();
    assert!(!hub.wait_event(seen, soon));
    publish(&hub, 1);
    assert!(hub.wait_event(seen, soon));
    let seen = hub.event();
    hub.close(Ending::Complete);
    assert!(hub.wait_event(seen, soon));
    assert_eq!(hub.outline(0).ending, Some(Ending::Complete));
}
