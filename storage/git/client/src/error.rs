//! Errors of the communication with a remote repository.

use std::io;
use std::net::IpAddr;

use crate::listing::UnholdableRefs;
use crate::losses::Losses;
use henge_git::pkt::PktError;
use henge_types::{ObjectFormat, limits};

use crate::trust::TrustError;
use crate::url::RemoteUrl;

/// Characters of a server's message that are shown.
const MESSAGE_CHARS_MAX: usize = 300;

/// Errors of the communication with a remote repository. No message contains credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's name cannot be resolved.
    #[error("cannot find the address of {host}: {source}")]
    Resolve {
        /// The server.
        host: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The server's addresses are not allowed.
    #[error(
        "{host} has the address {address}, which is not one of the public internet: the configuration of the node must allow it ([mirrors] allow_private_addresses)"
    )]
    AddressRefused {
        /// The server.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// The server's addresses are never allowed.
    #[error(
        "{host} has the address {address}, which is link-local or of a cloud's metadata service: nothing is asked of those"
    )]
    AddressForbidden {
        /// The server.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// No connection to any of the addresses.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// The server.
        host: String,
        /// The system's error for the last address.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("no secure connection to {host}: {source}")]
    Tls {
        /// The server.
        host: String,
        /// The fault.
        #[source]
        source: io::Error,
    },
    /// The trusted certificates cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The idle time-out: the server neither sent nor accepted data for too long.
    #[error("{host} rested for {seconds} s")]
    Rested {
        /// The server.
        host: String,
        /// The idle time-out, seconds.
        seconds: u64,
    },
    /// The deadline passed, or the caller cancelled.
    #[error("the time for it is over")]
    Stopped,
    /// The connection broke, or the answer is not HTTP.
    #[error("the connection to {host} broke: {reason}")]
    Broken {
        /// The server.
        host: String,
        /// The reason.
        reason: String,
    },
    /// The answer is larger than allowed.
    #[error("the answer has more than {bytes_max} bytes, the most that is taken")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// The server requires credentials, or other ones.
    #[error("{url} {}", denied(*.given, *.elsewhere))]
    Denied {
        /// The repository.
        url: RemoteUrl,
        /// Whether credentials were sent.
        given: bool,
        /// Whether credentials exist, but were withheld because of a redirect to another server.
        elsewhere: bool,
    },
    /// The server forbids the request, for all users or for this one.
    #[error("{url} does not allow it: {message}")]
    Forbidden {
        /// The repository.
        url: RemoteUrl,
        /// The server's message.
        message: String,
    },
    /// There is no such repository.
    #[error("there is no repository at {url}, or it may not be seen")]
    NotFound {
        /// The repository.
        url: RemoteUrl,
    },
    /// Any other status.
    #[error("{url} answered with HTTP status {status}: {message}")]
    Status {
        /// The repository.
        url: RemoteUrl,
        /// The status.
        status: u16,
        /// The server's message.
        message: String,
    },
    /// A web page, or a server of the dumb protocol.
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
        /// The reason.
        why: &'static str,
    },
    /// Invalid credentials: they cannot be sent in a header.
    #[error(
        "the credentials cannot be sent: they are too long or hold characters that HTTP does not carry"
    )]
    Credentials,
    /// The server reported an error in the protocol.
    #[error("the remote says: {message}")]
    Remote {
        /// The server's message.
        message: String,
    },
    /// The answer violates the protocol.
    #[error("the remote's answer is not understood: {what}")]
    Protocol {
        /// The violation.
        what: String,
    },
    /// The framing is broken.
    #[error(transparent)]
    Pkt(PktError),
    /// The source is a shallow repository.
    #[error(
        "the source is a shallow repository: what lies behind the end of its history is not there"
    )]
    Shallow,
    /// The two sides have different object formats.
    #[error("the source uses {source_format}, the destination {destination_format}")]
    ObjectFormat {
        /// Of the source.
        source_format: ObjectFormat,
        /// Of the destination.
        destination_format: ObjectFormat,
    },
    /// The received pack is incomplete or invalid.
    #[error("the pack that came is {what}")]
    Pack {
        /// The fault.
        what: &'static str,
    },
    /// The repository on this machine cannot be read.
    #[error("the repository cannot be read: {message}")]
    Local {
        /// The reason.
        message: String,
    },
    /// The destination refused a push.
    #[error("the push was not taken: {message}")]
    Push {
        /// The reason.
        message: String,
    },
    /// The file exists already.
    #[error("{path} exists already")]
    Exists {
        /// The file.
        path: std::path::PathBuf,
    },
    /// The source has no refs: a bundle needs at least one, and no destination is emptied for it.
    #[error(
        "the repository has no refs that would be copied: nothing is written or deleted for that"
    )]
    Empty,
    /// The source has refs to copy that this system cannot store.
    #[error(
        "names of refs are UTF-8 of at most {} bytes here, and the repository has {refs}: nothing is written or deleted, rename or delete them there",
        limits::REF_NAME_BYTES_MAX
    )]
    Names {
        /// The refs.
        refs: UnholdableRefs,
    },
    /// The destination would lose more than allowed.
    #[error("nothing was changed: {0}")]
    Losses(Box<Losses>),
    /// A file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The system's error.
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
    /// An error with the failed operation and the system's error.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    /// Whether a retry may help: the fault is in the network or the server, not in the request.
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

/// An answer that is read through [`io::Read`] carries its own error inside.
impl From<PktError> for Error {
    fn from(error: PktError) -> Self {
        match error {
            PktError::Io(error) => Self::from_stream(error),
            PktError::Length { .. } => Self::Pkt(error),
        }
    }
}

impl Error {
    /// The error that broke a stream, if it was one of these.
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

/// A server's message, cleaned for a terminal or a log.
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
