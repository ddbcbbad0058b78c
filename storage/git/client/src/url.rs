//! The address of a repository, and the credentials for it.

use std::fmt;
use std::net::Ipv6Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};

/// Maximum length of a URL, credentials included.
const URL_BYTES_MAX: usize = 2048;
/// Maximum length of a user name, password or token.
const SECRET_BYTES_MAX: usize = 4096;

/// The protocol of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without encryption.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The address of a repository over HTTP or HTTPS. It never holds credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteUrl {
    scheme: Scheme,
    /// In lower case; an IPv6 address without its brackets.
    host: String,
    port: u16,
    /// From its first slash on, without a trailing one.
    path: String,
}

/// Text that is not the address of a repository. The text is not repeated: it may contain a
/// password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Not a URL at all.
    #[error("that is not a URL: write https://HOST/PATH")]
    Malformed,
    /// An unsupported scheme.
    #[error("only http:// and https:// URLs are supported")]
    Scheme,
    /// Longer than allowed.
    #[error("a URL has at most {URL_BYTES_MAX} bytes")]
    TooLong,
    /// A query or fragment.
    #[error("the URL of a repository has no query and no fragment")]
    Query,
    /// A user name or password that cannot be sent.
    #[error("the user name and password in a URL must be percent-encoded text")]
    Credentials,
}

impl RemoteUrl {
    /// Parses a URL. A user name and password in it (`https://USER:PASSWORD@HOST/…`,
    /// percent-encoded) are returned separately.
    ///
    /// # Errors
    /// When its scheme is neither `http://` nor `https://`, or it contains a query.
    pub fn parse(text: &str) -> Result<(Self, Option<Credentials>), InvalidUrl> {
        if text.len() > URL_BYTES_MAX {
            return Err(InvalidUrl::TooLong);
        }
        let (scheme, rest) = text.split_once("://").ok_or(InvalidUrl::Malformed)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(InvalidUrl::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(InvalidUrl::Query);
        }
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user_info, authority) = match authority.rsplit_once('@') {
            Some((user_info, authority)) => (Some(user_info), authority),
            None => (None, authority),
        };
        let credentials = user_info.map(Credentials::from_user_info).transpose()?;
        let url = Self::from_parts(scheme, authority, path)?;
        Ok((url, credentials))
    }

    fn from_parts(scheme: Scheme, authority: &str, path: &str) -> Result<Self, InvalidUrl> {
        let text = format!("{}://{authority}{path}", scheme.name());
        let uri: Uri = text.parse().map_err(|_| InvalidUrl::Malformed)?;
        let authority = uri.authority().ok_or(InvalidUrl::Malformed)?;
        let host = authority.host().to_ascii_lowercase();
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_address = bracketed.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
        // The parser accepts brackets anywhere.
        if !is_address && host.contains(['[', ']', ':']) {
            return Err(InvalidUrl::Malformed);
        }
        let host = bracketed.unwrap_or(&host);
        // The parser ignores an invalid port instead of refusing it.
        let shown_port = authority.as_str().rsplit_once(']').map_or_else(
            || authority.as_str().rsplit_once(':').map(|(_, port)| port),
            |(_, behind)| behind.strip_prefix(':'),
        );
        let port = match shown_port {
            None => scheme.default_port(),
            Some(port) => port.parse().map_err(|_| InvalidUrl::Malformed)?,
        };
        if host.is_empty() || port == 0 {
            return Err(InvalidUrl::Malformed);
        }
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The target of a redirect from `self` + `suffix` to `location`, as the address of a
    /// repository: `suffix` (the path of the service) is removed again. `None` for other targets.
    /// Credentials in it are ignored.
    pub fn redirected(&self, location: &str, suffix: &str) -> Option<Self> {
        let without_query = location.split(['?', '#']).next().unwrap_or(location);
        let base = without_query.strip_suffix(suffix)?;
        if base.contains("://") {
            return Self::parse(base).ok().map(|(url, _)| url);
        }
        if base.starts_with("//") || !(base.is_empty() || base.starts_with('/')) {
            return None;
        }
        Some(Self {
            path: base.trim_end_matches('/').to_owned(),
            ..self.clone()
        })
    }

    /// Whether the secrets of `self` may be sent to `other`: the same server, or the same one over
    /// TLS.
    pub fn trusts(&self, other: &Self) -> bool {
        let same = self.scheme == other.scheme && self.port == other.port;
        let upgraded = self.scheme == Scheme::Http
            && self.port == Scheme::Http.default_port()
            && other.scheme == Scheme::Https
            && other.port == Scheme::Https.default_port();
        self.host == other.host && (same || upgraded)
    }

    /// The protocol of the server.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The server's name or address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The server's port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path, from its first slash on; empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of the `Host` header.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.scheme.name(), self.authority());
        write!(f, "{scheme}://{authority}{}", self.path)
    }
}

