//! Why a conversation with a remote repository failed.

use std::io;
use std::net::IpAddr;

use crate::listing::UnholdableRefs;
use crate::losses::Losses;
use henge_git::pkt::PktError;
use henge_types::{ObjectFormat, limits};

use crate::trust::TrustError;
use crate::url::RemoteUrl;

/// Characters of what a server said that are repeated.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a conversation with a remote repository failed. No message holds credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's name has no address.
    #[error("cannot find the address of {host}: {source}")]
    Resolve {
        /// The server.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server's addresses may not be connected to.
    #[error(
        "{host} has the address {address}, which is not one of the public internet: the configuration of the node must allow it ([mirrors] allow_private_addresses)"
    )]
    AddressRefused {
        /// The server.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// The server's addresses are never connected to.
    #[error(
        "{host} has the address {address}, which is link-local or of a cloud's metadata service: nothing is asked of those"
    )]
    AddressForbidden {
        /// The server.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// Nobody answers.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// The server.
        host: String,
        /// What the system said of the last address.
        #[source]
        source: io::Error,
    },
    /// No secure connection.
    #[error("no secure connection to {host}: {source}")]
    Tls {
        /// The server.
        host: String,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// The certificates to trust cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It sent and took nothing for too long.
    #[error("{host} rested for {seconds} s")]
    Rested {
        /// The server.
        host: String,
        /// How long it was waited.
        seconds: u64,
    },
    /// The time is over, or the caller said stop.
    #[error("the time for it is over")]
    Stopped,
    /// The connection broke, or what came is no HTTP.
    #[error("the connection to {host} broke: {reason}")]
    Broken {
        /// The server.
        host: String,
        /// What happened.
        reason: String,
    },
    /// More than is taken.
    #[error("the answer has more than {bytes_max} bytes, the most that is taken")]
    TooLarge {
        /// What is taken.
        bytes_max: u64,
    },
    /// The server wants credentials, or others.
    #[error("{url} {}", denied(*.given, *.elsewhere))]
    Denied {
        /// The repository.
        url: RemoteUrl,
        /// Whether credentials were sent.
        given: bool,
        /// Whether there were some, which were kept back because a redirect led to another server.
        elsewhere: bool,
    },
    /// The server lets nobody, or not this user, do it.
    #[error("{url} does not allow it: {message}")]
    Forbidden {
        /// The repository.
        url: RemoteUrl,
        /// What it said.
        message: String,
    },
    /// There is nothing.
    #[error("there is no repository at {url}, or it may not be seen")]
    NotFound {
        /// The repository.
        url: RemoteUrl,
    },
    /// Another status.
    #[error("{url} answered with HTTP status {status}: {message}")]
    Status {
        /// The repository.
        url: RemoteUrl,
        /// The status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// A web page or a server of the dumb protocol.
    #[error(
        "{url} does not speak git's smart HTTP protocol: it is no repository, or its server only hands out files, which is not supported"
    )]
    NotSmart {
        /// The repository.
        url: RemoteUrl,
    },
    /// A redirect that is not followed.
    #[error("{url} leads elsewhere, which is not followed: {why}")]
    Redirect {
        /// The repository.
        url: RemoteUrl,
        /// Why not.
        why: &'static str,
    },
    /// Credentials that cannot be sent.
    #[error(
        "the credentials cannot be sent: they are too long or hold characters that HTTP does not carry"
    )]
    Credentials,
    /// The server refused it in the protocol.
    #[error("the remote says: {message}")]
    Remote {
        /// What it said.
        message: String,
    },
    /// What came is not what the protocol says.
    #[error("the remote's answer is not understood: {what}")]
    Protocol {
        /// What is wrong with it.
        what: String,
    },
    /// The framing is broken.
    #[error(transparent)]
    Pkt(PktError),
    /// The history of the source is cut off.
    #[error(
        "the source is a shallow repository: what lies behind the end of its history is not there"
    )]
    Shallow,
    /// The two sides use another hash.
    #[error("the source uses {source_format}, the destination {destination_format}")]
    ObjectFormat {
        /// Of the source.
        source_format: ObjectFormat,
        /// Of the destination.
        destination_format: ObjectFormat,
    },
    /// The pack did not arrive whole.
    #[error("the pack that came is {what}")]
    Pack {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The repository on this machine cannot be read.
    #[error("the repository cannot be read: {message}")]
    Local {
        /// Why not.
        message: String,
    },
    /// The destination did not take a push.
    #[error("the push was not taken: {message}")]
    Push {
        /// Why not.
        message: String,
    },
    /// A file that is there already.
    #[error("{path} exists already")]
    Exists {
        /// The file.
        path: std::path::PathBuf,
    },
    /// The source has nothing: a bundle needs at least one ref, and nothing is emptied for it.
    #[error(
        "the repository has no refs that would be copied: nothing is written or deleted for that"
    )]
    Empty,
    /// The source has refs that would be copied and cannot be held here.
    #[error(
        "names of refs are UTF-8 of at most {} bytes here, and the repository has {refs}: nothing is written or deleted, rename or delete them there",
        limits::REF_NAME_BYTES_MAX
    )]
    Names {
        /// Which.
        refs: UnholdableRefs,
    },
    /// The destination would lose more than was agreed to.
    #[error("nothing was changed: {0}")]
    Losses(Box<Losses>),
    /// The disk failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn denied(given: bool, elsewhere: bool) -> &'static str {
    match (given, elsewhere) {
        (true, _) => "does not take these credentials",
        (false, true) => {
            "wants credentials; those given are for the server that led there and were not sent: use this URL"
        }
        (false, false) => "wants credentials",
    }
}

impl Error {
    /// What was tried and what the system said.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    /// Whether asking again may help: the network or the server, not the request.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Rested { .. }
            | Self::Stopped
            | Self::Broken { .. }
            | Self::Pkt(_)
            | Self::Pack { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            Self::AddressRefused { .. }
            | Self::AddressForbidden { .. }
            | Self::Tls { .. }
            | Self::Trust(_)
            | Self::TooLarge { .. }
            | Self::Denied { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::NotSmart { .. }
            | Self::Redirect { .. }
            | Self::Credentials
            | Self::Remote { .. }
            | Self::Protocol { .. }
            | Self::Shallow
            | Self::ObjectFormat { .. }
            | Self::Local { .. }
            | Self::Push { .. }
            | Self::Exists { .. }
            | Self::Empty
            | Self::Names { .. }
            | Self::Losses(_)
            | Self::Io { .. } => false,
        }
    }
}

/// An answer that is read through [`io::Read`] carries its own reason inside.
impl From<PktError> for Error {
    fn from(error: PktError) -> Self {
        match error {
            PktError::Io(error) => Self::from_stream(error),
            PktError::Length { .. } => Self::Pkt(error),
        }
    }
}

impl Error {
    /// The reason that a stream broke for, where it was one of these.
    pub(crate) fn from_stream(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::protocol("it ends early")
            }
            Err(source) => Self::Io {
                what: "the answer cannot be read".to_owned(),
                source,
            },
        }
    }
}

/// What a server said, fit for a terminal or a log.
pub(crate) fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MESSAGE_CHARS_MAX)
        .collect();
    if line.is_empty() {
        "(no reason given)".to_owned()
    } else {
        line
    }
}
