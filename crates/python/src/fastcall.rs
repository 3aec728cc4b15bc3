// SPDX-License-Identifier: Apache-2.0
//! `send`, `recv_into`, `lend` and `recv_loan` with the shortest way from Python to the core.
//!
//! A message costs a quarter of a microsecond, so what PyO3 does for any method (comparing names of
//! keywords letter by letter, a general table of arguments) would be a tenth of it. These
//! methods therefore read their arguments themselves, in the form in which CPython passes them:
//!
//! ```text
//!   values   [ buffer, dest, 7, ... ]       first the positional ones, then those of
//!   names    ( "match", ... )               the keywords, whose names are interned strings
//! ```
//!
//! Only what is usual is read here: the exact number of positional arguments, known keywords,
//! values of the plain types. For everything else the method that PyO3 made is called, which
//! accepts all that is allowed and says what is wrong with the rest. So there is one place for
//! error messages, and this file may always say "not here".

use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};

use diolkos::Envelope;
use pyo3::exceptions::PySystemError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use crate::arguments;
use crate::buffer::Buffer;
use crate::endpoint::Endpoint;
use crate::loan;
use crate::peer::Peer;
use crate::transfer;

/// The keywords of all methods. The order is that of [`Keyword`].
const KEYWORDS: [&str; 8] =
    ["match", "timeout", "source", "mask", "immediate", "synchronous", "untagged", "dtype"];

#[derive(Clone, Copy)]
enum Keyword {
    Match,
    Timeout,
    Source,
    Mask,
    Immediate,
    Synchronous,
    Untagged,
    Dtype,
}

const BY_PLACE: [Keyword; 8] = [
    Keyword::Match,
    Keyword::Timeout,
    Keyword::Source,
    Keyword::Mask,
    Keyword::Immediate,
    Keyword::Synchronous,
    Keyword::Untagged,
    Keyword::Dtype,
];

/// Made once, when the module is loaded.
struct Prepared {
    /// Interned, so that names in calls are these very objects.
    keywords: [Py<PyString>; 8],
    send: Py<PyAny>,
    recv_into: Py<PyAny>,
    lend: Py<PyAny>,
    recv_loan: Py<PyAny>,
}

static PREPARED: PyOnceLock<Prepared> = PyOnceLock::new();

/// Puts the short methods in the place of those that PyO3 made.
pub fn install(class: &Bound<'_, PyType>) -> PyResult<()> {
    let py = class.py();
    let prepared = Prepared {
        keywords: KEYWORDS.map(|name| PyString::intern(py, name).unbind()),
        send: class.getattr("send")?.unbind(),
        recv_into: class.getattr("recv_into")?.unbind(),
        lend: class.getattr("lend")?.unbind(),
        recv_loan: class.getattr("recv_loan")?.unbind(),
    };
    if PREPARED.set(py, prepared).is_err() {
        return Ok(());
    }
    replace(class, "send", send)?;
    replace(class, "recv_into", recv_into)?;
    replace(class, "lend", lend)?;
    replace(class, "recv_loan", recv_loan)
}

fn replace(
    class: &Bound<'_, PyType>,
    name: &str,
    method: ffi::PyCFunctionFastWithKeywords,
) -> PyResult<()> {
    let py = class.py();
    let original = class.getattr(name)?;
    let signature: String = original.getattr("__text_signature__")?.extract()?;
    let doc: Option<String> = original.getattr("__doc__")?.extract()?;
    let doc = format!("{name}{signature}\n--\n\n{}", doc.unwrap_or_default());
    // CPython keeps the definition and its texts for as long as the class, which is for ever.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: CString::new(name)?.into_raw(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: method },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: CString::new(doc)?.into_raw(),
    }));
    // SAFETY: attached; a live type and a definition that is never freed. The function has the
    // form that the flags say.
    let descriptor = unsafe {
        let descriptor = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
        Bound::from_owned_ptr_or_err(py, descriptor)?
    };
    class.setattr(name, descriptor)
}

/// The arguments of one call.
#[derive(Clone, Copy)]
struct Arguments<'a, 'py> {
    py: Python<'py>,
    endpoint: Borrowed<'a, 'py, Endpoint>,
    values: *const *mut ffi::PyObject,
    positional: usize,
    /// A tuple of names, or null.
    names: *mut ffi::PyObject,
}

