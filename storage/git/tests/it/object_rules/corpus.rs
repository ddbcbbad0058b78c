//! Objects that a rule refuses, and the most similar ones that it accepts: trees and files.

use crate::packs::{Entry, object_id};

use super::headers::{commits, tags};

/// An object, by its kind and its bytes.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) kind: &'static str,
    pub(crate) data: Vec<u8>,
}

impl Object {
    pub(super) fn new(kind: &'static str, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        Self { kind, data }
    }

    pub(crate) fn id(&self) -> String {
        object_id(self.kind, &self.data)
    }

    pub(crate) fn entry(&self) -> Entry<'_> {
        let kind = match self.kind {
            "commit" => 1,
            "tree" => 2,
            "blob" => 3,
            "tag" => 4,
            kind => panic!("{kind} is no kind"),
        };
        Entry::Whole(kind, &self.data)
    }
}

/// One push of a few objects, the tip last.
pub(crate) struct Case {
    /// The tested message.
    pub(crate) message: &'static str,
    /// Description of the case.
    pub(crate) name: String,
    pub(crate) objects: Vec<Object>,
    /// Whether Henge's strict rules report the message.
    pub(crate) is_said: bool,
    /// The reason for a difference of git.
    pub(crate) why: &'static str,
}

impl Case {
    pub(super) fn differs(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }
}

pub(super) const PERSON: &str = "A <a@example.org> 1700000000 +0000";
/// Git parses a commit or tag before it checks it.
pub(super) const READ_FIRST: &str = "git cannot read it and says so before it checks it";
const NOT_IN_2_39: &str = "git 2.39 does not know the message";
const URL_OF_2_39: &str = "git 2.39 takes the URL apart less strictly";

fn blob(text: impl Into<Vec<u8>>) -> Object {
    Object::new("blob", text)
}

fn file() -> Object {
    blob("text\n")
}

/// A tree of entries with these modes, names and ids.
pub(super) fn tree(entries: &[(&str, &[u8], &str)]) -> Object {
    let mut data = Vec::new();
    for (mode, name, id) in entries {
        data.extend_from_slice(mode.as_bytes());
        data.push(b' ');
        data.extend_from_slice(name);
        data.push(0);
        data.extend(hex::decode(id).unwrap());
    }
    Object::new("tree", data)
}

pub(super) fn commit(tree: &Object) -> Object {
    let id = tree.id();
    let text = format!("tree {id}\nauthor {PERSON}\ncommitter {PERSON}\n\nmessage\n");
    Object::new("commit", text)
}

pub(super) fn case(message: &'static str, name: &str, objects: Vec<Object>, is_said: bool) -> Case {
    Case {
        message,
        name: name.to_owned(),
        objects,
        is_said,
        why: "",
    }
}

/// A commit of a tree whose entries are all for one file.
fn of_entries(message: &'static str, name: &str, entries: &[(&str, &[u8])], is_said: bool) -> Case {
    let file = file();
    let id = file.id();
    let entries: Vec<_> = entries
        .iter()
        .map(|(mode, name)| (*mode, *name, id.as_str()))
        .collect();
    let tree = tree(&entries);
    let commit = commit(&tree);
    case(message, name, vec![file, tree, commit], is_said)
}

/// A commit of a tree with one file of this name.
fn of_name(message: &'static str, name: &[u8], is_said: bool) -> Case {
    let shown = match name.len() {
        0..100 => String::from_utf8_lossy(name).escape_default().to_string(),
        bytes => format!("{bytes} bytes"),
    };
    of_entries(message, &format!("`{shown}`"), &[("100644", name)], is_said)
}

