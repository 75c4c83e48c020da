//! The configuration as TOML that reads back to the same.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::{Config, Engine, Health, Log, MEBIBYTE, Server, Stream};

impl Config {
    /// Every key with its value, as TOML that [`Config::parse`] reads back to the same, but for the admin
    /// token: it is left out, and a comment says so.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = Printer::default();
        server(&mut out, &self.server);
        for engine in &self.engines {
            self::engine(&mut out, engine);
        }
        health(&mut out, self.health);
        stream(&mut out, self.stream);
        log(&mut out, &self.log);
        out.0
    }
}

fn server(out: &mut Printer, server: &Server) {
    let Server { listen, max_clients, max_clients_per_address, admin_token, public_url, write_timeout } =
        server;
    out.line("[server]");
    out.text("listen", &listen.to_string());
    out.number("max_clients", max_clients);
    out.number("max_clients_per_address", max_clients_per_address.map_or(0, NonZeroUsize::get));
    if admin_token.is_some() {
        out.line("# admin_token is set, and not shown here");
    } else {
        out.text("admin_token", "");
    }
    out.text("public_url", public_url.as_ref().map_or("", |url| url.as_str()));
    out.seconds("write_timeout_s", *write_timeout);
}

fn engine(out: &mut Printer, engine: &Engine) {
    let Engine { host, port, name, forwarded, max_streams, max_starts } = engine;
    out.line("\n[[engines]]");
    out.text("host", host.as_str());
    out.number("port", port);
    out.text("name", name);
    out.number("forwarded", forwarded);
    out.number("max_streams", max_streams);
    out.number("max_starts", max_starts);
}

fn health(out: &mut Printer, health: Health) {
    let Health { interval, timeout, failures } = health;
    out.line("\n[health]");
    out.seconds("interval_s", interval);
    out.seconds("timeout_s", timeout);
    out.number("failures", failures);
}

fn stream(out: &mut Printer, stream: Stream) {
    let Stream {
        connect_timeout,
        first_data_timeout,
        stall_timeout,
        recover_timeout,
        linger,
        abandon,
        max_streams,
        backlog,
        backlog_bytes,
        memory_bytes,
        start_behind,
        keepalive,
    } = stream;
    out.line("\n[stream]");
    out.seconds("connect_timeout_s", connect_timeout);
    out.seconds("first_data_timeout_s", first_data_timeout);
    out.seconds("stall_timeout_s", stall_timeout);
    out.seconds("recover_timeout_s", recover_timeout);
    out.seconds("linger_s", linger);
    out.seconds("abandon_s", abandon);
    out.number("max_streams", max_streams);
    out.seconds("backlog_s", backlog);
    out.number("backlog_mb", backlog_bytes / MEBIBYTE);
    out.number("memory_mb", memory_bytes / MEBIBYTE);
    out.seconds("start_behind_s", start_behind);
    out.seconds("keepalive_s", keepalive.unwrap_or_default());
}

fn log(out: &mut Printer, log: &Log) {
    let Log { level, file } = log;
    out.line("\n[log]");
    out.text("level", &level.as_str().to_ascii_lowercase());
    let file = file.as_ref().map(|path| path.display().to_string());
    out.text("file", &file.unwrap_or_default());
}

/// Lines of TOML. (The toml crate's writer is left out of the build: these few lines do.)
#[derive(Default)]
struct Printer(String);

impl Printer {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn number(&mut self, key: &str, value: impl std::fmt::Display) {
        self.line(&format!("{key} = {value}"));
    }

    /// Whole seconds, or with as many decimals as they need.
    fn seconds(&mut self, key: &str, value: Duration) {
        let whole = value.as_secs();
        let decimals = format!("{:09}", value.subsec_nanos());
        match decimals.trim_end_matches('0') {
            "" => self.number(key, whole),
            decimals => self.number(key, format_args!("{whole}.{decimals}")),
        }
    }

    /// A basic string of TOML: quotes, backslashes and control characters escaped.
    fn text(&mut self, key: &str, value: &str) {
        self.0.push_str(key);
        self.0.push_str(" = \"");
        for character in value.chars() {
            if matches!(character, '"' | '\\') {
                self.0.push('\\');
                self.0.push(character);
            } else if character.is_control() {
                let _: std::fmt::Result = write!(self.0, "\\u{:04x}", u32::from(character));
            } else {
                self.0.push(character);
            }
        }
        self.line("\"");
    }
}
