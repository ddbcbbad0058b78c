//! Commits and tags: `fsck_commit`, `fsck_tag` and `fsck_ident` of git's `fsck.c`.

use gix_object::Kind;
use gix_ref::FullName;
use henge_types::ObjectFormat;

use crate::oid::parse_hex;

use super::check::{Report, Unsound, shown};
use super::levels::Message;

/// Checks a commit.
pub(super) fn check_commit(
    report: &mut Report<'_>,
    data: &[u8],
    format: ObjectFormat,
) -> Result<(), Unsound> {
    check_end(report, data)?;
    let Some(rest) = data.strip_prefix(b"tree ") else {
        let text = "invalid format - expected 'tree' line";
        return report.add(Message::MissingTree, text);
    };
    let (is_id, mut rest) = id_line(rest, format);
    if !is_id {
        let text = "invalid 'tree' line format - bad sha1";
        report.add(Message::BadTreeSha1, text)?;
    }
    while let Some(parent) = rest.strip_prefix(b"parent ") {
        let (is_id, behind) = id_line(parent, format);
        if !is_id {
            let text = "invalid 'parent' line format - bad sha1";
            report.add(Message::BadParentSha1, text)?;
        }
        rest = behind;
    }
    let mut authors = 0_u64;
    while let Some(author) = rest.strip_prefix(b"author ") {
        authors += 1;
        rest = check_person(report, author)?;
    }
    if authors == 0 {
        let text = "invalid format - expected 'author' line";
        report.add(Message::MissingAuthor, text)?;
    } else if authors > 1 {
        let text = "invalid format - multiple 'author' lines";
        report.add(Message::MultipleAuthors, text)?;
    }
    let Some(committer) = rest.strip_prefix(b"committer ") else {
        let text = "invalid format - expected 'committer' line";
        return report.add(Message::MissingCommitter, text);
    };
    check_person(report, committer)?;
    if memchr::memchr(0, data).is_some() {
        let text = "NUL byte in the commit object body";
        report.add(Message::NulInCommit, text)?;
    }
    Ok(())
}

/// Checks a tag.
pub(super) fn check_tag(
    report: &mut Report<'_>,
    data: &[u8],
    format: ObjectFormat,
) -> Result<(), Unsound> {
    check_end(report, data)?;
    let Some(rest) = data.strip_prefix(b"object ") else {
        let text = "invalid format - expected 'object' line";
        return report.add(Message::MissingObject, text);
    };
    let (is_id, rest) = id_line(rest, format);
    if !is_id {
        let text = "invalid 'object' line format - bad sha1";
        report.add(Message::BadObjectSha1, text)?;
    }
    let Some(rest) = rest.strip_prefix(b"type ") else {
        let text = "invalid format - expected 'type' line";
        return report.add(Message::MissingTypeEntry, text);
    };
    let Some((kind, rest)) = split_line(rest) else {
        let text = "invalid format - unexpected end after 'type' line";
        return report.add(Message::MissingType, text);
    };
    if Kind::from_bytes(kind).is_err() {
        report.add(Message::BadType, "invalid 'type' value")?;
    }
    let Some(rest) = rest.strip_prefix(b"tag ") else {
        let text = "invalid format - expected 'tag' line";
        return report.add(Message::MissingTagEntry, text);
    };
    let Some((name, rest)) = split_line(rest) else {
        // Git's text says "type" here, too.
        let text = "invalid format - unexpected end after 'type' line";
        return report.add(Message::MissingTag, text);
    };
    if !may_name_a_tag(name) {
        let text = format!("invalid 'tag' name: {}", shown(name));
        report.add(Message::BadTagName, text)?;
    }
    let rest = match rest.strip_prefix(b"tagger ") {
        Some(tagger) => check_person(report, tagger)?,
        None => {
            let text = "invalid format - expected 'tagger' line";
            report.add(Message::MissingTaggerEntry, text)?;
            rest
        }
    };
    check_tag_end(report, rest)
}

/// Checks the part after the tagger: a signature of the other hash, and nothing else.
fn check_tag_end(report: &mut Report<'_>, mut rest: &[u8]) -> Result<(), Unsound> {
    if rest.starts_with(b"gpgsig ") || rest.starts_with(b"gpgsig-sha256 ") {
        let Some((_, behind)) = split_line(rest) else {
            let text = "invalid format - unexpected end after 'gpgsig' or 'gpgsig-sha256' line";
            return report.add(Message::BadGpgsig, text);
        };
        rest = behind;
        while rest.starts_with(b" ") {
            let Some((_, behind)) = split_line(rest) else {
                let text = "invalid format - unexpected end in 'gpgsig' or 'gpgsig-sha256' continuation line";
                return report.add(Message::BadHeaderContinuation, text);
            };
            rest = behind;
        }
    }
    if !rest.is_empty() && !rest.starts_with(b"\n") {
        let text = "invalid format - extra header(s) after 'tagger'";
        report.add(Message::ExtraHeaderEntry, text)?;
    }
    Ok(())
}

