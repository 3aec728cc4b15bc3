// SPDX-License-Identifier: Apache-2.0
//! `Memory`: memory that can be lent, granted, or sent from without a copy.
//!
//! ```text
//!   alloc ---> in use ---- free ----> no new views ---- last view gone ----> the arena's again
//!                 \------------- nobody has it or a view any more ------------^
//! ```

use std::ffi::c_int;

use diolkos::{ArenaStatus as CoreStatus, Block, PeerId};
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PyTuple};

use crate::endpoint::Endpoint;
use crate::errors;
use crate::layout::{self, Layout};
use crate::lock::Mutex;

/// From this length on, memory is made and unmade detached.
const DETACH_BYTES: usize = (1 << 20) + 1;

/// Memory of an endpoint's arena: a writable buffer with a shape.
#[pyclass(frozen, weakref, module = "diolkos")]
pub struct Memory {
    layout: Layout,
    state: Mutex<State>,
}

struct State {
    /// Gone once it was freed and no view is left.
    block: Option<Block>,
    /// Views that have not been released.
    views: usize,
    freed: bool,
}

impl Memory {
    /// Memory for a layout; see [`diolkos::Endpoint::alloc`].
    #[inline]
    pub fn alloc(
        endpoint: &Bound<'_, Endpoint>,
        layout: Layout,
        align: usize,
        peer: Option<PeerId>,
    ) -> PyResult<Self> {
        let (py, core) = (endpoint.py(), &endpoint.get().core);
        let bytes = layout.len_bytes();
        // What an endpoint sends to itself, it may use again in any case.
        let peer = peer.filter(|peer| *peer != PeerId::SELF);
        let made = if bytes < DETACH_BYTES {
            core.alloc(bytes, align, peer)
        } else {
            py.detach(|| core.alloc(bytes, align, peer))
        };
        let block = made.map_err(|error| errors::from_core(py, error))?;
        let state = Mutex::new(State { block: Some(block), views: 0, freed: false });
        Ok(Self { layout, state })
    }

    /// Takes the memory out, to be dropped by the caller, if nothing holds it any more.
    fn last(state: &mut State) -> Option<Block> {
        if state.freed && state.views == 0 { state.block.take() } else { None }
    }
}

#[cold]
fn was_freed() -> PyErr {
    PyValueError::new_err("the memory was freed; allocate new memory with alloc()")
}

#[pymethods]
impl Memory {
    /// Lets no more views be made; the memory goes when the last one has.
    fn free(&self, py: Python<'_>) {
        let block = {
            let mut state = self.state.lock();
            state.freed = true;
            Self::last(&mut state)
        };
        if self.layout.len_bytes() < DETACH_BYTES {
            drop(block);
        } else {
            py.detach(|| drop(block));
        }
    }

    #[getter]
    fn freed(&self) -> bool {
        self.state.lock().freed
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.layout.len_bytes()
    }

    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.layout.shape(py)
    }

    #[getter]
    fn format(&self) -> String {
        self.layout.format().into_owned()
    }

    #[getter]
    fn itemsize(&self) -> isize {
        self.layout.item_bytes()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.free(py);
    }

    /// NumPy asks here when it was refused a view, and would hide why.
    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        array_of(slf.as_any(), dtype, copy)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let freed = if self.freed() { " freed" } else { "" };
        let (bytes, format) = (self.nbytes(), self.layout.format());
        let shape = self.layout.shape(py)?.repr()?;
        Ok(format!("<diolkos.Memory of {bytes} bytes: shape={shape} format={format:?}{freed}>"))
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let memory = slf.get();
        if let Some(why) = memory.layout.refuses(flags, false) {
            return Err(layout::refused(why));
        }
        let base = {
            let mut state = memory.state.lock();
            let base = state.block.as_ref().filter(|_| !state.freed).map(Block::base);
            state.views += usize::from(base.is_some());
            base
        };
        let base = base.ok_or_else(was_freed)?.as_ptr().cast();
        // SAFETY: attached, and the caller's view; the layout lies in the object, which does not
        // move. The block has as many bytes as the layout and stays while there are views.
        unsafe { memory.layout.fill(view, flags, slf.as_ptr(), base, false) };
        Ok(())
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        let block = {
            let mut state = self.state.lock();
            state.views -= 1;
            Self::last(&mut state)
        };
        drop(block);
    }
}

/// An array over a buffer, without a copy unless one is asked for.
pub fn array_of<'py>(
    object: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    copy: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let view = PyMemoryView::from(object)?;
    let array = py.import("numpy")?.call_method1("asarray", (view, dtype))?;
    match copy {
        Some(copy) if copy.is_truthy()? => array.call_method0("copy"),
        _ => Ok(array),
    }
}

/// How full an arena is.
#[pyclass(frozen, eq, get_all, module = "diolkos")]
#[derive(PartialEq, Eq)]
pub struct ArenaStatus {
    limit_nbytes: u64,
    used_nbytes: u64,
    cached_nbytes: u64,
    allocations: u64,
    granted_nbytes: u64,
}

impl From<CoreStatus> for ArenaStatus {
    fn from(status: CoreStatus) -> Self {
        Self {
            limit_nbytes: status.limit_bytes,
            used_nbytes: status.used_bytes,
            cached_nbytes: status.cached_bytes,
            allocations: status.allocations,
            granted_nbytes: status.granted_bytes,
        }
    }
}

#[pymethods]
impl ArenaStatus {
    fn __repr__(&self) -> String {
        format!(
            "<diolkos.ArenaStatus limit_nbytes={} used_nbytes={} cached_nbytes={} allocations={} \
             granted_nbytes={}>",
            self.limit_nbytes,
            self.used_nbytes,
            self.cached_nbytes,
            self.allocations,
            self.granted_nbytes,
        )
    }
}