impl<'a, 'py> Arguments<'a, 'py> {
    #[inline(always)]
    fn value(&self, at: usize) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: callers stay below `positional` plus the number of names, and CPython keeps
        // that many live objects there during the call.
        unsafe { Borrowed::from_ptr(self.py, *self.values.add(at)) }
    }

    /// Calls `take` with each keyword and its value; `None` as soon as one is unusual.
    #[inline(always)]
    fn each_keyword(
        &self,
        mut take: impl FnMut(Keyword, Borrowed<'a, 'py, PyAny>) -> Option<()>,
    ) -> Option<()> {
        if self.names.is_null() {
            return Some(());
        }
        let known = &PREPARED.get(self.py)?.keywords;
        // SAFETY: attached, and a tuple by the calling convention.
        let count = unsafe { ffi::PyTuple_Size(self.names) } as usize;
        for at in 0..count {
            // SAFETY: as above, and `at` is below its size; the reference is borrowed.
            let name = unsafe { ffi::PyTuple_GetItem(self.names, at as ffi::Py_ssize_t) };
            let place = known.iter().position(|each| each.as_ptr() == name)?;
            take(BY_PLACE[place], self.value(self.positional + at))?;
        }
        Some(())
    }

    /// Calls the method that PyO3 made.
    #[cold]
    fn call_general(
        &self,
        original: impl Fn(&Prepared) -> &Py<PyAny>,
    ) -> PyResult<*mut ffi::PyObject> {
        let py = self.py;
        let Some(prepared) = PREPARED.get(py) else {
            return Err(PySystemError::new_err("the module is not ready"));
        };
        let mut values = vec![self.endpoint.to_owned().into_any()];
        values.extend((0..self.positional).map(|at| self.value(at).to_owned()));
        let keywords = PyDict::new(py);
        if !self.names.is_null() {
            // SAFETY: attached, and a tuple by the calling convention.
            let names = unsafe { Borrowed::from_ptr(py, self.names).cast_unchecked::<PyTuple>() };
            for (at, name) in names.iter().enumerate() {
                keywords.set_item(name, self.value(self.positional + at))?;
            }
        }
        let result =
            original(prepared).bind(py).call(PyTuple::new(py, values)?, Some(&keywords))?;
        Ok(result.into_ptr())
    }
}

#[inline(always)]
fn flag(value: Borrowed<'_, '_, PyAny>) -> Option<bool> {
    // SAFETY: attached, as a borrowed reference proves; only addresses are compared.
    let (yes, no) = unsafe { (ffi::Py_True(), ffi::Py_False()) };
    match value.as_ptr() {
        object if object == no => Some(false),
        object if object == yes => Some(true),
        _ => None,
    }
}

#[inline(always)]
fn optional<T>(
    value: Borrowed<'_, '_, PyAny>,
    read: impl Fn(Borrowed<'_, '_, PyAny>) -> Option<T>,
) -> Option<Option<T>> {
    if value.is_none() { Some(None) } else { read(value).map(Some) }
}

#[inline(always)]
fn integer(value: Borrowed<'_, '_, PyAny>) -> Option<u64> {
    value.extract().ok()
}

fn seconds(value: Borrowed<'_, '_, PyAny>) -> Option<f64> {
    value.extract().ok()
}

struct SendOptions {
    envelope: Envelope,
    timeout_s: Option<f64>,
}

fn send_options(arguments: &Arguments<'_, '_>) -> Option<SendOptions> {
    let mut options = SendOptions { envelope: Envelope::default(), timeout_s: None };
    let envelope = &mut options.envelope;
    arguments.each_keyword(|keyword, value| {
        match keyword {
            Keyword::Match => envelope.match_info = integer(value)?,
            Keyword::Immediate => envelope.immediate = integer(value)?.try_into().ok()?,
            Keyword::Synchronous => envelope.synchronous = flag(value)?,
            Keyword::Untagged => envelope.space = arguments::space(flag(value)?),
            Keyword::Timeout => options.timeout_s = optional(value, seconds)?,
            Keyword::Source | Keyword::Mask | Keyword::Dtype => return None,
        }
        Some(())
    })?;
    Some(options)
}

fn send_now(arguments: &Arguments<'_, '_>) -> PyResult<*mut ffi::PyObject> {
    let general = || arguments.call_general(|prepared| &prepared.send);
    if arguments.positional != 2 {
        return general();
    }
    let Some(options) = send_options(arguments) else { return general() };
    let dest = arguments.value(1);
    let Ok(dest) = dest.cast_exact::<Peer>() else { return general() };
    let dest = arguments::known(&arguments.endpoint, &dest)?;
    let buffer = Buffer::readable(&arguments.value(0))?;
    let SendOptions { envelope, timeout_s } = options;
    transfer::send(&arguments.endpoint, buffer, dest, &envelope, timeout_s)?;
    Ok(arguments.py.None().into_ptr())
}

struct ReceiveOptions<'a, 'py> {
    match_info: Option<u64>,
    mask: Option<u64>,
    source: Option<Borrowed<'a, 'py, PyAny>>,
    untagged: Option<bool>,
    timeout_s: Option<f64>,
    dtype: Option<Borrowed<'a, 'py, PyAny>>,
}

fn receive_options<'a, 'py>(arguments: &Arguments<'a, 'py>) -> Option<ReceiveOptions<'a, 'py>> {
    let mut options = ReceiveOptions {
        match_info: None,
        mask: None,
        source: None,
        untagged: None,
        timeout_s: None,
        dtype: None,
    };
    arguments.each_keyword(|keyword, value| {
        match keyword {
            Keyword::Match => options.match_info = optional(value, integer)?,
            Keyword::Mask => options.mask = optional(value, integer)?,
            Keyword::Source => options.source = (!value.is_none()).then_some(value),
            Keyword::Untagged => options.untagged = Some(flag(value)?),
            Keyword::Timeout => options.timeout_s = optional(value, seconds)?,
            Keyword::Dtype => options.dtype = Some(value),
            Keyword::Immediate | Keyword::Synchronous => return None,
        }
        Some(())
    })?;
    Some(options)
}

