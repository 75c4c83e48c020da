//! How often the program's threads wake: on a small box each wake is heat, and most of the time nothing happens.

use std::time::{Duration, Instant};

use super::harness::{Bystander, Running, engine, pause};

/// What is measured takes so long: the rarest timer runs down in 10 s, and those that wake most often, several times.
const MEASURED: Duration = Duration::from_secs(8);

/// How often all threads of the program that live on wake in a second.
fn wakes_a_second(running: &Running) -> f64 {
    let (before, began) = (running.usage().wakes, Instant::now());
    pause(MEASURED);
    (running.usage().wakes - before) as f64 / began.elapsed().as_secs_f64()
}

#[test]
fn an_idle_program_hardly_wakes() {
    let engine = engine();
    let running = Running::before(&engine);
    running.wait_log("is up");
    // Threads of its start end, and connections of it are forgotten.
    pause(Duration::from_secs(3));
    let wakes = wakes_a_second(&running);
    assert!(wakes < 4.0, "{wakes:.1} wakes a second");
}

#[test]
fn a_stream_wakes_for_what_it_gives_and_hardly_for_nobody() {
    let engine = engine();
    let running = Running::before(&engine);
    running.wait_log("is up");
    let viewer = Bystander::watch_at(running.address);
    // While a stream is young it comes in small pieces.
    pause(Duration::from_secs(3));
    let wakes = wakes_a_second(&running);
    assert!(wakes < 80.0, "{wakes:.1} wakes a second with one viewer");
    viewer.assert_undisturbed();
    pause(Duration::from_secs(1));
    let wakes = wakes_a_second(&running);
    assert!(wakes < 30.0, "{wakes:.1} wakes a second of a stream that lingers");
}
