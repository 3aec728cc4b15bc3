// SPDX-License-Identifier: Apache-2.0
//! Variables of the environment (`mx.md` 1.10). An `MX_` name counts when there is no `OMX_` one
//! and `OMX_IGNORE_MX_ENV` is not set. Names that mean nothing here are accepted silently.
//!
//! | Variable (alias) | Default | Effect |
//! |---|---|---|
//! | `OMX_FATAL_ERRORS` (`MX_ERRORS_ARE_FATAL`) | 1 | the default error handler prints and exits |
//! | `OMX_MONOTHREAD` (`MX_MONOTHREAD`) | 0 | no progression thread |
//! | `OMX_WAITSPIN` | 0 | waits spin and never sleep |
//! | `OMX_WAITINTR` | 0 | a signal ends a wait, as if it had timed out |
//! | `OMX_CTXIDS` | | `bits,shift`: context ids of endpoints that say nothing of them |
//! | `OMX_ANY_ENDPOINT` | | the endpoint id that `MX_ANY_ENDPOINT` stands for |
//! | `OMX_VERBOSE` (`MX_VERBOSE`) | | messages of what fails on the standard error |
//! | `DIOLKOS_PARTITION` | `default` | the partition of all endpoints |
//! | `DIOLKOS_BACKEND_COMMAND` | `diolkos backend --idle-exit 60` | starts a backend, if none runs |

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use diolkos::ContextBits;

fn value(native: &str, alias: Option<&str>) -> Option<String> {
    let native = env::var(native).ok();
    native.or_else(|| {
        let alias = alias.filter(|_| env::var_os("OMX_IGNORE_MX_ENV").is_none())?;
        env::var(alias).ok()
    })
}

fn number(native: &str, alias: Option<&str>) -> Option<u32> {
    value(native, alias)?.trim().parse().ok()
}

fn flag(native: &str, alias: Option<&str>) -> bool {
    // A name without a number, or with an empty one, is set.
    value(native, alias).is_some_and(|text| text.trim().parse() != Ok(0))
}

pub fn errors_are_fatal() -> bool {
    number("OMX_FATAL_ERRORS", Some("MX_ERRORS_ARE_FATAL")) != Some(0)
}

pub fn has_progression() -> bool {
    !flag("OMX_MONOTHREAD", Some("MX_MONOTHREAD"))
}

pub fn is_verbose() -> bool {
    static ONCE: OnceLock<bool> = OnceLock::new();
    *ONCE.get_or_init(|| flag("OMX_VERBOSE", Some("MX_VERBOSE")))
}

pub fn waits_spin() -> bool {
    static ONCE: OnceLock<bool> = OnceLock::new();
    *ONCE.get_or_init(|| flag("OMX_WAITSPIN", None))
}

pub fn signals_end_waits() -> bool {
    static ONCE: OnceLock<bool> = OnceLock::new();
    *ONCE.get_or_init(|| flag("OMX_WAITINTR", None))
}

pub fn any_endpoint() -> Option<u32> {
    number("OMX_ANY_ENDPOINT", None)
}

/// The default context ids; `None` when the variable makes no sense.
pub fn context_bits() -> Option<ContextBits> {
    let Some(text) = value("OMX_CTXIDS", None) else { return Some(ContextBits::default()) };
    let (bits, shift) = text.split_once(',')?;
    ContextBits::new(bits.trim().parse().ok()?, shift.trim().parse().ok()?)
}

pub fn partition() -> String {
    env::var("DIOLKOS_PARTITION").unwrap_or_else(|_| "default".into())
}

/// What starts a backend; empty when there is nothing that could. A program with more rights than
/// whoever started it (set-user-ID) starts none: its environment is not its own.
pub fn backend_command() -> Vec<OsString> {
    // SAFETY: reads a word that the kernel gave the process.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return Vec::new();
    }
    if let Ok(command) = env::var("DIOLKOS_BACKEND_COMMAND") {
        return command.split_whitespace().map(OsString::from).collect();
    }
    match on_path("diolkos") {
        Some(program) => {
            let mut command = vec![program.into_os_string()];
            command.extend(["backend", "--idle-exit", "60"].map(OsString::from));
            command
        }
        None => Vec::new(),
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| {
        use std::os::unix::fs::PermissionsExt;
        file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    })
}
