//! MPEG transport streams (ISO/IEC 13818-1).
//!
//! Everything here is a value that takes bytes and gives bytes. It reads no clock, does no I/O, logs nothing,
//! starts no thread, and imports nothing from the rest of the crate. Whatever a peer sends, nothing here
//! panics, grows without bound or does more than a fixed amount of work a byte.

pub mod align;
pub mod crc;
pub mod packet;

#[cfg(test)]
pub(crate) mod fixture;

pub use align::Aligner;
pub use packet::{PACKET_BYTES, Packet, Pid, SYNC_BYTE, null_packet, packets};
