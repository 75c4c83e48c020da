//! A player that holds against lists what the specification says of them over time.

use std::collections::{HashMap, HashSet};
use std::env;
use std::time::{Duration, Instant};

use acerelay::sim::Order;

use super::super::harness::{ID, LONG, Proxy, engine_with, pause};
use super::{Player, segments_in, with_burst};

/// What was seen of one list so far.
#[derive(Default)]
struct Poller {
    target: Option<u64>,
    sequence: u64,
    discontinuities: u64,
    /// URI and length of each number.
    known: HashMap<u64, (String, f64)>,
    marked: HashSet<u64>,
    last_change: Option<Instant>,
    /// The longest time between two changes, but for those in which the source was lost.
    slowest: Duration,
    last_text: String,
    /// When each number left the list, and the length it had.
    removed: Vec<(Instant, String, f64)>,
    faults: Vec<String>,
}

fn value(list: &str, tag: &str) -> u64 {
    let prefix = format!("#EXT-X-{tag}:");
    let mut values = list.lines().filter_map(|line| line.strip_prefix(prefix.as_str()));
    values.next().expect(tag).parse().expect("a number")
}

impl Poller {
    fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    fn look(&mut self, list: &str, is_lost: bool) {
        let now = Instant::now();
        let target = value(list, "TARGETDURATION");
        if *self.target.get_or_insert(target) != target {
            self.fault(format!("the target is {target}"));
        }
        let (sequence, discontinuities) =
            (value(list, "MEDIA-SEQUENCE"), value(list, "DISCONTINUITY-SEQUENCE"));
        if sequence < self.sequence || discontinuities < self.discontinuities {
            self.fault(format!("a sequence fell: {sequence}, {discontinuities}"));
        }
        if self.target.is_some() && self.last_text.is_empty() {
            (self.sequence, self.discontinuities) = (sequence, discontinuities);
        }
        let segments = segments_in(list);
        let total: f64 = segments.iter().map(|(_, seconds)| seconds).sum();
        if sequence > self.sequence && total < 3.0 * target as f64 {
            self.fault(format!("only {total} s are left"));
        }
        let left: u64 =
            (self.sequence..sequence).filter(|number| self.marked.contains(number)).count() as u64;
        if discontinuities != self.discontinuities + left {
            self.fault(format!("{left} discontinuities left, and the count is {discontinuities}"));
        }
        for gone in self.sequence..sequence {
            if let Some((uri, seconds)) = self.known.get(&gone) {
                self.removed.push((now, uri.clone(), *seconds));
            }
        }
        (self.sequence, self.discontinuities) = (sequence, discontinuities);
        let mut is_marked = false;
        let mut number = sequence;
        for line in list.lines() {
            if line == "#EXT-X-DISCONTINUITY" {
                is_marked = true;
            } else if !line.starts_with('#') {
                if std::mem::take(&mut is_marked) {
                    self.marked.insert(number);
                }
                number += 1;
            }
        }
        for (number, (uri, seconds)) in (sequence..).zip(&segments) {
            if *seconds > target as f64 {
                self.fault(format!("{uri} has {seconds} s"));
            }
            let known = self.known.entry(number).or_insert_with(|| (uri.clone(), *seconds));
            if *known != (uri.clone(), *seconds) {
                let text = format!("{number} was {known:?} and is {uri}, {seconds}");
                self.fault(text);
            }
        }
        if list != self.last_text {
            self.last_text = list.to_owned();
            self.last_change = Some(now);
        } else if is_lost {
            self.last_change = Some(now);
        } else if let Some(last) = self.last_change {
            self.slowest = self.slowest.max(now - last);
        }
    }
}

/// Watches for so long, while the source is lost so often.
fn watch(time: Duration, losses: u32) {
    let engine = engine_with(with_burst(8));
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = LONG);
    let player = Player::open(&proxy);
    let mut poller = Poller::default();
    let (began, mut lost) = (Instant::now(), 0);
    let mut taken = HashSet::new();
    while began.elapsed() < time {
        if lost < losses && began.elapsed() > (lost + 1) * (time / (losses + 1)) {
            lost += 1;
            assert_eq!(engine.order(ID, Order::Reset), 1);
        }
        let list = player.list();
        let session = proxy.session(ID);
        let is_lost = session["state"] != "active" || session["restarts"] != lost;
        poller.look(&list, is_lost);
        for (uri, _) in segments_in(&list) {
            if taken.insert(uri.clone()) {
                assert_eq!(player.segment(&uri).len() % 188, 0);
            }
        }
        // A segment can be had for as long as it plays after it has left the list.
        let late =
            poller.removed.extract_if(.., |(at, _, seconds)| at.elapsed().as_secs_f64() >= *seconds - 1.0);
        for (at, uri, seconds) in late.collect::<Vec<_>>() {
            let status = player.get(&player.path_of(&uri)).status;
            if at.elapsed().as_secs_f64() < seconds && status != 200 {
                poller.fault(format!("{uri} was gone too early: {status}"));
            }
        }
        pause(Duration::from_millis(500));
    }
    assert_eq!(poller.faults, Vec::<String>::new());
    let target = poller.target.expect("a list was seen");
    assert!(poller.slowest < Duration::from_secs(target) * 3 / 2, "nothing new for {:?}", poller.slowest);
    assert_eq!(poller.marked.len(), losses as usize, "each loss is marked, and nothing else");
    let session = proxy.session(ID);
    assert_eq!((&session["restarts"], &session["clients"][0]["skipped"]), (&losses.into(), &0.into()));
    println!(
        "{} s, {losses} losses: {} segments, at most {:.1} s between two changes",
        time.as_secs(),
        taken.len(),
        poller.slowest.as_secs_f64()
    );
}

#[test]
fn a_list_keeps_the_rules_over_a_loss() {
    watch(Duration::from_secs(40), 1);
}

/// `ACERELAY_HLS_SECONDS=600 cargo test --release --test it hls:: -- --ignored --nocapture`
#[test]
#[ignore = "takes ten minutes, or what ACERELAY_HLS_SECONDS says"]
fn a_list_keeps_the_rules_for_long() {
    let seconds = env::var("ACERELAY_HLS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    watch(Duration::from_secs(seconds), 5);
}
