//! `/metrics`: well formed, true, and nobody's trouble.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use acerelay::sim::{Getstream, Order, Script};

use super::harness::{
    Bystander, Connection, ID, LONG, OTHER_ID, Proxy, Running, Viewer, assert_whole, engine, pause, scripted,
    stream_path,
};

/// What dashboards know of any process, by the names that Prometheus' own libraries give it.
const PROCESS: [&str; 7] = [
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_threads",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

/// What was scraped: each series, labels included, with its value.
struct Scrape {
    series: HashMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

impl Scrape {
    fn of(proxy: &Proxy) -> Self {
        let mut reply = proxy.get("/metrics");
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::parse(&reply.text())
    }

    /// Reads the format as strictly as it is written down: HELP and TYPE once and in front, the samples of a family
    /// together, no series twice, histograms that add up.
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends too");
        let mut scrape = Self { series: HashMap::new(), kinds: BTreeMap::new() };
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (family, help) =
                line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect("HELP first");
            let is_ours = family.starts_with("acerelay_") || PROCESS.contains(&family);
            assert!(is_ours && !help.trim().is_empty(), "{line}");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {family} ")));
            let kind = kind.unwrap_or_else(|| panic!("TYPE behind HELP of {family}"));
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{family} {kind}");
            assert_eq!(family.ends_with("_total"), kind == "counter", "{family}");
            assert!(scrape.kinds.insert(family.to_owned(), kind.to_owned()).is_none(), "{family} twice");
            let mut below = (0.0, String::new());
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let (name, labels, value) = sample(line);
                let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"));
                match (kind, suffix) {
                    ("histogram", "_bucket") => {
                        let labels = labels.rsplit_once("le=\"").expect("a bucket has an end").0.to_owned();
                        assert!(below.1 != labels || below.0 <= value, "buckets add up: {line}");
                        below = (value, labels);
                    }
                    ("histogram", "_count") => assert!((below.0 - value).abs() < 0.5, "{line}"),
                    ("histogram", "_sum") | ("counter" | "gauge", "") => {}
                    _ => panic!("{line} is no sample of a {kind}"),
                }
                assert!(value >= 0.0, "{line}");
                let key = if labels.is_empty() { name.to_owned() } else { format!("{name}{{{labels}}}") };
                assert!(scrape.series.insert(key, value).is_none(), "twice: {line}");
            }
        }
        scrape
    }

    /// A series without its `acerelay_`; zero if it is not there.
    fn value(&self, series: &str) -> f64 {
        self.series.get(&format!("acerelay_{series}")).copied().unwrap_or_default()
    }

    fn is(&self, series: &str, value: u32) -> bool {
        (self.value(series) - f64::from(value)).abs() < 0.5
    }
}

/// Name, labels and value of a line like `name{a="b",c="d"} 1.5`.
fn sample(line: &str) -> (&str, &str, f64) {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().unwrap_or_else(|_| panic!("no number in {line}"));
    let Some((name, rest)) = series.split_once('{') else {
        assert!(is_name(series), "{line}");
        return (series, "", value);
    };
    let labels = rest.strip_suffix('}').expect("a closing brace");
    for pair in labels.split("\",") {
        let (label, text) = pair.split_once("=\"").expect("a label and its value");
        assert!(is_name(label), "{line}");
        let text = text.strip_suffix('"').unwrap_or(text).replace("\\\\", "").replace("\\\"", "");
        assert!(!text.contains('"') && !text.replace("\\n", "").contains('\\'), "{line}");
    }
    assert!(is_name(name), "{line}");
    (name, labels, value)
}

