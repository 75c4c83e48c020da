//! The page for a person, at `/`: one self-contained document that asks for `/proxy/status` and draws it.
//!
//! What peers send reaches it as JSON and is put in as text only. Should that ever fail, its policy still lets no other
//! script run than its own two blocks, which are named by their hashes.

use crate::http::response::Response;

const PAGE: &str = include_str!("page.html");

/// What the page may load and run: its own style and script, and the proxy's own answers. A test holds that the hashes
/// are those of the blocks in the page.
const POLICY: &str = "default-src 'none'; \
                      style-src 'sha256-LzVuWwyo181jenAf16m7IW3nTOfa6P+yuyY5i0R2548='; \
                      script-src 'sha256-iQXUE7gM2vN/8IPi4Hl+H2+hE/rQmZTVfOz5ZYIOuhw='; \
                      connect-src 'self'; media-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The page.
#[must_use]
pub(super) fn page() -> Response {
    Response::empty(200)
        .with("Content-Type", "text/html; charset=utf-8")
        .with("Cache-Control", "no-cache")
        .with("Content-Security-Policy", POLICY)
        .with("X-Content-Type-Options", "nosniff")
        .with("Referrer-Policy", "no-referrer")
        .with_body(PAGE.as_bytes().to_vec())
}
