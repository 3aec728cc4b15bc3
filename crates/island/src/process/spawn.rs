// SPDX-License-Identifier: Apache-2.0
//! Reaching a backend, and starting one where none runs.
//!
//! The backend is started with the writing end of a pipe as its standard output and standard
//! error, and `--ready-fd 1`. It makes itself a daemon and writes one of these lines, then closes its
//! end. Other lines are what went wrong before it could.
//!
//! ```text
//!   +          clients can connect
//!   =text      another backend has this directory
//!   !text      it cannot start, and why
//! ```
//!
//! Of many processes that find no backend, the one that holds the start lock of the directory
//! starts one and the others look again every few milliseconds.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags};

use super::control::{Control, Packet, wait_for};
use super::messages::Request;
use super::runtime_dir::{Choice, RuntimeDir};
use crate::IslandError;

/// How often to look again for a backend that another process is starting.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long the process that was started may take to end after it has forked the daemon.
const REAP_PATIENCE: Duration = Duration::from_millis(100);
/// Bytes of a starting backend's report that are kept.
const REPORT_BYTES_MAX: usize = 4096;

/// How far a starting backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has not said.
    Starting,
    /// Clients can connect.
    Ready,
    /// Another one has the directory.
    OtherRuns,
    /// It cannot start; why.
    Failed(String),
}

/// A backend that is being started. Holds the start lock until it is dropped.
pub struct Starter {
    child: Child,
    report: OwnedFd,
    heard: Vec<u8>,
    result: Option<Progress>,
    _lock: OwnedFd,
}

impl Starter {
    /// Starts a backend, unless another process is doing that.
    ///
    /// # Errors
    /// [`IslandError::BackendUnavailable`] when the command cannot be run.
    pub fn try_start(
        runtime_dir: Option<&Path>,
        command: &[OsString],
    ) -> Result<Option<Self>, IslandError> {
        let directory = RuntimeDir::create(runtime_dir)?;
        let Some(lock) = directory.start_lock()? else { return Ok(None) };
        // Whoever held the lock before us may have been quick.
        if Control::connect(&directory)?.is_some() {
            return Ok(None);
        }
        Self::start(&Choice::new(runtime_dir).path, command, lock).map(Some)
    }

    fn start(path: &Path, command: &[OsString], lock: OwnedFd) -> Result<Self, IslandError> {
        let (report, sink) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
            .map_err(|errno| IslandError::System { call: "pipe", errno })?;
        // Only our end: the backend writes its few bytes without a thought.
        rustix::fs::fcntl_setfl(&report, rustix::fs::OFlags::NONBLOCK)
            .map_err(|errno| IslandError::System { call: "fcntl(F_SETFL)", errno })?;
        let talk = sink
            .try_clone()
            .map_err(|_| IslandError::System { call: "dup", errno: Errno::MFILE })?;
        let child = Command::new(&command[0])
            .args(&command[1..])
            .arg("--runtime-dir")
            .arg(path)
            .args(["--ready-fd", "1"])
            .stdin(Stdio::null())
            .stdout(sink)
            .stderr(talk)
            .spawn()
            .map_err(|error| {
                unavailable(format!("{} cannot be run: {error}", command[0].to_string_lossy()))
            })?;
        Ok(Self { child, report, heard: Vec::new(), result: None, _lock: lock })
    }

