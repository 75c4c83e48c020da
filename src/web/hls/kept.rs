//! What is kept for HLS beside the streams and their leases.

use super::broadcast::Broadcasts;
use super::dismissed::Dismissed;

/// What is kept for HLS beside the streams and their leases.
#[derive(Debug, Default)]
pub struct Hls {
    pub(super) broadcasts: Broadcasts,
    pub(super) dismissed: Dismissed,
}
