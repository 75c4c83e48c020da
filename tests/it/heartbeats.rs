//! Threads that must never stop: that they beat, and what is said when one does not.

use std::time::{Duration, Instant};

use super::harness::{LONG, Proxy, engine, pause};

fn wait_until(is_met: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + LONG;
    while !is_met() {
        assert!(Instant::now() < deadline, "{what}");
        pause(Duration::from_millis(20));
    }
}

#[test]
fn every_thread_that_must_never_stop_beats() {
    let engines = [engine(), engine()];
    let proxy = Proxy::start(&[&engines[0], &engines[1]]);
    let heartbeats = proxy.app().service_threads().heartbeats();
    let is_there = |name: &str| heartbeats.ages().iter().any(|(beating, _)| beating == name);
    for name in ["housekeeper", "http", "self-check", "lists", "guide", "engine-0", "engine-1"] {
        wait_until(|| is_there(name), name);
    }
    let ages = heartbeats.ages();
    assert_eq!(ages.len(), 7, "{ages:?}");
    let began = Instant::now();
    for (name, _) in ages {
        // It has beaten since this test began to look.
        let has_beaten =
            || heartbeats.ages().iter().any(|(beating, age)| *beating == name && *age < began.elapsed());
        wait_until(has_beaten, &name);
    }
    assert_eq!(heartbeats.silent(), None);
}

#[test]
fn a_thread_that_does_not_beat_is_named_and_the_watchdog_is_not_fed() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    wait_until(|| proxy.app().answers() > 0, "it answers itself");
    let heartbeats = proxy.app().service_threads().heartbeats();
    let stuck = heartbeats.add("engine-7", Duration::from_millis(500));
    wait_until(|| proxy.get("/healthz").status == 503, "it says that it is not well");
    let text = proxy.get("/healthz").text();
    assert!(text.contains("\"engine-7\"") && text.contains("start the proxy anew"), "{text}");
    assert!(proxy.get("/metrics").text().contains("\nacerelay_healthy 0\n"));
    // One check may have been on its way.
    pause(Duration::from_millis(1500));
    let answers = proxy.app().answers();
    pause(Duration::from_millis(2500));
    assert_eq!(proxy.app().answers(), answers, "what feeds the watchdog");
    // One that is slow is well again as soon as it beats.
    let well = || {
        stuck.beat();
        proxy.app().answers() > answers
    };
    wait_until(well, "it is well again");
}