fn receive_now(arguments: &Arguments<'_, '_>) -> PyResult<*mut ffi::PyObject> {
    let general = || arguments.call_general(|prepared| &prepared.recv_into);
    if arguments.positional != 1 {
        return general();
    }
    let Some(options) = receive_options(arguments) else { return general() };
    let ReceiveOptions { match_info, mask, source, untagged, timeout_s, dtype } = options;
    if dtype.is_some() {
        return general();
    }
    let source = match &source {
        None => None,
        Some(source) => match source.cast_exact::<Peer>() {
            Ok(source) => Some(source),
            Err(_) => return general(),
        },
    };
    let (endpoint, untagged) = (&arguments.endpoint, untagged.unwrap_or(false));
    let selector = arguments::selector(endpoint, match_info, mask, source.as_deref(), untagged)?;
    let buffer = Buffer::writable(&arguments.value(0))?;
    let status = transfer::recv_into(endpoint, buffer, &selector, timeout_s)?;
    Ok(status.into_ptr())
}

fn lend_now(arguments: &Arguments<'_, '_>) -> PyResult<*mut ffi::PyObject> {
    let general = || arguments.call_general(|prepared| &prepared.lend);
    if arguments.positional != 2 {
        return general();
    }
    let mut envelope = Envelope::default();
    let usual = arguments.each_keyword(|keyword, value| {
        match keyword {
            Keyword::Match => envelope.match_info = integer(value)?,
            Keyword::Immediate => envelope.immediate = integer(value)?.try_into().ok()?,
            _ => return None,
        }
        Some(())
    });
    let peer = arguments.value(1);
    let (Some(()), Ok(peer)) = (usual, peer.cast_exact::<Peer>()) else { return general() };
    let peer = arguments::known(&arguments.endpoint, &peer)?;
    let buffer = Buffer::readable(&arguments.value(0))?;
    let request = loan::lend(&arguments.endpoint, buffer, peer, &envelope)?;
    Ok(Py::new(arguments.py, request)?.into_ptr())
}

fn borrow_now(arguments: &Arguments<'_, '_>) -> PyResult<*mut ffi::PyObject> {
    let general = || arguments.call_general(|prepared| &prepared.recv_loan);
    if arguments.positional != 0 {
        return general();
    }
    // A shape is among the unusual.
    let Some(options) = receive_options(arguments) else { return general() };
    let ReceiveOptions { match_info, mask, source, untagged, timeout_s, dtype } = options;
    let source = match &source {
        None => None,
        Some(source) => match source.cast_exact::<Peer>() {
            Ok(source) => Some(source),
            Err(_) => return general(),
        },
    };
    if untagged.is_some() {
        return general();
    }
    let endpoint = &arguments.endpoint;
    let selector = arguments::selector(endpoint, match_info, mask, source.as_deref(), false)?;
    let deadline = arguments::deadline(timeout_s)?;
    let wanted = loan::Wanted { dtype: dtype.as_deref(), shape: None };
    let loan = loan::recv(endpoint, &selector, &wanted, deadline)?;
    Ok(Py::new(arguments.py, loan)?.into_ptr())
}

/// `Endpoint.lend`.
unsafe extern "C" fn lend(
    endpoint: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a method of `Endpoint`.
    unsafe { enter(endpoint, values, positional, names, lend_now) }
}

/// `Endpoint.recv_loan`.
unsafe extern "C" fn recv_loan(
    endpoint: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a method of `Endpoint`.
    unsafe { enter(endpoint, values, positional, names, borrow_now) }
}

/// `Endpoint.send`.
unsafe extern "C" fn send(
    endpoint: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a method of `Endpoint`.
    unsafe { enter(endpoint, values, positional, names, send_now) }
}

/// `Endpoint.recv_into`.
unsafe extern "C" fn recv_into(
    endpoint: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: called by CPython as a method of `Endpoint`.
    unsafe { enter(endpoint, values, positional, names, receive_now) }
}

/// From C to Rust and back: exceptions are set, and panics do not leave.
///
/// # Safety
/// To be called by a fast call of CPython with keywords, on an endpoint.
#[inline(always)]
unsafe fn enter(
    endpoint: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
    call: impl Fn(&Arguments<'_, '_>) -> PyResult<*mut ffi::PyObject>,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls its methods attached.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: a live object, and the method descriptor has checked that it is an endpoint.
    let endpoint = unsafe { Borrowed::from_ptr(py, endpoint).cast_unchecked::<Endpoint>() };
    let positional = positional as usize;
    let arguments = Arguments { py, endpoint, values, positional, names };
    // Nothing that a panic could leave half-changed outlives the call.
    let result = catch_unwind(AssertUnwindSafe(|| call(&arguments)));
    let error = match result {
        Ok(Ok(object)) => return object,
        Ok(Err(error)) => error,
        Err(_) => PySystemError::new_err("diolkos has a bug: the native code panicked"),
    };
    error.restore(py);
    std::ptr::null_mut()
}
