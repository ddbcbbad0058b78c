//! Signed pushes: valid certificates, and invalid ones for every check of their parser.

use std::fmt::Write as _;

use super::seeds::{ONE, ZERO};
use crate::inputs::line;

/// A push and its result: the number of updates, or the words of the refusal.
pub(super) type Case = (&'static str, Vec<u8>, Result<usize, &'static str>);

const CREATE: &str = "0000000000000000000000000000000000000000 1111111111111111111111111111111111111111 refs/heads/a\n";
const DELETE: &str = "1111111111111111111111111111111111111111 0000000000000000000000000000000000000000 refs/heads/c\n";
const FIRST: &str = "push-cert\0report-status object-format=sha1 ";
const VERSION: &str = "certificate version 0.1\n";
const PUSHER: &str = "pusher A <a@example.org> 1700000000 +0000\n";
const NONCE: &str = "nonce 1700000000-0123456789abcdef\n";
const END: &str = "push-cert-end\n";
const FLUSH: &str = "0000";
const OPTION: &str = "push-option x=y\n";
const PGP: [&str; 4] = [
    "-----BEGIN PGP SIGNATURE-----\n",
    "\n",
    "=aaaa\n",
    "-----END PGP SIGNATURE-----\n",
];
const SSH: [&str; 3] = [
    "-----BEGIN SSH SIGNATURE-----\n",
    "U1NIU0lH\n",
    "-----END SSH SIGNATURE-----\n",
];
const X509: [&str; 3] = [
    "-----BEGIN SIGNED MESSAGE-----\n",
    "MIIB\n",
    "-----END SIGNED MESSAGE-----\n",
];
const MESSAGE: [&str; 4] = [
    "-----BEGIN PGP MESSAGE-----\n",
    "\n",
    "=aaaa\n",
    "-----END PGP MESSAGE-----\n",
];

/// Each line in a frame, separators unframed.
fn frames(lines: &[&str]) -> Vec<u8> {
    let frame = |text: &&str| match *text {
        FLUSH | "0001" | "0002" => text.as_bytes().to_vec(),
        text => line(text.as_bytes()),
    };
    lines.iter().flat_map(frame).collect()
}

/// A push with a certificate of these lines and no pack.
fn signed(lines: &[&[&str]]) -> Vec<u8> {
    let lines = lines.concat();
    frames(&[&[FIRST][..], &lines, &[END, FLUSH]].concat())
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = taken();
    cases.extend(with_options());
    cases.extend(with_odd_headers());
    cases.extend(with_odd_commands());
    cases.extend(in_odd_frames());
    cases
}

fn taken() -> Vec<Case> {
    let head = [VERSION, PUSHER, NONCE, "\n"];
    let commands = [CREATE, DELETE];
    let long = format!("pusher x{}\n", "\u{e9}".repeat(700));
    let sha256 = FIRST.replace("sha1", "sha256");
    let create = format!("{:064} {} refs/heads/a\n", 0, "1".repeat(64));
    let armored = |armor: &[&str]| signed(&[&head, &commands, armor]);
    let pushee = [
        VERSION,
        PUSHER,
        "pushee http://example.org/a.git\n",
        NONCE,
        "\n",
    ];
    vec![
        ("certificate_whole", armored(&PGP), Ok(2)),
        ("certificate_ssh", armored(&SSH), Ok(2)),
        ("certificate_x509", armored(&X509), Ok(2)),
        ("certificate_pgp_message", armored(&MESSAGE), Ok(2)),
        ("certificate_unsigned", armored(&[]), Ok(2)),
        (
            "certificate_pushee",
            signed(&[&pushee, &commands, &PGP]),
            Ok(2),
        ),
        (
            "certificate_without_nonce",
            signed(&[&[VERSION, PUSHER, "\n"], &commands, &SSH]),
            Ok(2),
        ),
        (
            "certificate_pusher_empty",
            signed(&[&[VERSION, "pusher \n", "\n"], &commands]),
            Ok(2),
        ),
        (
            "certificate_pusher_long",
            signed(&[&[VERSION, &long, "\n"], &commands]),
            Ok(2),
        ),
        (
            "certificate_shallow",
            [
                frames(&[&format!("shallow {ONE}")]),
                signed(&[&head, &commands, &PGP]),
            ]
            .concat(),
            Ok(2),
        ),
        (
            "certificate_sha256",
            frames(&[&[&sha256[..]][..], &head, &[&create], &SSH, &[END, FLUSH]].concat()),
            Err("unsupported object format"),
        ),
    ]
}

