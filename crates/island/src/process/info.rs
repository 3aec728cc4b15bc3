// SPDX-License-Identifier: Apache-2.0
//! Asking the backend what there is.

use std::path::Path;
use std::time::{Duration, Instant};

use diolkos_shm::Region;
use serde_json::Value;

use super::control::Control;
use super::messages::Request;
use super::runtime_dir::RuntimeDir;
use super::{grant, spawn};
use crate::IslandError;

/// How long the backend may take for its whole answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Packets of one answer; far more than a backend's limits allow it to fill.
const PAGES_MAX: usize = 16 * 1024;
const INFO_ID: u64 = 2;

/// The backend's answer to `info`, and read-only the home of each endpoint in it, in order.
///
/// The value has the keys `backend`, `endpoints` and `channels` (`docs/reference/control.md`).
///
/// # Errors
/// [`IslandError`] when there is no backend, or it does not answer.
pub fn query_info(runtime_dir: Option<&Path>) -> Result<(Value, Vec<Region>), IslandError> {
    let deadline = Instant::now() + PATIENCE;
    let directory = RuntimeDir::open(runtime_dir)?;
    let control = directory.as_ref().map(Control::connect).transpose()?.flatten();
    let mut control = control.ok_or_else(|| spawn::none_runs(runtime_dir))?;
    control.send(&Request::Info { id: INFO_ID })?;
    let (mut backend, mut endpoints, mut channels) = (Value::Null, Vec::new(), Vec::new());
    let mut homes = Vec::new();
    for _ in 0..PAGES_MAX {
        let packet = control.receive_until(deadline)?.whole()?;
        let mut page: Value = serde_json::from_slice(&packet.bytes)
            .map_err(|error| misbehaved(&format!("a packet that is not JSON: {error}")))?;
        if page["type"] != "info" {
            let what = page["message"].as_str().unwrap_or("no answer to info").to_owned();
            return Err(IslandError::Limit { what });
        }
        if !page["backend"].is_null() {
            backend = page["backend"].take();
        }
        let listed = take_list(&mut page, "endpoints")?;
        if listed.len() != packet.descriptors.len() {
            return Err(misbehaved("endpoints and homes in different numbers"));
        }
        endpoints.extend(listed);
        homes.extend(grant::homes(packet.descriptors)?);
        channels.extend(take_list(&mut page, "channels")?);
        if page["more"] != true {
            let all = serde_json::json!({
                "backend": backend,
                "endpoints": endpoints,
                "channels": channels,
            });
            return Ok((all, homes));
        }
    }
    Err(misbehaved("an answer without an end"))
}

fn take_list(page: &mut Value, key: &str) -> Result<Vec<Value>, IslandError> {
    match page.get_mut(key).map(Value::take) {
        Some(Value::Array(list)) => Ok(list),
        None => Ok(Vec::new()),
        Some(_) => Err(misbehaved("a list that is none")),
    }
}

fn misbehaved(what: &str) -> IslandError {
    IslandError::BackendMisbehaved { what: what.to_owned() }
}
