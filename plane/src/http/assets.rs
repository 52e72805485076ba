//! The page's own files, inside the program: what `npm run build` wrote into `ui/dist`, compressed as it is there. Knows no
//! data of the fleet.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{Html, IntoResponse as _, Redirect, Response},
};
use bus_schema::api::{Failure, FailureKind};

use super::problem::Refusal;

/// One file of the page. What is large is there compressed only.
struct Asset {
    path: &'static str,
    mime: &'static str,
    /// Changes with the content. `None`: the name does that already, and browsers may keep the file for ever.
    tag: Option<&'static str>,
    bytes: &'static [u8],
    /// Whether the bytes are compressed, with gzip.
    zipped: bool,
}

// `ASSETS`, made by build.rs.
include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The page itself, whatever address of it was asked for.
const INDEX: &str = "/index.html";
/// Where files are whose name changes with their content.
const HASHED: &str = "/assets/";
const FOR_EVER: &str = "public, max-age=31536000, immutable";

fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// Whether a browser's window asks: those addresses belong to the page, which knows what to show there.
fn is_window(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|types| types.to_str().ok());
    accept.is_some_and(|types| types.contains("text/html"))
}

/// Whether the caller takes this encoding: named, and not with a weight of nothing.
fn takes(headers: &HeaderMap, encoding: &str) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|choice| {
            let (name, weight) = choice.split_once(';').unwrap_or((choice, ""));
            let refused = weight
                .trim()
                .strip_prefix("q=")
                .is_some_and(|q| q.parse::<f32>() == Ok(0.0));
            name.trim().eq_ignore_ascii_case(encoding) && !refused
        })
}

/// Anything that is not `/api`.
pub(super) async fn asset(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    let found = match path {
        "/" => find(INDEX),
        path => find(path).or_else(|| {
            let is_page = is_window(&headers) && !path.starts_with(HASHED);
            is_page.then(|| find(INDEX)).flatten()
        }),
    };
    let Some(asset) = found else {
        let message = "there is no such page";
        return Refusal::new(StatusCode::NOT_FOUND, FailureKind::NotFound, message, "start at /").into_response();
    };
    if !matches!(method, Method::GET | Method::HEAD) {
        let message = "a page can only be read";
        return Refusal::new(StatusCode::METHOD_NOT_ALLOWED, FailureKind::Invalid, message, "").into_response();
    }
    send(asset, &headers)
}

fn send(asset: &Asset, asked: &HeaderMap) -> Response {
    if asset.zipped && !takes(asked, "gzip") {
        return Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            FailureKind::Invalid,
            "this file is sent compressed only",
            "ask with accept-encoding: gzip",
        )
        .into_response();
    };
    let known = asked.get(header::IF_NONE_MATCH);
    let same = asset.tag.is_some_and(|tag| known.is_some_and(|known| known == tag));
    let mut response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        asset.bytes.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.mime));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if asset.zipped && !same {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Some(tag) = asset.tag {
        headers.insert(header::ETAG, HeaderValue::from_static(tag));
    }
    let cache = if asset.tag.is_some() { "no-cache" } else { FOR_EVER };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

/// To the page itself.
pub(super) async fn home() -> Redirect {
    Redirect::to("/")
}

/// A refusal that somebody would see in a browser's window becomes a page. Programs, and the page's own calls, ask for no
/// HTML and get JSON.
pub(super) async fn for_people(request: Request, next: Next) -> Response {
    let window = request.method() == Method::GET && is_window(request.headers());
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
         <link rel=\"icon\" href=\"/icon.svg\"><link rel=\"stylesheet\" href=\"/plain.css\"></head>\
         <body><main><h1>This does not work</h1><p><strong>{message}</strong></p><p>{hint}</p>\
         <p><a href=\"/\">To the overview</a></p></main></body></html>\n"
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
            page.contains("<strong>&lt;script&gt;&amp;&quot;.</strong></p><p>A &gt; b.</p>"),
            "{page}"
        );
    }

    #[test]
    fn encodings_that_are_taken() {
        for (accept, wanted) in [
            ("gzip, deflate, br, zstd", true),
            ("GZIP;q=0.5", true),
            ("br, gzip;q=0", false),
            ("gzipped", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
            assert_eq!(takes(&headers, "gzip"), wanted, "{accept}");
        }
    }
}
