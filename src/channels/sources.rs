//! Fetches lists and guides: from the network, or from a file of this machine.
//!
//! Only addresses that the configuration names, or a list that it names, are asked for; nothing of a request. What comes is
//! a stranger's: it is bounded in time and in bytes, packed and unpacked, and ends in a reader, so that it need never be in
//! memory as a whole. A fetch has a thread of its own, which nobody waits for: whoever reads can stop at any moment, whatever
//! the network does. It must not know what the bytes are.

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use ureq::http::header::{ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use ureq::{Agent, Body};

use crate::config::SourceUrl;
use crate::threads::{LARGE_STACK_BYTES, Threads};

/// A server on the other side of the world has answered by then, also one that lost the first packet.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A server that sends nothing for so long has hung up without saying so.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Lists stand behind one or two redirects (shorteners, repositories); more are a circle.
const MAX_REDIRECTS: u32 = 5;

/// How much is read at once, and how many of these may wait for whoever reads.
const PART_BYTES: usize = 64 * 1024;
const MAX_PARTS: usize = 2;

/// A packed file that the server packs once more; nobody does it a third time.
const MAX_WRAPPINGS: usize = 2;

/// What a fetch may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the question to the last byte.
    pub time: Duration,
    /// As they come.
    pub packed_bytes: u64,
    /// Unpacked.
    pub bytes: u64,
}

/// What a server says a body is known by; handed back to it, it need not send the same again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`
    pub last_modified: Option<String>,
}

/// What came of a fetch.
pub enum Fetched {
    /// What was had before is what there is.
    Unchanged,
    /// This, unpacked; and what it is known by.
    Body(Box<dyn Read + Send>, Validators),
}

/// Why nothing came.
#[derive(Debug)]
pub enum FetchError {
    /// The program ends.
    Stopped,
    /// Nothing in time.
    Late(Duration),
    /// The server says so.
    Status(u16),
    /// It cannot be reached, or is no server of this kind.
    Failed(String),
    /// The file, or the body, cannot be read.
    Io(io::Error),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the proxy ends"),
            Self::Late(limit) => write!(f, "nothing came within {} s", limit.as_secs()),
            Self::Status(status) => write!(f, "the server answered {status}"),
            Self::Failed(why) => f.write_str(why),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FetchError {}

impl From<io::Error> for FetchError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Fetches, until it is told to stop.
#[derive(Clone)]
pub struct Fetcher {
    agent: Agent,
    /// Those that ask; they end by themselves.
    threads: Threads,
    stop: Receiver<()>,
}

impl Fetcher {
    /// One that gives up everything as soon as `stop` is closed.
    #[must_use]
    pub fn new(stop: Receiver<()>) -> Self {
        let config = Agent::config_builder()
            // What the environment says is meant for other programs: a list of this house must not go through it.
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(MAX_REDIRECTS)
            .max_idle_connections(0)
            .timeout_resolve(Some(CONNECT_LIMIT))
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_per_read(Some(SILENCE_LIMIT))
            // A packed file is unpacked by what it is, not by what a header says of it.
            .accept_encoding("identity")
            .accept("*/*")
            .user_agent(concat!("acerelay/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), threads: Threads::new(), stop }
    }

    /// Asks for what is at this address, unless it is what is `known`.
    ///
    /// # Errors
    ///
    /// When there is no success in time. Later errors are the reader's.
    pub fn fetch(&self, url: &SourceUrl, known: &Validators, limits: Limits) -> Result<Fetched, FetchError> {
        let deadline = Instant::now() + limits.time;
        let (tell, told) = crossbeam_channel::bounded(MAX_PARTS);
        let (agent, url, known) = (self.agent.clone(), url.clone(), known.clone());
        let body = move || ask(&agent, &url, &known, limits.time, &tell);
        self.threads.reap();
        self.threads.spawn("fetch-list", LARGE_STACK_BYTES, body)?;
        let parts = Parts {
            told,
            stop: self.stop.clone(),
            deadline,
            limit: limits.time,
            part: Cursor::default(),
            is_over: false,
        };
        match parts.next()? {
            Some(Told::Head(Head::Found(validators))) => Ok(Fetched::Body(
                unpacked(Capped::new(parts, limits.packed_bytes), limits.bytes)?,
                validators,
            )),
            Some(Told::Head(Head::Unchanged)) => Ok(Fetched::Unchanged),
            Some(Told::Head(Head::Refused(status))) => Err(FetchError::Status(status)),
            Some(Told::Failed(why)) => Err(FetchError::Failed(why)),
            Some(Told::Part(_)) | None => Err(FetchError::Failed("the answer broke off".to_owned())),
        }
    }
}

/// Opens a file of this machine.
///
/// # Errors
///
/// When there is none, or it cannot be read.
pub fn open(path: &Path, limits: Limits) -> Result<Box<dyn Read + Send>, FetchError> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(FetchError::Failed("this is no file".to_owned()));
    }
    Ok(unpacked(Capped::new(file, limits.packed_bytes), limits.bytes)?)
}

/// What the thread that asks tells.
enum Told {
    Head(Head),
    Part(Vec<u8>),
    Failed(String),
}

/// What the server answered.
enum Head {
    Found(Validators),
    Unchanged,
    Refused(u16),
}

/// Asks, and tells what comes until nobody wants it any more.
fn ask(agent: &Agent, url: &SourceUrl, known: &Validators, limit: Duration, tell: &Sender<Told>) {
    let mut request = agent.get(url.as_str());
    for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)] {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    let response = match request.config().timeout_global(Some(limit)).build().call() {
        Ok(response) => response,
        Err(error) => {
            let _gone = tell.send(Told::Failed(why(&error)));
            return;
        }
    };
    let header = |name: HeaderName| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    let head = match response.status().as_u16() {
        304 => Head::Unchanged,
        200 => Head::Found(Validators { etag: header(ETAG), last_modified: header(LAST_MODIFIED) }),
        status => Head::Refused(status),
    };
    let is_found = matches!(head, Head::Found(_));
    if tell.send(Told::Head(head)).is_ok() && is_found {
        pass_on(response.into_body(), tell);
    }
}

