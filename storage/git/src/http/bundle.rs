//! Bundles over HTTP, whole or in part: RFC 9110, section 14.

use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::bundle::BundleId;
use crate::http::no_cache;

/// The folder of a repository's bundles in its URL.
const FOLDER: &str = "/bundles/";
const EXTENSION: &str = ".bundle";
const CONTENT_TYPE: &str = "application/x-git-bundle";

/// The address of a bundle, relative to that of its repository.
pub fn bundle_uri(id: BundleId) -> String {
    format!("{}{id}{EXTENSION}", FOLDER.trim_start_matches('/'))
}

/// The repository and the bundle of a path; `None` when it is no path of a bundle.
pub fn bundle_path(path: &str) -> Option<(&str, BundleId)> {
    let (repo, name) = path.rsplit_once(FOLDER)?;
    let id = name.strip_suffix(EXTENSION)?.parse().ok()?;
    Some((repo, id))
}

/// The part of a bundle that a client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ByteRange {
    /// All of it.
    #[default]
    Whole,
    /// From this byte on.
    From(u64),
    /// From the first byte to the second one, both included.
    Between(u64, u64),
    /// This many bytes at its end.
    Last(u64),
}

impl ByteRange {
    /// Parses the headers of a request. Several ranges mean the whole bundle, and so does an
    /// invalid one. A range of another bundle (`If-Range`) means the whole bundle too.
    pub(super) fn parse(headers: &HeaderMap, etag: &str) -> Self {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
        let Some(range) = text(&header::RANGE) else {
            return Self::Whole;
        };
        if text(&header::IF_RANGE).is_some_and(|condition| condition.trim() != etag) {
            return Self::Whole;
        }
        Self::parse_value(range).unwrap_or_default()
    }

    fn parse_value(value: &str) -> Option<Self> {
        let (unit, range) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let number = |text: &str| -> Option<u64> {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // A longer number exceeds the length of every bundle.
            is_number.then(|| text.parse().unwrap_or(u64::MAX))
        };
        match range.trim().split_once('-')? {
            ("", last) => number(last).map(Self::Last),
            (first, "") => number(first).map(Self::From),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// The requested bytes of a bundle of `bytes` bytes; `None` when there are none.
    pub fn of(self, bytes: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Whole => return Some(0..bytes),
            Self::From(first) => first..bytes,
            Self::Between(first, last) => first..bytes.min(last.saturating_add(1)),
            Self::Last(count) => bytes.saturating_sub(count)..bytes,
        };
        (!range.is_empty()).then_some(range)
    }
}

/// A bundle, or a part of it.
#[derive(Debug)]
pub struct BundleAnswer {
    /// The length of the whole bundle.
    pub bytes: u64,
    /// The requested bytes; empty when there are none.
    pub body: Body,
}

pub(super) fn etag(id: BundleId) -> String {
    format!("\"{id}\"")
}

/// The response to a request for `range`.
pub(super) fn answer(id: BundleId, range: ByteRange, answer: BundleAnswer) -> Response {
    let BundleAnswer { bytes, body } = answer;
    let (status, content_range, length) = match (range, range.of(bytes)) {
        (ByteRange::Whole, _) => (StatusCode::OK, None, bytes),
        (_, Some(part)) => {
            let (first, last) = (part.start, part.end - 1);
            let content_range = format!("bytes {first}-{last}/{bytes}");
            let length = part.end - part.start;
            (StatusCode::PARTIAL_CONTENT, Some(content_range), length)
        }
        (_, None) => {
            let text = "the bundle has no such bytes\n";
            let mut response = (StatusCode::RANGE_NOT_SATISFIABLE, text).into_response();
            let headers = response.headers_mut();
            no_cache(headers);
            set(headers, header::CONTENT_RANGE, &format!("bytes */{bytes}"));
            return response;
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // Access is checked at every request.
    no_cache(headers);
    set(headers, header::CONTENT_TYPE, CONTENT_TYPE);
    set(headers, header::ETAG, &etag(id));
    set(headers, header::ACCEPT_RANGES, "bytes");
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(content_range) = content_range {
        set(headers, header::CONTENT_RANGE, &content_range);
    }
    response
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_a_bundle_names_one() {
        let id = BundleId::from_bytes([0xab; 32]);
        let path = format!("a/b.git/{}", bundle_uri(id));
        assert_eq!(bundle_path(&path), Some(("a/b.git", id)));
        let hex = "ab".repeat(32);
        for other in [
            format!("a/b.git/bundles/{hex}"),
            format!("a/b.git/bundles/{}.bundle", &hex[1..]),
            format!("a/b.git/bundles/{}.bundle", hex.to_uppercase()),
            format!("bundles/{hex}.bundle"),
            format!("a/b.git/bundles/x/{hex}.bundle"),
        ] {
            assert_eq!(bundle_path(&other), None, "{other}");
        }
    }

    fn parse(range: Option<&str>, condition: Option<&str>) -> ByteRange {
        let mut headers = HeaderMap::new();
        if let Some(range) = range {
            set(&mut headers, header::RANGE, range);
        }
        if let Some(condition) = condition {
            set(&mut headers, header::IF_RANGE, condition);
        }
        ByteRange::parse(&headers, "\"this\"")
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        for (text, expected) in [
            ("bytes=0-", ByteRange::From(0)),
            ("bytes=10-19", ByteRange::Between(10, 19)),
            ("Bytes= 10-19 ", ByteRange::Between(10, 19)),
            ("bytes=-5", ByteRange::Last(5)),
            ("bytes=99999999999999999999999-", ByteRange::From(u64::MAX)),
            ("bytes=19-10", ByteRange::Whole),
            ("bytes=1-2,5-6", ByteRange::Whole),
            ("bytes=-", ByteRange::Whole),
            ("bytes=+1-2", ByteRange::Whole),
            ("lines=1-2", ByteRange::Whole),
            ("", ByteRange::Whole),
        ] {
            assert_eq!(parse(Some(text), None), expected, "{text:?}");
        }
        assert_eq!(parse(None, None), ByteRange::Whole);
        let from = Some("bytes=7-");
        assert_eq!(parse(from, Some("\"this\"")), ByteRange::From(7));
        assert_eq!(parse(from, Some("\"that\"")), ByteRange::Whole);
        let date = Some("Fri, 01 Jan 2100 00:00:00 GMT");
        assert_eq!(parse(from, date), ByteRange::Whole);
    }

    #[test]
    fn a_range_is_cut_at_the_end() {
        for (range, expected) in [
            (ByteRange::Whole, Some(0..100)),
            (ByteRange::From(99), Some(99..100)),
            (ByteRange::From(100), None),
            (ByteRange::From(u64::MAX), None),
            (ByteRange::Between(0, 0), Some(0..1)),
            (ByteRange::Between(90, u64::MAX), Some(90..100)),
            (ByteRange::Between(100, 200), None),
            (ByteRange::Last(1), Some(99..100)),
            (ByteRange::Last(1000), Some(0..100)),
            (ByteRange::Last(0), None),
        ] {
            assert_eq!(range.of(100), expected, "{range:?}");
        }
    }
}
