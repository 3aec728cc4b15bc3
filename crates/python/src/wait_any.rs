// SPDX-License-Identifier: Apache-2.0
//! Waiting for the first of many requests, of one endpoint or of several.
//!
//! Requests of one endpoint are waited for in the core. Several endpoints are looked at in turn
//! for a while; then each is told that we sleep (`arm`), and one `poll` watches all descriptors.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use diolkos::{Error, RequestId, Status};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::arguments;
use crate::errors;
use crate::request::Request;
use crate::status;
use crate::waiting;

/// Looks at all endpoints before the first sleep.
const LOOKS_BEFORE_SLEEP: u32 = 64;

/// The requests of one endpoint, and their places in the caller's list.
struct Group {
    core: diolkos::Endpoint,
    requests: Vec<RequestId>,
    places: Vec<usize>,
}

/// Waits until one of the requests has ended; its place in the list, and its status.
#[pyfunction]
#[pyo3(signature = (requests, timeout = None))]
pub fn wait_any(
    py: Python<'_>,
    requests: Vec<Bound<'_, Request>>,
    timeout: Option<f64>,
) -> PyResult<(usize, status::Status)> {
    let deadline = arguments::deadline(timeout)?;
    if requests.is_empty() {
        return Err(PyValueError::new_err("wait_any() needs at least one request"));
    }
    for (place, request) in requests.iter().enumerate() {
        if let Some(status) = request.get().outcome(py).map_err(|e| at(py, e, place))? {
            return Ok((place, status));
        }
    }
    let mut waiting_for = Waiting { requests: &requests, count: 0 };
    let groups = waiting_for.start(py)?;
    let found = match groups.as_slice() {
        [only] => one_endpoint(py, only, deadline),
        _ => several_endpoints(py, &groups, deadline),
    };
    drop(waiting_for);
    let Some((place, status)) = found? else {
        return Err(errors::timeout(py, "none of the requests was complete in time"));
    };
    let request = requests[place].get();
    request.finish(py, status);
    match request.outcome(py).map_err(|error| at(py, error, place))? {
        Some(status) => Ok((place, status)),
        None => Err(PyValueError::new_err("the request was taken by another thread")),
    }
}

/// Says which request an exception is about: `error.index`.
fn at(py: Python<'_>, error: PyErr, place: usize) -> PyErr {
    // An exception class without room for it (a built-in one) goes without.
    let _ = error.value(py).setattr("index", place);
    error
}

/// Marks requests as waited for, and takes the marks back.
struct Waiting<'a, 'py> {
    requests: &'a [Bound<'py, Request>],
    count: usize,
}

impl Waiting<'_, '_> {
    fn start(&mut self, py: Python<'_>) -> PyResult<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        let mut group_of = HashMap::new();
        for (place, request) in self.requests.iter().enumerate() {
            let request = request.get();
            let Some(id) = request.start_waiting(py)? else { continue };
            self.count = place + 1;
            let endpoint = &request.endpoint;
            let at = *group_of.entry(endpoint.as_ptr() as usize).or_insert(groups.len());
            if at == groups.len() {
                let core = endpoint.get().core.clone();
                groups.push(Group { core, requests: Vec::new(), places: Vec::new() });
            }
            groups[at].requests.push(id);
            groups[at].places.push(place);
        }
        Ok(groups)
    }
}

impl Drop for Waiting<'_, '_> {
    fn drop(&mut self) {
        for request in &self.requests[..self.count] {
            request.get().stop_waiting();
        }
    }
}

fn one_endpoint(
    py: Python<'_>,
    group: &Group,
    deadline: Option<Instant>,
) -> PyResult<Option<(usize, Status)>> {
    let raise = |error| errors::from_core(py, error);
    let found = match group.core.test_any(&group.requests).map_err(raise)? {
        None => waiting::in_slices(py, deadline, |until| {
            group.core.wait_any(&group.requests, Some(until))
        })?,
        found => found,
    };
    Ok(found.map(|(at, status)| (group.places[at], status)))
}

fn several_endpoints(
    py: Python<'_>,
    groups: &[Group],
    deadline: Option<Instant>,
) -> PyResult<Option<(usize, Status)>> {
    for _ in 0..LOOKS_BEFORE_SLEEP {
        if let Some(found) = look(groups).map_err(|error| errors::from_core(py, error))? {
            return Ok(Some(found));
        }
    }
    waiting::in_slices(py, deadline, |until| sleep(groups, until))
}

fn look(groups: &[Group]) -> Result<Option<(usize, Status)>, Error> {
    for group in groups {
        if let Some((at, status)) = group.core.test_any(&group.requests)? {
            return Ok(Some((group.places[at], status)));
        }
    }
    Ok(None)
}

fn sleep(groups: &[Group], until: Instant) -> Result<Option<(usize, Status)>, Error> {
    loop {
        if let Some(found) = doze(groups, until)? {
            return Ok(Some(found));
        }
        if let Some(found) = look(groups)? {
            return Ok(Some(found));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
    }
}

/// Dozes at every endpoint and blocks until one has something.
fn doze(groups: &[Group], until: Instant) -> Result<Option<(usize, Status)>, Error> {
    let dozes: Vec<_> = groups.iter().map(|group| group.core.doze()).collect::<Result<_, _>>()?;
    if dozes.iter().any(|doze| doze.found) {
        return Ok(None);
    }
    // Another thread may have taken it in just before.
    if let Some(found) = look(groups)? {
        return Ok(Some(found));
    }
    let mut descriptors: Vec<PollFd<'_>> = groups
        .iter()
        .map(|group| PollFd::from_borrowed_fd(group.core.descriptor(), PollFlags::IN))
        .collect();
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    match rustix::event::poll(&mut descriptors, Some(&left)) {
        Ok(_) => Ok(None),
        Err(rustix::io::Errno::INTR) => Err(Error::Interrupted),
        Err(errno) => Err(Error::System("poll", errno)),
    }
}
