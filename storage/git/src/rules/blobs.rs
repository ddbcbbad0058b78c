//! Contents of `.gitmodules` and `.gitattributes`: `fsck_blob` of git's `fsck.c`.

use super::check::{Named, Report, Unsound, shown};
use super::config_text::{self, Read, Variable};
use super::levels::Message;
use super::url;

/// Larger `.gitmodules` are not parsed. Git's limit is `core.bigFileThreshold`; real files are far
/// below both.
pub(crate) const MODULES_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Git does not read larger `.gitattributes` (`ATTR_MAX_FILE_SIZE`).
pub(crate) const ATTRIBUTES_BYTES_MAX: u64 = 100 * 1024 * 1024;
/// Nor those with a line of at least so many bytes (`ATTR_MAX_LINE_LENGTH`).
const ATTRIBUTES_LINE_BYTES: usize = 2048;

/// Checks a file of attributes (CVE-2022-23521).
pub(super) fn check_attributes(report: &mut Report<'_>, blob: &Named<'_>) -> Result<(), Unsound> {
    let data = match blob {
        Named::Blob(data) => *data,
        Named::LargeBlob => {
            let text = ".gitattributes too large to parse";
            return report.add(Message::GitattributesLarge, text);
        }
        Named::Other => {
            let text = "non-blob found at .gitattributes";
            return report.add(Message::GitattributesBlob, text);
        }
        Named::Missing => {
            let text = "unable to read .gitattributes blob";
            return report.add(Message::GitattributesMissing, text);
        }
    };
    // Git ends the file at a NUL.
    let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut lines = text.split(|byte| *byte == b'\n');
    if lines.any(|line| line.len() >= ATTRIBUTES_LINE_BYTES) {
        let text = ".gitattributes has too long lines to parse";
        return report.add(Message::GitattributesLineLength, text);
    }
    Ok(())
}

/// Checks a file of submodules (CVE-2018-11235, CVE-2018-17456, CVE-2019-19604, CVE-2025-48384).
pub(super) fn check_modules(report: &mut Report<'_>, blob: &Named<'_>) -> Result<(), Unsound> {
    let data = match blob {
        Named::Blob(data) => *data,
        Named::LargeBlob => {
            let text = ".gitmodules too large to parse";
            return report.add(Message::GitmodulesLarge, text);
        }
        Named::Other => {
            let text = "non-blob found at .gitmodules";
            return report.add(Message::GitmodulesBlob, text);
        }
        Named::Missing => {
            let text = "unable to read .gitmodules blob";
            return report.add(Message::GitmodulesMissing, text);
        }
    };
    let mut modules = Modules {
        report: &mut *report,
        name_bytes: None,
    };
    let read = config_text::read(data, &mut |variable| modules.check(variable))?;
    if read == Read::Broken {
        let text = "could not parse gitmodules blob";
        report.add(Message::GitmodulesParse, text)?;
    }
    Ok(())
}

/// The submodules of a file.
struct Modules<'m, 'r> {
    report: &'m mut Report<'r>,
    /// Length of the name of the current submodule section in bytes; `None` in another section.
    name_bytes: Option<usize>,
}

impl Modules<'_, '_> {
    fn check(&mut self, variable: &Variable<'_>) -> Result<(), Unsound> {
        const SECTION: &[u8] = b"submodule.";
        let below = variable.section.strip_prefix(SECTION);
        if variable.is_first {
            // If a NUL ends the full name of the variable, the key is the part after its last dot.
            let name = below.and_then(|below| match variable.key {
                b"" => memchr::memrchr(b'.', below).map(|dot| &below[..dot]),
                _ => Some(below),
            });
            self.name_bytes = name.map(<[u8]>::len);
            if let Some(name) = name.filter(|name| !is_safe_module_name(name)) {
                let text = said("disallowed submodule name", name);
                self.report.add(Message::GitmodulesName, text)?;
            }
        }
        let (Some(below), Some(name_bytes), Some(value)) = (below, self.name_bytes, variable.value)
        else {
            return Ok(());
        };
        let key = match variable.key {
            b"" => below.get(name_bytes + 1..).unwrap_or_default(),
            key => key,
        };
        self.check_value(key, value)
    }

    fn check_value(&mut self, key: &[u8], value: &[u8]) -> Result<(), Unsound> {
        let (message, what) = match key {
            b"url" if !url::is_followed(value) => {
                (Message::GitmodulesUrl, "disallowed submodule url")
            }
            // Git once wrote such a path into a configuration and read it back without the carriage
            // return.
            b"path" if value.starts_with(b"-") || value.ends_with(b"\r") => {
                (Message::GitmodulesPath, "disallowed submodule path")
            }
            b"update" if value.starts_with(b"!") => (
                Message::GitmodulesUpdate,
                "disallowed submodule update setting",
            ),
            _ => return Ok(()),
        };
        self.report.add(message, said(what, value))
    }
}

