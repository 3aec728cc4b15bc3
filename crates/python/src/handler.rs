// SPDX-License-Identifier: Apache-2.0
//! The unexpected handler: the only place where the core calls Python.
//!
//! It is called without the core's lock, from whatever call makes progress, attached or detached.
//! The core owns a function that knows the Python handler only through a shared cell and the
//! endpoint only by a weak reference, so that cycles through either can be collected.

use std::sync::Arc;

use diolkos::HandlerAction;
use pyo3::exceptions::{PyKeyboardInterrupt, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyWeakrefMethods, PyWeakrefReference};

use crate::endpoint::Endpoint;
use crate::errors;
use crate::lock::Mutex;
use crate::status::Status;

/// The Python function, if any.
#[derive(Default)]
pub struct HandlerCell(Mutex<Option<Py<PyAny>>>);

impl HandlerCell {
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // A cell that is locked is in use, so what is in it is reachable anyway.
        match self.0.try_lock() {
            Some(handler) => visit.call(&*handler),
            None => Ok(()),
        }
    }

    pub fn clear(&self) {
        let previous = self.0.lock().take();
        drop(previous);
    }
}

/// Offers messages without a receive to `handler`, or to nobody.
pub fn install(
    endpoint: &Bound<'_, Endpoint>,
    cell: &Arc<HandlerCell>,
    handler: Option<Bound<'_, PyAny>>,
) -> PyResult<()> {
    let py = endpoint.py();
    let raise = |error| errors::from_core(py, error);
    let core = &endpoint.get().core;
    let Some(handler) = handler else {
        core.set_unexpected_handler(None).map_err(raise)?;
        cell.clear();
        return Ok(());
    };
    if !handler.is_callable() {
        return Err(PyTypeError::new_err("the handler is called as handler(status, data)"));
    }
    let weak = PyWeakrefReference::new(endpoint)?.unbind();
    let previous = cell.0.lock().replace(handler.unbind());
    drop(previous);
    let cell = Arc::clone(cell);
    let call = move |status: &diolkos::Status, data: Option<&[u8]>| {
        Python::attach(|py| call(py, &cell, &weak, status, data))
    };
    core.set_unexpected_handler(Some(Box::new(call))).map_err(raise)
}

fn call(
    py: Python<'_>,
    cell: &HandlerCell,
    weak: &Py<PyWeakrefReference>,
    status: &diolkos::Status,
    data: Option<&[u8]>,
) -> HandlerAction {
    let handler = cell.0.lock().as_ref().map(|handler| handler.clone_ref(py));
    let endpoint = weak.bind(py).upgrade_as::<Endpoint>();
    let (Some(handler), Ok(Some(endpoint))) = (handler, endpoint) else {
        return HandlerAction::Continue;
    };
    let data = data.map(|data| PyBytes::new(py, data));
    let answer = handler
        .bind(py)
        .call1((Status::new(&endpoint, *status), data))
        .and_then(|answer| answer.is_truthy());
    match answer {
        Ok(true) => HandlerAction::Finished,
        Ok(false) => HandlerAction::Continue,
        Err(error) if !error.is_instance_of::<PyKeyboardInterrupt>(py) => {
            error.write_unraisable(py, Some(handler.bind(py)));
            HandlerAction::Continue
        }
        Err(_) => {
            // Ctrl-C came while the handler ran: whoever waits below sees it at its next look.
            // SAFETY: attached; the call only marks the signal as arrived.
            unsafe { ffi::PyErr_SetInterrupt() };
            HandlerAction::Continue
        }
    }
}
