//! Messages, and their effect on a push.

use std::collections::BTreeSet;

use henge_types::{ObjectFormat, ObjectId};

/// The severity of a message in `fsck.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// An error that no configuration can demote.
    Fatal,
    /// An error.
    Error,
    /// A warning of `git fsck`; an error of `git fsck --strict` and of pushes.
    Warn,
    /// A warning everywhere.
    Info,
    /// Not reported by default.
    Ignore,
}

impl Severity {
    /// The effect on a push without configuration: git checks pushed objects with `--strict`.
    pub const fn on_push(self) -> Level {
        match self {
            Self::Fatal | Self::Error | Self::Warn => Level::Error,
            Self::Info => Level::Warn,
            Self::Ignore => Level::Ignore,
        }
    }
}

/// The effect of a message on a push: `error`, `warn` or `ignore` of `receive.fsck.<msg-id>`
/// (git-config(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// No effect.
    Ignore,
    /// A warning; the push continues.
    Warn,
    /// The push is refused.
    Error,
}

/// Whether a demotion of the message could harm clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// The message protects clients, or does not occur in known histories.
    Possible,
    /// The message occurs in old histories and harms no client: lenient rules make it a warning.
    None,
}

macro_rules! messages {
    ($($(#[$doc:meta])* $variant:ident $name:literal $severity:ident $harm:ident;)*) => {
        /// A message of git's fsck about an object.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Message {
            $($(#[$doc])* $variant,)*
        }

        impl Message {
            /// All of them, in the order of `fsck.h`.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The id of the message in configuration and in git's output.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The severity without configuration.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$variant => Severity::$severity,)*
                }
            }

            const fn harm(self) -> Harm {
                match self {
                    $(Self::$variant => Harm::$harm,)*
                }
            }
        }
    };
}

messages! {
    /// A NUL in the header of a commit or tag.
    NulInHeader "nulInHeader" Fatal Possible;
    /// The header of a commit or tag has no end.
    UnterminatedHeader "unterminatedHeader" Fatal Possible;
    /// A continued header line of a tag has no end.
    BadHeaderContinuation "badHeaderContinuation" Error Possible;
    /// A malformed date.
    BadDate "badDate" Error None;
    /// A date that overflows 64 bits.
    BadDateOverflow "badDateOverflow" Error None;
    /// A mail address without its end, or with a bracket inside.
    BadEmail "badEmail" Error None;
    /// The signature of a tag has no end.
    BadGpgsig "badGpgsig" Error Possible;
    /// A name with a bracket in it.
    BadName "badName" Error None;
    /// A tag with a malformed id of its object.
    BadObjectSha1 "badObjectSha1" Error Possible;
    /// A commit with a malformed parent.
    BadParentSha1 "badParentSha1" Error Possible;
    /// A time zone that is not a sign and four digits.
    BadTimezone "badTimezone" Error None;
    /// A tree that cannot be parsed.
    BadTree "badTree" Error Possible;
    /// A commit with a malformed id of its tree.
    BadTreeSha1 "badTreeSha1" Error Possible;
    /// A tag with an unknown type of its object.
    BadType "badType" Error Possible;
    /// Two entries of a tree have one name.
    DuplicateEntries "duplicateEntries" Error Possible;
    /// The entry `.gitattributes` of a tree is not a file.
    GitattributesBlob "gitattributesBlob" Error Possible;
    /// A `.gitattributes` file of more than 100 MiB.
    GitattributesLarge "gitattributesLarge" Error Possible;
    /// A `.gitattributes` file with a line of 2,048 bytes or more.
    GitattributesLineLength "gitattributesLineLength" Error Possible;
    /// A missing `.gitattributes` file.
    GitattributesMissing "gitattributesMissing" Error Possible;
    /// The entry `.gitmodules` of a tree is not a file.
    GitmodulesBlob "gitmodulesBlob" Error Possible;
    /// A `.gitmodules` file too large to parse.
    GitmodulesLarge "gitmodulesLarge" Error Possible;
    /// A missing `.gitmodules` file.
    GitmodulesMissing "gitmodulesMissing" Error Possible;
    /// The name of a submodule leads out of its folder.
    GitmodulesName "gitmodulesName" Error Possible;
    /// The path of a submodule looks like an option, or ends with a carriage return.
    GitmodulesPath "gitmodulesPath" Error Possible;
    /// `.gitmodules` is a symbolic link.
    GitmodulesSymlink "gitmodulesSymlink" Error Possible;
    /// A `.gitmodules` file that names a command to run.
    GitmodulesUpdate "gitmodulesUpdate" Error Possible;
    /// The URL of a submodule looks like an option, or hides another host.
    GitmodulesUrl "gitmodulesUrl" Error Possible;
    /// A commit without an author.
    MissingAuthor "missingAuthor" Error Possible;
    /// A commit without a committer.
    MissingCommitter "missingCommitter" Error Possible;
    /// A person without a mail address.
    MissingEmail "missingEmail" Error None;
    /// A person without a name.
    MissingNameBeforeEmail "missingNameBeforeEmail" Error None;
    /// A tag without an object.
    MissingObject "missingObject" Error Possible;
    /// No space between mail address and date.
    MissingSpaceBeforeDate "missingSpaceBeforeDate" Error None;
    /// No space between name and mail address.
    MissingSpaceBeforeEmail "missingSpaceBeforeEmail" Error None;
    /// The name of a tag has no end.
    MissingTag "missingTag" Error Possible;
    /// A tag without a name.
    MissingTagEntry "missingTagEntry" Error Possible;
    /// A commit without a tree.
    MissingTree "missingTree" Error Possible;
    /// The type line of a tag has no end.
    MissingType "missingType" Error Possible;
    /// A tag without the type of its object.
    MissingTypeEntry "missingTypeEntry" Error Possible;
    /// A commit with more than one author.
    MultipleAuthors "multipleAuthors" Error None;
    /// The entries of a tree are not sorted.
    TreeNotSorted "treeNotSorted" Error Possible;
    /// A date that begins with a zero.
    ZeroPaddedDate "zeroPaddedDate" Error None;
    /// An entry of a tree without a name. Such a tree cannot be parsed, so the message is
    /// `badTree`.
    EmptyName "emptyName" Warn Possible;
    /// An entry of a tree with a slash in its name.
    FullPathname "fullPathname" Warn Possible;
    /// An entry of a tree called `.`.
    HasDot "hasDot" Warn Possible;
    /// An entry of a tree called `..`.
    HasDotdot "hasDotdot" Warn Possible;
    /// An entry of a tree that some file system treats as `.git`.
    HasDotgit "hasDotgit" Warn Possible;
    /// An entry of a tree with a very long name.
    LargePathname "largePathname" Warn Possible;
    /// An entry of a tree with the id of zeros.
    NullSha1 "nullSha1" Warn Possible;
    /// A NUL in the text of a commit.
    NulInCommit "nulInCommit" Warn Possible;
    /// An entry of a tree whose mode begins with a zero.
    ZeroPaddedFilemode "zeroPaddedFilemode" Warn None;
    /// An entry of a tree with a mode that git does not write.
    BadFilemode "badFilemode" Info None;
    /// A tag whose name is no valid ref name.
    BadTagName "badTagName" Info None;
    /// `.gitattributes` is a symbolic link.
    GitattributesSymlink "gitattributesSymlink" Info None;
    /// `.gitignore` is a symbolic link.
    GitignoreSymlink "gitignoreSymlink" Info None;
    /// A `.gitmodules` file that cannot be parsed to its end.
    GitmodulesParse "gitmodulesParse" Info None;
    /// `.mailmap` is a symbolic link.
    MailmapSymlink "mailmapSymlink" Info None;
    /// A tag without its tagger.
    MissingTaggerEntry "missingTaggerEntry" Info None;
    /// An unknown header of a tag.
    ExtraHeaderEntry "extraHeaderEntry" Ignore None;
}

/// Git's messages about refs and stores, which never concern a pushed object.
const NOT_OF_OBJECTS: &[&str] = &[
    "badheadtarget",
    "badpackedrefentry",
    "badpackedrefheader",
    "badrefcontent",
    "badreferentname",
    "badreffiletype",
    "badrefname",
    "badrefoid",
    "badreftabletablename",
    "emptypackedrefsfile",
    "packedrefentrynotterminated",
    "packedrefunsorted",
    "refmissingnewline",
    "symlinkref",
    "symreftargetisnotaref",
    "trailingrefcontent",
    "unknowntype",
];

/// The maximum length of a name in a tree without [`Message::LargePathname`], in bytes.
const NAME_BYTES_MAX: usize = 4096;

/// Reasons to reject a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// There is no such message.
    #[error("unknown message id '{name}'")]
    UnknownMessage {
        /// The name in the setting.
        name: String,
    },
    /// The level is neither `error`, `warn` nor `ignore`.
    #[error("unknown fsck message type: '{level}'")]
    UnknownLevel {
        /// The level in the setting.
        level: String,
    },
    /// A fatal message cannot be demoted.
    #[error("cannot demote {name} to {level}")]
    Fatal {
        /// The message.
        name: String,
        /// The level in the setting.
        level: String,
    },
    /// The limit after the level of `largePathname` is not a number.
    #[error("unable to parse max tree entry len: {bytes}")]
    NameBytes {
        /// The limit in the setting.
        bytes: String,
    },
    /// A line of a list of skipped objects is not an id.
    #[error("invalid object name: {line}")]
    SkipList {
        /// The line.
        line: String,
    },
}

