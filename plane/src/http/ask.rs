//! One request of the API on its way to its handler, and what handlers need to read it and to answer. Decides nothing.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::Query,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use bus_schema::{
    api::{ApiCall, ApiResult, FailureKind},
    id::{base32, hash},
    limits::NAME_BYTES_MAX,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Web, problem::Refusal};
use crate::{people::is_plain, permission::Caller, service::Guard};

/// Most items of one page of a list.
const PAGE_MAX: usize = 1_000;

/// What a handler gives back.
pub(super) type Answer = Result<Response, Refusal>;
/// What carries out a request.
pub(super) type Handler = fn(Ask) -> Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A request whose sender is known and may.
pub(super) struct Ask {
    pub(super) web: Arc<Web>,
    /// `None` only where the table needs nobody.
    pub(super) known: Option<Caller>,
    /// Where it came from: an address of the network.
    pub(super) from: String,
    /// It came with TLS, to us or to a proxy before us.
    pub(super) is_secure: bool,
    pub(super) params: Vec<(String, String)>,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct PageWish {
    /// Most items, 1 to 1000.
    pub(super) limit: Option<usize>,
    /// `next` of the page before.
    pub(super) cursor: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct Page<T> {
    /// In order.
    pub(super) items: Vec<T>,
    /// Ask for the page after this with it; null when this is the last.
    pub(super) next: Option<String>,
}

impl<T> Page<T> {
    /// A list that is never long.
    pub(super) fn all(items: Vec<T>) -> Self {
        Self { items, next: None }
    }

    /// Cuts a page out of a list whose places are all that tells its items apart.
    pub(super) fn at(mut items: Vec<T>, wish: &PageWish) -> Result<Self, Refusal> {
        let limit = wish.limit()?;
        let wrong = |_| Refusal::invalid("cursor: it is none of this list", "");
        let done: usize = wish.cursor.as_deref().map_or(Ok(0), str::parse).map_err(wrong)?;
        items.drain(..done.min(items.len()));
        let next = (items.len() > limit).then(|| (done + limit).to_string());
        items.truncate(limit);
        Ok(Self { items, next })
    }

    /// Cuts a page out of a list in any order, whose items `key` tells apart.
    pub(super) fn after(mut items: Vec<T>, wish: &PageWish, key: impl Fn(&T) -> String) -> Result<Self, Refusal> {
        let limit = wish.limit()?;
        if let Some(after) = &wish.cursor {
            let at = items.iter().position(|item| key(item) == *after).ok_or_else(|| {
                let hint = "the list has changed meanwhile: begin again, without a cursor";
                Refusal::invalid("cursor: it is not in this list (any more)", hint)
            })?;
            items.drain(..=at);
        }
        let next = items.get(limit).and(items.get(limit - 1)).map(&key);
        items.truncate(limit);
        Ok(Self { items, next })
    }

    /// Cuts a page out of a list that is sorted by `key`.
    pub(super) fn cut(items: Vec<T>, wish: &PageWish, key: impl Fn(&T) -> String) -> Result<Self, Refusal> {
        let limit = wish.limit()?;
        let after = wish.cursor.as_deref();
        let mut rest = items
            .into_iter()
            .filter(|item| after.is_none_or(|after| key(item).as_str() > after));
        let items: Vec<T> = rest.by_ref().take(limit).collect();
        let next = rest.next().and(items.last()).map(&key);
        Ok(Self { items, next })
    }
}

impl PageWish {
    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        match self.limit {
            None => Ok(PAGE_MAX),
            Some(limit @ 1..=PAGE_MAX) => Ok(limit),
            Some(limit) => Err(Refusal::invalid(
                format!("limit: 1 to {PAGE_MAX} items fit on a page, not {limit}"),
                "",
            )),
        }
    }
}

impl Ask {
    /// Who asks.
    pub(super) fn caller(&self) -> Result<&Caller, Refusal> {
        self.known
            .as_ref()
            .ok_or_else(|| Refusal::internal("the table let somebody unknown through"))
    }

    /// A part of the path.
    pub(super) fn param(&self, name: &str) -> String {
        let found = self.params.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// What stands after the question mark.
    pub(super) fn query<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let read = Query::<T>::try_from_uri(&self.uri);
        read.map(|Query(query)| query)
            .map_err(|rejection| Refusal::invalid(rejection.body_text(), "see the API's description"))
    }