/// Scrapes until it is so.
fn wait_for(proxy: &Proxy, what: &str, is_met: impl Fn(&Scrape) -> bool) -> Scrape {
    let deadline = Instant::now() + LONG;
    loop {
        let scrape = Scrape::of(proxy);
        if is_met(&scrape) {
            return scrape;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}: {:#?}", scrape.series);
        pause(Duration::from_millis(20));
    }
}

#[test]
fn counters_move_and_series_of_streams_go_with_them() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let before = wait_for(&proxy, "the engine is up", |scrape| {
        scrape.series.iter().any(|(name, up)| name.starts_with("acerelay_engine_up{") && *up > 0.0)
    });
    assert!(before.is(&format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1));
    assert!(before.value("threads") >= 4.0);
    assert!(before.is("starts_total", 0) && before.is("streams{state=\"active\"}", 0));
    assert!(before.series.contains_key("acerelay_refused_requests_total{code=\"no_engine\"}"));

    let mut viewers = [ID, ID].map(|id| Viewer::open(proxy.address, id));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(500));
    let of_stream = |name: &str| format!("{name}{{stream_id=\"{ID}\"}}");
    let during = wait_for(&proxy, "all of it is counted", |scrape| {
        scrape.is("client_joins_total", 2)
            && scrape.value("sent_bytes_total") >= 2.0 * 500.0 * 188.0
            && scrape.value("backlog_bytes") >= 500.0 * 188.0
            && scrape.value(&of_stream("stream_sent_bytes_total")) >= 2.0 * 500.0 * 188.0
    });
    assert!(during.is("starts_total", 1) && during.is("first_data_seconds_count", 1));
    assert!(during.is("streams{state=\"active\"}", 1) && during.is("clients{state=\"streaming\"}", 2));
    assert!(during.is(&of_stream("stream_clients"), 2));
    assert!(during.value("received_bytes_total") >= 500.0 * 188.0);
    assert!(during.value(&of_stream("stream_received_bytes_total")) >= 500.0 * 188.0);
    assert!(during.kinds["acerelay_engine_check_seconds"] == "histogram");

    drop(viewers);
    proxy.wait_gone(ID);
    let after = wait_for(&proxy, "it is gone", |scrape| scrape.is("streams{state=\"stopping\"}", 0));
    assert!(!after.series.keys().any(|series| series.contains("stream_id")), "a stream that ended is gone");
    for (series, value) in &during.series {
        let family = series.split_once('{').map_or(series.as_str(), |(name, _)| name);
        if !family.contains("_stream_") && during.kinds.get(family).is_some_and(|kind| kind == "counter") {
            assert!(after.series[series] >= *value, "{series} fell");
        }
    }
}

#[test]
fn the_process_tells_what_it_takes_as_the_kernel_does() {
    let engine = engine();
    let before = SystemTime::now();
    let running = Running::before(&engine);
    let scrape = || Scrape::parse(&Connection::open(running.address).get("/metrics").text());
    let first = scrape();
    for name in PROCESS {
        assert!(first.series.contains_key(name), "{name}");
    }
    let unix = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let started = first.series["process_start_time_seconds"];
    assert!((unix(before) - 0.1..=unix(SystemTime::now())).contains(&started), "{started}");
    assert!(first.is("parked_threads", 0) && first.is("healthy", 1));

    // Clients cost threads and descriptors, in the metrics as in the kernel's own account of the process.
    let mut viewers = [(); 20].map(|()| Viewer::open(running.address, ID));
    viewers.iter_mut().for_each(|viewer| viewer.take_packets(10));
    let deadline = Instant::now() + LONG;
    loop {
        let (scrape, usage) = (scrape(), running.usage());
        let told = |name: &str| scrape.series[name];
        // The scrape has a connection of its own, and the self-check comes and goes.
        let is_near = |name: &str, kernel: u64, slack: f64| (told(name) - kernel as f64).abs() <= slack;
        let is_so = told("process_open_fds") >= first.series["process_open_fds"] + 20.0
            && told("process_threads") >= first.series["process_threads"] + 20.0
            && is_near("process_open_fds", usage.descriptors, 8.0)
            && is_near("process_threads", usage.threads, 8.0)
            && is_near("process_resident_memory_bytes", usage.resident_kb * 1024, 4e6)
            && told("process_cpu_seconds_total") > 0.0;
        if is_so {
            break;
        }
        assert!(Instant::now() < deadline, "{usage:?} {:#?}", scrape.series);
        pause(Duration::from_millis(20));
    }
    assert!(first.series["process_max_fds"] >= first.series["process_open_fds"]);
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let kinds = Scrape::of(&proxy).kinds;
    let dashboard = include_str!("../../scripts/grafana.json");
    serde_json::from_str::<serde_json::Value>(dashboard).expect("it is JSON");
    let readme = include_str!("../../README.md");
    for (text, prefix) in
        [dashboard, readme].into_iter().flat_map(|text| [(text, "acerelay_"), (text, "process_")])
    {
        for (at, _) in text.match_indices(prefix) {
            let is_part = |character: char| character.is_ascii_lowercase() || character == '_';
            let name: String = text[at..].chars().take_while(|character| is_part(*character)).collect();
            let family = name.strip_suffix("_bucket").unwrap_or(&name);
            // A package's file has the name's beginning, too.
            assert!(kinds.contains_key(family) || name == "acerelay_", "{name}");
        }
        assert!(dashboard.contains(prefix), "the dashboard shows nothing of {prefix}");
    }
}

