//! The `acerelay` program.

fn main() {}
