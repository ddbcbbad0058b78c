//! The checks of pushed objects: `receive.fsckObjects`, `transfer.fsckObjects` and `receive.fsck.*`
//! of git-config(1).

use std::path::Path;
use std::sync::Arc;

use gix_config::File;
use henge_types::ObjectFormat;

use crate::rules::{ObjectRules, RuleError};

use super::ConfigError;

/// The rules of a repository; `None` where its objects are not checked.
pub(super) fn object_rules(
    file: &File,
    repository: &Path,
    format: ObjectFormat,
) -> Result<Option<Arc<ObjectRules>>, ConfigError> {
    let is_on = match file.boolean("receive.fsckObjects")? {
        Some(is_on) => is_on,
        None => file.boolean("transfer.fsckObjects")?.unwrap_or(false),
    };
    if !is_on {
        return Ok(None);
    }
    let mut rules = ObjectRules::strict();
    for section in file.sections() {
        let header = section.header();
        let is_of_rules = header.name().eq_ignore_ascii_case(b"receive")
            && header.subsection_name().is_some_and(|name| name == "fsck");
        if !is_of_rules {
            continue;
        }
        for (name, value) in section.body() {
            let value = value.to_string();
            let outcome = match name.eq_ignore_ascii_case("skipList") {
                true => rules.skip(&read_list(repository, &value)?, format),
                false => rules.set(&name, &value),
            };
            match outcome {
                Ok(()) => {}
                Err(RuleError::UnknownMessage { name }) => {
                    tracing::warn!(name, "receive.fsck names a message that is not known");
                }
                Err(source) => return Err(ConfigError::Rule { name, source }),
            }
        }
    }
    Ok(Some(Arc::new(rules)))
}

/// Reads the list at `path`, which is relative to the repository.
fn read_list(repository: &Path, path: &str) -> Result<String, ConfigError> {
    if path.starts_with('~') {
        // Home directories are unknown here.
        let what = "a home folder in receive.fsck.skipList".to_owned();
        return Err(ConfigError::Unsupported { what });
    }
    let path = repository.join(path);
    let list = std::fs::read(&path);
    let list = list.map_err(|source| ConfigError::SkipList { path, source })?;
    Ok(String::from_utf8_lossy(&list).into_owned())
}