fn pass_on(body: Body, tell: &Sender<Told>) {
    let mut reader = body.into_reader();
    loop {
        let mut part = vec![0; PART_BYTES];
        let told = match reader.read(&mut part) {
            Ok(read) => {
                part.truncate(read);
                Told::Part(part)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Told::Failed(error.to_string()),
        };
        let is_last = !matches!(&told, Told::Part(part) if !part.is_empty());
        // Nobody takes it any more: then it is not read any more either.
        if tell.send(told).is_err() || is_last {
            return;
        }
    }
}

/// Why a server gave no answer, for a person.
fn why(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "the server's name is not known".to_owned(),
        ureq::Error::TooManyRedirects => "it redirects in circles".to_owned(),
        ureq::Error::Timeout(_) => "the server does not answer".to_owned(),
        error => error.to_string(),
    }
}

/// A body as its parts come.
struct Parts {
    told: Receiver<Told>,
    stop: Receiver<()>,
    deadline: Instant,
    limit: Duration,
    part: Cursor<Vec<u8>>,
    is_over: bool,
}

impl Parts {
    /// What is told next; `None` when the thread that asks is gone.
    fn next(&self) -> Result<Option<Told>, FetchError> {
        select! {
            recv(self.told) -> told => Ok(told.ok()),
            recv(self.stop) -> _ => Err(FetchError::Stopped),
            default(self.deadline.saturating_duration_since(Instant::now())) => Err(FetchError::Late(self.limit)),
        }
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.part.position() == self.part.get_ref().len() as u64 && !self.is_over {
            // Looked at for each part: one that dribbles for ever is late, too.
            if Instant::now() >= self.deadline {
                return Err(io::Error::other(FetchError::Late(self.limit)));
            }
            self.part = match self.next().map_err(io::Error::other)? {
                Some(Told::Part(part)) => {
                    // The thread that asks tells the end by an empty one, and goes.
                    self.is_over = part.is_empty();
                    Cursor::new(part)
                }
                Some(Told::Failed(why)) => return Err(io::Error::other(why)),
                Some(Told::Head(_)) | None => return Err(io::Error::other("the answer broke off")),
            };
        }
        self.part.read(buffer)
    }
}

