//! Push certificates on the wire: gitprotocol-pack(5), "Push Certificate".

use std::io::BufRead;

use bytes::Bytes;
use henge_types::limits::CERTIFICATE_IDENT_BYTES_MAX;
use henge_types::{
    CertifiedRef, NonceStatus, PreviousValue, PushCertificate, RefUpdate, SignatureKind,
};

use crate::pkt::{self, Packet};
use crate::push::ReceiveError;

/// The first line of every certificate.
const VERSION: &str = "certificate version 0.1";
/// The line after the certificate.
const END: &[u8] = b"push-cert-end\n";
/// Beginnings of signatures.
const ARMORS: &[(&[u8], SignatureKind)] = &[
    (b"-----BEGIN PGP SIGNATURE-----", SignatureKind::OpenPgp),
    (b"-----BEGIN PGP MESSAGE-----", SignatureKind::OpenPgp),
    (b"-----BEGIN SIGNED MESSAGE-----", SignatureKind::X509),
    (b"-----BEGIN SSH SIGNATURE-----", SignatureKind::Ssh),
];

/// A certificate as sent. Its signature is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    text: Bytes,
    /// Offset of the commands.
    commands_at: usize,
    /// Offset of the signature; the end of the text when there is none.
    signature_at: usize,
    /// The kind of the signature, if there is one.
    pub signature: Option<SignatureKind>,
    /// The claimed identity of the signer, and the claimed time.
    pub pusher: String,
    /// The URL that the signer pushes to.
    pub pushee: Option<String>,
    /// The nonce of the server that was signed.
    pub nonce: Option<String>,
    /// The push options that were signed.
    pub options: Vec<String>,
}

impl Certificate {
    /// Reads the lines after `push-cert`, up to and including the last one.
    ///
    /// # Errors
    /// When they end early, exceed `bytes_max`, or are not a certificate.
    pub(crate) fn read(input: &mut dyn BufRead, bytes_max: usize) -> Result<Self, ReceiveError> {
        let mut text = Vec::new();
        let mut buffer = Vec::new();
        loop {
            let data = match pkt::read(input, &mut buffer)? {
                None => return Err(ReceiveError::Truncated),
                Some(Packet::Data(data)) => data,
                Some(Packet::Flush | Packet::Delimiter | Packet::ResponseEnd) => {
                    return Err(malformed("it ends without push-cert-end"));
                }
            };
            if data == END {
                return Self::parse(&text.into());
            }
            if text.len().saturating_add(data.len()) > bytes_max {
                return Err(ReceiveError::CertificateTooLarge { max: bytes_max });
            }
            text.extend_from_slice(data);
        }
    }

    fn parse(text: &Bytes) -> Result<Self, ReceiveError> {
        if text.contains(&0) {
            return Err(malformed("there is a NUL in it"));
        }
        let (signature_at, signature) = find_signature(text);
        let signed = text.get(..signature_at).unwrap_or_default();
        let Some(header_end) = memchr::memmem::find(signed, b"\n\n") else {
            return Err(malformed("no empty line ends its header"));
        };
        let header = signed.get(..header_end).unwrap_or_default();
        if header.split(|byte| *byte == b'\n').next() != Some(VERSION.as_bytes()) {
            return Err(malformed("it is not of version 0.1"));
        }
        let Some(pusher) = values(header, "pusher").next() else {
            return Err(malformed("it names no pusher"));
        };
        let certificate = Self {
            commands_at: header_end + 2,
            signature_at,
            signature,
            pusher: ident(pusher),
            pushee: values(header, "pushee").next().map(ident),
            nonce: values(header, "nonce").next().map(lossy),
            options: values(header, "push-option").map(lossy).collect(),
            text: text.clone(),
        };
        if certificate.commands().next().is_none() {
            return Err(malformed("there are no commands in it"));
        }
        Ok(certificate)
    }

    /// The commands, each in the syntax of a push without a certificate.
    pub(crate) fn commands(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.text.get(self.commands_at..self.signature_at);
        let lines = lines.unwrap_or_default();
        let lines = lines.strip_suffix(b"\n").unwrap_or(lines);
        let none = lines.is_empty();
        lines.split(|byte| *byte == b'\n').filter(move |_| !none)
    }

    /// The whole text, with the signature.
    pub const fn text(&self) -> &Bytes {
        &self.text
    }

    /// The certificate as recorded, with the status of its nonce and the valid commands.
    pub(crate) fn judged(&self, nonce: NonceStatus, updates: &[RefUpdate]) -> PushCertificate {
        PushCertificate {
            text: self.text.clone(),
            pusher: self.pusher.clone(),
            pushee: self.pushee.clone(),
            nonce,
            signature: self.signature,
            refs: updates.iter().map(certified).collect(),
        }
    }
}

const fn malformed(reason: &'static str) -> ReceiveError {
    ReceiveError::Certificate { reason }
}

fn certified(update: &RefUpdate) -> CertifiedRef {
    CertifiedRef {
        name: update.name.clone(),
        old: match update.expected {
            PreviousValue::MustExistAndMatch(old) => Some(old),
            PreviousValue::Any | PreviousValue::MustNotExist | PreviousValue::MustExist => None,
        },
        new: update.new,
    }
}

/// The offset and kind of the signature: it begins at the last line that matches, as in git.
fn find_signature(text: &[u8]) -> (usize, Option<SignatureKind>) {
    let mut found = (text.len(), None);
    let mut at = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let armor = ARMORS.iter().find(|(armor, _)| line.starts_with(armor));
        if let Some((_, kind)) = armor {
            found = (at, Some(*kind));
        }
        at += line.len();
    }
    found
}

