//! Pages of a list: the requested page, and the headers for the others.

use henge_types::limits;
use http::header::LINK;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::error::ApiError;
use crate::origin::Origin;

const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");

/// `?page` and `?limit` in a client's notation.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
pub(crate) struct PageParams {
    pub(crate) page: Option<usize>,
    pub(crate) limit: Option<usize>,
}

/// One page, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    number: usize,
    limit: usize,
}

impl PageParams {
    /// Whether the client requests a page.
    pub(crate) const fn asks_for_pages(self) -> bool {
        self.page.is_some() || self.limit.is_some()
    }

    /// The requested page: as in Gitea, 0 means the default, and a limit above the maximum means
    /// the maximum.
    pub(crate) fn page(self) -> Result<Page, ApiError> {
        let limit = match self.limit {
            None | Some(0) => limits::PAGE_ITEMS_DEFAULT,
            Some(limit) => limit.min(limits::PAGE_ITEMS_MAX),
        };
        let number = self.page.unwrap_or(1).max(1);
        if number.checked_mul(limit).is_none() {
            return Err(ApiError::invalid("page: the number is too large"));
        }
        Ok(Page { number, limit })
    }
}

impl Page {
    /// The first page with everything up to `limit`.
    pub(crate) const fn whole(limit: usize) -> Self {
        Self { number: 1, limit }
    }

    /// Items before it.
    pub(crate) const fn start(self) -> usize {
        (self.number - 1) * self.limit
    }

    /// Items up to its end, if it is full.
    pub(crate) const fn end(self) -> usize {
        self.number * self.limit
    }

    /// `X-Total-Count` and, where there are other pages, `Link`. `rest` is the other part of the
    /// query.
    pub(crate) fn headers(
        self,
        total: usize,
        origin: &Origin,
        path: &str,
        rest: &str,
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TOTAL_COUNT, HeaderValue::from(total));
        let last = total.div_ceil(self.limit).max(1);
        let mut links = Vec::new();
        let mut link = |number: usize, relation: &str| {
            let limit = self.limit;
            let url = origin.url(&format!("{path}?{rest}page={number}&limit={limit}"));
            links.push(format!("<{url}>; rel=\"{relation}\""));
        };
        if self.number < last {
            link(self.number + 1, "next");
            link(last, "last");
        }
        if self.number > 1 {
            link(1, "first");
            link((self.number - 1).min(last), "prev");
        }
        if !links.is_empty()
            && let Ok(value) = HeaderValue::from_str(&links.join(","))
        {
            headers.insert(LINK, value);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(page: Option<usize>, limit: Option<usize>) -> Page {
        PageParams { page, limit }.page().unwrap()
    }

    #[test]
    fn pages_are_counted_from_one_and_bounded() {
        assert_eq!((page(None, None).start(), page(None, None).end()), (0, 30));
        assert_eq!(page(Some(0), Some(0)), page(None, None));
        assert_eq!(page(Some(3), Some(10)).start(), 20);
        assert_eq!(page(None, Some(1_000)).end(), limits::PAGE_ITEMS_MAX);
        let overflow = PageParams {
            page: Some(usize::MAX),
            limit: Some(2),
        };
        assert!(overflow.page().is_err());
    }
}
