//! Checks one object against the rules: refusals, and warnings.

use std::borrow::Cow;
use std::collections::BTreeSet;

use gix_object::Kind;
use henge_types::ObjectFormat;

use crate::oid::{Oid, from_gix, oid};
use crate::push::one_line;

use super::levels::{Level, Message, ObjectRules};
use super::{blobs, headers, tree};

/// The maximum number of warnings listed one by one.
const WARNINGS_TOLD_MAX: usize = 20;

/// An object refused by a rule, in the words of `git index-pack --strict`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("object {id}: {}: {text}", .message.as_str())]
pub(crate) struct Unsound {
    id: Oid,
    message: Message,
    text: Cow<'static, str>,
}

/// Findings that do not refuse an object.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    told: Vec<String>,
    more: u64,
}

impl Warnings {
    fn push(&mut self, warning: impl FnOnce() -> String) {
        if self.told.len() < WARNINGS_TOLD_MAX {
            self.told.push(warning());
        } else {
            self.more += 1;
        }
    }

    /// A line for each of the first warnings, and the number of the others; empty without warnings.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for warning in &self.told {
            text.push_str(warning);
            text.push('\n');
        }
        if self.more > 0 {
            text.push_str(&format!("... and {} more warnings\n", self.more));
        }
        text
    }
}

/// Blobs that trees give a name with a special meaning: their contents have rules of their own.
#[derive(Debug, Default)]
pub(crate) struct NamedBlobs {
    /// Blobs with the name `.gitmodules` in some tree.
    pub(crate) modules: BTreeSet<Oid>,
    /// Blobs with the name `.gitattributes` in some tree.
    pub(crate) attributes: BTreeSet<Oid>,
}

impl NamedBlobs {
    /// Adds those of `other`.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.modules.append(&mut other.modules);
        self.attributes.append(&mut other.attributes);
    }

    /// Removes those for which `keep` returns false.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Oid) -> bool) {
        self.modules.retain(&keep);
        self.attributes.retain(&keep);
    }
}

/// Whether an object was checked before: then its warnings are not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The first check.
    First,
    /// A repeated check.
    Again,
}

/// The check of all objects of one push.
pub(crate) struct ObjectCheck<'a> {
    rules: &'a ObjectRules,
    format: ObjectFormat,
    /// The warnings so far.
    pub(crate) warnings: Warnings,
}

impl<'a> ObjectCheck<'a> {
    pub(crate) const fn new(rules: &'a ObjectRules, format: ObjectFormat) -> Self {
        Self {
            rules,
            format,
            warnings: Warnings {
                told: Vec::new(),
                more: 0,
            },
        }
    }

    fn report<'r>(&'r mut self, id: &'r oid, pass: Pass) -> Report<'r> {
        Report {
            rules: self.rules,
            id,
            pass,
            warnings: &mut self.warnings,
        }
    }

    /// Checks a commit, a tree or a tag. Blobs are checked by their names in trees: their ids are
    /// added to `named`.
    pub(crate) fn object(
        &mut self,
        id: &oid,
        kind: Kind,
        data: &[u8],
        named: &mut NamedBlobs,
        pass: Pass,
    ) -> Result<(), Unsound> {
        let format = self.format;
        let mut report = self.report(id, pass);
        match kind {
            Kind::Commit => headers::check_commit(&mut report, data, format),
            Kind::Tag => headers::check_tag(&mut report, data, format),
            Kind::Tree => tree::check(&mut report, data, format, named),
            Kind::Blob => Ok(()),
        }
    }

    /// Checks an object with the name `.gitmodules` in a tree.
    pub(crate) fn modules(&mut self, id: &oid, blob: &Named<'_>) -> Result<(), Unsound> {
        blobs::check_modules(&mut self.report(id, Pass::First), blob)
    }

    /// Checks an object with the name `.gitattributes` in a tree.
    pub(crate) fn attributes(&mut self, id: &oid, blob: &Named<'_>) -> Result<(), Unsound> {
        blobs::check_attributes(&mut self.report(id, Pass::First), blob)
    }
}

/// An object that a tree gives a name with a special meaning.
#[derive(Debug)]
pub(crate) enum Named<'a> {
    /// A file.
    Blob(&'a [u8]),
    /// A file over the limit of this check.
    LargeBlob,
    /// An object of another kind.
    Other,
    /// A missing object.
    Missing,
}

/// Collects the findings about one object.
pub(super) struct Report<'a> {
    rules: &'a ObjectRules,
    id: &'a oid,
    pass: Pass,
    warnings: &'a mut Warnings,
}

impl Report<'_> {
    pub(super) const fn rules(&self) -> &ObjectRules {
        self.rules
    }

    /// Adds a finding about the object.
    ///
    /// # Errors
    /// When the finding refuses the push.
    pub(super) fn add(
        &mut self,
        message: Message,
        text: impl Into<Cow<'static, str>>,
    ) -> Result<(), Unsound> {
        let id = self.id;
        self.add_of(id, message, text)
    }

    /// Adds a finding about another object, which this one names.
    ///
    /// # Errors
    /// When the finding refuses the push.
    pub(super) fn add_of(
        &mut self,
        id: &oid,
        message: Message,
        text: impl Into<Cow<'static, str>>,
    ) -> Result<(), Unsound> {
        let level = self.rules.level(message);
        if level == Level::Ignore || self.rules.skips(|| from_gix(id)) {
            return Ok(());
        }
        let said = Unsound {
            id: id.to_owned(),
            message,
            text: text.into(),
        };
        if level == Level::Error {
            return Err(said);
        }
        if self.pass == Pass::First {
            self.warnings.push(|| one_line(&format!("warning: {said}")));
        }
        Ok(())
    }
}

/// The maximum number of bytes of an object in a message.
const SHOWN_BYTES_MAX: usize = 400;

/// The beginning of a part of an object, as text.
pub(super) fn shown(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_told_to_a_bound() {
        let mut warnings = Warnings::default();
        assert_eq!(warnings.text(), "");
        for number in 0..WARNINGS_TOLD_MAX + 2 {
            warnings.push(|| format!("warning: {number}"));
        }
        let text = warnings.text();
        assert!(text.starts_with("warning: 0\n"), "{text}");
        assert!(text.ends_with("warning: 19\n... and 2 more warnings\n"));
    }
}
