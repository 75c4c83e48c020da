//! A HDHomeRun tuner, for programs that know no playlists: Plex, Jellyfin, Emby, Kodi's own client.
//!
//! Pure but for one file. `device` is who we say we are, and how long our id lasts; `answers` is what such a device
//! answers, `lineup` what it plays; `packet` is the question and the answer of its discovery, and [`discover`] alone knows
//! UDP. What a channel plays and how an answer goes out is not known here. What clients ask and where they stumble stands in
//! playlist-facts.md section 3.

pub mod answers;
pub mod device;
pub mod discover;
pub mod lineup;
mod packet;