fn trees() -> Vec<Case> {
    let mut cases = vec![
        of_name("fullPathname", b"a/b", true),
        of_name("fullPathname", b"a-b", false),
        of_name("hasDot", b".", true),
        of_name("hasDot", b".a", false),
        of_name("hasDotdot", b"..", true),
        of_name("hasDotdot", b"..a", false),
        of_name("largePathname", &[b'a'; 4097], true).differs(NOT_IN_2_39),
        of_name("largePathname", &[b'a'; 4096], false),
        of_name("badTree", b"", true),
    ];
    for name in [
        ".git",
        ".GIT",
        "git~1",
        "GIT~1",
        ".git.",
        ".git ",
        ".git...",
        ".git::$INDEX_ALLOCATION",
        ".g\u{200c}it",
        "\u{feff}.git",
        "a\\.git",
        "a\\git~1",
    ] {
        cases.push(of_name("hasDotgit", name.as_bytes(), true));
    }
    cases.push(of_name("hasDotgit", b".git\xff", true));
    for name in [".gitx", "git~2", "git", ".g\u{200b}it", "a\\git", ".git..x"] {
        cases.push(of_name("hasDotgit", name.as_bytes(), false));
    }
    let empty = tree(&[]);
    for (mode, is_said) in [("040000", true), ("40000", false)] {
        let tree = tree(&[(mode, b"a", &empty.id())]);
        let objects = vec![empty.clone(), tree.clone(), commit(&tree)];
        let name = format!("mode {mode}");
        cases.push(case("zeroPaddedFilemode", &name, objects, is_said));
    }
    for (mode, is_said) in [
        ("100664", true),
        ("100600", true),
        ("100644", false),
        ("100755", false),
    ] {
        let name = format!("mode {mode}");
        cases.push(of_entries("badFilemode", &name, &[(mode, b"a")], is_said));
    }
    for (digit, is_said) in [("0", true), ("1", false)] {
        let tree = tree(&[("160000", b"a", &digit.repeat(40))]);
        let objects = vec![tree.clone(), commit(&tree)];
        let name = format!("a submodule at {digit}{digit}{digit}…");
        cases.push(case("nullSha1", &name, objects, is_said));
    }
    cases.extend(orders());
    cases.extend(broken_trees());
    cases
}

fn orders() -> Vec<Case> {
    let file: fn(&'static [u8]) -> (&'static str, &'static [u8]) = |name| ("100644", name);
    let mut cases = vec![
        of_entries(
            "duplicateEntries",
            "two of a name",
            &[file(b"a"), file(b"a")],
            true,
        ),
        of_entries(
            "duplicateEntries",
            "two names",
            &[file(b"a"), file(b"b")],
            false,
        ),
        of_entries(
            "treeNotSorted",
            "the second before the first",
            &[file(b"b"), file(b"a")],
            true,
        ),
    ];
    let empty = tree(&[]);
    let blob = blob("text\n");
    for (name, entries, message, is_said) in [
        (
            "a file and a folder of its name, apart",
            vec![("100644", "a"), ("100644", "a.b"), ("40000", "a")],
            "duplicateEntries",
            true,
        ),
        (
            "a folder before what its slash comes after",
            vec![("40000", "a"), ("100644", "a.b")],
            "treeNotSorted",
            true,
        ),
        (
            "a folder behind it",
            vec![("100644", "a.b"), ("40000", "a")],
            "treeNotSorted",
            false,
        ),
    ] {
        let (of_blob, of_tree) = (blob.id(), empty.id());
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(mode, name)| {
                let id = if mode == "40000" { &of_tree } else { &of_blob };
                (mode, name.as_bytes(), id.as_str())
            })
            .collect();
        let tree = tree(&entries);
        let objects = vec![blob.clone(), empty.clone(), tree.clone(), commit(&tree)];
        cases.push(case(message, name, objects, is_said));
    }
    cases
}

fn broken_trees() -> Vec<Case> {
    let file = file();
    let whole = tree(&[("100644", b"a", &file.id())]);
    let mut cases = Vec::new();
    for (name, data) in [
        ("cut", whole.data[..whole.data.len() - 1].to_vec()),
        ("a mode with a letter", [b"x", &whole.data[..]].concat()),
        ("a mode of nothing", [b" ", &whole.data[..]].concat()),
    ] {
        let tree = Object::new("tree", data);
        let objects = vec![file.clone(), tree.clone(), commit(&tree)];
        cases.push(case("badTree", name, objects, true));
    }
    cases
}

