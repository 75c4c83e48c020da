//! `--health`: asks a running acerelay whether it is well, for the `HEALTHCHECK` of an image that holds nothing else.
//!
//! It must not know what makes it well.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::escape::Escaped;
use crate::threads::{LARGE_STACK_BYTES, Threads};

/// All of it, from the look-up of a name to the answer: below the 5 s and more that health checks are usually given.
const LIMIT: Duration = Duration::from_secs(4);

/// Where it is asked for unless the URL says so.
const PATH: &str = "/healthz";

/// More of an answer is not read: a sentence.
const MAX_ANSWER_BYTES: u64 = 4096;

/// Whom to ask, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthUrl {
    host: String,
    port: u16,
    path: String,
}

impl HealthUrl {
    /// The proxy that listens at this address, from its own machine.
    ///
    /// # Errors
    ///
    /// When the address does not tell the port.
    pub fn of_listener(listen: SocketAddr) -> Result<Self, NotWell> {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        match listen.port() {
            0 => Err(NotWell::AnyPort),
            port => Ok(Self { host: ip.to_string(), port, path: PATH.to_owned() }),
        }
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// When it is not well, or does not say so in time.
    pub fn ask(self) -> Result<(), NotWell> {
        let (told, answer) = crossbeam_channel::bounded(1);
        let shown = self.to_string();
        let lost = |error: io::Error| NotWell::Unreachable(shown.clone(), error);
        // On a thread of its own, since a look-up of a name has no deadline.
        let ask = move || {
            // Nobody listens any more when it is too late.
            let _told = told.send(self.exchange(Instant::now() + LIMIT));
        };
        Threads::new().spawn("health", LARGE_STACK_BYTES, ask).map_err(lost)?;
        match answer.recv_timeout(LIMIT) {
            Ok(answer) => read(&answer.map_err(lost)?),
            Err(_) => Err(lost(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Sends the question and gives all that comes.
    fn exchange(&self, deadline: Instant) -> io::Result<String> {
        let left = || Some(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        let mut tried = None;
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left().unwrap_or(LIMIT)) {
                Ok(mut socket) => {
                    socket.set_write_timeout(left())?;
                    socket.set_read_timeout(left())?;
                    let authority = self.authority();
                    let request = format!("GET {} HTTP/1.0\r\nHost: {authority}\r\n\r\n", self.path);
                    socket.write_all(request.as_bytes())?;
                    let mut answer = Vec::new();
                    socket.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
                    return Ok(String::from_utf8_lossy(&answer).into_owned());
                }
                Err(error) => tried = Some(error),
            }
        }
        Err(tried.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// Whether this answer says that all is well.
fn read(answer: &str) -> Result<(), NotWell> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).filter(|_| head.starts_with("HTTP/1."));
    match status {
        Some("200") => Ok(()),
        Some(status) => Err(NotWell::Says(format!("{status}: {}", body.trim()))),
        None => Err(NotWell::Says("something that is no HTTP".to_owned())),
    }
}

impl fmt::Display for HealthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

/// Why a text is no URL that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoUrl;

impl fmt::Display for NoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it has to be http://HOST:PORT, with or without a path")
    }
}

impl FromStr for HealthUrl {
    type Err = NoUrl;

    fn from_str(text: &str) -> Result<Self, NoUrl> {
        let is_plain = |byte: u8| byte.is_ascii_graphic();
        let rest = text.strip_prefix("http://").filter(|rest| rest.bytes().all(is_plain)).ok_or(NoUrl)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(NoUrl)?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(NoUrl)?,
            None if port.is_empty() => 80,
            None => return Err(NoUrl),
        };
        let is_host = !host.is_empty() && !host.contains(['@', '[', ']']);
        let path = if matches!(path, "" | "/") { PATH } else { path };
        if !is_host || !path.starts_with('/') {
            return Err(NoUrl);
        }
        Ok(Self { host: host.to_owned(), port, path: path.to_owned() })
    }
}

/// Why there is no good answer.
#[derive(Debug)]
pub enum NotWell {
    /// The configuration leaves the port to the system, so that only a URL tells it.
    AnyPort,
    /// There was no answer.
    Unreachable(String, io::Error),
    /// It says so itself.
    Says(String),
}

impl fmt::Display for NotWell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyPort => f.write_str("the configuration takes any free port; name the URL: --health URL"),
            Self::Unreachable(url, error) => write!(f, "no answer from {}: {error}", Escaped(url)),
            Self::Says(answer) => write!(f, "it says {}", Escaped(answer)),
        }
    }
}

impl std::error::Error for NotWell {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_path() {
        for (text, expected) in [
            ("http://box", "http://box:80/healthz"),
            ("http://box:8000/", "http://box:8000/healthz"),
            ("http://192.168.1.5:8000/readyz", "http://192.168.1.5:8000/readyz"),
            ("http://[::1]:8000", "http://[::1]:8000/healthz"),
            ("http://[fe80::1%eth0]", "http://[fe80::1%eth0]:80/healthz"),
        ] {
            assert_eq!(
                text.parse::<HealthUrl>().map(|url| url.to_string()).as_deref(),
                Ok(expected),
                "{text}"
            );
        }
        for text in [
            "",
            "box",
            "box:8000",
            "https://box",
            "http://",
            "http://:8000",
            "http://box:0",
            "http://box:x",
            "http://box:99999",
            "http://a@box",
            "http://[::1",
            "http://[::1]x",
            "http://bo x",
            "http://box\r\n",
            "http://box?x",
        ] {
            assert_eq!(text.parse::<HealthUrl>(), Err(NoUrl), "{text}");
        }
    }

    #[test]
    fn a_listener_is_asked_from_its_own_machine() {
        for (listen, expected) in [
            ("0.0.0.0:8000", "http://127.0.0.1:8000/healthz"),
            ("[::]:8000", "http://[::1]:8000/healthz"),
            ("192.168.1.5:80", "http://192.168.1.5:80/healthz"),
        ] {
            let url = HealthUrl::of_listener(listen.parse().expect("an address")).expect("a port");
            assert_eq!(url.to_string(), expected);
        }
        HealthUrl::of_listener(SocketAddr::from(([0; 4], 0))).expect_err("no port");
    }

    #[test]
    fn only_200_is_well() {
        read("HTTP/1.1 200 OK\r\n\r\nok\n").expect("it is well");
        for (answer, said) in [
            ("HTTP/1.0 503 Service Unavailable\r\nX: y\r\n\r\nworn out\n", "it says 503: worn out"),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "it says 404: "),
            ("SSH-2.0 200", "it says something that is no HTTP"),
            ("", "it says something that is no HTTP"),
        ] {
            assert_eq!(read(answer).expect_err("it is not").to_string(), said);
        }
    }
}
