//! Everything that reads bytes from a peer, with bytes that nobody would send on purpose: what players ask for, what
//! engines answer, what a stream consists of.

mod answers;
mod ids;
mod targets;

use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// Holds a rule for so many values. What was found stays in the output, not in a file.
#[track_caller]
fn check<S>(cases: u32, values: &S, rule: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S: Strategy,
    S::Value: Debug,
{
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    if let Err(error) = TestRunner::new(config).run(values, rule) {
        panic!("{error}");
    }
}
