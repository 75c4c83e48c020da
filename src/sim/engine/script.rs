//! What goes wrong with a content: a fault for each attempt of each kind of call. Values only.
//!
//! A script is counted from the moment it is set: setting one begins a new count.

use std::time::Duration;

/// What goes wrong, attempt by attempt. The default is an engine in good health.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Of getstream calls.
    pub getstream: Steps<Getstream>,
    /// Of playbacks: an attempt is one request to the playback URL.
    pub playback: Steps<PlaybackStep>,
    /// Of stop calls.
    pub stop: Steps<Call>,
    /// Of stat calls.
    pub stat: Steps<Call>,
    /// Of `get_media_files`: slow ones, and those that hang.
    pub files: Steps<Call>,
}

impl Script {
    /// Nothing goes wrong.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With these getstream answers.
    #[must_use]
    pub fn getstream(mut self, steps: impl Into<Steps<Getstream>>) -> Self {
        self.getstream = steps.into();
        self
    }

    /// With these playbacks.
    #[must_use]
    pub fn playback(mut self, steps: impl Into<Steps<PlaybackStep>>) -> Self {
        self.playback = steps.into();
        self
    }

    /// With these answers to stop.
    #[must_use]
    pub fn stop(mut self, steps: impl Into<Steps<Call>>) -> Self {
        self.stop = steps.into();
        self
    }

    /// With these answers to `get_media_files`.
    #[must_use]
    pub fn files(mut self, steps: impl Into<Steps<Call>>) -> Self {
        self.files = steps.into();
        self
    }

    /// With these answers to stat.
    #[must_use]
    pub fn stat(mut self, steps: impl Into<Steps<Call>>) -> Self {
        self.stat = steps.into();
        self
    }
}

/// One thing for each of the first attempts, another for all that follow.
#[derive(Clone, Debug, Default)]
pub struct Steps<T> {
    first: Vec<T>,
    then: T,
}

impl<T: Clone + Default> Steps<T> {
    /// The same every time.
    #[must_use]
    pub fn always(what: T) -> Self {
        Self { first: Vec::new(), then: what }
    }

    /// `what` for the first `count` attempts, then all is well.
    #[must_use]
    pub fn first(count: usize, what: T) -> Self {
        Self { first: vec![what; count], then: T::default() }
    }

    /// One for each attempt in turn, then all is well.
    #[must_use]
    pub fn each(first: impl IntoIterator<Item = T>) -> Self {
        Self { first: first.into_iter().collect(), then: T::default() }
    }

    /// The same beginning, but this for all attempts after it.
    #[must_use]
    pub fn then(mut self, what: T) -> Self {
        self.then = what;
        self
    }

    /// The step of attempt `number`, counted from 0.
    pub(super) fn at(&self, number: usize) -> &T {
        self.first.get(number).unwrap_or(&self.then)
    }
}

impl<T: Clone + Default> From<T> for Steps<T> {
    fn from(what: T) -> Self {
        Self::always(what)
    }
}

/// How a getstream call goes. Those marked *opens* leave a session behind, as a real engine does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Getstream {
    /// It works (*opens*).
    #[default]
    Normal,
    /// It works, this late (*opens*, also if the client has gone meanwhile).
    Slow(Duration),
    /// No answer, the connection stays open.
    Hang,
    /// The connection is reset.
    Reset,
    /// `{"response": null, "error": "<text>"}`.
    Error(String),
    /// The same with an object: `{"message": "<text>", "code": 0}`.
    ErrorObject(String),
    /// A page of HTML with status 200.
    Html,
    /// JSON that breaks off (*opens*).
    BrokenJson,
    /// An HTTP status with a text.
    Status(u16, String),
    /// The same, and the connection closes.
    StatusAndClose(u16, String),
    /// Everything but a `playback_url` (*opens*).
    NoPlaybackUrl,
    /// `{"response": {}, "error": null}` (*opens*).
    EmptyResponse,
    /// Numbers written as strings (*opens*).
    NumbersAsStrings,
    /// `result` in place of `response` (*opens*).
    ResultEnvelope,
}

impl Getstream {
    /// Whether a session is there afterwards.
    pub(super) fn opens(&self) -> bool {
        match self {
            Self::Normal
            | Self::Slow(_)
            | Self::BrokenJson
            | Self::NoPlaybackUrl
            | Self::EmptyResponse
            | Self::NumbersAsStrings
            | Self::ResultEnvelope => true,
            Self::Hang
            | Self::Reset
            | Self::Error(_)
            | Self::ErrorObject(_)
            | Self::Html
            | Self::Status(..)
            | Self::StatusAndClose(..) => false,
        }
    }
}

/// How a stop or stat call goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Call {
    /// It works.
    #[default]
    Normal,
    /// It works, this late.
    Slow(Duration),
    /// No answer. A stop has its effect all the same.
    Hang,
    /// The connection is reset. A stop has its effect all the same.
    Reset,
    /// Status 200 and a text that is no JSON. A stop has its effect all the same.
    Text(String),
    /// An HTTP status with a text. A stop has no effect.
    Status(u16, String),
    /// `{"response": null, "error": "<text>"}`. A stop has no effect.
    Error(String),
    /// `status` is `prebuf` for ever. Means nothing to a stop.
    Prebuffering,
    /// `status` is `buf`, whatever is sent. Means nothing to a stop.
    Filling(Fill),
    /// `status` is `dl`, with 0 peers, 0 bytes and no speeds, as long as the session has been sent nothing. Means
    /// nothing to a stop.
    Hollow,
    /// These fields are missing. Means nothing to a stop.
    Without(Vec<&'static str>),
}

