//! The configuration: what `config.toml` may say, checked once.
//!
//! [`Config::read`] turns a file into values whose types hold the rules, or into a list of [`Mistakes`] that name file,
//! line, key and what is allowed. Each section is handed on to the part it concerns, by value or, where it may be
//! replaced while the program runs, by a [`Live`] handle; the whole [`Config`] is for the program alone. A default
//! stands in this file alone, in the `Default` of its section (a test holds that the shipped `config.toml` says the
//! same).
//!
//! The way of a file: `tree` reads TOML with line numbers, `check` says which sections there are, `keys` which keys
//! they have, `rules` and `value` which values those take, `raw` how one value is written; `print` writes the whole
//! back as TOML. So a new key is a field with its default here, a line in `keys`, and one in the shipped file. The
//! `toml` crate is named here and nowhere else.

mod channels;
mod check;
mod device_id;
mod keys;
mod list_rules;
mod live;
mod mistake;
mod print;
mod raw;
mod rules;
mod source_url;
#[cfg(test)]
mod tests;
mod tree;
mod value;

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

pub use channels::{Channel, Merge, Other, Place, Playlist};
pub use check::check_engines;
pub use device_id::DeviceId;
pub use live::Live;
pub use mistake::{ConfigError, Mistake, Mistakes, Refused};
pub use rules::{level, listen};
pub use source_url::SourceUrl;
pub use value::{AdminToken, Host, PublicUrl};

/// Bytes in the megabyte of keys that end in `_mb`.
pub const MEBIBYTE: u64 = 1024 * 1024;

