//! HLS out of a stream that is there anyway (RFC 8216, and its second edition in draft-pantos-hls-rfc8216bis).
//!
//! Values in, values out: [`segmenter`] cuts a stream at its marks and decides what is listed, [`playlist`] writes lists as text.
//! Nothing here reads a clock, holds a byte of the stream, or knows who watches.

pub mod playlist;
pub mod segmenter;
