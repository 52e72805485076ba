//! The page's own files, inside the program. Knows no data of the fleet.

use std::sync::OnceLock;

use axum::{
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use bus_schema::{
    api::FailureKind,
    id::{base32, hash},
};

use super::json::refuse;

struct Asset {
    path: &'static str,
    mime: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($path:literal, $mime:literal, $file:literal) => {
        Asset {
            path: $path,
            mime: $mime,
            bytes: include_bytes!(concat!("../../../ui/", $file)),
        }
    };
}

const JS: &str = "text/javascript; charset=utf-8";

macro_rules! script {
    ($file:literal) => {
        Asset {
            path: concat!("/", $file),
            mime: JS,
            bytes: include_bytes!(concat!("../../../ui/", $file)),
        }
    };
}

const ASSETS: &[Asset] = &[
    asset!("/", "text/html; charset=utf-8", "index.html"),
    asset!("/style.css", "text/css; charset=utf-8", "style.css"),
    asset!("/icon.svg", "image/svg+xml", "icon.svg"),
    script!("theme.js"),
    script!("app.js"),
    script!("dom.js"),
    script!("api.js"),
    script!("fleet.js"),
    script!("workflows.js"),
    script!("ledger.js"),
];

/// Changes with the page, so that browsers ask and are told «as you have it».
fn tag() -> &'static str {
    static TAG: OnceLock<String> = OnceLock::new();
    TAG.get_or_init(|| {
        let parts: Vec<_> = ASSETS.iter().map(|asset| asset.bytes).collect();
        format!("\"{}\"", base32(&hash("mycelial page v1", &parts)[..10]))
    })
}

/// Anything that is not `/api`.
pub(super) async fn asset(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == uri.path()) else {
        return refuse(
            StatusCode::NOT_FOUND,
            FailureKind::NotFound,
            "there is no such page",
            "start at /",
        );
    };
    if !matches!(method, Method::GET | Method::HEAD) {
        return refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            FailureKind::Invalid,
            "a page can only be read",
            "",
        );
    }
    let same = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag());
    let mut response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        asset.bytes.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.mime));
    headers.insert(header::ETAG, HeaderValue::from_static(tag()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