/// A file above this is not a configuration; it keeps a slip like `--config /dev/zero` from eating memory.
const MAX_FILE_BYTES: u64 = MEBIBYTE;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[[engines]]`, in the order of the file; at least one, no two with the same name or the same host
    /// and port.
    pub engines: Vec<Engine>,
    /// `[health]`
    pub health: Health,
    /// `[stream]`
    pub stream: Stream,
    /// `[epg]`
    pub epg: Epg,
    /// `[tuner]`
    pub tuner: Tuner,
    /// `[log]`
    pub log: Log,
    /// `[[channels]]`, in the order of the file.
    pub channels: Vec<Channel>,
    /// `[[playlists]]`, in the order of the file.
    pub playlists: Vec<Playlist>,
    /// Where what outlives the process is kept. The command line and the service manager say it, not the file.
    pub state_dir: Option<PathBuf>,
}

/// `[server]`: the side that players see.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Address and port to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Streaming clients at once.
    pub max_clients: usize,
    /// Streaming clients of one address at once; `None` is no such limit.
    pub max_clients_per_address: Option<NonZeroUsize>,
    /// What a DELETE must present; `None` asks for nothing.
    pub admin_token: Option<AdminToken>,
    /// Base of the URLs in playlists; `None` takes the request's Host.
    pub public_url: Option<PublicUrl>,
    /// A client that takes no byte for so long is closed.
    pub write_timeout: Duration,
}

/// `[[engines]]`: one AceStream engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    /// Where it runs.
    pub host: Host,
    /// Port of its HTTP API; never 0.
    pub port: u16,
    /// What logs and status call it; `host:port` unless the file names it.
    pub name: String,
    /// Its P2P port is reachable from outside, so it is preferred.
    pub forwarded: bool,
    /// Streams at once.
    pub max_streams: usize,
    /// Streams being started at once.
    pub max_starts: usize,
}

/// `[health]`: how engines are watched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// From one check to the next.
    pub interval: Duration,
    /// How long one check may take.
    pub timeout: Duration,
    /// Failed checks in a row that make an engine unhealthy.
    pub failures: u32,
}

/// `[stream]`: the life of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stream {
    /// From the request to the established playback connection.
    pub connect_timeout: Duration,
    /// From there to the first TS packets.
    pub first_data_timeout: Duration,
    /// Silence in mid-stream before the source counts as lost.
    pub stall_timeout: Duration,
    /// How long clients are kept while the source is recovered; zero: not at all.
    pub recover_timeout: Duration,
    /// How long a stream without clients is kept; zero: not at all.
    pub linger: Duration,
    /// How long a start without clients is kept; zero: not at all.
    pub abandon: Duration,
    /// Streams at once.
    pub max_streams: usize,
    /// Age up to which a stream's chunks are kept for joiners.
    pub backlog: Duration,
    /// Bytes up to which a stream's chunks are kept for joiners.
    pub backlog_bytes: u64,
    /// Bytes that all backlogs together may take.
    pub memory_bytes: u64,
    /// A joiner starts at the newest keyframe at least this old.
    pub start_behind: Duration,
    /// Silence of the source after which clients get null packets; `None`: never.
    pub keepalive: Option<Duration>,
    /// An HLS viewer that asks for nothing so long has left.
    pub hls_idle: Duration,
    /// Age up to which chunks are kept while there is an HLS viewer.
    pub hls_backlog: Duration,
    /// Bytes up to which chunks are kept while there is an HLS viewer.
    pub hls_backlog_bytes: u64,
}

/// `[epg]`: the guide of the channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Epg {
    /// Where it comes from, besides what the lists name.
    pub urls: Vec<SourceUrl>,
    /// Days ahead that are kept of it.
    pub days: u32,
}

/// `[tuner]`: the channels as a HDHomeRun has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuner {
    /// Whether there is one.
    pub enabled: bool,
    /// Whether it answers whoever looks for tuners in this network.
    pub discovery: bool,
    /// What programs call it.
    pub name: String,
    /// As many channels at once as it says that it has tuners; `None` for as many as there may be streams.
    pub tuners: Option<NonZeroU8>,
    /// Its id; `None` for one that is made once and kept.
    pub device_id: Option<DeviceId>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The least important level that is logged; never `Off`.
    pub level: LevelFilter,
    /// The file to append to; `None` is standard error.
    pub file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server::default(),
            engines: vec![Engine::default()],
            health: Health::default(),
            stream: Stream::default(),
            epg: Epg::default(),
            tuner: Tuner::default(),
            log: Log::default(),
            channels: Vec::new(),
            playlists: Vec::new(),
            state_dir: None,
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8000)),
            max_clients: 500,
            max_clients_per_address: None,
            admin_token: None,
            public_url: None,
            write_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for Engine {
    /// The engine of this machine on AceStream's own port.
    fn default() -> Self {
        Self::at(IpAddr::V4(Ipv4Addr::LOCALHOST).into(), 6878)
    }
}

impl Engine {
    /// An engine at this place, everything else by default.
    #[must_use]
    pub fn at(host: Host, port: u16) -> Self {
        let name = format!("{}:{port}", host.in_url());
        Self { host, port, name, forwarded: false, max_streams: 10, max_starts: 4 }
    }

    /// `host:port` as it stands in a URL; IPv6 in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host.in_url(), self.port)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(5), failures: 3 }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            first_data_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            recover_timeout: Duration::from_secs(60),
            linger: Duration::from_secs(30),
            abandon: Duration::from_secs(15),
            max_streams: 50,
            backlog: Duration::from_secs(12),
            backlog_bytes: 16 * MEBIBYTE,
            memory_bytes: 128 * MEBIBYTE,
            start_behind: Duration::from_secs(1),
            keepalive: Some(Duration::from_secs(2)),
            hls_idle: Duration::from_secs(20),
            hls_backlog: Duration::from_secs(45),
            hls_backlog_bytes: 48 * MEBIBYTE,
        }
    }
}

impl Default for Epg {
    fn default() -> Self {
        Self { urls: Vec::new(), days: 3 }
    }
}

impl Default for Tuner {
    fn default() -> Self {
        Self { enabled: false, discovery: false, name: "acerelay".to_owned(), tuners: None, device_id: None }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LevelFilter::Info, file: None }
    }
}

impl Config {
    /// Reads the file at `path`; what it does not say is as by default.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is larger than a mebibyte, or says something that is not allowed.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = contents(path)?;
        Self::parse(&path.display().to_string(), &bytes).map_err(ConfigError::Invalid)
    }

    /// Checks the contents of a file; `file` is its name in error messages.
    ///
    /// # Errors
    ///
    /// All the mistakes that can be told at once.
    pub fn parse(file: &str, contents: &[u8]) -> Result<Self, Mistakes> {
        check::config(contents).map_err(|list| Mistakes::new(file, list))
    }
}

impl AdminToken {
    /// Reads a file that has the token and nothing else, but for a line's end; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read, or holds no token: a token that somebody wanted must not be
    /// missed in silence.
    pub fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let bytes = match contents(path) {
            Err(error) if error.is_not_found() => return Ok(None),
            outcome => outcome?,
        };
        // What is no UTF-8 is no token either, and is not shown.
        let text = String::from_utf8_lossy(&bytes);
        text.trim_end_matches(['\r', '\n']).parse().map(Some).map_err(|refused| {
            let mistake = Mistake { line: 1, key: None, refused };
            ConfigError::Invalid(Mistakes::new(&path.display().to_string(), vec![mistake]))
        })
    }
}

/// The contents of a file of settings.
fn contents(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = Vec::new();
    let outcome = File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .and_then(|_| {
            if bytes.len() as u64 > MAX_FILE_BYTES {
                Err(io::Error::other("it is larger than 1 MiB"))
            } else {
                Ok(())
            }
        });
    match outcome {
        Ok(()) => Ok(bytes),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}
