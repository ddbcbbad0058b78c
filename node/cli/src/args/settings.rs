//! What can be set of a repository after it was made.

use clap::Subcommand;
use henge_types::{FsckLevel, OwnerName, RefPattern, RepoName, RepoPath};

use super::long_help;
use crate::exit::EXIT_CODES_HELP;

/// Verbs that change what a repository is called, who sees it, and what may be pushed.
#[derive(Debug, Subcommand)]
pub enum SettingsVerb {
    /// Change what is said of a repository, and who sees it
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Edit {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// One line about it
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// What HEAD points at, without refs/heads/
        #[arg(long, value_name = "BRANCH")]
        default_branch: Option<String>,
        /// Only its owner sees it
        #[arg(long, conflicts_with = "public")]
        private: bool,
        /// Everybody may fetch it, without a token
        #[arg(long)]
        public: bool,
        /// What it is about, instead of what was said before; more than once for more topics, once and empty for none
        #[arg(long, value_name = "TOPIC")]
        topic: Vec<String>,
        /// How pushed objects are checked: as git does, or lenient with what old histories are known for
        #[arg(long, value_name = "strict|lenient")]
        fsck: Option<FsckLevel>,
    },
    /// Make a repository read-only: pushes are refused, fetches go on
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Archive {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
    },
    /// Let pushes into an archived repository again
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Unarchive {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
    },
    /// Give a repository another name; the old one leads to it until another repository takes it
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Rename {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// Its name from here on
        #[arg(value_name = "NEW")]
        name: RepoName,
    },
    /// Give a repository to another owner; the old name leads to it until another repository takes it
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Transfer {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// Who owns it from here on
        #[arg(value_name = "NEW_OWNER")]
        owner: OwnerName,
    },
    /// Protect refs: no push deletes them or takes history from them
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Protect {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// Branches (main, release/*) or other refs (refs/tags/*); patterns as in gitignore(5)
        #[arg(value_name = "PATTERN")]
        pattern: RefPattern,
    },
    /// Take the protection of refs away
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Unprotect {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// The pattern, as it was given to protect
        #[arg(value_name = "PATTERN")]
        pattern: RefPattern,
    },
}