    /// How far it is. Never waits.
    pub fn poll(&mut self) -> Progress {
        while self.result.is_none() {
            let mut piece = [0; 512];
            match rustix::io::read(&self.report, &mut piece) {
                Ok(0) => self.result = Some(self.whole_report()),
                Ok(count) => {
                    self.heard.extend_from_slice(&piece[..count]);
                    self.heard.truncate(REPORT_BYTES_MAX);
                    if self.heard.split(|byte| *byte == b'\n').any(|line| line == b"+") {
                        self.result = Some(Progress::Ready);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Progress::Starting,
                Err(errno) => self.result = Some(Progress::Failed(errno.to_string())),
            }
        }
        self.result.clone().unwrap_or(Progress::Starting)
    }

    /// What it said before it closed its end.
    fn whole_report(&mut self) -> Progress {
        let heard = String::from_utf8_lossy(&self.heard).into_owned();
        for line in heard.lines() {
            match line.split_at_checked(1) {
                Some(("=", _)) => return Progress::OtherRuns,
                Some(("!", why)) => {
                    return Progress::Failed(format!("no backend could be started: {why}"));
                }
                _ => {}
            }
        }
        let status = self.child.try_wait().ok().flatten();
        let status = status.map_or(String::new(), |status| format!(" ({status})"));
        let last = heard.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.map_or("without a word".into(), |line| format!("saying {line:?}"));
        let what = "the command that should start a backend ended";
        Progress::Failed(format!("{what} {last}{status}"))
    }

    /// Waits until it has said how far it is; `Starting` when the time is up.
    fn wait(&mut self, deadline: Instant) -> Result<Progress, IslandError> {
        loop {
            let progress = self.poll();
            if progress != Progress::Starting {
                return Ok(progress);
            }
            let ready = wait_for(self.report.as_fd(), PollFlags::IN, deadline)
                .map_err(|errno| IslandError::System { call: "poll", errno })?;
            if !ready {
                return Ok(Progress::Starting);
            }
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        // The process that was started forks the daemon and ends; it is not to stay as a zombie.
        // One that lives on against the rules is left alone.
        if let Ok(None) = self.child.try_wait() {
            let deadline = Instant::now() + REAP_PATIENCE;
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            let process = pid.map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
            if let Some(Ok(process)) = process {
                let _ = wait_for(process.as_fd(), PollFlags::IN, deadline);
            }
            let _ = self.child.try_wait();
        }
    }
}

/// Connects to a backend, starting one if need be, and gets the answer to a first request.
///
/// # Errors
/// [`IslandError`] when that cannot be done before the deadline, or a signal comes (`System` with
/// `EINTR`).
pub fn reach(
    runtime_dir: Option<&Path>,
    command: &[OsString],
    deadline: Instant,
    first: &Request,
) -> Result<(Control, Packet), IslandError> {
    loop {
        let directory = RuntimeDir::open(runtime_dir)?;
        let control = directory.as_ref().map(Control::connect).transpose()?.flatten();
        if let Some(mut control) = control {
            match ask(&mut control, first, deadline) {
                Ok(packet) => return Ok((control, packet)),
                // It was just leaving: there will be another.
                Err(IslandError::BackendUnavailable { .. }) if Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
        }
        if command.is_empty() {
            return Err(none_runs(runtime_dir));
        }
        let progress = match Starter::try_start(runtime_dir, command)? {
            Some(mut starter) => starter.wait(deadline)?,
            None => Progress::OtherRuns,
        };
        match progress {
            Progress::Ready => {}
            Progress::OtherRuns => pause()?,
            Progress::Starting => {}
            Progress::Failed(why) => return Err(unavailable(why)),
        }
        if Instant::now() >= deadline {
            return Err(unavailable("no backend answered in time".into()));
        }
    }
}

fn ask(control: &mut Control, request: &Request, deadline: Instant) -> Result<Packet, IslandError> {
    let sent = control.send(request);
    // A backend that turns a connection away says why before it closes: that may be there to be
    // read although nothing can be sent any more.
    match control.receive_until(deadline) {
        Ok(packet) => Ok(packet),
        Err(error) => sent.and(Err(error)),
    }
}

/// Another process is starting a backend, or one is just leaving.
fn pause() -> Result<(), IslandError> {
    let moment = LOOK_AGAIN.try_into().expect("a few milliseconds are a timespec");
    match rustix::event::poll(&mut [], Some(&moment)) {
        Ok(_) => Ok(()),
        Err(errno) => Err(IslandError::System { call: "poll", errno }),
    }
}

/// There is no backend to ask.
pub fn none_runs(runtime_dir: Option<&Path>) -> IslandError {
    let path = Choice::new(runtime_dir).path;
    unavailable(format!("no backend is running in {}", path.display()))
}

fn unavailable(what: String) -> IslandError {
    IslandError::BackendUnavailable { what }
}
