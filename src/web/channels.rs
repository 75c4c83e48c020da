//! The house's channels, as players and as people are told of them.
//!
//! It must not know how they came about, nor how one is played.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::channels::list::{Channel, List, Report, Skipped};
use crate::channels::playlist::{self, Choice};
use crate::fnv::fnv64;
use crate::guide::current::Current;
use crate::http::request::Request;
use crate::http::response::{Code, Response};
use crate::id::ContentName;
use crate::wanted::{Slug, Wanted};

use super::base::base_url;
use super::context::Context;
use super::etag::is_known;
use super::shapes::Timestamp;

/// What a `group` or a `search` may have; more finds nothing anyway.
const MAX_CHOICE_BYTES: usize = 256;

/// What the query of a playlist asks for.
pub(super) fn choice(pairs: &[(String, String)]) -> Choice {
    let value = |wanted: &str| {
        let found = pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.trim().to_owned());
        found.filter(|value| !value.is_empty() && value.len() <= MAX_CHOICE_BYTES)
    };
    Choice {
        group: value("group"),
        search: value("search"),
        is_hls: value("hls").is_some_and(|hls| hls != "0"),
        has_guide: false,
    }
}

/// The list for players. Never with the type of an HLS list, under which some take it for a stream.
pub(super) fn playlist(context: &Context, request: &Request, choice: Choice) -> Response {
    let server = context.server.get();
    let Some(base) = base_url(server.public_url.as_ref(), request) else {
        let detail = "the request names no host that addresses could begin with; set public_url";
        return Response::error(Code::BadRequest, &detail);
    };
    let list = context.channels.get();
    let choice = Choice { has_guide: !matches!(*context.guide.get(), Current::None), ..choice };
    let tag = tag_of(&list, &base, &choice);
    let head = |response: Response| {
        response.with("ETag", tag.clone()).with("Cache-Control", "no-cache").with("Vary", "Host")
    };
    if is_known(request, &tag) {
        return head(Response::empty(304));
    }
    let text = playlist::write(&list, &base, &choice);
    head(
        Response::empty(200)
            .with("Content-Type", "audio/x-mpegurl; charset=utf-8")
            .with_body(text.into_bytes()),
    )
}

fn tag_of(list: &List, base: &str, choice: &Choice) -> String {
    let flags = [if choice.is_hls { "1" } else { "0" }, if choice.has_guide { "1" } else { "0" }];
    let texts = [base, choice.group.as_deref().unwrap_or("\0"), choice.search.as_deref().unwrap_or("\0")];
    let hash = fnv64(texts.iter().chain(&flags).flat_map(|text| text.bytes().chain([0xff])));
    format!("\"{:x}-{hash:x}\"", list.version())
}

/// What has to be asked for to play the channel of this name in paths.
///
/// # Errors
///
/// With the answer to give, when there is no such channel, or it is not ours to play.
pub(super) fn wanted(context: &Context, slug: &str) -> Result<Wanted, Response> {
    let list = context.channels.get();
    let channel = slug.parse::<Slug>().ok().and_then(|slug| list.by_slug(&slug).cloned());
    let wanted = channel.and_then(|channel| channel.wanted());
    wanted.ok_or_else(|| {
        Response::error(
            Code::NotFound,
            &"there is no such channel; /playlist.m3u and /proxy/channels list them",
        )
    })
}

/// All channels, and what became of the lists.
pub(super) fn all(context: &Context, request: &Request) -> Response {
    #[derive(Serialize)]
    struct All<'a> {
        channels: Vec<ChannelStatus<'a>>,
        lists: Vec<ListStatus<'a>>,
    }
    let list = context.channels.get();
    let base = base_of(context, request);
    let playing = context.streams.by_channel();
    let status = |channel| ChannelStatus::new(context, channel, &base, &playing);
    let channels = list.channels().iter().map(|channel| status(channel)).collect();
    let lists = list.reports().iter().map(ListStatus::new).collect();
    Response::json(200, &All { channels, lists })
}

