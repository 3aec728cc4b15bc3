// SPDX-License-Identifier: Apache-2.0
//! Why an introduction failed, and whose fault it was.

use std::fmt;

use rustix::io::Errno;

/// An island could not do what was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum IslandError {
    /// The backend does not allow it.
    Denied {
        /// The backend's sentence.
        what: String,
        /// How to change that, if it said.
        hint: Option<String>,
    },
    /// The name or number is taken.
    Busy {
        /// The backend's sentence.
        what: String,
    },
    /// A limit was reached.
    Limit {
        /// Which.
        what: String,
    },
    /// The request makes no sense.
    Invalid {
        /// Why.
        what: String,
    },
    /// Backend and library speak different versions.
    Version {
        /// Which.
        what: String,
    },
    /// Nobody of that name or number, for all that we may know.
    NotFound {
        /// The backend's sentence.
        what: String,
    },
    /// The target has another key.
    BadKey {
        /// The backend's sentence.
        what: String,
    },
    /// The target did not appear in time.
    Timeout {
        /// The backend's sentence.
        what: String,
    },
    /// No backend answers.
    BackendUnavailable {
        /// What was tried.
        what: String,
    },
    /// The backend said something impossible.
    BackendMisbehaved {
        /// What.
        what: String,
    },
    /// The system refused.
    System {
        /// The call.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
}

impl fmt::Display for IslandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { what, .. }
            | Self::Busy { what }
            | Self::Limit { what }
            | Self::Invalid { what }
            | Self::Version { what }
            | Self::NotFound { what }
            | Self::BadKey { what }
            | Self::Timeout { what }
            | Self::BackendUnavailable { what } => f.write_str(what),
            Self::BackendMisbehaved { what } => write!(f, "the backend misbehaved: {what}"),
            Self::System { call, errno } => write!(f, "{call} failed: {errno}"),
        }
    }
}

impl std::error::Error for IslandError {}

impl IslandError {
    /// What the user can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Denied { hint, .. } => hint.as_deref(),
            Self::BackendUnavailable { .. } => Some("start one with `diolkos backend`"),
            Self::Version { .. } => Some("restart the backend after an upgrade"),
            Self::System { errno, .. } => system_hint(*errno),
            _ => None,
        }
    }
}

/// What the user can do about an error of the system, where we know.
#[must_use]
pub fn system_hint(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::MFILE => Some("raise this process's limit of open files (`ulimit -n`)"),
        Errno::NFILE => Some("raise the system's limit of open files (`sysctl fs.file-max`)"),
        Errno::NOMEM => Some("free memory, or raise this process's limit of it (`ulimit -v`)"),
        Errno::NOSPC => Some("make room in the file system"),
        _ => None,
    }
}