    /// The body.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let kind = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let essence = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
        // A form of another page cannot send this: browsers ask us first.
        if !essence.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                FailureKind::Invalid,
                "the body is not said to be JSON",
                "send JSON, with content-type: application/json",
            ));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let status = match error.classify() {
                serde_json::error::Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::BAD_REQUEST,
            };
            let message = format!("the JSON of the body: {error}");
            Refusal::new(status, FailureKind::Invalid, message, "see the API's description")
        })
    }

    /// What a change shall replace; it has to be said.
    pub(super) fn expected(&self) -> Result<Expected, Refusal> {
        self.expectation()?.ok_or_else(|| {
            let message = "it is not said what this shall replace: somebody may have changed it meanwhile";
            let hint = "send If-Match with the ETag that came with what you changed, If-None-Match: * for what is new, \
                        or If-Match: * for whatever is there";
            Refusal::new(StatusCode::PRECONDITION_REQUIRED, FailureKind::Invalid, message, hint)
        })
    }

    fn expectation(&self) -> Result<Option<Expected>, Refusal> {
        let said = |name| {
            self.headers
                .get(name)
                .map(|value| value.to_str().unwrap_or_default().trim())
        };
        match (said(header::IF_MATCH), said(header::IF_NONE_MATCH)) {
            (Some("*"), _) => Ok(Some(Expected::Whatever)),
            (Some(tag), _) => {
                let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                let tag = tag.ok_or_else(|| {
                    let hint = "send the ETag that came with what you changed, for example If-Match: \"7\"";
                    Refusal::invalid("If-Match is no tag", hint)
                })?;
                Ok(Some(Expected::Tag(tag.to_string())))
            }
            (None, Some("*")) => Ok(Some(Expected::Nothing)),
            (None, _) => Ok(None),
        }
    }

    /// The revision that a change shall replace, where that may be left open: from `If-Match: "7"`, or `If-None-Match: *` for none.
    pub(super) fn precondition(&self) -> Result<Option<u32>, Refusal> {
        self.expectation()?.map_or(Ok(None), |expected| expected.revision())
    }

    /// Makes a call in the caller's name.
    pub(super) async fn call(&self, call: ApiCall) -> Result<ApiResult, Refusal> {
        match self.web.service.call(self.caller()?, call).await {
            ApiResult::Failed(failure) => Err(failure.into()),
            result => Ok(result),
        }
    }

    /// The same, if that which `read` answers is as was expected; `tag` finds its tag.
    pub(super) async fn call_if(
        &self,
        call: ApiCall,
        read: ApiCall,
        tag: impl Fn(&ApiResult) -> Option<String> + Clone + Send + 'static,
    ) -> Result<ApiResult, Refusal> {
        let expected = self.expected()?;
        let (asked, tag_of) = (read.clone(), tag.clone());
        let holds = move |now: &ApiResult| expected.holds(tag(now).as_deref());
        let guard = Guard {
            read,
            holds: Box::new(holds),
        };
        match self.web.service.call_if(self.caller()?, Some(guard), call).await {
            ApiResult::Failed(failure) => Err(self.refused(failure.into(), asked, tag_of).await),
            result => Ok(result),
        }
    }

    /// What a refused change is answered with: 412 where that which `read` answers is not what was expected, for somebody was
    /// faster; whoever looks again can try again. Other conflicts stay what they are.
    pub(super) async fn refused(
        &self,
        refusal: Refusal,
        read: ApiCall,
        tag: impl Fn(&ApiResult) -> Option<String>,
    ) -> Refusal {
        if refusal.failure.kind != FailureKind::Conflict {
            return refusal;
        }
        let now = match self.call(read).await {
            Ok(now) => tag(&now),
            Err(missing) if missing.failure.kind == FailureKind::NotFound => None,
            Err(_) => return refusal,
        };
        match self.expected() {
            Ok(expected) if !expected.holds(now.as_deref()) => Refusal::changed(refusal.failure),
            _ => refusal,
        }
    }

    /// Whether who asks has this already.
    pub(super) fn has(&self, tag: &str) -> bool {
        self.headers
            .get(header::IF_NONE_MATCH)
            .is_some_and(|known| known == tag)
    }
}

/// What a change shall replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// Whatever is there, and nothing too.
    Whatever,
    /// Nothing: it is new.
    Nothing,
    /// What has this tag.
    Tag(String),
}

impl Expected {
    /// Whether what is there now (`None`: nothing) is what was expected.
    pub(super) fn holds(&self, now: Option<&str>) -> bool {
        match self {
            Self::Whatever => true,
            Self::Nothing => now.is_none(),
            Self::Tag(tag) => now == Some(tag),
        }
    }

    /// The same where tags are revisions: 0 is none, `None` any.
    pub(super) fn revision(&self) -> Result<Option<u32>, Refusal> {
        match self {
            Self::Whatever => Ok(None),
            Self::Nothing => Ok(Some(0)),
            Self::Tag(tag) => tag.parse().map(Some).map_err(|_| {
                let hint = "send the ETag that came with what you changed, for example If-Match: \"7\"";
                Refusal::invalid("If-Match is no revision", hint)
            }),
        }
    }
}

/// The tag of something that is made of these parts: another one as soon as one of them is.
pub(super) fn tag_of(parts: &[&[u8]]) -> String {
    base32(&hash("mycelial etag v1", parts)[..10])
}

/// An answer of JSON.
pub(super) fn json(body: impl Serialize) -> Answer {
    Ok(Json(body).into_response())
}

/// An answer of JSON that can be asked for again by its tag.
pub(super) fn tagged(ask: &Ask, tag: &str, body: impl Serialize) -> Answer {
    let response = if ask.has(&format!("\"{tag}\"")) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(body).into_response()
    };
    Ok(with_tag(tag, response))
}

/// An answer with the tag of what is there now.
pub(super) fn with_tag(tag: &str, mut response: Response) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Done, and nothing to say.
pub(super) fn nothing() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// An answer that does not belong to its call: only a mistake in this program makes one.
pub(super) fn unexpected() -> Refusal {
    Refusal::internal("the plane answered something else than was asked")
}

/// A name of a user, a draft, a token.
pub(super) fn plain_name(name: &str) -> Result<(), Refusal> {
    if !is_plain(name) {
        let message = format!(
            "'{}' cannot be a name: use 1 to {NAME_BYTES_MAX} letters, digits, '-', '_', '.' and '@'",
            name.chars().take(64).collect::<String>().escape_debug()
        );
        return Err(Refusal::invalid(message, ""));
    }
    Ok(())
}
