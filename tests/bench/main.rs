//! `cargo bench`: what it costs to give one stream to many clients.
//!
//! The proxy runs as a process of its own, so that its CPU time, memory and threads are its own; the simulated engine and
//! the clients run here. Beside it, in the same run, runs the floor: one thread that writes the same bytes to as many
//! sockets, gathered at 50 ms. Machines differ and are noisy, so the ratio to the floor is what to quote. `cargo bench --
//! http://HOST:PORT/path` measures a running rival too (its CPU cannot be seen from here, so only its latencies are shown).
//!
//! Everything stays on the loopback interface and ends by itself within a few minutes; `cargo bench -- --quick` takes one.

mod case;
mod clients;
mod floor;
mod process;

use std::process::ExitCode;

use case::{Case, Outcome, Target};

/// Of a broadcast in full HD.
const LIVE_BITS_PER_SECOND: u64 = 8_000_000;

fn main() -> ExitCode {
    // Cargo adds `--bench`; the process of the floor is this program again.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--floor", engine] => floor::run(engine),
        ["--quick"] => run(&[1, 100, 500], &[1, 100], None),
        [] => run(&[1, 10, 100, 500, 1000], &[1, 10, 100], None),
        [url] if url.starts_with("http://") => run(&[1, 10, 100, 500, 1000], &[], Some(url)),
        _ => Err("usage: cargo bench [-- --quick | -- http://HOST:PORT/path]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error>;

fn run(live: &[usize], full_speed: &[usize], rival: Option<&str>) -> Result<(), Error> {
    println!("at {} Mbit/s", LIVE_BITS_PER_SECOND / 1_000_000);
    println!("{}", Outcome::HEADING);
    for &clients in live {
        let case = Case { clients, bits_per_second: Some(LIVE_BITS_PER_SECOND) };
        print(&case, rival)?;
    }
    if !full_speed.is_empty() {
        println!("\nas fast as it goes");
        println!("{}", Outcome::HEADING);
    }
    for &clients in full_speed {
        print(&Case { clients, bits_per_second: None }, rival)?;
    }
    println!("\n100 clients that join a running stream at once");
    println!("{}", case::join_storm()?);
    Ok(())
}

fn print(case: &Case, rival: Option<&str>) -> Result<(), Error> {
    let floor = case.measure(&Target::Floor)?;
    let proxy = case.measure(&Target::Proxy)?;
    println!("{}", proxy.row("acerelay", case, Some(&floor)));
    println!("{}", floor.row("floor", case, None));
    if let Some(url) = rival {
        println!("{}", case.measure(&Target::Rival(url.to_owned()))?.row("rival", case, None));
    }
    Ok(())
}