/// One channel.
pub(super) fn one(context: &Context, request: &Request, slug: &str) -> Response {
    let list = context.channels.get();
    let channel: Option<Arc<Channel>> =
        slug.parse::<Slug>().ok().and_then(|slug| list.by_slug(&slug).cloned());
    match channel {
        Some(channel) => {
            let base = base_of(context, request);
            let playing = context.streams.by_channel();
            Response::json(200, &ChannelStatus::new(context, &channel, &base, &playing))
        }
        None => Response::error(Code::NotFound, &"there is no such channel"),
    }
}

/// What addresses begin with; nothing where that is not known, which leaves a path.
fn base_of(context: &Context, request: &Request) -> String {
    base_url(context.server.get().public_url.as_ref(), request).unwrap_or_default()
}

/// A channel.
#[derive(Serialize)]
struct ChannelStatus<'a> {
    slug: &'a str,
    name: &'a str,
    number: u32,
    group: Option<&'a str>,
    logo: Option<&'a str>,
    tvg_id: Option<&'a str>,
    url: String,
    sources: Vec<SourceStatus<'a>>,
    stream_id: Option<String>,
}

/// What plays it.
#[derive(Serialize)]
struct SourceStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    infohash: Option<String>,
    from: Option<&'a str>,
    line: Option<u32>,
    name: &'a str,
    failed_at: Option<Timestamp>,
    last_error: Option<String>,
}

impl<'a> ChannelStatus<'a> {
    fn new(context: &Context, channel: &'a Channel, base: &str, playing: &HashMap<Slug, String>) -> Self {
        let sources = channel.sources.iter().map(|source| {
            let (id, infohash) = match source.content.name {
                ContentName::Id(digest) => (Some(digest.to_string()), None),
                ContentName::Infohash(digest) => (None, Some(digest.to_string())),
            };
            let failed = context.streams.past().failure_of(&source.content);
            SourceStatus {
                id,
                infohash,
                from: source.list.as_deref(),
                line: (source.line > 0).then_some(source.line),
                name: &source.name,
                failed_at: failed.as_ref().and_then(|(at, _)| Timestamp::of(*at)),
                last_error: failed.map(|(_, words)| words),
            }
        });
        Self {
            slug: channel.slug.as_str(),
            name: &channel.name,
            number: channel.number,
            group: channel.group.as_deref(),
            logo: channel.logo.as_deref(),
            tvg_id: channel.tvg_id.as_deref(),
            url: playlist::url(base, channel, false),
            sources: sources.collect(),
            stream_id: playing.get(&channel.slug).cloned(),
        }
    }
}

/// A list.
#[derive(Serialize)]
struct ListStatus<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    entries: usize,
    channels: usize,
    skipped: usize,
    skipped_by_reason: SkippedStatus,
    fetched_at: Option<Timestamp>,
    error: Option<&'a str>,
}

/// Why entries are left out.
#[derive(Serialize)]
struct SkippedStatus {
    not_acestream: usize,
    bad_ids: usize,
    without_url: usize,
    excluded: usize,
    repeated: usize,
    over_bounds: usize,
}

impl<'a> ListStatus<'a> {
    fn new(report: &'a Report) -> Self {
        let Skipped { other, bad_ids, without_url, excluded, repeated, claimed, over_bounds } =
            report.skipped;
        let place = Some(&*report.place);
        Self {
            name: &report.name,
            url: place.filter(|_| !report.is_file),
            path: place.filter(|_| report.is_file),
            entries: report.entries,
            channels: report.channels,
            skipped: report.skipped.count(),
            skipped_by_reason: SkippedStatus {
                not_acestream: other,
                bad_ids,
                without_url,
                excluded,
                repeated: repeated + claimed,
                over_bounds,
            },
            fetched_at: report.fetched_at.and_then(Timestamp::of),
            error: report.error.as_deref(),
        }
    }
}

/// Seconds since the oldest of the lists was fetched, for metrics; `None` without a list.
pub(super) fn oldest_list_s(list: &List) -> Option<f64> {
    let ages = list.reports().iter().map(|report| {
        let fetched = report.fetched_at.unwrap_or(SystemTime::UNIX_EPOCH);
        SystemTime::now().duration_since(fetched).unwrap_or_default().as_secs_f64()
    });
    ages.max_by(f64::total_cmp)
}
