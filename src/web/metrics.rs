//! `/metrics`: the snapshot in the text format of Prometheus, version 0.0.4.
//!
//! Label values are bounded: engines are configuration, states and errors are ours, and streams are labelled while they
//! live, of which there are at most `max_streams`. Nothing that a client calls itself is ever a label.

use std::collections::HashSet;
use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::response::{Code, Response};
use crate::stats::Distribution;
use crate::stream::client::Protocol;

use super::process::Usage;
use super::shapes::{EngineStatus, SessionStatus, seconds};
use super::status::Snapshot;

/// States of streams that are there. A stopped one is history.
const STATES: [&str; 5] = ["starting", "active", "recovering", "lingering", "stopping"];

/// How clients take a stream.
const PROTOCOLS: [Protocol; 3] = [Protocol::Ts, Protocol::Hls, Protocol::Film];

/// With these a request for a stream is refused; they are there from the first scrape on, so that a rate sees the
/// first.
const REFUSALS: [Code; 7] = [
    Code::BadRequest,
    Code::NotFound,
    Code::EngineError,
    Code::NoEngine,
    Code::AtCapacity,
    Code::ShuttingDown,
    Code::StartTimeout,
];

/// The answer to a scrape.
#[must_use]
pub(super) fn render(snapshot: &Snapshot, usage: &Usage) -> Response {
    let mut text = Exposition::new("acerelay_");
    server(&mut text, snapshot);
    totals(&mut text, snapshot);
    engines(&mut text, snapshot);
    streams(&mut text, snapshot);
    // Under the names that Prometheus' own libraries give them, for which dashboards and alerts are there already.
    text.prefix = "process_";
    process(&mut text, snapshot.started_at, usage);
    Response::empty(200)
        .with("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        .with("Cache-Control", "no-store")
        .with_body(text.out.into_bytes())
}

fn server(text: &mut Exposition, snapshot: &Snapshot) {
    text.family("build_info", "gauge", "Always 1; its version is the label.");
    text.sample("build_info", &[("version", snapshot.version)], 1);
    text.single("uptime_seconds", "gauge", "Time since the start of the proxy.", snapshot.uptime_s);
    let running = u8::from(snapshot.running);
    text.single("running", "gauge", "1 while streams may be asked for, 0 during a shutdown.", running);
    text.single("threads", "gauge", "Threads of the proxy, the server's own pool apart.", snapshot.threads);
    let help =
        "Threads that peers have cost for good; when they are many, the proxy says that it is not well.";
    text.single("parked_threads", "gauge", help, snapshot.parked);
    let help =
        "What the backlogs of all streams and the queues of slow clients hold, which memory_mb bounds.";
    text.single("backlog_bytes", "gauge", help, snapshot.backlog_bytes);
    if let Some(age) = snapshot.list_age_s {
        let help = "Since the oldest of the channel lists was fetched; grows while a list fails.";
        text.single("list_age_seconds", "gauge", help, age);
    }
    let help = "1 while /healthz says that the proxy is well.";
    text.single("healthy", "gauge", help, u8::from(snapshot.is_well));
}

fn process(text: &mut Exposition, started_at: SystemTime, usage: &Usage) {
    let started_at = started_at.duration_since(UNIX_EPOCH).ok();
    let exact = |number: Option<u64>| number.map(|number| number.to_string());
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64().to_string());
    for (name, kind, help, value) in [
        ("cpu_seconds_total", "counter", "Time of all threads on a processor.", seconds(usage.cpu)),
        ("resident_memory_bytes", "gauge", "Memory that is really there.", exact(usage.resident_bytes)),
        ("virtual_memory_bytes", "gauge", "Address space.", exact(usage.virtual_bytes)),
        ("threads", "gauge", "Threads of the process.", exact(usage.threads)),
        ("open_fds", "gauge", "Descriptors that are open.", exact(usage.descriptors)),
        ("max_fds", "gauge", "Descriptors that may be open.", exact(usage.max_descriptors)),
        ("start_time_seconds", "gauge", "When it began to serve, in Unix time.", seconds(started_at)),
    ] {
        if let Some(value) = value {
            text.single(name, kind, help, value);
        }
    }
}

