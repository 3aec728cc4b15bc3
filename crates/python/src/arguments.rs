// SPDX-License-Identifier: Apache-2.0
//! What users may pass: times, roads, targets, selectors.

use std::time::{Duration, Instant};

use diolkos::{PeerId, Road, Selector, Space, Target};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::endpoint::Endpoint;
use crate::peer::Peer;

/// Longer waits are waits for ever, in seconds: about 30 years.
const FOR_EVER_S: f64 = 1e9;

/// A time limit in seconds; `None` and infinity are none.
#[inline(always)]
pub fn duration(timeout_s: Option<f64>) -> PyResult<Option<Duration>> {
    match timeout_s {
        None => Ok(None),
        Some(seconds) => checked_duration(seconds),
    }
}

fn checked_duration(seconds: f64) -> PyResult<Option<Duration>> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!(
            "a timeout is a number of seconds from 0 on, or None, not {seconds}"
        )));
    }
    Ok((seconds < FOR_EVER_S).then(|| Duration::from_secs_f64(seconds)))
}

/// The moment at which a time limit that starts now is over.
#[inline(always)]
pub fn deadline(timeout_s: Option<f64>) -> PyResult<Option<Instant>> {
    Ok(duration(timeout_s)?.map(|left| Instant::now() + left))
}

/// `"auto"`, `"direct"` or `"switched"`.
pub fn road(text: &str) -> PyResult<Option<Road>> {
    match text {
        "auto" => Ok(None),
        "direct" => Ok(Some(Road::Direct)),
        "switched" => Ok(Some(Road::Switched)),
        _ => Err(PyValueError::new_err(format!(
            "a road is \"auto\", \"direct\" or \"switched\", not {text:?}"
        ))),
    }
}

/// A name or a number.
pub fn target(object: &Bound<'_, PyAny>) -> PyResult<Target> {
    if let Ok(name) = object.cast::<PyString>() {
        return Ok(Target::Name(name.to_str()?.to_owned()));
    }
    match object.extract::<u32>() {
        Ok(number) => Ok(Target::Number(number)),
        Err(_) => Err(PyTypeError::new_err(
            "a target is the name (str) or the number (int) of an endpoint",
        )),
    }
}

/// Which match space.
#[inline(always)]
pub fn space(untagged: bool) -> Space {
    if untagged { Space::Untagged } else { Space::Tagged }
}

/// What a receive or a probe looks for. No match info is any match info.
#[inline(always)]
pub fn selector(
    endpoint: &Bound<'_, Endpoint>,
    match_info: Option<u64>,
    mask: Option<u64>,
    source: Option<&Bound<'_, Peer>>,
    untagged: bool,
) -> PyResult<Selector> {
    let (match_info, mask) = match (match_info, mask) {
        (Some(match_info), None) => (match_info, u64::MAX),
        (Some(match_info), Some(mask)) => (match_info, mask),
        (None, None) => (0, 0),
        (None, Some(_)) => {
            return Err(PyValueError::new_err("a mask needs the match info that it masks"));
        }
    };
    let source = source.map(|peer| known(endpoint, peer)).transpose()?;
    Ok(Selector { match_info, mask, source, space: space(untagged) })
}

/// A peer, which must be one of this endpoint.
#[inline(always)]
pub fn known(endpoint: &Bound<'_, Endpoint>, peer: &Bound<'_, Peer>) -> PyResult<PeerId> {
    let peer = peer.get();
    if peer.belongs_to(endpoint.get()) {
        return Ok(peer.id);
    }
    Err(PyValueError::new_err("this peer belongs to another endpoint; connect to it from this one"))
}