/// The values of the header lines with this key, in order.
fn values<'a>(header: &'a [u8], key: &'static str) -> impl Iterator<Item = &'a [u8]> {
    header.split(|byte| *byte == b'\n').filter_map(move |line| {
        let value = line.strip_prefix(key.as_bytes())?;
        value.strip_prefix(b" ")
    })
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// An identity for display, cut to the limit: the text of the certificate has all of it.
fn ident(text: &[u8]) -> String {
    let mut ident = lossy(text);
    let mut end = ident.len().min(CERTIFICATE_IDENT_BYTES_MAX);
    while !ident.is_char_boundary(end) {
        end -= 1;
    }
    ident.truncate(end);
    ident
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str =
        "certificate version 0.1\npusher A U Thor <a@example.com> 1700000000 +0100\n";
    const SSH: &str = "-----BEGIN SSH SIGNATURE-----\nx\n-----END SSH SIGNATURE-----\n";
    const PGP: &str = "-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----\n";
    const MAX: usize = 1000;

    fn read(text: &str, end: &[u8]) -> Result<Certificate, ReceiveError> {
        let mut bytes = Vec::new();
        for line in text.split_inclusive('\n') {
            pkt::write(&mut bytes, line.as_bytes()).unwrap();
        }
        bytes.extend_from_slice(end);
        Certificate::read(&mut &bytes[..], MAX)
    }

    fn whole(text: &str) -> Result<Certificate, ReceiveError> {
        let mut end = Vec::new();
        pkt::write(&mut end, END).unwrap();
        read(text, &end)
    }

    fn refused(text: &str) -> String {
        whole(text).unwrap_err().to_string()
    }

    #[test]
    fn every_part_of_it_is_read() {
        let text = format!(
            "{HEAD}pushee https://example.com/r.git\nnonce 17-ab\npush-option a=b\npush-option c\n\none\ntwo\n{PGP}"
        );
        let read = whole(&text).unwrap();
        assert_eq!(read.pusher, "A U Thor <a@example.com> 1700000000 +0100");
        assert_eq!(read.pushee.as_deref(), Some("https://example.com/r.git"));
        assert_eq!(read.nonce.as_deref(), Some("17-ab"));
        assert_eq!(read.options, ["a=b", "c"]);
        assert_eq!(read.signature, Some(SignatureKind::OpenPgp));
        assert!(read.commands().eq([b"one", b"two"]));
        assert_eq!(read.text(), text.as_bytes());
    }

    #[test]
    fn the_kind_of_a_signature_is_that_of_its_armor() {
        for (armor, kind) in [
            (SSH, Some(SignatureKind::Ssh)),
            (PGP, Some(SignatureKind::OpenPgp)),
            (
                "-----BEGIN PGP MESSAGE-----\n\nx\n",
                Some(SignatureKind::OpenPgp),
            ),
            (
                "-----BEGIN SIGNED MESSAGE-----\nx\n",
                Some(SignatureKind::X509),
            ),
            ("", None),
        ] {
            let read = whole(&format!("{HEAD}\none\n{armor}")).unwrap();
            assert_eq!(read.signature, kind, "{armor:?}");
            assert_eq!(read.commands().count(), 1, "{armor:?}");
        }
    }

    /// Of two armors the last one is the signature: the text before it is commands.
    #[test]
    fn what_is_signed_ends_where_git_says() {
        let read = whole(&format!("{HEAD}\none\n{SSH}{PGP}")).unwrap();
        assert_eq!(read.signature, Some(SignatureKind::OpenPgp));
        assert_eq!(read.commands().count(), 4);
    }

    #[test]
    fn what_is_no_certificate_is_refused_with_a_reason() {
        for (text, reason) in [
            (String::new(), "no empty line"),
            (format!("{HEAD}one\n{SSH}"), "no empty line"),
            // The empty line in the armor does not end the header.
            (format!("{HEAD}one\n{PGP}"), "no empty line"),
            (format!("{HEAD}\n{SSH}"), "no commands"),
            ("pusher x\n\none\n".to_owned(), "version 0.1"),
            (
                "certificate version 0.2\npusher x\n\none\n".to_owned(),
                "version 0.1",
            ),
            ("certificate version 0.1\n\none\n".to_owned(), "no pusher"),
            (format!("{HEAD}\none\0two\n"), "NUL"),
            (format!("{HEAD}\n{}\n", "x".repeat(MAX)), "1000 bytes"),
        ] {
            let found = refused(&text);
            assert!(found.contains(reason), "{text:?}: {found}");
        }
    }

    #[test]
    fn one_that_does_not_end_is_no_certificate() {
        let text = format!("{HEAD}\none\n{SSH}");
        assert!(matches!(read(&text, b""), Err(ReceiveError::Truncated)));
        for end in [&b"0000"[..], b"0001", b"0011push-cert-end0000"] {
            let error = read(&text, end).unwrap_err().to_string();
            assert!(error.contains("push-cert-end"), "{error}");
        }
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        let name = "\u{e9}".repeat(CERTIFICATE_IDENT_BYTES_MAX);
        assert_eq!(ident(name.as_bytes()).len(), CERTIFICATE_IDENT_BYTES_MAX);
        let odd = format!("x{name}");
        assert_eq!(ident(odd.as_bytes()).len(), CERTIFICATE_IDENT_BYTES_MAX - 1);
    }

    proptest! {
        #[test]
        fn arbitrary_texts_never_panic(lines in proptest::collection::vec("[ -~\n]{0,60}", 0..12)) {
            if let Ok(read) = whole(&format!("{HEAD}{}", lines.concat())) {
                prop_assert!(read.commands().next().is_some());
            }
        }
    }
}
