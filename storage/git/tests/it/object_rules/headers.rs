//! Commits and tags that a rule refuses, and the most similar ones that it accepts.

use super::corpus::{Case, Object, PERSON, READ_FIRST, case, commit, tree};

/// Lines of persons: the message, the text, and whether the message is reported.
const PERSONS: &[(&str, &str, bool)] = &[
    ("badDate", "A <a> x +0000", true),
    ("badDate", "A <a>  x", true),
    ("badDate", "A <a> 1+0000", true),
    ("badDate", "A <a> 1 +0000", false),
    ("badDate", "A <a> \t1 +0000", false),
    ("badDateOverflow", "A <a> 9223372036854775808 +0000", true),
    ("badDateOverflow", "A <a> 9223372036854775807 +0000", false),
    ("badEmail", "A <a 1 +0000", true),
    ("badEmail", "A <a<b> 1 +0000", true),
    ("badEmail", "A <> 1 +0000", false),
    ("badName", "A> <a> 1 +0000", true),
    ("badName", "A. \"B\" <a> 1 +0000", false),
    ("badTimezone", "A <a> 1 +051800", true),
    ("badTimezone", "A <a> 1 +000", true),
    ("badTimezone", "A <a> 1 0000", true),
    ("badTimezone", "A <a> 1 -9999", false),
    ("missingEmail", "A 1 +0000", true),
    ("missingNameBeforeEmail", "<a> 1 +0000", true),
    ("missingNameBeforeEmail", " <a> 1 +0000", false),
    ("missingSpaceBeforeDate", "A <a>1 +0000", true),
    ("missingSpaceBeforeDate", "A <a> 1 +0000", false),
    ("missingSpaceBeforeEmail", "A<a> 1 +0000", true),
    ("missingSpaceBeforeEmail", "A  <a> 1 +0000", false),
    ("zeroPaddedDate", "A <a> 01 +0000", true),
    ("zeroPaddedDate", "A <a> 0 +0000", false),
];

/// A commit of an empty tree; `text` builds it from the tree's id.
fn of_commit(
    message: &'static str,
    name: &str,
    text: impl Fn(&str) -> Vec<u8>,
    is_said: bool,
) -> Case {
    let tree = tree(&[]);
    let commit = Object::new("commit", text(&tree.id()));
    case(message, name, vec![tree, commit], is_said)
}

pub(super) fn commits() -> Vec<Case> {
    let end = format!("author {PERSON}\ncommitter {PERSON}\n\ntext\n");
    let mut cases = Vec::new();
    let mut add = |message, name: &str, text: &dyn Fn(&str) -> String, is_said, why| {
        let text = |tree: &str| text(tree).into_bytes();
        cases.push(of_commit(message, name, text, is_said).differs(why));
    };
    add("missingTree", "no tree", &|_| end.clone(), true, READ_FIRST);
    let text = |_: &str| format!("tree 1234\n{end}");
    add("badTreeSha1", "a short id", &text, true, READ_FIRST);
    let text = |tree: &str| format!("tree {tree} \n{end}");
    add("badTreeSha1", "a space behind", &text, true, READ_FIRST);
    let text = |tree: &str| format!("tree {tree}\nparent 1234\n{end}");
    add("badParentSha1", "a short id", &text, true, READ_FIRST);
    let text = |tree: &str| format!("tree {tree}\ncommitter {PERSON}\n\ntext\n");
    add("missingAuthor", "no author", &text, true, "");
    let text = |tree: &str| format!("tree {tree}\nauthor {PERSON}\n{end}");
    add("multipleAuthors", "two authors", &text, true, "");
    let text = |tree: &str| format!("tree {tree}\nauthor {PERSON}\n\ntext\n");
    add("missingCommitter", "no committer", &text, true, "");
    let text = |tree: &str| format!("tree {tree}\n{end}\0");
    add("nulInCommit", "behind the text", &text, true, "");
    let text = |tree: &str| format!("tree {tree}\nauthor A\0B <a> 1 +0000\n\ntext\n");
    add("nulInHeader", "in a name", &text, true, "");
    let text = |tree: &str| format!("tree {tree}\nauthor {PERSON}\ncommitter {PERSON}");
    add("unterminatedHeader", "no last line end", &text, true, "");
    let text = |tree: &str| format!("tree {tree}\nauthor {PERSON}\ncommitter {PERSON}\n");
    add("unterminatedHeader", "no text", &text, false, "");
    let text = |tree: &str| format!("tree {tree}\n{end}");
    add("multipleAuthors", "one author", &text, false, "");
    let text = |tree: &str| {
        let extra = "encoding latin1\nanything at all\n";
        format!("tree {tree}\nauthor {PERSON}\ncommitter {PERSON}\n{extra}\ntext\n")
    };
    add("missingCommitter", "more headers", &text, false, "");
    for &(message, line, is_said) in PERSONS {
        let shown = line.escape_default();
        let text = |tree: &str| format!("tree {tree}\nauthor {line}\ncommitter {PERSON}\n\ntext\n");
        add(message, &format!("author `{shown}`"), &text, is_said, "");
        let text = |tree: &str| format!("tree {tree}\nauthor {PERSON}\ncommitter {line}\n\ntext\n");
        let name = format!("committer `{shown}`");
        add(message, &name, &text, is_said, "");
    }
    cases
}

