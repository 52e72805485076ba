//! What is asked for, and what an answer holds: records, a cursor, a link to more; and the bookmark of how much of it has
//! been read. Performs no I/O.

use std::{borrow::Cow, fmt};

use bus_schema::data::{Batch, Cell};
use flow::{Fault, Position, Undecodable};
use hyper::{HeaderMap, header::LINK};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{
    Deserialize, Deserializer as _, Serialize,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::file::{hash, text::shorten};

/// What stands for the cursor in an address.
pub(super) const PLACE: &str = "{cursor}";
/// Records with one and the same cursor that are known again.
const SEEN_MAX: usize = 512;
/// Longest cursor and longest tag of an answer, in bytes: they have to fit into a position.
const CURSOR_BYTES_MAX: usize = 1024;
/// Longest address of a page, in bytes.
const ADDRESS_BYTES_MAX: usize = 2048;
/// What stays as it is in an address.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The address with a cursor in it.
pub(super) fn fill(address: &str, cursor: &str) -> String {
    address.replace(PLACE, &utf8_percent_encode(cursor, KEPT).to_string())
}

/// The address of the next page in `Link: <…>; rel="next"` (RFC 8288).
pub(super) fn link_next(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    // An address may have commas and semicolons in it; what begins a link is its bracket.
    let links = values.flat_map(|links| links.split('<').skip(1));
    links
        .filter_map(|link| link.split_once('>'))
        .find_map(|(address, parameters)| {
            let is_next = |parameter: &str| {
                let (name, value) = parameter.split_once('=').unwrap_or_default();
                let mut relations = value.trim_matches([' ', ',', '"']).split_whitespace();
                name.trim().eq_ignore_ascii_case("rel")
                    && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
            };
            parameters.split(';').any(is_next).then(|| address.to_string())
        })
}

/// What stands at a place in JSON (RFC 6901), as written.
pub(super) fn find<'a>(json: &'a str, pointer: &str) -> Result<Option<&'a str>, String> {
    let wrong = |error: serde_json::Error| format!("is not JSON: {error}");
    let mut at: &RawValue = serde_json::from_str(json).map_err(wrong)?;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        let found = match at.get().as_bytes().first() {
            Some(b'{' | b'[') => Pick(&token).deserialize(&mut serde_json::Deserializer::from_str(at.get())),
            _ => Ok(None),
        };
        match found.map_err(wrong)? {
            Some(found) => at = found,
            None => return Ok(None),
        }
    }
    Ok(Some(at.get()))
}

/// A text or number at a place in JSON; `None` when there is none, or null, or the empty text.
pub(super) fn text_at(json: &str, pointer: &str) -> Result<Option<String>, String> {
    match find(json, pointer)? {
        None | Some("null" | "false" | "\"\"") => Ok(None),
        Some(text) if text.starts_with('"') => serde_json::from_str(text).map(Some).map_err(|error| error.to_string()),
        Some(number) if !number.starts_with(['{', '[', 't']) => Ok(Some(number.to_string())),
        Some(other) => Err(format!(
            "has '{}' at {pointer}, which is no text and no number",
            shorten(other)
        )),
    }
}

/// The records at a place in JSON, a line each: the items of an array, or the object that stands there alone.
pub(super) fn lines(json: &str, pointer: &str) -> Result<Vec<u8>, String> {
    let mut lines = Vec::new();
    match find(json, pointer)? {
        None => return Err(format!("has nothing at {pointer:?}, where the records should be")),
        Some("null") => {}
        Some(list) if list.starts_with('[') => {
            let deserializer = &mut serde_json::Deserializer::from_str(list);
            let read = deserializer.deserialize_seq(Lines(&mut lines));
            read.map_err(|error| format!("is not JSON: {error}"))?;
        }
        Some(one) => push_line(&mut lines, one),
    }
    Ok(lines)
}

/// Outside of strings a line end is but space, and inside there is none.
fn push_line(lines: &mut Vec<u8>, record: &str) {
    lines.extend(
        record
            .bytes()
            .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }),
    );
    lines.push(b'\n');
}

/// One member of an object, or item of an array, without keeping the others.
struct Pick<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let wanted: Option<usize> = self.0.parse().ok();
        let (mut found, mut index) = (None, 0);
        while let Some(item) = list.next_element::<&'de RawValue>()? {
            if Some(index) == wanted {
                found = Some(item);
            }
            index += 1;
        }
        Ok(found)
    }
}

/// The items of an array, one after the other.
struct Lines<'l>(&'l mut Vec<u8>);

impl<'de> Visitor<'de> for Lines<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element::<&'de RawValue>()? {
            if self.0.try_reserve(item.get().len() + 1).is_err() {
                return Err(A::Error::custom("there is no memory for it"));
            }
            push_line(self.0, item.get());
        }
        Ok(())
    }
}