/// Special names that are links or not files.
fn meanings() -> Vec<Case> {
    let mut cases = Vec::new();
    for (message, names) in [
        (
            "gitmodulesSymlink",
            &[
                ".gitmodules",
                ".GitModules",
                "gitmod~1",
                "gi7eba~1",
                ".gitmodules .",
                ".gitmod\u{200d}ules",
                "a\\.gitmodules",
            ][..],
        ),
        (
            "gitattributesSymlink",
            &[".gitattributes", "gitatt~1", "gi7d29~1"][..],
        ),
        (
            "gitignoreSymlink",
            &[".gitignore", "gitign~1", "gi250a~1"][..],
        ),
        ("mailmapSymlink", &[".mailmap", "mailma~1", "maba30~1"][..]),
    ] {
        for name in names {
            let entries = [("120000", name.as_bytes())];
            let shown = format!("a link `{}`", name.escape_default());
            cases.push(of_entries(message, &shown, &entries, true));
        }
        let plain = names[0];
        let shown = format!("a file `{plain}`");
        let entries = [("100644", plain.as_bytes())];
        cases.push(of_entries(message, &shown, &entries, false));
        let longer = format!("{plain}x");
        let shown = format!("a link `{longer}`");
        let entries = [("120000", longer.as_bytes())];
        cases.push(of_entries(message, &shown, &entries, false));
    }
    let empty = tree(&[]);
    for (of_folder, of_module, name) in [
        ("gitmodulesBlob", "gitmodulesMissing", ".gitmodules"),
        (
            "gitattributesBlob",
            "gitattributesMissing",
            ".gitattributes",
        ),
    ] {
        for (message, mode, id, what) in [
            (of_folder, "40000", empty.id(), "folder"),
            (of_module, "160000", "1".repeat(40), "submodule"),
        ] {
            for (name, is_said) in [(name.to_owned(), true), (format!("{name}x"), false)] {
                let tree = tree(&[(mode, name.as_bytes(), &id)]);
                let objects = vec![empty.clone(), tree.clone(), commit(&tree)];
                let shown = format!("a {what} `{name}`");
                cases.push(case(message, &shown, objects, is_said));
            }
        }
    }
    cases
}

/// A commit of a tree with one file of this name and content.
fn of_content(
    message: &'static str,
    name: &str,
    path: &str,
    content: impl Into<Vec<u8>>,
    is_said: bool,
) -> Case {
    let blob = blob(content);
    let tree = tree(&[("100644", path.as_bytes(), &blob.id())]);
    let commit = commit(&tree);
    case(message, name, vec![blob, tree, commit], is_said)
}

fn of_modules(message: &'static str, text: &str, is_said: bool) -> Case {
    let name = format!("`{}`", text.escape_default());
    of_content(message, &name, ".gitmodules", text, is_said)
}

