//! Whole packets out of bytes that come in any split.
//!
//! Sync is five sync bytes 188 apart: one byte in 256 of any payload is 0x47, so fewer are found by chance too
//! often. At the end of a body, where there may be no fifth, three suffice. In sync a packet is passed on as
//! soon as it is whole, so alignment adds no delay, except where the byte behind it is known and wrong: then
//! either garbage follows a whole packet, or the packet was torn and its last bytes are the first ones of
//! another. Only a search that begins inside it can tell.
//!
//! It knows nothing of packets but length and first byte. Positions are tried in rising order, each at most
//! once, so the work is linear in what came, and less than five packets wait between two calls.

use std::mem;

use super::packet::{PACKET_BYTES, SYNC_BYTE};

/// Sync bytes 188 apart that make sync in a body that goes on.
const SYNCS: usize = 5;

/// Sync bytes 188 apart that make sync in what is left at the end of a body.
const SYNCS_AT_END: usize = 3;

/// Other lengths of packets of the same content: with a time stamp in front of each, as discs and their players have them
/// (BDAV), and with the parity of a broadcast behind each (EN 300 429).
const FOREIGN_PACKET_BYTES: [usize; 2] = [192, 204];

/// So many sync bytes of them say that it is so.
const FOREIGN_SYNCS: usize = 8;

/// What may have to wait for more: a packet under suspicion, and behind it what the last position in it needs
/// to be tried.
const UNSETTLED_BYTES: usize = PACKET_BYTES + (SYNCS - 1) * PACKET_BYTES + 1;

/// Cuts a body into whole packets.
#[derive(Debug, Default)]
pub struct Aligner {
    /// Bytes that came and are not settled.
    carry: Vec<u8>,
    state: State,
    skipped_bytes: u64,
    /// How often sync was lost.
    #[cfg(test)]
    losses: u64,
    /// Bytes compared with the sync byte, to show that the work is linear.
    #[cfg(test)]
    compared: u64,
}

/// How far the unsettled bytes are understood. Offsets count from the first of them.
#[derive(Debug, Clone, Copy)]
enum State {
    /// No packet boundary is known at `from` or behind it.
    Searching { lead: Lead, from: usize },
    /// The next packet begins right behind the lead.
    Synced { lead: Lead },
}

/// What the unsettled bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// With what was not looked at yet.
    Nothing,
    /// With a packet that was passed on before the byte behind it was known. It is kept because, if it was
    /// torn, the next packet begins in it.
    Passed,
    /// With a packet that has something else than a sync byte behind it.
    Suspect,
}

impl Default for State {
    fn default() -> Self {
        Self::Searching { lead: Lead::Nothing, from: 0 }
    }
}