/// The rules for every object of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRules {
    levels: [Level; Message::ALL.len()],
    name_bytes_max: usize,
    skipped: BTreeSet<ObjectId>,
}

impl ObjectRules {
    /// Git's rules with `receive.fsckObjects` and no other setting.
    pub fn strict() -> Self {
        Self::with(|message| message.severity().on_push())
    }

    /// The same, with a warning for every message that occurs in old histories and harms no client.
    pub fn lenient() -> Self {
        Self::with(
            |message| match (message.harm(), message.severity().on_push()) {
                (Harm::None, Level::Error) => Level::Warn,
                (Harm::None | Harm::Possible, level) => level,
            },
        )
    }

    fn with(level: impl Fn(Message) -> Level) -> Self {
        let mut levels = [Level::Error; Message::ALL.len()];
        for (slot, message) in levels.iter_mut().zip(Message::ALL) {
            *slot = level(*message);
        }
        Self {
            levels,
            name_bytes_max: NAME_BYTES_MAX,
            skipped: BTreeSet::new(),
        }
    }

    /// The effect of a message on a push.
    pub const fn level(&self, message: Message) -> Level {
        self.levels[message as usize]
    }

    /// Sets `receive.fsck.<name>`; `name` is case-insensitive.
    ///
    /// # Errors
    /// When the message or level does not exist, or a fatal message is demoted.
    pub fn set(&mut self, name: &str, level: &str) -> Result<(), RuleError> {
        let mut all = Message::ALL.iter().zip(&mut self.levels);
        let Some((message, slot)) =
            all.find(|(message, _)| message.as_str().eq_ignore_ascii_case(name))
        else {
            let is_known = NOT_OF_OBJECTS.contains(&name.to_ascii_lowercase().as_str());
            let name = name.to_owned();
            return match is_known {
                true => parse_level(level).map(|_| ()),
                false => Err(RuleError::UnknownMessage { name }),
            };
        };
        let mut word = level;
        if *message == Message::LargePathname
            && let Some((before, bytes)) = level.split_once(':')
        {
            word = before;
            self.name_bytes_max = parse_bytes(bytes).ok_or_else(|| RuleError::NameBytes {
                bytes: bytes.to_owned(),
            })?;
        }
        let parsed = parse_level(word)?;
        if message.severity() == Severity::Fatal && parsed != Level::Error {
            return Err(RuleError::Fatal {
                name: name.to_owned(),
                level: word.to_owned(),
            });
        }
        *slot = parsed;
        Ok(())
    }