/// Checks that the header ends with an empty line, or with the end of its last line, and has no
/// NUL.
fn check_end(report: &mut Report<'_>, data: &[u8]) -> Result<(), Unsound> {
    for at in memchr::memchr2_iter(0, b'\n', data) {
        if data[at] == 0 {
            let text = format!("unterminated header: NUL at offset {at}");
            return report.add(Message::NulInHeader, text);
        }
        if data.get(at + 1) == Some(&b'\n') {
            return Ok(());
        }
    }
    if data.ends_with(b"\n") {
        return Ok(());
    }
    report.add(Message::UnterminatedHeader, "unterminated header")
}

/// A line without its end, and the bytes after it.
fn split_line(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', data)?;
    Some((&data[..end], &data[end + 1..]))
}

/// Whether a line is exactly an id, and the bytes after it.
fn id_line(data: &[u8], format: ObjectFormat) -> (bool, &[u8]) {
    let (line, rest) = split_line(data).unwrap_or((data, &[]));
    (parse_hex(line, format).is_some(), rest)
}

fn may_name_a_tag(name: &[u8]) -> bool {
    // Git checks bytes: all non-ASCII bytes are allowed in a name.
    let name = String::from_utf8_lossy(name);
    FullName::try_from(format!("refs/tags/{name}")).is_ok()
}

/// Checks `NAME <MAIL> SECONDS ZONE`. Returns the bytes after the line.
fn check_person<'d>(report: &mut Report<'_>, data: &'d [u8]) -> Result<&'d [u8], Unsound> {
    let (line, rest) = split_line(data).unwrap_or((data, &[]));
    if let Some((message, what)) = fault_of(line) {
        let text = format!("invalid author/committer line - {what}");
        report.add(message, text)?;
    }
    Ok(rest)
}

/// The first fault of a person's line.
fn fault_of(line: &[u8]) -> Option<(Message, &'static str)> {
    if line.starts_with(b"<") {
        let what = "missing space before email";
        return Some((Message::MissingNameBeforeEmail, what));
    }
    let Some(at) = memchr::memchr2(b'<', b'>', line) else {
        return Some((Message::MissingEmail, "missing email"));
    };
    let (name, mail) = line.split_at(at);
    let Some(mail) = mail.strip_prefix(b"<") else {
        return Some((Message::BadName, "bad name"));
    };
    if !name.ends_with(b" ") {
        let what = "missing space before email";
        return Some((Message::MissingSpaceBeforeEmail, what));
    }
    let Some(end) = memchr::memchr2(b'<', b'>', mail).filter(|end| mail[*end] == b'>') else {
        return Some((Message::BadEmail, "bad email"));
    };
    let Some(date) = mail[end + 1..].strip_prefix(b" ") else {
        let what = "missing space before date";
        return Some((Message::MissingSpaceBeforeDate, what));
    };
    fault_of_date(date)
}