fn contents() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, is_said) in [
        ("..", true),
        ("../a", true),
        ("a/..", true),
        ("a/../b", true),
        ("a\\\\..\\\\b", true),
        ("", true),
        ("a", false),
        ("..a/b..", false),
    ] {
        let text = format!("[submodule \"{name}\"]\n\tpath = a\n");
        cases.push(of_modules("gitmodulesName", &text, is_said));
    }
    for (url, is_said, why) in [
        ("-u./payload", true, ""),
        ("--upload-pack=x", true, ""),
        ("https:///example.org/a", true, ""),
        ("http::foo", true, ""),
        ("https://example.org/%0ahost=evil", true, ""),
        ("https://u%0a@example.org/a", true, ""),
        ("git://example.org/%0a", true, ""),
        ("../:a", true, ""),
        ("..//a", true, ""),
        ("./%0a:", false, ""),
        ("./:%0a", true, ""),
        ("https://exam%20ple.org/a", true, URL_OF_2_39),
        ("https://example.org:0/a", true, URL_OF_2_39),
        ("https://example.org/%zz", true, URL_OF_2_39),
        ("https://example.org/../a", true, URL_OF_2_39),
        ("https://example.org/a", false, ""),
        ("http::https://u:p@example.org:8080/a", false, ""),
        ("https://[::1]/a/../b", false, ""),
        ("git@example.org:-a", false, ""),
        ("../../a", false, ""),
        ("ssh://example.org/%0a", false, ""),
    ] {
        let text = format!("[submodule \"a\"]\n\turl = {url}\n");
        cases.push(of_modules("gitmodulesUrl", &text, is_said).differs(why));
    }
    for (text, is_said) in [("-x", true), ("--a b", true), ("a-x", false)] {
        let text = format!("[submodule \"a\"]\n\tpath = {text}\n");
        cases.push(of_modules("gitmodulesPath", &text, is_said));
    }
    let text = "[submodule \"a\"]\n\tpath = \"a\r\"\n";
    let why = "Henge refuses what CVE-2025-48384 needs: no git checks it";
    cases.push(of_modules("gitmodulesPath", text, true).differs(why));
    let text = "[submodule \"a\"]\r\n\tpath = a\r\n";
    cases.push(of_modules("gitmodulesPath", text, false));
    for (text, is_said) in [("!rm", true), ("none", false), ("rebase", false)] {
        let text = format!("[submodule \"a\"]\n\tupdate = {text}\n");
        cases.push(of_modules("gitmodulesUpdate", &text, is_said));
    }
    for (text, is_said) in [("[a", true), ("a b\n", true), ("[a]\nb\n", false)] {
        cases.push(of_modules("gitmodulesParse", text, is_said));
    }
    let text = "[submodule \"..\"]\na\n[b\n";
    cases.push(of_modules("gitmodulesName", text, true));
    cases.extend(large_contents());
    cases
}

fn lines(bytes: usize) -> String {
    "a\n".repeat(bytes / 2 + 1)[..bytes].to_owned()
}

fn large_contents() -> Vec<Case> {
    let why =
        "Henge parses no file of more than 16 MiB: git parses what is below core.bigFileThreshold";
    let (mega, modules, attributes) = (1 << 20, ".gitmodules", ".gitattributes");
    let comment = format!("#{}", "-".repeat(16 * mega - 1));
    let line = |bytes: usize| format!("{}\n", "a".repeat(bytes));
    vec![
        of_content(
            "gitmodulesLarge",
            "16 MiB and a byte",
            modules,
            format!("{comment}\n"),
            true,
        )
        .differs(why),
        of_content("gitmodulesLarge", "16 MiB", modules, comment, false),
        of_content(
            "gitattributesLarge",
            "a MiB",
            attributes,
            lines(mega),
            false,
        ),
        of_content(
            "gitattributesLineLength",
            "a line of 2048 bytes",
            attributes,
            line(2048),
            true,
        ),
        of_content(
            "gitattributesLineLength",
            "a line of 2047 bytes",
            attributes,
            line(2047),
            false,
        ),
    ]
}

/// All cases, including one of 100 MiB.
pub(crate) fn all_cases() -> Vec<Case> {
    let mut cases = cases();
    let (message, name) = ("gitattributesLarge", "100 MiB and a byte");
    let content = lines((100 << 20) + 1);
    cases.push(of_content(message, name, ".gitattributes", content, true));
    cases
}

/// All small cases.
pub(crate) fn cases() -> Vec<Case> {
    let parts = [trees(), meanings(), contents(), commits(), tags()];
    let mut cases: Vec<_> = parts.into_iter().flatten().collect();
    // An object that is unreachable from the tip is checked too.
    let bad = tree(&[("100644", b".git", &file().id())]);
    let tree = tree(&[]);
    let objects = vec![file(), bad, tree.clone(), commit(&tree)];
    cases.push(case(
        "hasDotgit",
        "in a tree that nothing names",
        objects,
        true,
    ));
    cases
}

/// A file of submodules that is dangerous for clients, and commits of it: under another name, and
/// under its own.
pub(crate) fn hostile_file() -> (Object, [Object; 2], [Object; 2]) {
    let file = blob("[submodule \"a\"]\n\turl = -u./payload\n");
    let of_name = |name: &str| {
        let tree = tree(&[("100644", name.as_bytes(), &file.id())]);
        let commit = commit(&tree);
        [tree, commit]
    };
    let (plain, named) = (of_name("plain"), of_name(".gitmodules"));
    (file, plain, named)
}