fn totals(text: &mut Exposition, snapshot: &Snapshot) {
    let totals = &snapshot.totals;
    for (name, help, value) in [
        ("received_bytes_total", "Bytes read off engines.", totals.bytes_in),
        ("sent_bytes_total", "Bytes of MPEG-TS sent to clients.", totals.bytes_out),
        ("starts_total", "Starts of streams, whatever came of them.", totals.starts),
        ("failed_starts_total", "Starts of streams that failed.", totals.failed_starts),
        ("source_losses_total", "How often a running stream lost its source.", totals.losses),
        (
            "source_stalls_total",
            "How often the source of a running stream fell silent, or its picture did.",
            totals.stalls,
        ),
        ("source_recoveries_total", "How often a lost source was replaced.", totals.recoveries),
        (
            "failovers_total",
            "How often a lost source was replaced by one of another engine.",
            totals.failovers,
        ),
        ("client_joins_total", "Clients that began to be sent a stream.", totals.joins),
        ("hls_segments_total", "Segments sent to viewers by HLS.", totals.segments),
        ("client_skips_total", "How often a client that fell behind was moved ahead.", totals.skips),
    ] {
        text.single(name, "counter", help, value);
    }
    let name = "refused_requests_total";
    text.family(name, "counter", "Requests for a stream that were answered with an error, by its code.");
    for code in REFUSALS {
        let count = totals.refusals.get(code.name()).copied().unwrap_or_default();
        text.sample(name, &[("code", code.name())], count);
    }
    let name = "first_data_seconds";
    text.family(name, "histogram", "Time from the first request for a stream to its first packets.");
    text.histogram(name, &[], &totals.first_data);
}

fn engines(text: &mut Exposition, snapshot: &Snapshot) {
    let engines = &snapshot.engines;
    let mut gauge = |name: &str, help: &str, value: fn(&EngineStatus) -> Option<u64>| {
        text.family(name, "gauge", help);
        for engine in engines {
            if let Some(value) = value(engine) {
                text.sample(name, &[("engine", &engine.name)], value);
            }
        }
    };
    gauge(
        "engine_up",
        "1 when the engine is healthy, 0 when it is not; absent until it was asked.",
        |engine| engine.healthy.map(u64::from),
    );
    gauge("engine_streams", "Streams on the engine, starting ones included.", |engine| {
        Some(engine.streams as u64)
    });
    gauge("engine_max_streams", "Streams that the engine may have.", |engine| {
        Some(engine.max_streams as u64)
    });
    let name = "engine_failed_checks_total";
    text.family(name, "counter", "Health checks that the engine failed.");
    for engine in engines {
        text.sample(name, &[("engine", &engine.name)], engine.failed_checks);
    }
    let name = "engine_check_seconds";
    text.family(name, "histogram", "Time of the health checks that the engine passed.");
    for engine in engines {
        text.histogram(name, &[("engine", &engine.name)], &engine.check_times);
    }
}

