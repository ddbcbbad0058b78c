//! The address of one node's HTTP listener.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use thiserror::Error;

/// `http://HOST:PORT`, perhaps with a path in front of the API's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address(String);

/// Text that is not the address of a node.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidAddress {
    /// No address at all.
    #[error("no address given: name at least one node, as http://HOST:PORT")]
    None,
    /// Not a URL with a scheme and a host, or one with a query or a user name.
    #[error("{text:?} is not an address: write http://HOST:PORT")]
    Malformed {
        /// The text.
        text: String,
    },
    /// A scheme without support in the client.
    #[error("{text:?} is not a plain http:// address, and no other scheme is supported")]
    Scheme {
        /// The text.
        text: String,
    },
}

impl Address {
    /// Reads a comma separated list of addresses, in order, without doubles.
    ///
    /// # Errors
    /// When one of them is not an address, or there is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, InvalidAddress> {
        let mut addresses = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let address: Self = part.parse()?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(InvalidAddress::None);
        }
        Ok(addresses)
    }

    /// The address without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let malformed = || InvalidAddress::Malformed {
            text: text.to_owned(),
        };
        let trimmed = text.trim_end_matches('/');
        let uri: Uri = trimmed.parse().map_err(|_| malformed())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(_) => {
                return Err(InvalidAddress::Scheme {
                    text: text.to_owned(),
                });
            }
            None => return Err(malformed()),
        }
        let authority = uri.authority().ok_or_else(malformed)?;
        if authority.as_str().contains('@') || uri.host() == Some("") || uri.query().is_some() {
            return Err(malformed());
        }
        Ok(Self(trimmed.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_its_order_and_drops_doubles() {
        let list = Address::parse_list("http://b:1/, http://a:2,http://b:1").expect("a valid list");
        let texts: Vec<&str> = list.iter().map(Address::as_str).collect();
        assert_eq!(texts, ["http://b:1", "http://a:2"]);
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "127.0.0.1:7401",
            "http://",
            "http://u:p@h:1",
            "http://h:1/?x=1",
            "x y",
        ] {
            let refused = text.parse::<Address>();
            assert!(
                matches!(refused, Err(InvalidAddress::Malformed { .. })),
                "{text:?}: {refused:?}"
            );
        }
        assert!(matches!(
            "https://h:1".parse::<Address>(),
            Err(InvalidAddress::Scheme { .. })
        ));
        assert_eq!(Address::parse_list(" , "), Err(InvalidAddress::None));
    }
}
