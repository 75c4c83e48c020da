//! The guide, as players ask for it.

use std::sync::Arc;

use crate::guide::current::{Copy, Current};
use crate::http::body::ResponseBody;
use crate::http::request::Request;
use crate::http::response::{Code, Response};

use super::etag::is_known;

/// Answers with the guide that there is.
pub(super) fn answer(current: &Current, request: &Request) -> Response {
    let edition = match current {
        Current::Here(edition) => edition,
        Current::Awaited => {
            return Response::error(Code::GuideAwaited, &"no guide has come yet; ask again soon");
        }
        Current::None => {
            let detail = "there is no guide: name one as urls in [epg], or a playlist that names one";
            return Response::error(Code::NotFound, &detail);
        }
    };
    let is_packed = request.header("Accept-Encoding").is_some_and(takes_gzip);
    let (copy, suffix) = if is_packed { (&edition.packed, "-gz") } else { (&edition.plain, "") };
    let tag = format!("\"{:016x}{suffix}\"", edition.digest);
    let is_known = is_known(request, &tag);
    let response = if is_known { Response::empty(304) } else { whole(copy) };
    let response = if is_packed && !is_known { response.with("Content-Encoding", "gzip") } else { response };
    response.with("ETag", tag).with("Vary", "Accept-Encoding").with("Cache-Control", "no-cache")
}

fn whole(copy: &Copy) -> Response {
    let body = ResponseBody::File(Arc::clone(&copy.file), copy.length);
    Response::empty(200).with("Content-Type", "application/xml; charset=utf-8").with_body(body)
}

/// Whether an `Accept-Encoding` takes gzip (RFC 9110 section 12.5.3).
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "x-gzip");
        let weight = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
        is_gzip && weight.parse::<f32>().is_ok_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_take_it() {
        for accepted in ["gzip", "deflate, gzip;q=0.5", "GZIP", "gzip ; q=1", "x-gzip, *"] {
            assert!(takes_gzip(accepted), "{accepted}");
        }
        for accepted in ["", "identity", "gzip;q=0", "gzip;q=0.000", "*", "gzipped", "br"] {
            assert!(!takes_gzip(accepted), "{accepted}");
        }
    }
}