/// How much has been read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bookmark {
    pub v: u8,
    /// What goes into the address.
    pub cursor: Option<String>,
    /// With a field as the cursor: fingerprints of the records that have this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<u64>,
    /// Without such a field: the page that is being read, unless it is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// Records of it that have been read.
    #[serde(default)]
    pub rows: u64,
    /// Fingerprint of the page they were in.
    #[serde(default)]
    pub body: u64,
    /// All of it has been read.
    #[serde(default)]
    pub is_whole: bool,
    /// The tag of the answer that was the whole list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl Bookmark {
    /// Before everything.
    pub(super) fn start(cursor: Option<String>) -> Self {
        Self {
            v: 1,
            cursor,
            ..Self::default()
        }
    }

    pub(super) fn read(position: &Position) -> Result<Self, Fault> {
        let unknown =
            || Fault::stop("the stored position is not one of an HTTP source: was the workflow's source changed?");
        let bookmark: Self = serde_json::from_slice(position.as_bytes()).map_err(|_| unknown())?;
        if bookmark.v == 1 { Ok(bookmark) } else { Err(unknown()) }
    }

    pub(super) fn position(&self) -> Position {
        Position::new(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Goes on at a cursor.
    pub(super) fn set_cursor(&mut self, cursor: String) -> Result<(), Fault> {
        if cursor.len() > CURSOR_BYTES_MAX {
            let cause = format!(
                "a cursor has at most {CURSOR_BYTES_MAX} bytes, and this one begins with '{}'",
                shorten(&cursor)
            );
            return Err(Fault::stop(cause));
        }
        if self.cursor.as_ref() != Some(&cursor) {
            self.cursor = Some(cursor);
            self.seen.clear();
        }
        Ok(())
    }

    /// Goes on at another page.
    pub(super) fn set_page(&mut self, page: String) -> Result<(), Fault> {
        if page.len() > ADDRESS_BYTES_MAX {
            let cause = format!(
                "the address of a page has at most {ADDRESS_BYTES_MAX} bytes: {}",
                shorten(&page)
            );
            return Err(Fault::stop(cause));
        }
        (self.page, self.rows, self.body, self.is_whole, self.etag) = (Some(page), 0, 0, false, None);
        Ok(())
    }

    fn see(&mut self, fingerprint: u64) {
        if self.seen.len() >= SEEN_MAX {
            self.seen.remove(0);
        }
        self.seen.push(fingerprint);
    }
}

/// A tag that fits into a position.
pub(super) fn short_tag(tag: &str) -> Option<String> {
    (tag.len() <= CURSOR_BYTES_MAX).then(|| tag.to_string())
}

/// With a field as the cursor: the records before this poll that had the cursor it began with. A server that gives them
/// again (`since` that includes it, several records of one moment) doubles nothing.
#[derive(Debug, Default)]
pub(super) struct Old {
    cursor: Option<String>,
    seen: Vec<u64>,
}

impl Old {
    pub(super) fn of(bookmark: &Bookmark) -> Self {
        Self {
            cursor: bookmark.cursor.clone(),
            seen: bookmark.seen.clone(),
        }
    }

    /// Whether it is one of them; each counts once.
    fn take(&mut self, fingerprint: u64) -> bool {
        match self.seen.iter().position(|seen| *seen == fingerprint) {
            Some(at) => {
                self.seen.swap_remove(at);
                true
            }
            None => false,
        }
    }

    /// The rows and inputs that are new; the bookmark goes on behind them.
    pub(super) fn leave_out(
        &mut self,
        batch: &Batch,
        undecodable: Vec<Undecodable>,
        field: &str,
        bookmark: &mut Bookmark,
    ) -> Result<(Vec<usize>, Vec<Undecodable>), Fault> {
        let column = batch.schema().index_of(field);
        let mut fresh = Vec::new();
        for row in 0..batch.rows() {
            let cell = column.map_or(Cell::Missing, |column| batch.cell(row, column));
            let value = cell.is_value().then(|| cell.to_string());
            let fingerprint = fingerprint(batch, row);
            // A record without a cursor stands where the one before it does.
            let is_at = value.is_none() || value == self.cursor;
            if is_at && self.take(fingerprint) {
                continue;
            }
            if let Some(value) = value {
                bookmark.set_cursor(value)?;
            }
            bookmark.see(fingerprint);
            fresh.push(row);
        }
        let mut kept = Vec::new();
        for input in undecodable {
            let fingerprint = hash(&input.bytes);
            if !self.take(fingerprint) {
                bookmark.see(fingerprint);
                kept.push(input);
            }
        }
        Ok((fresh, kept))
    }
}

/// What a record is known by.
fn fingerprint(batch: &Batch, row: usize) -> u64 {
    let mut shown = String::new();
    for (field, column) in batch.schema().fields.iter().zip(0..) {
        let cell = batch.cell(row, column);
        if !matches!(cell, Cell::Missing) {
            shown.push_str(&format!(
                "{}\u{1f}{}{cell}\u{1e}",
                field.name,
                u8::from(cell.is_value())
            ));
        }
    }
    hash(shown.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_json() {
        let json = r#"{"a": {"b/c": [10, {"d": "x\u00e9"}]}, "n": null, "list": [{"x": 1},
            {"x": [1, 2]}], "e": "", "a~": 5}"#;
        for (pointer, wanted) in [
            ("/a/b~1c/0", Ok(Some("10".to_string()))),
            ("/a/b~1c/1/d", Ok(Some("xé".to_string()))),
            ("/a~0", Ok(Some("5".to_string()))),
            ("/n", Ok(None)),
            ("/e", Ok(None)),
            ("/none/at/all", Ok(None)),
            ("/list/7", Ok(None)),
            ("/list/x", Ok(None)),
            ("/a", Err(())),
        ] {
            assert_eq!(text_at(json, pointer).map_err(drop), wanted, "{pointer}");
        }
        assert_eq!(lines(json, "/list").unwrap(), b"{\"x\": 1}\n{\"x\": [1, 2]}\n");
        assert_eq!(lines("[]", "").unwrap(), b"");
        assert_eq!(lines(" {\"a\":\n1}", "").unwrap(), b"{\"a\": 1}\n");
        assert_eq!(lines(json, "/n").unwrap(), b"");
        assert!(lines(json, "/x").unwrap_err().contains("nothing at \"/x\""));
        assert!(lines("<html>", "").unwrap_err().contains("is not JSON"));
    }

    #[test]
    fn links() {
        for (link, wanted) in [
            (
                r#"<https://x/?page=2,3;4>; rel="next", <https://x/?page=9>; rel="last""#,
                Some("https://x/?page=2,3;4"),
            ),
            (
                r#"<?page=1>; rel="prev", <?page=3>; title="a"; rel="next nofollow""#,
                Some("?page=3"),
            ),
            ("</p>; rel=NEXT", Some("/p")),
            (r#"<https://x/>; rel="prev""#, None),
            ("nonsense", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, link.parse().unwrap());
            assert_eq!(link_next(&headers).as_deref(), wanted, "{link}");
        }
    }

    #[test]
    fn cursors_are_written_into_addresses_safely() {
        assert_eq!(
            fill("http://x/?a={cursor}&b={cursor}", "1 &é/"),
            "http://x/?a=1%20%26%C3%A9%2F&b=1%20%26%C3%A9%2F"
        );
        assert_eq!(
            fill("http://x/{cursor}", "2024-01-31T10:00:00Z"),
            "http://x/2024-01-31T10%3A00%3A00Z"
        );
    }

    #[test]
    fn the_largest_bookmark_fits_into_a_position() {
        let mut bookmark = Bookmark::start(None);
        bookmark.set_page("x".repeat(ADDRESS_BYTES_MAX)).unwrap();
        bookmark.set_cursor("é".repeat(CURSOR_BYTES_MAX / 2)).unwrap();
        bookmark.etag = short_tag(&"x".repeat(CURSOR_BYTES_MAX));
        (0..2 * SEEN_MAX).for_each(|_| bookmark.see(u64::MAX));
        let position = bookmark.position();
        assert!(position.as_bytes().len() <= bus_schema::limits::POSITION_BYTES_MAX);
        assert_eq!(Bookmark::read(&position).unwrap(), bookmark);
        assert!(bookmark.set_cursor("x".repeat(CURSOR_BYTES_MAX + 1)).is_err());
        assert!(bookmark.set_page("x".repeat(ADDRESS_BYTES_MAX + 1)).is_err());
        assert!(Bookmark::read(&Position::new(*b"other")).is_err());
    }

    #[test]
    fn a_broken_record_at_the_cursor_is_told_once() {
        let input = |bytes: &[u8]| Undecodable {
            bytes: bytes.to_vec(),
            reason: "broken".into(),
        };
        let empty = crate::file::rows::empty("t");
        let mut bookmark = Bookmark::start(Some("7".into()));
        for wanted in [2, 0] {
            let mut old = Old::of(&bookmark);
            let inputs = vec![input(b"a"), input(b"b")];
            let (rows, told) = old.leave_out(&empty, inputs, "id", &mut bookmark).unwrap();
            assert_eq!((rows.len(), told.len()), (0, wanted));
        }
        // The same twice at once is two.
        let inputs = vec![input(b"c"), input(b"c")];
        let told = Old::of(&bookmark)
            .leave_out(&empty, inputs, "id", &mut bookmark)
            .unwrap()
            .1;
        assert_eq!(told.len(), 2);
    }
}