/// Credentials for a server. Neither `Debug` nor an error ever shows them.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// HTTP Basic.
    Basic {
        /// The user.
        user: String,
        /// The password or token.
        password: String,
    },
    /// `Authorization: Bearer`.
    Bearer(String),
}

impl Credentials {
    /// HTTP Basic with a token as the password, as hosts accept it; `user` is the user name in the
    /// URL, if any.
    pub fn token(user: Option<String>, token: &str) -> Self {
        Self::Basic {
            user: user.unwrap_or_else(|| "git".to_owned()),
            password: token.trim().to_owned(),
        }
    }

    /// The user, if any.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Basic { user, .. } => Some(user),
            Self::Bearer(_) => None,
        }
    }

    fn from_user_info(text: &str) -> Result<Self, InvalidUrl> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decode = |text| percent_decode(text).ok_or(InvalidUrl::Credentials);
        Ok(Self::Basic {
            user: decode(user)?,
            password: decode(password)?,
        })
    }

    /// The header's value; `None` when the credentials cannot be sent.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Basic { user, password } => {
                let sendable =
                    !user.contains(':') && user.len() + password.len() < SECRET_BYTES_MAX;
                if !sendable {
                    return None;
                }
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            Self::Bearer(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let mut digit = || {
            rest.next()
                .and_then(|digit| char::from(*digit).to_digit(16))
        };
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RemoteUrl {
        RemoteUrl::parse(text).unwrap().0
    }

    #[test]
    fn credentials_are_taken_out_and_never_shown() {
        let (url, credentials) =
            RemoteUrl::parse("https://me:p%40ss%2fw@Git.Example.com/a/b.git/").unwrap();
        assert_eq!(url.to_string(), "https://git.example.com/a/b.git");
        let credentials = credentials.unwrap();
        assert_eq!(
            credentials,
            Credentials::Basic {
                user: "me".to_owned(),
                password: "p@ss/w".to_owned()
            }
        );
        assert_eq!(format!("{credentials:?}"), "Credentials(…)");
        let header = credentials.header().unwrap();
        assert!(header.is_sensitive());
        assert_eq!(format!("{header:?}"), "Sensitive");
    }

    #[test]
    fn ports_and_addresses_are_read() {
        for (text, host, port, shown) in [
            ("http://h/x", "h", 80, "http://h/x"),
            ("http://h:80/x", "h", 80, "http://h/x"),
            ("https://h:8443", "h", 8443, "https://h:8443"),
            ("http://[::1]:7401/x", "::1", 7401, "http://[::1]:7401/x"),
            (
                "HTTPS://[2001:DB8::1]/x",
                "2001:db8::1",
                443,
                "https://[2001:db8::1]/x",
            ),
        ] {
            let url = url(text);
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        for text in [
            "",
            "/srv/x.git",
            "git@host:x",
            "ssh://h/x",
            "file:///x",
            "http://",
            "http:///x",
            "http://h:0/x",
            "http://h:99999/x",
            "http://h:x/y",
            "http://u:secret@/x",
            "http://u:%zz@h/x",
            "http://u:%00@h/x",
            "http://h/x?secret=1",
            "http://h x/",
        ] {
            let refused = RemoteUrl::parse(text).unwrap_err();
            assert!(!refused.to_string().contains("secret"), "{text}");
        }
        let long = format!("http://h/{}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(RemoteUrl::parse(&long), Err(InvalidUrl::TooLong));
    }

    #[test]
    fn redirects_lead_to_repositories_and_secrets_stay_with_their_server() {
        let from = url("http://h/a.git");
        let suffix = "/info/refs";
        let to = from
            .redirected("https://h/b.git/info/refs?service=x", suffix)
            .unwrap();
        assert_eq!(to.to_string(), "https://h/b.git");
        assert!(from.trusts(&to) && !to.trusts(&from));
        let to = from.redirected("/c/info/refs", suffix).unwrap();
        assert!(from.trusts(&to) && to.path() == "/c");
        for location in [
            "http://other/a.git/info/refs",
            "http://h:81/a.git/info/refs",
        ] {
            assert!(!from.trusts(&from.redirected(location, suffix).unwrap()));
        }
        for location in [
            "/login",
            "//other/info/refs",
            "x/info/refs",
            "ftp://h/info/refs",
        ] {
            assert_eq!(from.redirected(location, suffix), None, "{location}");
        }
    }
}