#[test]
fn refused_requests_are_counted_by_their_error() {
    let engine = scripted(Script::new().getstream(Getstream::Error("no such thing".to_owned())));
    let proxy = Proxy::start(&[&engine]);
    for _ in 0..2 {
        assert_eq!(proxy.get(&stream_path(ID)).status, 502);
    }
    let scrape = wait_for(&proxy, "the failure is counted", |scrape| scrape.is("failed_starts_total", 1));
    assert!(scrape.is("refused_requests_total{code=\"engine_error\"}", 2));
    assert!(scrape.is("client_joins_total", 0));
    assert_eq!(proxy.get("/ace/getstream?id=none").status, 400);
    assert!(Scrape::of(&proxy).is("refused_requests_total{code=\"bad_request\"}", 1));
}

#[test]
fn a_lost_source_and_its_recovery_are_counted() {
    let engine = engine();
    let proxy = Proxy::start_with(&[&engine], |config| config.stream.recover_timeout = LONG);
    let mut viewer = Viewer::open(proxy.address, ID);
    // Long enough not to be barren.
    viewer.take_packets(1500);
    assert_eq!(engine.order(ID, Order::Reset), 1);
    let scrape = wait_for(&proxy, "it is counted", |scrape| scrape.is("source_recoveries_total", 1));
    viewer.take_packets(100);
    assert!(scrape.is("source_losses_total", 1) && scrape.is("first_data_seconds_count", 1));
    assert!(scrape.is("source_stalls_total", 0) && scrape.is("failovers_total", 0));
    assert!(scrape.is(&format!("stream_restarts_total{{stream_id=\"{ID}\"}}"), 1));
}

#[test]
fn a_stall_and_a_change_of_the_engine_are_counted() {
    let engines = [engine(), engine()];
    let proxy = Proxy::start_with(&[&engines[0], &engines[1]], |config| {
        config.stream.stall_timeout = Duration::from_secs(1);
        config.stream.recover_timeout = LONG;
    });
    let mut viewer = Viewer::open(proxy.address, ID);
    viewer.take_packets(1500);
    let playing = engines.iter().find(|engine| engine.counts().readers == 1).expect("one of them plays");
    assert_eq!(playing.order(ID, Order::Stall), 1);
    // It opens no session any more.
    playing.refuse().expect("its port is its own");
    let scrape = wait_for(&proxy, "it is counted", |scrape| scrape.is("failovers_total", 1));
    viewer.take_packets(100);
    assert!(scrape.is("source_stalls_total", 1) && scrape.is("source_recoveries_total", 1));
    assert!(scrape.is("source_losses_total", 1));
}

#[test]
fn an_engine_that_is_down_says_so() {
    let engine = engine();
    engine.set_health(acerelay::sim::Health::Fails(500, "ill".to_owned()));
    let proxy = Proxy::start_with(&[&engine], |config| config.engines[0].name = "a \"b\" \\".to_owned());
    let name = "{engine=\"a \\\"b\\\" \\\\\"}";
    let scrape = wait_for(&proxy, "it has failed a check", |scrape| {
        scrape.value(&format!("engine_failed_checks_total{name}")) >= 1.0
    });
    assert!(scrape.is(&format!("engine_check_seconds_count{name}"), 0));
    assert!(scrape.is(&format!("engine_streams{name}"), 0) && scrape.value("engine_up{}") < 1.0);
}

#[test]
fn a_hundred_scrapes_disturb_nobody() {
    let engine = engine();
    let proxy = Proxy::start(&[&engine]);
    let mut viewer = Viewer::open(proxy.address, ID);
    let bystander = Bystander::watch(&proxy);
    for _ in 0..100 {
        let scrape = Scrape::of(&proxy);
        assert!(scrape.is(&format!("stream_restarts_total{{stream_id=\"{OTHER_ID}\"}}"), 0));
        viewer.take_packets(5);
    }
    assert_whole(&viewer.leave());
    bystander.assert_undisturbed();
    assert!(Scrape::of(&proxy).is("client_skips_total", 0));
}