fn fault_of_date(date: &[u8]) -> Option<(Message, &'static str)> {
    let blanks = date.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
    let date = &date[blanks.count()..];
    let digits = date.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (seconds, zone) = date.split_at(digits);
    if seconds.is_empty() {
        return Some((Message::BadDate, "bad date"));
    }
    if date[0] == b'0' && date.get(1) != Some(&b' ') {
        return Some((Message::ZeroPaddedDate, "zero-padded date"));
    }
    let seconds = std::str::from_utf8(seconds).ok();
    if seconds.and_then(|text| text.parse::<i64>().ok()).is_none() {
        return Some((Message::BadDateOverflow, "date causes integer overflow"));
    }
    let Some(zone) = zone.strip_prefix(b" ") else {
        return Some((Message::BadDate, "bad date"));
    };
    match zone {
        [b'+' | b'-', digits @ ..]
            if digits.len() == 4 && digits.iter().all(u8::is_ascii_digit) =>
        {
            None
        }
        _ => Some((Message::BadTimezone, "bad time zone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oid::{Oid, hash_kind};
    use crate::rules::{NamedBlobs, ObjectCheck, ObjectRules, Pass};
    use ObjectFormat::{Sha1, Sha256};
    use proptest::prelude::*;

    /// The refusal of an object, and the warnings about it.
    fn said(kind: Kind, data: &[u8], format: ObjectFormat) -> (Option<String>, String) {
        let rules = ObjectRules::strict();
        let mut check = ObjectCheck::new(&rules, format);
        let id = Oid::null(hash_kind(format));
        let outcome = check.object(&id, kind, data, &mut NamedBlobs::default(), Pass::First);
        let refused = outcome.err().map(|unsound| {
            let said = unsound.to_string();
            said.split_once(": ").unwrap().1.to_owned()
        });
        (refused, check.warnings.text())
    }

    #[test]
    fn a_person_is_read_as_git_reads_it() {
        for (line, expected) in [
            ("A <a> 1 +0000", None),
            (" <a> 1 +0000", None),
            ("A <> 1 -0000", None),
            ("A <a> \t 1 +9999", None),
            ("A <a> 0 +0000", None),
            ("A <a> 9223372036854775807 +0000", None),
            ("<a> 1 +0000", Some("missingNameBeforeEmail")),
            ("A 1 +0000", Some("missingEmail")),
            ("", Some("missingEmail")),
            ("A> <a> 1 +0000", Some("badName")),
            ("A<a> 1 +0000", Some("missingSpaceBeforeEmail")),
            ("A <a 1 +0000", Some("badEmail")),
            ("A <a<b> 1 +0000", Some("badEmail")),
            ("A <a>1 +0000", Some("missingSpaceBeforeDate")),
            ("A <a>", Some("missingSpaceBeforeDate")),
            ("A <a> ", Some("badDate")),
            ("A <a> x", Some("badDate")),
            ("A <a> 1", Some("badDate")),
            ("A <a> 1+0000", Some("badDate")),
            ("A <a> 01 +0000", Some("zeroPaddedDate")),
            ("A <a> 0", Some("zeroPaddedDate")),
            ("A <a> 9223372036854775808 +0000", Some("badDateOverflow")),
            (
                "A <a> 99999999999999999999999999 +0000",
                Some("badDateOverflow"),
            ),
            ("A <a> 1 +000", Some("badTimezone")),
            ("A <a> 1 +00000", Some("badTimezone")),
            ("A <a> 1 0000", Some("badTimezone")),
            ("A <a> 1 ", Some("badTimezone")),
        ] {
            let found = fault_of(line.as_bytes()).map(|(message, _)| message.as_str());
            assert_eq!(found, expected, "{line:?}");
        }
    }

    #[test]
    fn a_commit_is_cut_nowhere_before_its_committer() {
        for format in [Sha1, Sha256] {
            let id = "1".repeat(format.hex_bytes());
            let head = format!("tree {id}\nparent {id}\nauthor A <a> 1 +0000\n");
            let whole = format!("{head}committer C <c> 1 +0000\n");
            assert_eq!(
                said(Kind::Commit, whole.as_bytes(), format),
                (None, String::new())
            );
            for cut in 0..whole.len() {
                let (refused, _) = said(Kind::Commit, &whole.as_bytes()[..cut], format);
                assert!(refused.is_some(), "cut at {cut}");
            }
            let text = format!("{whole}\nmessage\0");
            let (refused, _) = said(Kind::Commit, text.as_bytes(), format);
            let expected = "nulInCommit: NUL byte in the commit object body";
            assert_eq!(refused.as_deref(), Some(expected));
            let (refused, _) = said(Kind::Commit, format!("{head}\0\n\n").as_bytes(), format);
            let expected = format!(
                "nulInHeader: unterminated header: NUL at offset {}",
                head.len()
            );
            assert_eq!(refused, Some(expected));
        }
    }

    #[test]
    fn an_old_tag_without_tagger_is_only_told() {
        let id = "1".repeat(40);
        let head = format!("object {id}\ntype commit\ntag ");
        let (refused, warnings) = said(Kind::Tag, format!("{head}v1\n").as_bytes(), Sha1);
        assert_eq!(refused, None);
        assert!(warnings.contains("missingTaggerEntry: invalid format - expected 'tagger' line"));
        let tagger = "tagger A <a> 1 +0000\n";
        for (name, is_told) in [
            ("v1", false),
            ("v..1", true),
            ("v1.lock", true),
            ("a b", true),
        ] {
            let tag = format!("{head}{name}\n{tagger}\ntext");
            let (refused, warnings) = said(Kind::Tag, tag.as_bytes(), Sha1);
            assert_eq!(refused, None);
            assert_eq!(
                warnings.contains("badTagName: invalid 'tag' name: "),
                is_told,
                "{name}"
            );
        }
        let latin = [head.as_bytes(), b"v\xe9\n", tagger.as_bytes()].concat();
        assert_eq!(said(Kind::Tag, &latin, Sha1), (None, String::new()));
        let signed = format!("{head}v1\n{tagger}gpgsig-sha256 a\n b\n\ntext");
        assert_eq!(
            said(Kind::Tag, signed.as_bytes(), Sha1),
            (None, String::new())
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for kind in [Kind::Commit, Kind::Tag] {
                prop_assert!(said(kind, &bytes, Sha1).0.is_some());
            }
        }
    }
}
