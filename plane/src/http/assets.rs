//! The page's own files, inside the program. Knows no data of the fleet.

use std::sync::OnceLock;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{Html, IntoResponse as _, Redirect, Response},
};
use bus_schema::{
    api::{Failure, FailureKind},
    id::{base32, hash},
};

use super::problem::Refusal;

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
        return Refusal::new(
            StatusCode::NOT_FOUND,
            FailureKind::NotFound,
            "there is no such page",
            "start at /",
        )
        .into_response();
    };
    if !matches!(method, Method::GET | Method::HEAD) {
        return Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            FailureKind::Invalid,
            "a page can only be read",
            "",
        )
        .into_response();
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

/// To the page itself.
pub(super) async fn home() -> Redirect {
    Redirect::to("/")
}

/// A refusal that somebody would see in a browser's window becomes a page. Programs, and the page's own calls, ask for no
/// HTML and get JSON.
pub(super) async fn for_people(request: Request, next: Next) -> Response {
    let accept = request.headers().get(header::ACCEPT);
    let window = request.method() == Method::GET
        && accept.is_some_and(|types| types.to_str().is_ok_and(|types| types.contains("text/html")));
    let response = next.run(request).await;
    match response.extensions().get::<Failure>() {
        Some(failure) if window => (response.status(), Html(refusal(failure))).into_response(),
        _ => response,
    }
}

fn refusal(Failure { message, hint, .. }: &Failure) -> String {
    let (message, hint) = (escaped(&sentence(message)), escaped(&sentence(hint)));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Mycelial</title>\
         <link rel=\"icon\" href=\"/icon.svg\"><link rel=\"stylesheet\" href=\"/style.css\"></head>\
         <body><header class=\"bar\"><a class=\"brand\" href=\"/\"><img src=\"/icon.svg\" alt=\"\" width=\"22\" height=\"22\">\
         Mycelial</a></header><main><h1>This does not work</h1><div class=\"alert\"><strong>{message}</strong><p>{hint}</p></div>\
         <p><a href=\"/\">To the fleet</a></p></main></body></html>\n"
    )
}

/// What stands after a colon elsewhere stands alone here.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| {
        format!("{}{}.", first.to_uppercase(), letters.as_str())
    })
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_refusal_is_markup() {
        let failure = Failure {
            kind: FailureKind::Invalid,
            message: "<script>&\"".into(),
            hint: "a > b".into(),
            problems: Vec::new(),
        };
        let page = refusal(&failure);
        assert!(
            page.contains("<strong>&lt;script&gt;&amp;&quot;.</strong><p>A &gt; b.</p>"),
            "{page}"
        );
    }
}
