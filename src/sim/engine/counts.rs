//! What the simulated engine has seen: counters and the requests themselves. Values only.

use std::collections::VecDeque;
use std::time::Duration;

/// Requests kept; the oldest go first.
const MAX_RECORDS: usize = 4096;

/// Counters since the engine was started, for all contents or for one. They outlive a crash.
///
/// `sessions_opened` is always the sum of those open, stopped, stopped along, superseded, expired and lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// getstream calls.
    pub getstreams: u64,
    /// getstream calls being worked on.
    pub getstreams_now: u64,
    /// Most of them at once.
    pub getstreams_max: u64,
    /// Sessions created.
    pub sessions_opened: u64,
    /// Sessions open now.
    pub sessions_open: u64,
    /// getstream calls answered with a session that was there.
    pub sessions_reused: u64,
    /// Sessions ended by a stop of their own.
    pub sessions_stopped: u64,
    /// Sessions ended by the stop of another session of the same content.
    pub sessions_stopped_along: u64,
    /// Sessions ended because their player started another content.
    pub sessions_superseded: u64,
    /// Sessions without a reader for too long.
    pub sessions_expired: u64,
    /// Sessions lost in a crash.
    pub sessions_lost: u64,
    /// Sessions whose client had gone before it could be told of them: nobody can stop these.
    pub sessions_leaked: u64,
    /// Stop calls.
    pub stops: u64,
    /// Of these, stop calls for tokens that this engine has never handed out.
    pub stops_never_opened: u64,
    /// Stop calls for sessions that were not there (any more).
    pub stops_unknown: u64,
    /// getstream calls with neither `pid` nor `sid`: all players without one are one player.
    pub getstreams_without_player: u64,
    /// stat calls.
    pub stats: u64,
    /// stat calls for sessions that were not there (any more).
    pub stats_unknown: u64,
    /// stat calls that count as activity of a player, for want of `skip_player_activity=1`.
    pub stats_as_player: u64,
    /// Requests to playback URLs while another one of the same session was being answered or read. Sessions opened with
    /// `stop_prev_read_thread=1` are not counted.
    pub playbacks_at_once: u64,
    /// Requests to playback URLs.
    pub playback_requests: u64,
    /// Bodies begun.
    pub playbacks: u64,
    /// Bodies running now.
    pub readers: u64,
    /// Most of them at once.
    pub readers_max: u64,
    /// Readers who came while another read the same session, and got broken HTTP.
    pub second_readers: u64,
    /// Requests for playback that allow a gzip'd answer.
    pub playbacks_with_gzip: u64,
    /// Requests for playback with a `Range`.
    pub playbacks_with_range: u64,
    /// Requests for HLS lists.
    pub lists: u64,
    /// HLS segments sent.
    pub segments: u64,
    /// Bytes of bodies sent, heads and framing not counted.
    pub bytes_sent: u64,
    /// Calls of `get_version` and `get_status`; only in the counts of the whole engine.
    pub health_checks: u64,
    /// Connections accepted; only in the counts of the whole engine.
    pub connections: u64,
    /// Connections closed without a word ([`SimEngine::slam`](super::SimEngine::slam)); only in the counts of the whole
    /// engine.
    pub slammed: u64,
    /// Requests, answers and bodies that a frozen engine has kept waiting; only in the counts of the whole engine.
    pub kept_waiting: u64,
    /// Requests that came on a connection that had carried a redirect without a length; only in the counts of
    /// the whole engine.
    pub after_redirect: u64,
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// When, since the engine was started.
    pub at: Duration,
    /// `GET`, as sent.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The decoded query, in order.
    pub query: Vec<(String, String)>,
    /// The headers, in order; values that are no UTF-8 are mended.
    pub headers: Vec<(String, String)>,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: u8,
}

impl RequestRecord {
    /// The first value of a query parameter.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a header, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether an answer may be gzip'd: `gzip` or `*` in Accept-Encoding, not with weight 0 (RFC 9110 12.5.3).
    pub(super) fn allows_gzip(&self) -> bool {
        let Some(list) = self.header("Accept-Encoding") else {
            return false;
        };
        list.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let is_refused = parts.any(|part| {
                let weight = part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
                weight == Some(0.0)
            });
            (coding.eq_ignore_ascii_case("gzip") || coding == "*") && !is_refused
        })
    }
}

/// The last requests, oldest first.
#[derive(Debug, Default)]
pub(super) struct RequestLog(VecDeque<RequestRecord>);

impl RequestLog {
    pub(super) fn push(&mut self, record: RequestRecord) {
        if self.0.len() == MAX_RECORDS {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    pub(super) fn all(&self) -> Vec<RequestRecord> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_allowed_only_by_a_header_that_says_so() {
        let check = |value: &str, expected: bool| {
            let record = RequestRecord {
                at: Duration::ZERO,
                method: "GET".to_owned(),
                path: "/".to_owned(),
                query: Vec::new(),
                headers: vec![("accept-encoding".to_owned(), value.to_owned())],
                minor_version: 1,
            };
            assert_eq!(record.allows_gzip(), expected, "{value}");
        };
        check("identity", false);
        check("", false);
        check("gzip", true);
        check("deflate, GZIP;q=0.5", true);
        check("gzip;q=0, identity", false);
        check("*", true);
    }
}