fn streams(text: &mut Exposition, snapshot: &Snapshot) {
    text.family("streams", "gauge", "Streams by state.");
    let sessions: Vec<_> = snapshot.sessions.iter().map(SessionStatus::from).collect();
    for state in STATES {
        let count = sessions.iter().filter(|session| session.state == state).count();
        text.sample("streams", &[("state", state)], count);
    }
    text.family("clients", "gauge", "Clients by what they do: stream, or wait for a stream to start.");
    let waiting: usize = sessions.iter().map(|session| session.waiting_count).sum();
    text.sample("clients", &[("state", "streaming")], snapshot.total_clients);
    text.sample("clients", &[("state", "waiting")], waiting);
    text.family("streaming_clients", "gauge", "Clients that are sent a stream, by how they take it.");
    let streaming = || sessions.iter().flat_map(|session| session.clients);
    for protocol in PROTOCOLS {
        let count = streaming().filter(|client| client.record.protocol == protocol).count();
        text.sample("streaming_clients", &[("protocol", protocol.name())], count);
    }

    // A content id and an infohash of the same digits are two streams of one name; a series may be there only once.
    let mut names = HashSet::new();
    let live: Vec<_> = sessions
        .iter()
        .filter(|session| session.ended_at.is_none() && names.insert(session.stream_id))
        .collect();
    let mut each = |name: &str, kind: &str, help: &str, value: fn(&SessionStatus) -> Option<f64>| {
        text.family(name, kind, help);
        for session in &live {
            if let Some(value) = value(session) {
                text.sample(name, &[("stream_id", session.stream_id)], value);
            }
        }
    };
    each("stream_clients", "gauge", "Clients that are sent the stream.", |stream| {
        Some(stream.client_count as f64)
    });
    each("stream_received_bytes_total", "counter", "Bytes of the stream read off its engine.", |stream| {
        Some(stream.bytes_in as f64)
    });
    each("stream_sent_bytes_total", "counter", "Bytes of the stream sent to clients.", |stream| {
        Some(stream.bytes_out as f64)
    });
    each("stream_received_bytes_per_second", "gauge", "Over the last seconds.", |stream| {
        Some(stream.bitrate_bps as f64 / 8.0)
    });
    each("stream_restarts_total", "counter", "How often the source was lost and found again.", |stream| {
        Some(f64::from(stream.restarts))
    });
    each("stream_max_lag_seconds", "gauge", "Lag of the client that is furthest behind.", |stream| {
        stream.clients.iter().map(|client| client.lag).max().map(seconds)
    });
    each("stream_peers", "gauge", "Peers that the engine loads from.", |stream| {
        stream.swarm.as_ref().and_then(|swarm| swarm.peers).map(|peers| peers as f64)
    });
}

/// The answer to a scrape in the making. All names begin with `prefix`.
struct Exposition {
    prefix: &'static str,
    out: String,
}

impl Exposition {
    fn new(prefix: &'static str) -> Self {
        Self { prefix, out: String::with_capacity(8 * 1024) }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _written = self.out.write_fmt(line);
        self.out.push('\n');
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let prefix = self.prefix;
        self.line(format_args!("# HELP {prefix}{name} {help}"));
        self.line(format_args!("# TYPE {prefix}{name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut told = String::new();
        for (label, value) in labels {
            told.push(if told.is_empty() { '{' } else { ',' });
            told.extend([label, "=\"", &escaped(value), "\""]);
        }
        if !told.is_empty() {
            told.push('}');
        }
        let prefix = self.prefix;
        self.line(format_args!("{prefix}{name}{told} {value}"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], distribution: &Distribution) {
        let bucket = format!("{name}_bucket");
        let ends = distribution.buckets.iter().map(|(end, count)| (end.as_secs_f64().to_string(), *count));
        for (end, count) in ends.chain([("+Inf".to_owned(), distribution.count)]) {
            self.sample(&bucket, &[labels, &[("le", &end)]].concat(), count);
        }
        self.sample(&format!("{name}_sum"), labels, distribution.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), labels, distribution.count);
    }
}

/// A label's value as it stands between quotes.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::stats::Histogram;

    use super::*;

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let mut text = Exposition::new("acerelay_");
        text.sample("up", &[("engine", "a\"} 1\n\\"), ("b", "c")], 0);
        assert_eq!(text.out, "acerelay_up{engine=\"a\\\"} 1\\n\\\\\",b=\"c\"} 0\n");
    }

    #[test]
    fn a_histogram_ends_with_everything() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(20));
        histogram.record(Duration::from_secs(100));
        let mut text = Exposition::new("acerelay_");
        text.histogram("x_seconds", &[("engine", "e")], &histogram.distribution());
        let lines: Vec<_> = text.out.lines().collect();
        assert_eq!(lines[0], "acerelay_x_seconds_bucket{engine=\"e\",le=\"0.005\"} 0");
        assert_eq!(lines[1], "acerelay_x_seconds_bucket{engine=\"e\",le=\"0.025\"} 1");
        let [.., infinite, sum, count] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        assert_eq!(*infinite, "acerelay_x_seconds_bucket{engine=\"e\",le=\"+Inf\"} 2");
        assert_eq!(*sum, "acerelay_x_seconds_sum{engine=\"e\"} 100.02");
        assert_eq!(*count, "acerelay_x_seconds_count{engine=\"e\"} 2");
    }
}