impl Aligner {
    /// An aligner at the beginning of a body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the body and appends the packets that are whole now to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        if !self.carry.is_empty() {
            // Enough to settle all of the carry, so that what is left unsettled lies in `bytes` alone.
            let joint_bytes = bytes.len().min(UNSETTLED_BYTES);
            let mut carry = mem::take(&mut self.carry);
            carry.extend_from_slice(&bytes[..joint_bytes]);
            let settled = self.settle(&carry, SYNCS, out);
            let unsettled_bytes = carry.len() - settled;
            if unsettled_bytes > joint_bytes {
                carry.drain(..settled);
                self.carry = carry;
                return;
            }
            carry.clear();
            self.carry = carry;
            rest = &bytes[joint_bytes - unsettled_bytes..];
        }
        let settled = self.settle(rest, SYNCS, out);
        self.carry.extend_from_slice(&rest[settled..]);
    }

    /// Ends the body: appends what is left of whole packets to `out`, drops a torn last one, and is ready for
    /// another body. Where a search is open, three sync bytes suffice; a packet under suspicion is passed on,
    /// since nothing was found in it.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let carry = mem::take(&mut self.carry);
        let left = &carry[self.settle(&carry, SYNCS_AT_END, out)..];
        let lead_bytes = match mem::take(&mut self.state) {
            State::Searching { lead: Lead::Suspect, .. } => {
                out.extend_from_slice(&left[..PACKET_BYTES]);
                PACKET_BYTES
            }
            State::Searching { lead: Lead::Passed, .. } | State::Synced { lead: Lead::Passed } => {
                PACKET_BYTES
            }
            State::Searching { .. } | State::Synced { .. } => 0,
        };
        self.skipped_bytes += (left.len() - lead_bytes) as u64;
    }

    /// Whether a packet boundary is known.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(self.state, State::Synced { .. })
    }

    /// Bytes thrown away, in all bodies so far.
    #[must_use]
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }

    /// How often sync was lost, in all bodies so far.
    #[cfg(test)]
    pub(super) fn losses(&self) -> u64 {
        self.losses
    }

    /// Goes through the unsettled bytes as far as they allow a decision and gives how many are settled. Called
    /// again with the rest and nothing more, it does nothing.
    fn settle(&mut self, bytes: &[u8], syncs: usize, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        loop {
            match self.state {
                State::Searching { lead, from } => {
                    at += self.search(&bytes[at..], lead, from, syncs, out);
                    if !self.is_synced() {
                        return at;
                    }
                }
                State::Synced { lead } => {
                    at += self.follow(&bytes[at..], lead, out);
                    if self.is_synced() {
                        return at;
                    }
                }
            }
        }
    }

    /// In sync: passes on the run of packets that begins behind the lead, in one piece.
    fn follow(&mut self, bytes: &[u8], lead: Lead, out: &mut Vec<u8>) -> usize {
        let start = if lead == Lead::Passed { PACKET_BYTES } else { 0 };
        let mut end = start;
        let behind = loop {
            self.count_comparison();
            match bytes.get(end) {
                Some(&SYNC_BYTE) if bytes.len() - end >= PACKET_BYTES => end += PACKET_BYTES,
                behind => break behind,
            }
        };
        match behind {
            Some(&SYNC_BYTE) => {
                out.extend_from_slice(&bytes[start..end]);
                self.state = State::Synced { lead: Lead::Nothing };
                end
            }
            Some(_) => {
                self.count_loss();
                let last = end.saturating_sub(PACKET_BYTES);
                let lead = if end == start { lead } else { Lead::Suspect };
                if lead == Lead::Suspect {
                    out.extend_from_slice(&bytes[start..last]);
                }
                self.state = State::Searching { lead, from: 1 };
                last
            }
            None if end == 0 => 0,
            None => {
                out.extend_from_slice(&bytes[start..end]);
                self.state = State::Synced { lead: Lead::Passed };
                end - PACKET_BYTES
            }
        }
    }

    /// Out of sync: tries every position from `from` on for which the bytes are there.
    fn search(&mut self, bytes: &[u8], lead: Lead, from: usize, syncs: usize, out: &mut Vec<u8>) -> usize {
        let tries = bytes.len().saturating_sub((syncs - 1) * PACKET_BYTES);
        let found = (from..tries).find(|&position| self.is_sync(&bytes[position..], syncs));
        let reached = found.unwrap_or(tries.max(from));
        let lead_bytes = if lead == Lead::Nothing { 0 } else { PACKET_BYTES };
        if reached < lead_bytes && found.is_none() {
            self.state = State::Searching { lead, from: reached };
            return 0;
        }
        // No packet begins in the lead: it was whole. Otherwise it was torn.
        let kept_bytes = match lead {
            Lead::Nothing => 0,
            Lead::Passed => lead_bytes.min(reached),
            Lead::Suspect if reached < lead_bytes => 0,
            Lead::Suspect => {
                out.extend_from_slice(&bytes[..lead_bytes]);
                lead_bytes
            }
        };
        self.skipped_bytes += (reached - kept_bytes) as u64;
        self.state = match found {
            Some(_) => State::Synced { lead: Lead::Nothing },
            None => State::Searching { lead: Lead::Nothing, from: 0 },
        };
        reached
    }

    fn is_sync(&mut self, bytes: &[u8], syncs: usize) -> bool {
        bytes.iter().step_by(PACKET_BYTES).take(syncs).all(|&byte| {
            self.count_comparison();
            byte == SYNC_BYTE
        })
    }

    #[cfg(test)]
    fn count_comparison(&mut self) {
        self.compared += 1;
    }

    #[cfg(not(test))]
    fn count_comparison(&mut self) {}

    #[cfg(test)]
    fn count_loss(&mut self) {
        self.losses += 1;
    }

    #[cfg(not(test))]
    fn count_loss(&mut self) {}
}

/// The length of packets if these bytes are some of another length than this crate takes.
#[must_use]
pub fn foreign_packet_bytes(bytes: &[u8]) -> Option<usize> {
    FOREIGN_PACKET_BYTES.into_iter().find(|&length| {
        let is_sync =
            |at: usize| (0..FOREIGN_SYNCS).all(|packet| bytes.get(at + packet * length) == Some(&SYNC_BYTE));
        (0..length).any(is_sync)
    })
}

#[cfg(test)]
mod tests;
