//! URLs of submodules that clients must not follow: `check_submodule_url` of git's
//! `submodule-config.c`, with `url_normalize` of `urlmatch.c` (CVE-2018-17456, CVE-2020-5260,
//! CVE-2020-11008).

/// Whether git follows this URL of a submodule.
pub(super) fn is_followed(url: &[u8]) -> bool {
    if url.starts_with(b"-") {
        return false;
    }
    if behind_dots(url).is_some() || url.starts_with(b"git://") {
        // Git may append it to an HTTP URL, and decode the result.
        let hides_a_host = leads_to_another_host(url);
        return !hides_a_host && !decoded(url).contains(&b'\n');
    }
    match curl_url(url) {
        Some(url) => normalized(url).is_some_and(|url| !decoded(&url).contains(&b'\n')),
        None => true,
    }
}

/// The part after `./` or `../`, and whether it was the latter. Backslashes count as slashes.
const fn behind_dots(url: &[u8]) -> Option<(&[u8], bool)> {
    match url {
        [b'.', b'/' | b'\\', rest @ ..] => Some((rest, false)),
        [b'.', b'.', b'/' | b'\\', rest @ ..] => Some((rest, true)),
        _ => None,
    }
}

/// Whether `../` removes all of the URL that it is appended to, so that the rest is another host.
fn leads_to_another_host(mut url: &[u8]) -> bool {
    let mut goes_up = false;
    while let Some((rest, is_up)) = behind_dots(url) {
        goes_up |= is_up;
        url = rest;
    }
    goes_up && matches!(url.first(), Some(b':' | b'/'))
}

/// The URL that git passes to its helper for HTTP and FTP; `None` for other URLs.
fn curl_url(url: &[u8]) -> Option<&[u8]> {
    const HELPERS: [&[u8]; 4] = [b"http::", b"https::", b"ftp::", b"ftps::"];
    const SCHEMES: [&[u8]; 4] = [b"http://", b"https://", b"ftp://", b"ftps://"];
    let behind_helper = HELPERS.iter().find_map(|helper| url.strip_prefix(*helper));
    behind_helper.or_else(|| {
        let is_one = SCHEMES.iter().any(|scheme| url.starts_with(scheme));
        is_one.then_some(url)
    })
}

/// The byte of the two hexadecimal digits at the beginning.
fn hex(text: &[u8]) -> Option<u8> {
    let [high, low, ..] = text else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from((digit(high)? << 4) | digit(low)?).ok()
}

/// `url_decode` of `url.c`: decodes `%` sequences after the first colon, except that of NUL.
fn decoded(url: &[u8]) -> Vec<u8> {
    let colon = memchr::memchr(b':', url).unwrap_or(0);
    let (mut found, mut rest) = (url[..colon].to_vec(), &url[colon..]);
    while let Some((first, behind)) = rest.split_first() {
        match hex(behind).filter(|byte| *first == b'%' && *byte != 0) {
            Some(byte) => {
                found.push(byte);
                rest = &behind[2..];
            }
            None => {
                found.push(*first);
                rest = behind;
            }
        }
    }
    found
}

/// The URL in git's form for comparison; `None` if it is no URL.
fn normalized(url: &[u8]) -> Option<Vec<u8>> {
    let is_of_scheme = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+.-".contains(byte);
    let scheme = url.iter().take_while(is_of_scheme).count();
    if !url.first()?.is_ascii_alphabetic() {
        return None;
    }
    let rest = url[scheme..].strip_prefix(b"://")?;
    let mut found = url[..url.len() - rest.len()].to_ascii_lowercase();
    let authority_end = end_of_part(rest);
    let (authority, path) = rest.split_at(authority_end);
    let host_and_port = match memchr::memchr(b'@', authority) {
        Some(at) => {
            push_escaped(&mut found, &authority[..at])?;
            found.push(b'@');
            &authority[at + 1..]
        }
        None => authority,
    };
    push_host(&mut found, host_and_port)?;
    let rest = push_path(&mut found, path)?;
    push_escaped(&mut found, rest)?;
    Some(found)
}

/// The end of a part of a path.
fn end_of_part(url: &[u8]) -> usize {
    memchr::memchr3(b'/', b'?', b'#', url).unwrap_or(url.len())
}

