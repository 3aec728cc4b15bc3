// SPDX-License-Identifier: Apache-2.0
//! The runtime directory: where the backend listens, and what makes that place trustworthy.
//!
//! The rules are those of `python/diolkos/backend/paths.py`, which says why: the first that
//! applies of the caller's choice, `$DIOLKOS_RUNTIME_DIR`, `$XDG_RUNTIME_DIR/diolkos` and
//! `/tmp/diolkos-<uid>`; never a symbolic link, never open to others, never writable by a group;
//! and ours, unless somebody named it.

use std::env;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::IslandError;

/// `sun_path` has 108 bytes, one of them the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const SOCKET_NAME: &str = "backend.sock";
/// Held by the process that is starting a backend, so that a crowd starts only one.
const START_LOCK_NAME: &str = "start.lock";

/// Which directory, and whether somebody named it.
pub struct Choice {
    pub path: PathBuf,
    named: bool,
}

impl Choice {
    /// By the rules; looks at the environment but not into any directory.
    pub fn new(option: Option<&Path>) -> Self {
        let named = option.map(Path::to_owned).or_else(|| non_empty("DIOLKOS_RUNTIME_DIR"));
        if let Some(path) = named {
            return Self { path: normal(&path), named: true };
        }
        if let Some(session) = non_empty("XDG_RUNTIME_DIR")
            && session.is_absolute()
            && session.is_dir()
        {
            return Self { path: session.join("diolkos"), named: false };
        }
        let user = rustix::process::geteuid().as_raw();
        Self { path: PathBuf::from(format!("/tmp/diolkos-{user}")), named: false }
    }
}

fn non_empty(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Absolute, and without a final slash, which would have a symbolic link followed.
fn normal(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components().collect()
}

/// An open, trusted runtime directory.
pub struct RuntimeDir {
    path: PathBuf,
    directory: OwnedFd,
}

impl RuntimeDir {
    /// Opens the directory; `None` when it does not exist.
    ///
    /// # Errors
    /// [`IslandError::Denied`] when it cannot be trusted.
    pub fn open(option: Option<&Path>) -> Result<Option<Self>, IslandError> {
        Self::open_choice(Choice::new(option))
    }

    /// Opens the directory, which is created if need be.
    ///
    /// # Errors
    /// As `open`; [`IslandError::System`] when it cannot be created.
    pub fn create(option: Option<&Path>) -> Result<Self, IslandError> {
        let choice = Choice::new(option);
        let path = choice.path.clone();
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(cannot("be created", &path, errno)),
        }
        Self::open_choice(choice)?.ok_or_else(|| cannot("be opened", &path, Errno::NOENT))
    }

    fn open_choice(choice: Choice) -> Result<Option<Self>, IslandError> {
        let Choice { path, named } = choice;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(untrusted(&path, "is a symbolic link or not a directory"));
            }
            Err(errno) => return Err(cannot("be opened", &path, errno)),
        };
        let status =
            rustix::fs::fstat(&directory).map_err(|errno| cannot("be looked at", &path, errno))?;
        if status.st_mode & 0o027 != 0 {
            let mode = status.st_mode & 0o7777;
            let what = format!("has mode {mode:04o}: others could pose as the backend");
            return Err(untrusted(&path, &what));
        }
        if !named && status.st_uid != rustix::process::geteuid().as_raw() {
            return Err(untrusted(&path, &format!("belongs to user {}", status.st_uid)));
        }
        Ok(Some(Self { path, directory }))
    }

    /// The path to connect to. A long one goes round by the open directory.
    pub fn socket_path(&self) -> PathBuf {
        let plain = self.path.join(SOCKET_NAME);
        if plain.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return plain;
        }
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", self.directory.as_raw_fd()))
    }

    /// The right to start a backend here, given up when the descriptor is closed; `None` while
    /// another process has it.
    ///
    /// # Errors
    /// [`IslandError::System`] when the lock file cannot be made.
    pub fn start_lock(&self) -> Result<Option<OwnedFd>, IslandError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(self.descriptor(), START_LOCK_NAME, flags, 0o600.into())
            .map_err(|errno| cannot("be written to", &self.path, errno))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(IslandError::System { call: "flock", errno }),
        }
    }

    /// The first bytes of a file; `None` when there is none, or it is not a plain one.
    pub fn read(&self, name: &str, bytes_max: usize) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.descriptor(), name, flags, Mode::empty()).ok()?;
        let mut bytes = vec![0; bytes_max];
        let count = rustix::io::read(&file, &mut *bytes).ok()?;
        bytes.truncate(count);
        Some(bytes)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// For messages.
    pub fn shown(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

fn untrusted(path: &Path, what: &str) -> IslandError {
    IslandError::Denied {
        what: format!("the runtime directory {} {what}", path.display()),
        hint: Some("name a directory of mode 0700 of your own in DIOLKOS_RUNTIME_DIR".into()),
    }
}

fn cannot(what: &str, path: &Path, errno: Errno) -> IslandError {
    if let Errno::MFILE | Errno::NFILE | Errno::NOMEM = errno {
        // Nothing is wrong with the directory.
        return IslandError::System { call: "open", errno };
    }
    let what = format!("the runtime directory {} cannot {what}: {errno}", path.display());
    IslandError::BackendUnavailable { what }
}