    /// Exempts the objects of a list: one id a line, `#` begins a comment (`fsck.skipList` of
    /// git-config(1)).
    ///
    /// # Errors
    /// When a line is not an id of this format.
    pub fn skip(&mut self, list: &str, format: ObjectFormat) -> Result<(), RuleError> {
        for line in list.lines() {
            let said = line.split('#').next().unwrap_or_default().trim();
            if said.is_empty() {
                continue;
            }
            let id: Option<ObjectId> = said.parse().ok();
            let id = id.filter(|id| id.format() == format);
            let id = id.ok_or_else(|| RuleError::SkipList {
                line: said.to_owned(),
            })?;
            self.skipped.insert(id);
        }
        Ok(())
    }

    /// Whether an object is exempt.
    pub(super) fn skips(&self, id: impl FnOnce() -> ObjectId) -> bool {
        !self.skipped.is_empty() && self.skipped.contains(&id())
    }

    pub(super) const fn name_bytes_max(&self) -> usize {
        self.name_bytes_max
    }
}

/// Whether lenient rules would accept a push with this text of refusal, as far as the text shows.
pub fn is_eased(refusal: &str) -> bool {
    let (strict, lenient) = (ObjectRules::strict(), ObjectRules::lenient());
    let mut eased = Message::ALL
        .iter()
        .filter(|message| strict.level(**message) != lenient.level(**message));
    eased.any(|message| refusal.contains(&format!(": {}: ", message.as_str())))
}

