//! Hand-written HTTP requests that git does not send.

use std::io::{Read, Write};
use std::net::TcpStream;

use henge_types::{ObjectFormat, ObjectId};

/// A complete answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request on a connection of its own; `url` is `http://HOST:PORT/PATH`.
pub(crate) fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let mut head = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses early may close before it has read all input.
    let _sent = stream.write_all(body).is_ok();
    let mut answer = Vec::new();
    let _closed = stream.read_to_end(&mut answer).is_ok();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let body = if head.contains("transfer-encoding: chunked") {
        unchunk(&answer[end + 4..])
    } else {
        answer[end + 4..].to_vec()
    };
    Answer {
        status: head[9..12].parse().unwrap(),
        head,
        body,
    }
}

fn unchunk(mut data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = data.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&data[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&data[end + 2..end + 2 + size]);
        data = &data[end + 2 + size + 2..];
    }
    body
}

/// Posts to one of the two services.
pub(crate) fn post(url: &str, service: &str, protocol: &str, body: &[u8]) -> Answer {
    let kind = format!("application/x-git-{service}-request");
    request(
        "POST",
        &format!("{url}/git-{service}"),
        &[("Content-Type", &kind), ("Git-Protocol", protocol)],
        body,
    )
}

pub(crate) fn line(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

/// The null id; `push_head` adapts its length to the format.
pub(crate) const ZERO: &str = "0000000000000000000000000000000000000000";

/// The object format of ids with this length; SHA-1 for an invalid id.
fn format_of(id: &str) -> ObjectFormat {
    id.parse()
        .map_or(ObjectFormat::Sha1, |id: ObjectId| id.format())
}

/// A push of one ref with a report, without the pack.
pub(crate) fn push_head(old: &str, new: &str, name: &str) -> Vec<u8> {
    let format = format_of(new);
    let none = "0".repeat(format.hex_bytes());
    let old = if old == ZERO { &none } else { old };
    let mut body = line(&format!(
        "{old} {new} {name}\0 report-status object-format={format}"
    ));
    body.extend_from_slice(b"0000");
    body
}

/// A fetch of one object in protocol v2.
pub(crate) fn fetch(want: &str) -> Vec<u8> {
    let mut body = line("command=fetch\n");
    body.extend(line(&format!("object-format={}\n", format_of(want))));
    body.extend_from_slice(b"0001");
    body.extend(line("ofs-delta\n"));
    body.extend(line(&format!("want {want}\n")));
    body.extend(line("done\n"));
    body.extend_from_slice(b"0000");
    body
}

/// A pack without objects.
pub(crate) const EMPTY_PACK: &[u8] = b"PACK\0\0\0\x02\0\0\0\0\
    \x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e";
