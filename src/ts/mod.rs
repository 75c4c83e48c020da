//! MPEG transport streams (ISO/IEC 13818-1): whole packets out of loose bytes, and the tables a decoder
//! needs in front of them.
//!
//! The way of a byte: [`align`] cuts what came into packets, [`packet`] reads a packet's head, [`psi`] keeps
//! the packets of the last PAT and PMTs, which `section` puts together, [`crc`] checks and [`pmt`] reads.
//! [`start`] finds where a decoder may begin, with [`pes`] and `picture` to read what is carried;
//! [`continuity`] makes the packets that announce a jump, [`clock`] reckons with a programme's clock, and [`follow`]
//! says which PID's clock that is. [`media`] says what a person would call it, with `parameter_sets` for the size,
//! and [`kept_sets`] keeps what a decoder needs that comes later.
//!
//! Everything here is a value that takes bytes and gives bytes. It reads no clock, does no I/O, logs nothing,
//! starts no thread, and imports nothing from the rest of the crate. Whatever a peer sends, nothing here
//! panics, grows without bound or does more than a fixed amount of work a byte.

pub mod align;
pub mod clock;
pub mod continuity;
pub mod crc;
pub mod follow;
pub mod kept_sets;
pub mod media;
pub mod packet;
pub mod pes;
pub mod pmt;
pub mod psi;
pub mod start;

mod parameter_sets;
mod picture;
mod section;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
