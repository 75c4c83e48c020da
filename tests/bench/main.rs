//! `cargo bench`: what it costs to give one stream to many clients.
//!
//! The proxy runs as a process of its own, so that its CPU time, memory and threads are its own; the simulated engine and
//! the clients run here. Beside it, in the same run, runs the floor: one thread that writes the same bytes to as many
//! sockets, gathered at 50 ms. Machines differ and are noisy, so the ratio to the floor is what to quote. With a URL a
//! running rival is measured too (its CPU cannot be seen from here, so only its latencies are shown), and with `--against
//! PROGRAM` another build of acerelay, in turn with this one.
//!
//! Everything stays on the loopback interface and ends by itself: `cargo bench` within five minutes, `cargo bench --
//! --quick` within two. `cargo bench -- joins` runs that part alone.

mod case;
mod clients;
mod floor;
mod hls;
mod process;

use std::process::ExitCode;

use case::{Case, Outcome, Target};

const USAGE: &str = "usage: cargo bench [-- [--quick] [PART]... [--against PROGRAM] [http://HOST:PORT/path]]";

/// Clients that stream at one rate.
struct Part {
    name: &'static str,
    title: &'static str,
    /// `None` is as fast as it goes.
    bits_per_second: Option<u64>,
    /// How many clients, and how many of them take nothing.
    crowds: &'static [(usize, usize)],
    /// The crowds of `--quick`.
    quick: &'static [(usize, usize)],
}

const PARTS: [Part; 5] = [
    Part {
        name: "live",
        title: "at 8 Mbit/s, a broadcast in full HD",
        bits_per_second: Some(8_000_000),
        crowds: &[(1, 0), (10, 0), (100, 0), (500, 0), (1000, 0)],
        quick: &[(1, 0), (100, 0), (500, 0)],
    },
    Part {
        name: "still",
        title: "at 8 Mbit/s, while one or half of the clients take nothing",
        bits_per_second: Some(8_000_000),
        crowds: &[(100, 0), (101, 1), (200, 100)],
        quick: &[(200, 100)],
    },
    Part {
        name: "fast",
        title: "at 50 Mbit/s, the most that broadcasts have",
        bits_per_second: Some(50_000_000),
        crowds: &[(1, 0), (100, 0)],
        quick: &[],
    },
    Part {
        name: "crowd",
        title: "at 1 Mbit/s, more clients than any house has",
        bits_per_second: Some(1_000_000),
        crowds: &[(5000, 0)],
        quick: &[],
    },
    Part {
        name: "full-speed",
        title: "as fast as it goes",
        bits_per_second: None,
        crowds: &[(1, 0), (10, 0), (100, 0)],
        quick: &[(1, 0), (100, 0)],
    },
];

/// The part that measures joins.
const JOINS: &str = "joins";

/// The part that measures viewers by HLS.
const HLS: &str = "hls";

fn main() -> ExitCode {
    // Cargo adds `--bench`; the process of the floor is this program again.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--floor", engine] => floor::run(engine),
        ref arguments => run(arguments),
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

fn run(arguments: &[&str]) -> Result<(), Error> {
    let is_part = |name: &str| [JOINS, HLS].contains(&name) || PARTS.iter().any(|part| part.name == name);
    let (mut is_quick, mut wanted, mut others) = (false, Vec::new(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(&argument) = arguments.next() {
        match argument {
            "--quick" => is_quick = true,
            "--against" => {
                let program = arguments.next().ok_or(USAGE)?;
                others.push(("other", Target::Proxy(program.into())));
            }
            url if url.starts_with("http://") => others.push(("rival", Target::Rival(url.to_owned()))),
            name if is_part(name) => wanted.push(name),
            _ => {
                let names: Vec<_> = PARTS.iter().map(|part| part.name).collect();
                return Err(format!("{USAGE}\nparts: {}, {JOINS}, {HLS}", names.join(", ")).into());
            }
        }
    }
    // More sockets than a shell allows by itself.
    acerelay::http::descriptors::raise_descriptor_limit()?;
    let is_wanted = |name| wanted.is_empty() || wanted.contains(&name);
    for part in PARTS.iter().filter(|part| is_wanted(part.name)) {
        let crowds = if is_quick { part.quick } else { part.crowds };
        if !crowds.is_empty() {
            println!("{}: {}\n{}", part.name, part.title, Outcome::HEADING);
        }
        for &(clients, still) in crowds {
            print(&Case { clients, still, bits_per_second: part.bits_per_second }, &others)?;
        }
    }
    if is_wanted(JOINS) {
        println!("{JOINS}: 100 clients that join a running stream at once");
        println!("acerelay   {}", case::join_storm(&Target::ours())?);
        for (name, other) in others.iter().filter(|(_, other)| matches!(other, Target::Proxy(_))) {
            println!("{name:<9}  {}", case::join_storm(other)?);
        }
    }
    if is_wanted(HLS) {
        println!(
            "{HLS}: viewers at 8 Mbit/s, and as many clients of the endless stream\n{}",
            Outcome::HEADING
        );
        print(&Case { clients: 100, still: 0, bits_per_second: Some(8_000_000) }, &[])?;
        let crowds: &[usize] = if is_quick { &[100] } else { &[0, 100, 200] };
        for &viewers in crowds {
            println!("{}", hls::viewers(viewers, 4)?);
        }
    }
    Ok(())
}

fn print(case: &Case, others: &[(&str, Target)]) -> Result<(), Error> {
    // A client that takes nothing would stop the floor.
    let floor = Case { clients: case.clients - case.still, still: 0, ..*case };
    let outcome = floor.measure(&Target::Floor)?;
    let proxy = case.measure(&Target::ours())?;
    println!("{}", proxy.row("acerelay", case, Some(&outcome)));
    println!("{}", outcome.row("floor", &floor, None));
    for (name, other) in others {
        let is_seen = matches!(other, Target::Proxy(_));
        println!("{}", case.measure(other)?.row(name, case, is_seen.then_some(&outcome)));
    }
    Ok(())
}
