//! Makes one guide of the parts of several: channels first, as the DTD demands, then the programmes.
//!
//! Of several guides that have programmes of one channel, the first has it alone. Parts are read from disk three times
//! rather than held.

use std::io::{self, Write};

use super::filter::{Kept, Kind};
use super::part::Elements;
use super::wanted::{Numbers, Wanted};

/// Writes the guide of the parts that `open` opens, by their numbers below `count`, for the channels that are wanted now.
/// What ended before `from` is left out.
pub(super) fn merge(
    count: usize,
    open: &dyn Fn(usize) -> io::Result<Option<Elements>>,
    wanted: &Wanted,
    from: i64,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut owner = vec![None; wanted.len()];
    for_each(count, open, wanted, &mut |part, number, element| {
        if element.kind == Kind::Programme && element.stop > from {
            owner[number as usize].get_or_insert(part);
        }
        Ok(())
    })?;
    out.write_all(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE tv SYSTEM \"xmltv.dtd\">\n")?;
    out.write_all(b"<tv generator-info-name=\"acerelay\">\n")?;
    let mut named = Numbers::default();
    for_each(count, open, wanted, &mut |part, number, element| {
        let is_owners = owner[number as usize].is_none_or(|owner| owner == part);
        if element.kind == Kind::Channel && is_owners && named.insert(number) {
            line(out, element)
        } else {
            Ok(())
        }
    })?;
    for_each(count, open, wanted, &mut |part, number, element| {
        let is_owners = owner[number as usize] == Some(part) && named.contains(number);
        if element.kind == Kind::Programme && is_owners && element.stop > from {
            line(out, element)
        } else {
            Ok(())
        }
    })?;
    out.write_all(b"</tv>\n")
}

fn line(out: &mut dyn Write, element: &Kept<'_>) -> io::Result<()> {
    out.write_all(element.xml.as_bytes())?;
    out.write_all(b"\n")
}

/// Calls `each` with the part, the channel's number and the element, for all elements that are wanted now. A part that is
/// damaged ends there; that an element cannot be written is told.
fn for_each(
    count: usize,
    open: &dyn Fn(usize) -> io::Result<Option<Elements>>,
    wanted: &Wanted,
    each: &mut dyn FnMut(usize, u32, &Kept<'_>) -> io::Result<()>,
) -> io::Result<()> {
    for part in 0..count {
        let Some(mut elements) = open(part)? else { continue };
        while let Ok(Some(element)) = elements.next() {
            if let Some(number) = wanted.number(element.id) {
                each(part, number, &element)?;
            }
        }
    }
    Ok(())
}