pub(super) fn tags() -> Vec<Case> {
    let tree = tree(&[]);
    let commit = commit(&tree);
    let id = commit.id();
    let mut cases = Vec::new();
    let mut add = |message, name: &str, text: String, is_said, why| {
        let tag = Object::new("tag", text);
        let objects = vec![tree.clone(), commit.clone(), tag];
        cases.push(case(message, name, objects, is_said).differs(why));
    };
    let object = format!("object {id}\n");
    let head = format!("{object}type commit\ntag v1\n");
    let end = format!("tagger {PERSON}\n\ntext\n");
    let text = format!("type commit\ntag v1\n{end}");
    add("missingObject", "no object", text, true, READ_FIRST);
    let text = format!("object 1234\ntype commit\ntag v1\n{end}");
    add("badObjectSha1", "a short id", text, true, READ_FIRST);
    let text = format!("{object}tag v1\n{end}");
    add("missingTypeEntry", "no type", text, true, READ_FIRST);
    let text = format!("{object}type branch\ntag v1\n{end}");
    add("badType", "another type", text, true, READ_FIRST);
    let text = format!("{object}type commit\n{end}");
    add("missingTagEntry", "no name", text, true, READ_FIRST);
    for (name, is_said) in [
        ("a..b", true),
        ("a b", true),
        ("a.lock", true),
        ("a/b", false),
    ] {
        let text = format!("{object}type commit\ntag {name}\n{end}");
        add("badTagName", &format!("`{name}`"), text, is_said, "");
    }
    let text = format!("{head}\ntext\n");
    add("missingTaggerEntry", "no tagger", text, true, "");
    add(
        "missingTaggerEntry",
        "a tagger",
        format!("{head}{end}"),
        false,
        "",
    );
    let text = format!("{head}tagger {PERSON}\nmore\n\ntext\n");
    add("extraHeaderEntry", "one more header", text, false, "");
    let text = format!("{head}tagger {PERSON}\ngpgsig-sha256 a\n b\n\ntext\n");
    add("badGpgsig", "a signature", text, false, "");
    let text = format!("{head}tagger {PERSON}\0\n\ntext\n");
    add("nulInHeader", "in a tag", text, true, "");
    let text = format!("{head}tagger {PERSON}");
    add("unterminatedHeader", "in a tag", text, true, "");
    for &(message, line, is_said) in PERSONS {
        let name = format!("tagger `{}`", line.escape_default());
        let text = format!("{head}tagger {line}\n\ntext\n");
        add(message, &name, text, is_said, "");
    }
    let text = format!("{head}tagger A <a> 1 +000\nmore\n\ntext\n");
    let why = "git prints the error of the tagger and forgets it at the header that follows";
    add("badTimezone", "a tag with one more header", text, true, why);
    cases
}
