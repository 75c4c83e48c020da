//! Whether a client has already what it asks for.

use crate::http::request::Request;

/// Whether the request says that its client has what bears this tag.
pub(super) fn is_known(request: &Request, tag: &str) -> bool {
    request.header("If-None-Match").is_some_and(|tags| names(tags, tag))
}

/// Whether an `If-None-Match` has this tag (RFC 9110 section 13.1.2); a proxy between may have weakened it.
fn names(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_by_any_of_its_spellings() {
        assert!(names("\"a\", W/\"b\"", "\"b\"") && names("*", "\"b\"") && !names("\"b-gz\"", "\"b\""));
    }
}
