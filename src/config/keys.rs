//! Which keys the sections have, and which rule each keeps: the one list that is both read and printed.
//!
//! Each section is taken apart by name, so that a field without its key does not compile.

use super::list_rules;
use super::rules::{self, Rule};
use super::{Channel, Engine, Epg, Health, Log, Playlist, Server, Stream, Tuner};

/// What is done with each key in turn: its value is read into its place, or what stands there is printed.
pub(super) trait Keys {
    /// Does it with the key `name`, whose value belongs at `place` and keeps to `rule`.
    fn key<T>(&mut self, name: &'static str, place: &mut T, rule: Rule<T>);
}

pub(super) fn server(keys: &mut impl Keys, server: &mut Server) {
    let Server { listen, max_clients, max_clients_per_address, admin_token, public_url, write_timeout } =
        server;
    keys.key("listen", listen, rules::address());
    keys.key("max_clients", max_clients, rules::whole(1..=100_000));
    keys.key("max_clients_per_address", max_clients_per_address, rules::limit_or_none());
    keys.key("admin_token", admin_token, rules::token());
    keys.key("public_url", public_url, rules::url_or_none());
    keys.key("write_timeout_s", write_timeout, rules::timeout());
}

pub(super) fn engine(keys: &mut impl Keys, engine: &mut Engine) {
    let Engine { host, port, name, forwarded, max_streams, max_starts } = engine;
    keys.key("host", host, rules::host());
    keys.key("port", port, rules::whole(1..=i64::from(u16::MAX)));
    keys.key("name", name, rules::name());
    keys.key("forwarded", forwarded, rules::truth());
    keys.key("max_streams", max_streams, rules::whole(1..=10_000));
    keys.key("max_starts", max_starts, rules::whole(1..=10_000));
}

pub(super) fn health(keys: &mut impl Keys, health: &mut Health) {
    let Health { interval, timeout, failures } = health;
    keys.key("interval_s", interval, rules::timeout());
    keys.key("timeout_s", timeout, rules::timeout());
    keys.key("failures", failures, rules::whole(1..=1000));
}

pub(super) fn stream(keys: &mut impl Keys, stream: &mut Stream) {
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
        hls_idle,
        hls_backlog,
        hls_backlog_bytes,
    } = stream;
    keys.key("connect_timeout_s", connect_timeout, rules::timeout());
    keys.key("first_data_timeout_s", first_data_timeout, rules::timeout());
    keys.key("stall_timeout_s", stall_timeout, rules::timeout());
    keys.key("recover_timeout_s", recover_timeout, rules::seconds());
    keys.key("linger_s", linger, rules::seconds());
    keys.key("abandon_s", abandon, rules::seconds());
    keys.key("max_streams", max_streams, rules::whole(1..=10_000));
    keys.key("backlog_s", backlog, rules::timeout());
    keys.key("backlog_mb", backlog_bytes, rules::megabytes());
    keys.key("memory_mb", memory_bytes, rules::megabytes());
    keys.key("start_behind_s", start_behind, rules::seconds());
    keys.key("keepalive_s", keepalive, rules::seconds_or_never());
    keys.key("hls_idle_s", hls_idle, rules::timeout());
    keys.key("hls_backlog_s", hls_backlog, rules::timeout());
    keys.key("hls_backlog_mb", hls_backlog_bytes, rules::megabytes());
}

pub(super) fn epg(keys: &mut impl Keys, epg: &mut Epg) {
    let Epg { urls, days } = epg;
    keys.key("urls", urls, rules::guide_urls());
    keys.key("days", days, rules::whole(1..=14));
}

pub(super) fn tuner(keys: &mut impl Keys, tuner: &mut Tuner) {
    let Tuner { enabled, discovery, name, tuners, device_id } = tuner;
    keys.key("enabled", enabled, rules::truth());
    keys.key("discovery", discovery, rules::truth());
    keys.key("name", name, rules::tuner_name());
    keys.key("tuners", tuners, rules::tuners());
    keys.key("device_id", device_id, rules::device_id());
}

pub(super) fn log(keys: &mut impl Keys, log: &mut Log) {
    let Log { level, file } = log;
    keys.key("level", level, rules::log_level());
    keys.key("file", file, rules::path());
}

pub(super) fn channel(keys: &mut impl Keys, channel: &mut Channel) {
    let Channel { name, ids, infohashes, pattern, group, logo, tvg_id, number, slug } = channel;
    keys.key("name", name, list_rules::text());
    keys.key("ids", ids, list_rules::ids());
    keys.key("infohashes", infohashes, list_rules::infohashes());
    keys.key("match", pattern, list_rules::text());
    keys.key("group", group, list_rules::text());
    keys.key("logo", logo, list_rules::text());
    keys.key("tvg_id", tvg_id, list_rules::text());
    keys.key("number", number, list_rules::number_or_any());
    keys.key("slug", slug, list_rules::slug_or_any());
}

pub(super) fn playlist(keys: &mut impl Keys, playlist: &mut Playlist) {
    let Playlist { url, path, name, refresh, group_prefix, include, exclude, merge, prefer, strip, other } =
        playlist;
    keys.key("url", url, list_rules::place_or_none());
    keys.key("path", path, list_rules::file_or_none());
    keys.key("name", name, list_rules::text());
    keys.key("refresh_s", refresh, rules::refresh());
    keys.key("group_prefix", group_prefix, list_rules::text());
    keys.key("include", include, list_rules::texts());
    keys.key("exclude", exclude, list_rules::texts());
    keys.key("merge", merge, list_rules::merge());
    keys.key("prefer", prefer, list_rules::texts());
    keys.key("strip", strip, list_rules::texts());
    keys.key("other", other, list_rules::other());
}
