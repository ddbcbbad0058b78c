//! One object against the rules: what refuses it, and what is only told.

use std::borrow::Cow;
use std::collections::BTreeSet;

use gix_object::Kind;
use henge_types::ObjectFormat;

use crate::oid::{Oid, from_gix, oid};
use crate::push::one_line;

use super::levels::{Level, Message, ObjectRules};
use super::{blobs, headers, tree};

/// Warnings that are told one by one.
const WARNINGS_TOLD_MAX: usize = 20;

/// An object that a rule refuses, in the words of `git index-pack --strict`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("object {id}: {}: {text}", .message.as_str())]
pub(crate) struct Unsound {
    id: Oid,
    message: Message,
    text: Cow<'static, str>,
}

/// What was found and refuses nothing.
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

    /// A line for each of the first, and how many more there are; empty where there are none.
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

/// Blobs that trees give a name with a meaning: what is in them has rules of its own.
#[derive(Debug, Default)]
pub(crate) struct NamedBlobs {
    /// What is called `.gitmodules` somewhere.
    pub(crate) modules: BTreeSet<Oid>,
    /// What is called `.gitattributes` somewhere.
    pub(crate) attributes: BTreeSet<Oid>,
}

impl NamedBlobs {
    /// Takes those of `other` as well.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.modules.append(&mut other.modules);
        self.attributes.append(&mut other.attributes);
    }

    /// Leaves out those that `keep` says no to.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Oid) -> bool) {
        self.modules.retain(&keep);
        self.attributes.retain(&keep);
    }
}

/// Whether an object was checked before: then nothing is told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It was not.
    First,
    /// It was.
    Again,
}

/// The check of all objects of one push.
pub(crate) struct ObjectCheck<'a> {
    rules: &'a ObjectRules,
    format: ObjectFormat,
    /// What was found so far.
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

    /// Checks a commit, a tree or a tag. Blobs are checked by what trees call them: their ids are left in `named`.
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

    /// Checks what a tree calls `.gitmodules`.
    pub(crate) fn modules(&mut self, id: &oid, blob: &Named<'_>) -> Result<(), Unsound> {
        blobs::check_modules(&mut self.report(id, Pass::First), blob)
    }

    /// Checks what a tree calls `.gitattributes`.
    pub(crate) fn attributes(&mut self, id: &oid, blob: &Named<'_>) -> Result<(), Unsound> {
        blobs::check_attributes(&mut self.report(id, Pass::First), blob)
    }
}

/// What a tree gives a name with a meaning.
#[derive(Debug)]
pub(crate) enum Named<'a> {
    /// A file.
    Blob(&'a [u8]),
    /// A file with more bytes than are read for this.
    LargeBlob,
    /// Something else.
    Other,
    /// Nothing that is there.
    Missing,
}

/// Where checks leave what they find of one object.
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

    /// Says something of the object.
    ///
    /// # Errors
    /// When it refuses the push.
    pub(super) fn add(
        &mut self,
        message: Message,
        text: impl Into<Cow<'static, str>>,
    ) -> Result<(), Unsound> {
        let id = self.id;
        self.add_of(id, message, text)
    }

    /// Says something of another object, which this one names.
    ///
    /// # Errors
    /// When it refuses the push.
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

/// Bytes of an object that are told.
const SHOWN_BYTES_MAX: usize = 400;

/// The beginning of what an object says, as text.
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