fn parse_level(text: &str) -> Result<Level, RuleError> {
    match text {
        "error" => Ok(Level::Error),
        "warn" => Ok(Level::Warn),
        "ignore" => Ok(Level::Ignore),
        _ => Err(RuleError::UnknownLevel {
            level: text.to_owned(),
        }),
    }
}

/// Parses a number of bytes with one of git's units, or without.
fn parse_bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, unit) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 1 << 10),
        b'm' => (&text[..text.len() - 1], 1 << 20),
        b'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_refused_for_warnings_too() {
        let strict = ObjectRules::strict();
        assert_eq!(strict.level(Message::HasDotgit), Level::Error);
        assert_eq!(strict.level(Message::ZeroPaddedFilemode), Level::Error);
        assert_eq!(strict.level(Message::BadFilemode), Level::Warn);
        assert_eq!(strict.level(Message::ExtraHeaderEntry), Level::Ignore);
    }

    #[test]
    fn lenient_rules_keep_what_protects_clients() {
        let (strict, lenient) = (ObjectRules::strict(), ObjectRules::lenient());
        let mut eased = Vec::new();
        for message in Message::ALL {
            if strict.level(*message) != lenient.level(*message) {
                assert_eq!(lenient.level(*message), Level::Warn);
                eased.push(message.as_str());
            }
        }
        assert_eq!(
            eased,
            [
                "badDate",
                "badDateOverflow",
                "badEmail",
                "badName",
                "badTimezone",
                "missingEmail",
                "missingNameBeforeEmail",
                "missingSpaceBeforeDate",
                "missingSpaceBeforeEmail",
                "multipleAuthors",
                "zeroPaddedDate",
                "zeroPaddedFilemode",
            ]
        );
    }

    #[test]
    fn words_tell_what_lenient_rules_would_take() {
        let says = |message: &str| format!("refused: object 12ab: {message}: text");
        assert!(is_eased(&says("zeroPaddedFilemode")));
        assert!(!is_eased(&says("hasDotgit")));
        assert!(!is_eased("refused: badDate"));
    }

    #[test]
    fn a_level_is_set_as_git_sets_it() {
        let mut rules = ObjectRules::strict();
        rules.set("BADTIMEZONE", "ignore").unwrap();
        rules.set("largePathname", "warn:10").unwrap();
        assert_eq!(rules.name_bytes_max(), 10);
        rules.set("largepathname", "error:2k").unwrap();
        assert_eq!(rules.level(Message::LargePathname), Level::Error);
        rules.set("badRefName", "warn").unwrap();
        rules.set("nulInHeader", "error").unwrap();
        assert_eq!(rules.level(Message::BadTimezone), Level::Ignore);
        assert_eq!(rules.name_bytes_max(), 2048);
        for (name, level, says) in [
            ("nothing", "warn", "unknown message id 'nothing'"),
            ("badDate", "Warn", "unknown fsck message type: 'Warn'"),
            ("badRefName", "no", "unknown fsck message type: 'no'"),
            ("nulInHeader", "warn", "cannot demote nulInHeader to warn"),
            (
                "largePathname",
                "warn:x",
                "unable to parse max tree entry len: x",
            ),
        ] {
            let refused = rules.set(name, level).unwrap_err();
            assert_eq!(refused.to_string(), says);
        }
    }

    #[test]
    fn a_skip_list_may_have_comments() {
        let mut rules = ObjectRules::strict();
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let list = format!("# all of them\n\n  {one}  # why\n{two}\n");
        rules.skip(&list, ObjectFormat::Sha1).unwrap();
        assert!(rules.skips(|| one.parse().unwrap()));
        assert!(!rules.skips(|| "3".repeat(40).parse().unwrap()));
        for bad in ["main", &"1".repeat(39), &"1".repeat(64)] {
            assert!(rules.skip(bad, ObjectFormat::Sha1).is_err(), "{bad}");
        }
    }
}