fn push_host(found: &mut Vec<u8>, host_and_port: &[u8]) -> Option<()> {
    if matches!(host_and_port.first(), None | Some(b':')) {
        let is_file = found.starts_with(b"file:");
        return (is_file && host_and_port.is_empty()).then_some(());
    }
    // A colon in brackets belongs to an address.
    let last = host_and_port.iter().rposition(|byte| b":]".contains(byte));
    let colon = last.filter(|at| host_and_port[*at] == b':');
    let (host, port) = host_and_port.split_at(colon.unwrap_or(host_and_port.len()));
    let is_of_host = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_[:]".contains(byte);
    if !host.iter().all(is_of_host) {
        return None;
    }
    found.extend(host.to_ascii_lowercase());
    let digits = port.strip_prefix(b":").unwrap_or_default();
    if digits.is_empty() {
        return Some(());
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    if number == 0 {
        return None;
    }
    let is_usual = match number {
        80 => found.starts_with(b"http:"),
        443 => found.starts_with(b"https:"),
        _ => false,
    };
    if !is_usual {
        found.extend(format!(":{number}").bytes());
    }
    Some(())
}

/// Appends the path with its dot segments resolved. Returns the part after it.
fn push_path<'u>(found: &mut Vec<u8>, path: &'u [u8]) -> Option<&'u [u8]> {
    let start = found.len();
    found.push(b'/');
    let mut rest = path.strip_prefix(b"/").unwrap_or(path);
    loop {
        let segment_start = found.len();
        let (segment, behind) = rest.split_at(end_of_part(rest));
        push_escaped(found, segment)?;
        let mut ends_in_slash = false;
        let segment_end = match &found[segment_start..] {
            b"." => segment_start - 1,
            b".." => {
                let above = segment_start - 1;
                // The root has no parent.
                memchr::memrchr(b'/', &found[start..above]).map(|slash| start + slash)?
            }
            _ => found.len(),
        };
        if segment_end <= start {
            // The slash at the beginning of a path stays.
            found.truncate(start + 1);
            ends_in_slash = true;
        } else {
            found.truncate(segment_end);
        }
        let Some(below) = behind.strip_prefix(b"/") else {
            return Some(behind);
        };
        if !ends_in_slash {
            found.push(b'/');
        }
        rest = below;
    }
}

/// Appends text with the necessary escapes and no others; `None` where one is malformed.
fn push_escaped(found: &mut Vec<u8>, mut text: &[u8]) -> Option<()> {
    while let Some((first, mut behind)) = text.split_first() {
        let (mut byte, mut was_escaped) = (*first, false);
        if byte == b'%' {
            byte = hex(behind)?;
            behind = &behind[2..];
            was_escaped = true;
        }
        let is_unsafe = byte <= 0x1f || byte >= 0x7f || b" <>\"%{}|\\^`".contains(&byte);
        let is_reserved = b":/?#[]@!$&'()*+,;=".contains(&byte);
        if is_unsafe || (was_escaped && is_reserved) {
            found.extend(format!("%{byte:02X}").bytes());
        } else {
            found.push(byte);
        }
        text = behind;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_judged_as_by_git() {
        for url in [
            "https://example.org/a.git",
            "https://u:p@example.org:8080/a",
            "http://[::1]:3000/a",
            "http::https://example.org/a",
            "ftp://example.org",
            "https://example.org:/a",
            "https://example.org/%2e/a",
            "https://example.org/a/../b",
            "git@example.org:a.git",
            "ssh://example.org/%0a",
            "./a",
            "../a.git",
            "../../a",
            "..",
            "./:a",
            "/srv/a",
            "a%0a",
            "",
            "https://example.org/a%250a",
        ] {
            assert!(is_followed(url.as_bytes()), "{url:?}");
        }
        for url in [
            "-u./payload",
            "--upload-pack=x",
            "http::foo",
            "https:///a",
            "https://:80/a",
            "http://",
            "https://example.org/%0a",
            "https://example.org/\n",
            "https://u%0a@example.org/",
            "https://example.org/a?%0A",
            "https://exam ple.org/",
            "https://example%2eorg/",
            "https://example.org:0/",
            "https://example.org:65536/",
            "https://example.org:8x/",
            "https://example.org/%zz",
            "https://example.org/..",
            "https://example.org/a/../../b",
            "../:a",
            "..//a",
            ".././/a",
            "..\\/a",
            "./:%0a",
            "git://example.org/%0a",
            "http::git://",
        ] {
            assert!(!is_followed(url.as_bytes()), "{url:?}");
        }
    }

    #[test]
    fn a_url_is_normalized_as_by_git() {
        for (url, expected) in [
            ("HTTP://Example.ORG", "http://example.org/"),
            ("http://example.org:080/", "http://example.org/"),
            ("https://example.org:443?q", "https://example.org/?q"),
            ("https://example.org:80/", "https://example.org:80/"),
            ("http://e/%7euser/%2F", "http://e/~user/%2F"),
            ("http://e/a/./b/../c", "http://e/a/c"),
            ("http://e/./a/..", "http://e/"),
            ("http://e/a/..//b", "http://e//b"),
            ("http://e/a/b/..", "http://e/a"),
            ("http://e/a b#c", "http://e/a%20b#c"),
        ] {
            let found = normalized(url.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), expected, "{url}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_urls_never_panic(url in "(https?://|\\.\\./|)[a:/.%0@?\\[\\]-]{0,12}") {
            let _judged: bool = is_followed(url.as_bytes());
        }
    }
}