/// Signed and sent options must be equal; otherwise the push is refused.
fn with_options() -> Vec<Case> {
    let first = FIRST.replace("sha1 ", "sha1 push-options");
    let lines = [VERSION, PUSHER, NONCE, OPTION, "\n", CREATE];
    let sent = |options: &[&str]| {
        let certificate = [&[&first[..]][..], &lines, &PGP, &[END, FLUSH]].concat();
        frames(&[&certificate[..], options].concat())
    };
    vec![
        ("certificate_options", sent(&["x=y", FLUSH]), Ok(1)),
        ("certificate_other_options", sent(&["y=x", FLUSH]), Ok(0)),
        ("certificate_no_options", sent(&[FLUSH]), Ok(0)),
        (
            "certificate_options_cut",
            sent(&["x=y"]),
            Err("ends in the middle"),
        ),
        (
            "certificate_options_unasked",
            signed(&[&lines, &PGP]),
            Ok(0),
        ),
    ]
}

fn with_odd_headers() -> Vec<Case> {
    let of = |lines: &[&str]| signed(&[lines, &[CREATE], &PGP]);
    let latin1 = [
        frames(&[FIRST, VERSION]),
        line(b"pusher \xe9 <a@example.org> 1700000000 +0000\n"),
        frames(&["\n", CREATE, END, FLUSH]),
    ];
    vec![
        ("certificate_latin1", latin1.concat(), Ok(1)),
        (
            "certificate_without_pusher",
            of(&[VERSION, NONCE, "\n"]),
            Err("it names no pusher"),
        ),
        (
            "certificate_of_another_version",
            of(&["certificate version 0.2\n", PUSHER, "\n"]),
            Err("not of version 0.1"),
        ),
        (
            "certificate_version_last",
            of(&[PUSHER, VERSION, "\n"]),
            Err("not of version 0.1"),
        ),
        (
            "certificate_nul",
            of(&[VERSION, "pusher A\0B\n", "\n"]),
            Err("NUL"),
        ),
        (
            "certificate_without_commands",
            signed(&[&[VERSION, PUSHER, NONCE], &PGP]),
            Err("no empty line"),
        ),
        (
            "certificate_without_empty_line",
            of(&[VERSION, PUSHER]),
            Err("no empty line"),
        ),
        ("certificate_empty", signed(&[]), Err("no empty line")),
    ]
}

fn with_odd_commands() -> Vec<Case> {
    let head = [VERSION, PUSHER, NONCE, "\n"];
    let of = |lines: &[&str]| signed(&[&head, lines, &PGP]);
    let not_a_push = "not a push";
    let unsigned = "unsigned commands";
    let command = format!("{} report-status", CREATE.replace('\n', "\0"));
    vec![
        ("certificate_no_commands", of(&[]), Err("no commands")),
        (
            "certificate_bad_command",
            of(&[CREATE, "nonsense\n"]),
            Err(not_a_push),
        ),
        (
            "certificate_empty_command",
            of(&[CREATE, "\n", DELETE]),
            Err(not_a_push),
        ),
        (
            "certificate_two_armors",
            of(&[&[CREATE][..], &SSH].concat()),
            Err(not_a_push),
        ),
        ("certificate_same_ref", of(&[CREATE, CREATE]), Ok(1)),
        (
            "certificate_funny_name",
            of(&[&CREATE.replace("/a", "/a..b")]),
            Ok(0),
        ),
        (
            "certificate_without_last_newline",
            signed(&[&head, &[CREATE, DELETE.trim_end()]]),
            Ok(2),
        ),
        (
            "certificate_and_command",
            frames(&[&[FIRST][..], &head, &[CREATE, END, DELETE, FLUSH]].concat()),
            Err(unsigned),
        ),
        (
            "certificate_behind_command",
            [frames(&[&command]), of(&[DELETE])].concat(),
            Err(unsigned),
        ),
        (
            "certificate_twice",
            frames(&[&[FIRST][..], &head, &[CREATE, END, "push-cert\n"]].concat()),
            Err(unsigned),
        ),
    ]
}

