//! The fields of a commit that people see.

use henge_types::{ObjectId, limits};

use crate::object::parse_commit;
use crate::oid::{Oid, from_gix};
use crate::read::ReadError;
use crate::read::source::{Source, malformed};

/// A commit. Texts are raw bytes: git demands no encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitDetails {
    /// Its id.
    pub id: ObjectId,
    /// The tree of its root directory.
    pub tree: ObjectId,
    /// Its parents; the first one is the branch that a merge was made on.
    pub parents: Vec<ObjectId>,
    /// The author of the change.
    pub author: Person,
    /// The person that made the commit.
    pub committer: Person,
    /// The encoding of the message where it is not UTF-8, as the commit names it.
    pub encoding: Option<Vec<u8>>,
    /// The message, cut off behind [`ReadLimits::message_bytes_max`](super::ReadLimits).
    pub message: Vec<u8>,
    /// The length of the whole message, in bytes.
    pub message_bytes: usize,
}

/// The author or the committer of a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// The name, cut off behind [`limits::READ_PERSON_BYTES_MAX`].
    pub name: Vec<u8>,
    /// The email address, cut off in the same way.
    pub email: Vec<u8>,
    /// The date in seconds since the Unix epoch; 0 where it is unreadable.
    pub seconds: i64,
    /// The distance of the local time from UTC, in minutes; 0 where it is unreadable.
    pub zone_minutes: i32,
}

/// The fields of a commit that must be there.
pub(super) fn details(source: &Source<'_>, id: &Oid) -> Result<CommitDetails, ReadError> {
    let data = source.commit_data(id)?;
    let commit = parse_commit(&data, source.format()).ok_or_else(|| malformed(id))?;
    let (head, message) = match memchr::memmem::find(&data, b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (&data[..], &[][..]),
    };
    let encoding = field(head, b"encoding ");
    Ok(CommitDetails {
        id: from_gix(id),
        tree: from_gix(&commit.tree),
        parents: commit
            .parents
            .iter()
            .map(|parent| from_gix(parent))
            .collect(),
        author: person(field(head, b"author ").unwrap_or_default()),
        committer: person(field(head, b"committer ").unwrap_or_default()),
        encoding: encoding.map(|encoding| cut(encoding, limits::READ_PERSON_BYTES_MAX)),
        message: cut(message, source.limits().message_bytes_max),
        message_bytes: message.len(),
    })
}

/// The first line of a head that begins with `name`.
fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = head.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(name))
}

/// A person in `NAME <MAIL> SECONDS ZONE`. What cannot be parsed is the name as a whole.
fn person(line: &[u8]) -> Person {
    let Ok(signature) = gix_actor::SignatureRef::from_bytes(line) else {
        return Person {
            name: cut(line, limits::READ_PERSON_BYTES_MAX),
            ..Person::default()
        };
    };
    let signature = signature.trim();
    Person {
        name: cut(signature.name, limits::READ_PERSON_BYTES_MAX),
        email: cut(signature.email, limits::READ_PERSON_BYTES_MAX),
        seconds: signature.seconds(),
        zone_minutes: zone_minutes(signature.time).unwrap_or_default(),
    }
}

/// The minutes of the zone in `SECONDS ZONE`: `-0330` is 210 minutes behind UTC.
fn zone_minutes(time: &str) -> Option<i32> {
    let zone = time.split_ascii_whitespace().nth(1)?;
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let digits = zone.strip_prefix(['+', '-'])?;
    let number: u16 = digits.parse().ok()?;
    let number = i32::from(number);
    (digits.len() == 4).then_some(sign * (number / 100 * 60 + number % 100))
}

fn cut(text: &[u8], bytes_max: usize) -> Vec<u8> {
    text.get(..bytes_max).unwrap_or(text).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn persons_are_read_as_git_shows_them() {
        let read = person(b"A U Thor <a@example.org> 1700000000 -0330");
        assert_eq!(read.name, b"A U Thor");
        assert_eq!(read.email, b"a@example.org");
        assert_eq!((read.seconds, read.zone_minutes), (1_700_000_000, -210));
        assert_eq!(person(b"x <> 5 +0100").zone_minutes, 60);
        assert_eq!(person(b"x <> 5 +01000").zone_minutes, 0);
        assert_eq!(person(b"x <> 5 --700").zone_minutes, 0);
        let odd = person(b"no address");
        assert_eq!((odd.name.as_slice(), odd.seconds), (&b"no address"[..], 0));
        let long = person(&[b'x'; 5000]);
        assert_eq!(long.name.len(), limits::READ_PERSON_BYTES_MAX);
    }
}