/// How an engine that fills its buffer gets on, while perhaps it sends nothing (engine-contract.md sections 3 and 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// `downloaded` rises: 100 kB a second since the session was opened.
    Rises,
    /// `downloaded` stays, `progress` rises: a percent a second.
    Progresses,
    /// Both stay as they are, with peers and all.
    StandsStill,
}

impl Call {
    /// Whether a stop that is answered so has stopped.
    pub(super) fn stops(&self) -> bool {
        !matches!(self, Self::Status(..) | Self::Error(_))
    }
}

/// How a playback goes: what the playback URL answers, then the head, then the body.
#[derive(Clone, Debug, Default)]
pub struct PlaybackStep {
    /// What the playback URL (`/ace/r/...`) answers.
    pub entry: Entry,
    /// How the head of the body comes.
    pub head: Head,
    /// From the head to the first byte of the body; `Duration::MAX` is never. What falls due meanwhile comes in one
    /// burst then: so an engine does that sends its head at once and fills its buffer behind it.
    pub first_byte_after: Duration,
    /// What happens once so many bytes of the body were sent, in order.
    pub events: Vec<(u64, BodyEvent)>,
}

/// What the playback URL answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// Holds until prebuffered, then redirects to `/content/...`.
    #[default]
    Normal,
    /// Sends the body itself, without a redirect.
    Direct,
    /// Redirects to `/content/...` with a path only.
    Relative,
    /// Redirects to itself.
    Loop,
    /// Redirects to this URL.
    Elsewhere(String),
    /// An HTTP status with a text.
    Status(u16, String),
    /// `500 start timeout` until prebuffered, then as normal.
    StartTimeout,
    /// As normal, but this much later.
    Late(Duration),
    /// No answer.
    Never,
}

/// How the head of a body comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// At once, with status 200.
    #[default]
    Normal,
    /// This late.
    Late(Duration),
    /// Never.
    Never,
    /// Another status, with a text.
    Status(u16, String),
    /// Status 200, but a text of this type in place of video.
    Text {
        /// The Content-Type.
        content_type: String,
        /// The text.
        body: String,
    },
}

/// Something that happens in the course of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEvent {
    /// Silence, the connection open, until an order.
    Stall,
    /// Silence for so long.
    Pause(Duration),
    /// A clean end.
    End,
    /// A reset.
    Reset,
    /// So many bytes that belong to nothing.
    Garbage(usize),
    /// So many null packets.
    NullPackets(usize),
    /// So many bytes of the stream are left out.
    Tear(usize),
    /// From here on the clip has no picture: sound, tables and clock go on, and null packets fill what it took.
    LosePicture,
}

impl PlaybackStep {
    /// All is well.
    #[must_use]
    pub fn normal() -> Self {
        Self::default()
    }

    /// The playback URL answers so.
    #[must_use]
    pub fn entry(entry: Entry) -> Self {
        Self { entry, ..Self::default() }
    }

    /// The head comes so.
    #[must_use]
    pub fn head(head: Head) -> Self {
        Self { head, ..Self::default() }
    }

    /// The playback URL answers with a status and a text.
    #[must_use]
    pub fn status(code: u16, text: &str) -> Self {
        Self::entry(Entry::Status(code, text.to_owned()))
    }

    /// A head, then so long nothing, then as much of the picture at once.
    #[must_use]
    pub fn first_byte_after(wait: Duration) -> Self {
        Self { first_byte_after: wait, ..Self::default() }
    }

    /// A head, then nothing ever.
    #[must_use]
    pub fn never_a_byte() -> Self {
        Self::first_byte_after(Duration::MAX)
    }

    /// This happens once so many bytes of the body were sent.
    #[must_use]
    pub fn after(bytes: u64, event: BodyEvent) -> Self {
        Self::default().and_after(bytes, event)
    }

    /// And this too.
    #[must_use]
    pub fn and_after(mut self, bytes: u64, event: BodyEvent) -> Self {
        self.events.push((bytes, event));
        // A stable sort: of two at the same byte the one named first happens first.
        self.events.sort_by_key(|(at, _)| *at);
        self
    }
}

/// How the engine as a whole is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Up.
    #[default]
    Ready,
    /// Just started: `get_status` says that the playlist is not loaded.
    Loading,
    /// `get_status` hangs, all else works.
    StatusHangs,
    /// Every new request hangs; running bodies go on.
    Hangs,
    /// `get_version` and `get_status` answer with this status and text.
    Fails(u16, String),
    /// The web service is not found (404, empty): the version is told on the page of `get_status`, which is well.
    NoService,
    /// The page of `get_status` is not found (404, empty); the web service tells the version.
    NoStatus,
    /// Neither page is found; everything else works.
    NoPages,
    /// Only `/server/api?method=get_version` is known: `get_status` is an `unknown method`, the web service not found.
    OnlyServerVersion,
}

/// The kinds of calls that a client makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// What a check of its health asks: `/webui/api/service` and `/server/api`, whatever the method.
    Check,
    /// getstream.
    Getstream,
    /// stat.
    Stat,
    /// stop, and the other commands.
    Stop,
    /// The playback URL, and what it redirects to.
    Playback,
}

/// What can be done to all running bodies of a content, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on after a stall that was ordered, with all that fell due meanwhile.
    Resume,
    /// Fall silent, the connection open.
    Stall,
    /// End cleanly.
    End,
    /// Reset.
    Reset,
}
