//! Lints: every crate takes the workspace's. A pure crate's `clippy.toml` repeats the root's,
//! because a crate's own file replaces the root's instead of adding to it.

use toml::{Table, Value};

/// Entries of the root's `clippy.toml` that a pure crate's own file lacks or changes. A missing
/// list of banned types or methods is reported too.
///
/// # Errors
/// When one of the files does not parse.
pub fn missing_from(path: &str, strict: &str, root: &str) -> Result<Vec<String>, String> {
    let parse = |name: &str, text: &str| -> Result<Table, String> {
        text.parse().map_err(|error| format!("{name}: {error}"))
    };
    let (strict, root) = (parse(path, strict)?, parse("clippy.toml", root)?);
    let mut found = Vec::new();
    for (key, value) in &root {
        match (strict.get(key), value) {
            (Some(Value::Array(ours)), Value::Array(theirs)) => {
                for entry in theirs.iter().filter(|entry| !ours.contains(entry)) {
                    found.push(format!("{path}: {key} lacks the root's {entry}"));
                }
            }
            (Some(ours), theirs) if ours == theirs => {}
            _ => found.push(format!("{path}: {key} is not the root's {value}")),
        }
    }
    for key in ["disallowed-types", "disallowed-methods"] {
        if !strict.contains_key(key) {
            found.push(format!(
                "{path}: no {key}: a pure crate bans clocks, files and hash maps"
            ));
        }
    }
    Ok(found)
}

/// Reports a manifest that does not take the workspace's lints.
///
/// # Errors
/// When it does not parse.
pub fn own_lints(path: &str, manifest: &str) -> Result<Vec<String>, String> {
    let manifest: Table = manifest
        .parse()
        .map_err(|error| format!("{path}: {error}"))?;
    let inherits = manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(Value::as_bool);
    if inherits == Some(true) {
        return Ok(Vec::new());
    }
    Ok(vec![format!("{path}: no `[lints] workspace = true`")])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "a = 1\ndisallowed-methods = [{ path = \"x\", reason = \"r\" }]\n";

    #[test]
    fn a_missing_entry_and_another_threshold_are_found() {
        let same = format!("{ROOT}disallowed-types = []\n");
        assert_eq!(missing_from("p", &same, ROOT), Ok(vec![]));
        let other = "a = 2\ndisallowed-methods = []\n";
        assert_eq!(missing_from("p", other, ROOT).unwrap().len(), 3);
    }

    #[test]
    fn a_manifest_without_the_lints_is_found() {
        assert_eq!(own_lints("m", "[lints]\nworkspace = true\n"), Ok(vec![]));
        assert_eq!(
            own_lints("m", "[package]\nname = \"x\"\n").unwrap().len(),
            1
        );
    }
}
