//! The configuration as TOML that reads back to the same.

use super::Config;
use super::keys::{self, Keys};
use super::rules::Rule;

impl Config {
    /// Every key with its value, as TOML that [`Config::parse`] reads back to the same, but for the admin
    /// token: it is left out, and a comment says so.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = Printer::default();
        // The list of keys is shared with the reader, who needs places to write to.
        let Self {
            mut server,
            engines,
            mut health,
            mut stream,
            mut epg,
            mut tuner,
            mut log,
            channels,
            playlists,
            state_dir: _,
        } = self.clone();
        out.section("[server]", &mut server, keys::server);
        for mut engine in engines {
            out.section("[[engines]]", &mut engine, keys::engine);
        }
        out.section("[health]", &mut health, keys::health);
        out.section("[stream]", &mut stream, keys::stream);
        out.section("[epg]", &mut epg, keys::epg);
        out.section("[tuner]", &mut tuner, keys::tuner);
        out.section("[log]", &mut log, keys::log);
        for mut playlist in playlists {
            out.section("[[playlists]]", &mut playlist, keys::playlist);
        }
        for mut channel in channels {
            out.section("[[channels]]", &mut channel, keys::channel);
        }
        out.0
    }
}

/// Lines of TOML. (The toml crate's writer is left out of the build: these few lines do.)
#[derive(Default)]
struct Printer(String);

impl Printer {
    fn section<T>(&mut self, header: &str, section: &mut T, keys: fn(&mut Self, &mut T)) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.extend([header, "\n"]);
        keys(self, section);
    }
}

impl Keys for Printer {
    fn key<T>(&mut self, name: &'static str, place: &mut T, rule: Rule<T>) {
        match (rule.show)(place) {
            Some(value) => self.0.extend([name, " = ", &value, "\n"]),
            None => self.0.extend(["# ", name, " is set, and not shown here\n"]),
        }
    }
}