fn in_odd_frames() -> Vec<Case> {
    let text = [VERSION, PUSHER, NONCE, "\n", CREATE, &PGP.concat()].concat();
    let head = [FIRST, VERSION, PUSHER, NONCE];
    let no_end = "ends without push-cert-end";
    let with = |lines: &[&str]| frames(&[&head[..], lines].concat());
    let (before, behind) = text.split_at(100);
    vec![
        ("certificate_in_one_frame", signed(&[&[&text]]), Ok(1)),
        (
            "certificate_across_frames",
            signed(&[&[before, behind]]),
            Ok(1),
        ),
        (
            "certificate_without_end",
            with(&["\n", CREATE, FLUSH]),
            Err(no_end),
        ),
        (
            "certificate_end_without_newline",
            with(&["\n", CREATE, END.trim_end(), FLUSH]),
            Err(no_end),
        ),
        (
            "certificate_with_delimiter",
            with(&["\n", CREATE, "0001", END, FLUSH]),
            Err(no_end),
        ),
        (
            "certificate_cut",
            with(&["\n", CREATE]),
            Err("ends in the middle"),
        ),
        (
            "certificate_without_flush",
            with(&["\n", CREATE, END]),
            Err("ends in the middle"),
        ),
    ]
}

/// Input that a fuzzer does not find: whole frames with valid lengths, and the words of the parser.
pub(super) fn dictionary() -> Vec<Vec<u8>> {
    let shallow = format!("shallow {ONE}");
    let armors = PGP.iter().chain(&SSH).chain(&X509).chain(&MESSAGE);
    let lines = [
        FIRST,
        &FIRST.replace("sha1 ", "sha256"),
        &FIRST.replace("sha1 ", "sha1 push-options"),
        VERSION,
        PUSHER,
        "pushee http://example.org/a.git\n",
        NONCE,
        OPTION,
        "x=y",
        CREATE,
        DELETE,
        &shallow,
        END,
        FLUSH,
        "0001",
    ];
    let lines = lines.iter().chain(armors);
    let mut words: Vec<_> = lines.map(|text| frames(&[text])).collect();
    let raw = [
        "push-cert\0",
        "push-options",
        "object-format=sha256",
        "certificate version 0.1",
        "pusher ",
        "nonce ",
        "\n\n",
        "-----BEGIN ",
        ZERO,
        ONE,
    ];
    words.extend(raw.map(|text| text.as_bytes().to_vec()));
    words.sort();
    words.dedup();
    words
}

/// libFuzzer ignores longer words.
const FUZZER_WORD_BYTES_MAX: usize = 64;

/// In libFuzzer's format: one word per line, in quotes.
pub(super) fn dictionary_file() -> String {
    let mut file =
        "# Written by HENGE_BLESS=1 cargo test -p henge-git --test it fuzz::\n".to_owned();
    let words = dictionary().into_iter();
    for word in words.filter(|word| word.len() <= FUZZER_WORD_BYTES_MAX) {
        file.push('"');
        for byte in word {
            match byte {
                b'"' | b'\\' => {
                    file.push('\\');
                    file.push(char::from(byte));
                }
                b' '..=b'~' => file.push(char::from(byte)),
                _ => write!(file, "\\x{byte:02x}").unwrap(),
            }
        }
        file.push_str("\"\n");
    }
    file
}
