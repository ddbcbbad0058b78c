//! Links of the documentation: every relative link and every mention of a page leads to a file.

use std::collections::BTreeSet;

use crate::SourceFile;

/// The folder of `path`, with its parts.
fn folder(path: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    parts
}

/// The path of `target`, seen from the page `from`; `None` when it leaves the tree.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts = folder(from);
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The targets of `](…)` in a page, outside code blocks.
fn targets(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let (target, after) = after.split_once(')').unwrap_or((after, ""));
            found.push(target.split([' ', '#']).next().unwrap_or(target));
            rest = after;
        }
    }
    found
}

/// Mentions like `docs/x.md` in a page, from the root of the tree.
fn mentions(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "/-_.".contains(c)))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| word.starts_with("docs/") && word.ends_with(".md"))
        .collect()
}

/// Links and mentions without a file, in the Markdown pages among `files`. `tree` holds the path of
/// every file of the tree.
pub fn broken(files: &[SourceFile], tree: &BTreeSet<String>) -> Vec<String> {
    let exists = |path: &str| {
        let below = format!("{path}/");
        path.is_empty()
            || tree.contains(path)
            || tree
                .range(below.clone()..)
                .next()
                .is_some_and(|next| next.starts_with(&below))
    };
    let mut found = Vec::new();
    for page in files.iter().filter(|file| file.path.ends_with(".md")) {
        for target in targets(&page.text) {
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !resolve(&page.path, target).is_some_and(|path| exists(&path)) {
                found.push(format!("{}: no file behind the link {target:?}", page.path));
            }
        }
        for mention in mentions(&page.text) {
            if !exists(mention) {
                found.push(format!("{}: there is no {mention}", page.path));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_or_out_of_the_tree_are_found() {
        let tree: BTreeSet<String> = ["README.md", "docs/a.md", "docs/adr/0001.md"]
            .map(str::to_owned)
            .into();
        let page = "[a](a.md#x) [r](../README.md) [adr](adr/) [web](https://x/) [here](#h)\n\
                    See `docs/a.md`.\n```\n[no](link.md)\n```\n";
        assert!(broken(&[SourceFile::new("docs/b.md", page)], &tree).is_empty());
        let page = "[x](x.md) [out](../../etc) and docs/gone.md.";
        assert_eq!(
            broken(&[SourceFile::new("docs/b.md", page)], &tree).len(),
            3
        );
    }
}