fn said(what: &str, value: &[u8]) -> String {
    format!("{what}: {}", shown(value))
}

/// `check_submodule_name` of git's `submodule-config.c`: the name becomes a folder below
/// `.git/modules`.
fn is_safe_module_name(name: &[u8]) -> bool {
    let mut parts = name.split(|byte| matches!(byte, b'/' | b'\\'));
    !name.is_empty() && parts.all(|part| part != b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oid::{HashKind, Oid};
    use crate::rules::{ObjectCheck, ObjectRules};
    use henge_types::ObjectFormat;

    /// The message of the refusal of a file, or of the warning about it.
    fn of_modules(text: &str) -> String {
        said_of(|check, id| check.modules(id, &Named::Blob(text.as_bytes())))
    }

    fn said_of(action: impl FnOnce(&mut ObjectCheck<'_>, &Oid) -> Result<(), Unsound>) -> String {
        let rules = ObjectRules::strict();
        let mut check = ObjectCheck::new(&rules, ObjectFormat::Sha1);
        let outcome = action(&mut check, &Oid::null(HashKind::Sha1));
        let said = match outcome {
            Ok(()) => check.warnings.text(),
            Err(unsound) => unsound.to_string(),
        };
        let said = said.trim_start_matches("warning: ").trim_end();
        said.split_once(": ")
            .map_or(said, |(_, said)| said)
            .to_owned()
    }

    #[test]
    fn submodules_are_judged_as_by_git() {
        for text in [
            "[submodule \"a\"]\npath = a\nurl = ../a\nupdate = none\n",
            "[submodule \"a/..b\"]\nurl\n",
            "[submodule]\nurl = -x\n",
            "[core]\nurl = -x\n[submoduleX \"..\"]\na\n",
            "[submodule \"a\"]\npath = \"a\rb\"\n",
        ] {
            assert_eq!(of_modules(text), "", "{text:?}");
        }
        for (text, expected) in [
            (
                "[submodule \"../x\"]\na\n",
                "gitmodulesName: disallowed submodule name: ../x",
            ),
            (
                "[submodule \"a\\\\..\"]\na\n",
                "gitmodulesName: disallowed submodule name: a\\..",
            ),
            (
                "[submodule \"a.url\0\"]\nx = -y\n",
                "gitmodulesUrl: disallowed submodule url: -y",
            ),
            (
                "[submodule \"\"]\na\n",
                "gitmodulesName: disallowed submodule name: ",
            ),
            (
                "[submodule \"a\"]\nurl = -u./x\n",
                "gitmodulesUrl: disallowed submodule url: -u./x",
            ),
            (
                "[submodule \"a\"]\npath = -x\n",
                "gitmodulesPath: disallowed submodule path: -x",
            ),
            (
                "[submodule \"a\"]\npath = \"a\r\"\n",
                "gitmodulesPath: disallowed submodule path: a\r",
            ),
            (
                "[submodule \"a\"]\nupdate = !rm\n",
                "gitmodulesUpdate: disallowed submodule update setting: !rm",
            ),
            (
                "[submodule \"a\"]\nurl = -x\n[broken\n",
                "gitmodulesUrl: disallowed submodule url: -x",
            ),
            (
                "[broken\n",
                "gitmodulesParse: could not parse gitmodules blob",
            ),
        ] {
            // The end of a name may be white space.
            assert_eq!(
                of_modules(text),
                expected.trim_end_matches([' ', '\r']),
                "{text:?}"
            );
        }
    }

    #[test]
    fn attributes_have_short_lines() {
        let of_attributes = |length: usize, rest: &str| {
            let text = format!("{}{rest}", "a".repeat(length));
            said_of(|check, id| check.attributes(id, &Named::Blob(text.as_bytes())))
        };
        let too_long = "gitattributesLineLength: .gitattributes has too long lines to parse";
        assert_eq!(of_attributes(2047, "\nb"), "");
        assert_eq!(of_attributes(2048, "\nb"), too_long);
        assert_eq!(
            of_attributes(2047, &format!("\n{}", "b".repeat(2048))),
            too_long
        );
        assert_eq!(of_attributes(2047, &format!("\0{}", "b".repeat(2048))), "");
    }

    #[test]
    fn what_is_no_file_of_a_bearable_size_is_refused() {
        for (named, modules, attributes) in [
            (Named::LargeBlob, "gitmodulesLarge", "gitattributesLarge"),
            (Named::Other, "gitmodulesBlob", "gitattributesBlob"),
            (Named::Missing, "gitmodulesMissing", "gitattributesMissing"),
        ] {
            let said = said_of(|check, id| check.modules(id, &named));
            assert!(said.starts_with(modules), "{said}");
            let said = said_of(|check, id| check.attributes(id, &named));
            assert!(said.starts_with(attributes), "{said}");
        }
    }
}