/// Fails where more comes than may.
struct Capped<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Capped<R> {
    fn new(reader: R, max: u64) -> Self {
        Self { reader, left: max }
    }
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other("it is larger than it may be"))?;
        Ok(read)
    }
}

/// What is in it, however often it is packed; at most `max` bytes.
fn unpacked(reader: impl Read + Send + 'static, max: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut reader: Box<dyn Read + Send> = Box::new(reader);
    for _ in 0..MAX_WRAPPINGS {
        let mut magic = Vec::new();
        reader.by_ref().take(2).read_to_end(&mut magic)?;
        // RFC 1952 section 2.3.1.
        let is_packed = magic == [0x1f, 0x8b];
        reader = Box::new(Cursor::new(magic).chain(reader));
        if !is_packed {
            break;
        }
        reader = Box::new(MultiGzDecoder::new(reader));
    }
    Ok(Box::new(Capped::new(reader, max)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const LIMITS: Limits = Limits { time: Duration::from_secs(20), packed_bytes: 100_000, bytes: 200_000 };

    /// A server that answers each question in turn with one of these, whole as they are.
    fn server(answers: Vec<Vec<u8>>, threads: &Threads) -> SourceUrl {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}/list", listener.local_addr().expect("an address"));
        let body = move || {
            for answer in answers {
                let (mut socket, _) = listener.accept().expect("somebody asks");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    socket.read_exact(&mut byte).expect("a head");
                    head.extend(byte);
                }
                // Whoever has enough hangs up.
                let _gone = socket.write_all(&answer);
            }
        };
        threads.spawn("server", LARGE_STACK_BYTES, body).expect("a thread");
        url.parse().expect("a URL")
    }

    fn answer(head: &str, body: &[u8]) -> Vec<u8> {
        let mut answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend(body);
        answer
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("room");
        encoder.finish().expect("room")
    }

    fn read(fetched: Result<Fetched, FetchError>) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        match fetched.map_err(|error| error.to_string())? {
            Fetched::Body(mut reader, _) => {
                reader.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.to_string())
            }
            Fetched::Unchanged => Err("unchanged".to_owned()),
        }
    }

    #[test]
    fn a_body_comes_unpacked_and_bounded_and_an_answer_that_is_none_says_so() {
        let threads = Threads::new();
        let list = b"#EXTM3U\n".repeat(100);
        let other = answer("200 OK", &vec![b'x'; 150_000]);
        let url = server(
            vec![
                answer("200 OK", &list),
                answer("200 OK\r\nContent-Encoding: gzip", &packed(&list)),
                answer("200 OK", &packed(&packed(&list))),
                answer("404 Not Found", b"no"),
                answer("304 Not Modified", b""),
                other,
                answer("200 OK", &packed(&vec![0; 5_000_000])),
                b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec(),
                b"nonsense".to_vec(),
                answer("200 OK", b""),
            ],
            &threads,
        );
        let (_stop, stopped) = crossbeam_channel::bounded(0);
        let fetcher = Fetcher::new(stopped);
        let fetch = || read(fetcher.fetch(&url, &Validators::default(), LIMITS));
        assert_eq!(fetch(), Ok(list.clone()));
        assert_eq!(fetch(), Ok(list.clone()));
        assert_eq!(fetch(), Ok(list));
        assert_eq!(fetch(), Err("the server answered 404".to_owned()));
        assert_eq!(fetch(), Err("unchanged".to_owned()));
        for _ in 0..2 {
            assert_eq!(fetch(), Err("it is larger than it may be".to_owned()));
        }
        assert!(fetch().is_err_and(|error| error != "unchanged"));
        assert!(fetch().is_err());
        assert_eq!(fetch(), Ok(Vec::new()));
        threads.join_all(Instant::now() + LIMITS.time).expect("the server ends");
    }

    #[test]
    fn a_fetch_is_given_up_as_soon_as_the_program_ends() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let url: SourceUrl =
            format!("http://{}/", listener.local_addr().expect("an address")).parse().expect("a URL");
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let fetcher = Fetcher::new(stopped);
        drop(stop);
        let outcome = fetcher.fetch(&url, &Validators::default(), LIMITS);
        assert!(matches!(outcome, Err(FetchError::Stopped)));
    }
}
