//! The arguments of `henge repo mirror …`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use henge_types::{MirrorId, RepoPath};

use super::{EXIT_CODES_HELP, long_help};

/// `henge repo mirror …`
#[derive(Debug, Args)]
pub struct MirrorRepo {
    /// What to do.
    #[command(subcommand)]
    pub verb: MirrorVerb,
}

/// What can be done with mirrors.
#[derive(Debug, Subcommand)]
pub enum MirrorVerb {
    /// Make a mirror, which is due at once
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Add {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// Which way.
        #[command(flatten)]
        direction: Direction,
        /// From one firing to the next: 90s, 30m, 8h, 1d
        #[arg(long, value_name = "TIME", value_parser = span)]
        every: Duration,
        /// A file with a token or password for the other side, which only its owner may read
        #[arg(long, value_name = "FILE")]
        remote_token_file: Option<PathBuf>,
        /// Also after every push; only with --push
        #[arg(long, conflicts_with = "pull")]
        on_push: bool,
        /// Let the side that is written to lose what the other one does not have: without it that is refused and listed
        #[arg(long)]
        replace: bool,
    },
    /// Change where a mirror leads, when it is due, or with what it asks; it is due at once
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Edit {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// The mirror
        #[arg(value_name = "ID")]
        id: MirrorId,
        /// What changes.
        #[command(flatten)]
        change: MirrorChange,
    },
    /// Tell the mirrors of a repository, when they are due, and how they went
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    List {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
    },
    /// Remove a mirror
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Remove {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// The mirror
        #[arg(value_name = "ID")]
        id: MirrorId,
    },
    /// Make a mirror due now
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Sync {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        path: RepoPath,
        /// The mirror
        #[arg(value_name = "ID")]
        id: MirrorId,
        /// Let the next run remove all refs that the other side does not have, also more than half of them
        #[arg(long)]
        force: bool,
    },
}

/// What changes of a mirror.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct MirrorChange {
    /// The other repository; the password for the one before is forgotten
    #[arg(long, value_name = "URL")]
    pub remote_url: Option<String>,
    /// From one firing to the next: 90s, 30m, 8h, 1d
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub every: Option<Duration>,
    /// A file with a token or password for the other side, which only its owner may read
    #[arg(long, value_name = "FILE")]
    pub remote_token_file: Option<PathBuf>,
    /// Whether it is due after every push too; only for one that pushes
    #[arg(long, value_name = "true|false")]
    pub on_push: Option<bool>,
    /// At another URL, let the side that is written to lose what the other one does not have
    #[arg(long, requires = "remote_url")]
    pub replace: bool,
}

/// Which way a mirror goes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Direction {
    /// The repository becomes what this one is, and takes no other pushes
    #[arg(long, value_name = "URL")]
    pub pull: Option<String>,
    /// This one becomes what the repository is
    #[arg(long, value_name = "URL")]
    pub push: Option<String>,
}

/// A number and its unit: `s`, `m`, `h` or `d`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is not a time: write 90s, 30m, 8h or 1d");
    let unit = text.chars().last().ok_or_else(invalid)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(invalid()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let seconds = number.checked_mul(seconds).ok_or_else(invalid)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("8h", 28_800), ("1d", 86_400)] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "5",
            "s",
            "1w",
            "-1h",
            "1.5h",
            "99999999999999999999s",
            "1é",
        ] {
            assert!(span(text).is_err(), "{text:?}");
        }
    }
}
