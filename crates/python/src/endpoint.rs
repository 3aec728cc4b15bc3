// SPDX-License-Identifier: Apache-2.0
//! `Endpoint`: a port on which messages are sent, received and matched.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use diolkos::{AtomicOp, ContextBits, Envelope, OpenOptions, PeerId, RequestId};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyWeakrefReference};

use crate::arguments;
use crate::buffer::Buffer;
use crate::claim::ClaimedMessage;
use crate::errors;
use crate::handler::{self, HandlerCell};
use crate::layout::{Element, Layout};
use crate::lent::Lent;
use crate::link::Link;
use crate::loan::{self, Loan};
use crate::memory::{ArenaStatus, Memory};
use crate::message::Message;
use crate::multi::MultiReceive;
use crate::orphans::{self, Orphans};
use crate::peer::Peer;
use crate::rdma::{self, Place};
use crate::region::{self, Key, Region, Regions};
use crate::request::Request;
use crate::status::{Recycled, Status};
use crate::transfer;
use crate::waiting;

/// A port on which messages are sent, received and matched.
#[pyclass(frozen, weakref, module = "diolkos")]
pub struct Endpoint {
    pub core: diolkos::Endpoint,
    orphans: Orphans,
    handler: Arc<HandlerCell>,
    /// Tells this endpoint from all others of the process.
    pub serial: u64,
    weak: PyOnceLock<Py<PyWeakrefReference>>,
    /// What `recv_into` gave out last.
    pub recycled: Recycled,
    pub regions: Regions,
}

impl Endpoint {
    fn new(core: diolkos::Endpoint) -> Self {
        Self {
            core,
            orphans: Orphans::default(),
            handler: Arc::default(),
            serial: Link::next_serial(),
            weak: PyOnceLock::new(),
            recycled: Recycled::default(),
            regions: Regions::default(),
        }
    }

    /// A weak reference to this endpoint; `slf` is the object that it is in.
    #[inline]
    pub fn weak(&self, slf: &Bound<'_, Self>) -> Option<Py<PyWeakrefReference>> {
        let py = slf.py();
        let new = || PyWeakrefReference::new(slf).map(Bound::unbind);
        Some(self.weak.get_or_try_init(py, new).ok()?.clone_ref(py))
    }

    /// Keeps the memory of a request that nobody waits for, until the core is done with it.
    pub fn adopt(&self, request: RequestId, kind: orphans::Kind, lent: Lent) {
        self.orphans.adopt(&self.core, request, kind, lent);
    }

    /// Lets go of memory that the core is done with.
    #[inline(always)]
    pub fn reap(&self) {
        self.orphans.reap(&self.core);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // Ends every request, so that nothing is written to the memory that goes next.
        self.core.close();
        self.regions.end();
    }
}

#[pymethods]
impl Endpoint {
    #[new]
    #[pyo3(signature = (
        name = None, *, number = None, partition = None, context_ids = None,
        runtime_dir = None, start_backend = true, arena_nbytes = None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "keywords of the Python class")]
    fn open(
        py: Python<'_>,
        name: Option<String>,
        number: Option<u32>,
        partition: Option<String>,
        context_ids: Option<(u8, u8)>,
        runtime_dir: Option<PathBuf>,
        start_backend: bool,
        arena_nbytes: Option<u64>,
    ) -> PyResult<Self> {
        let partition = match partition {
            Some(partition) => partition,
            None => std::env::var("DIOLKOS_PARTITION").unwrap_or_else(|_| "default".into()),
        };
        let context = match context_ids {
            None => ContextBits::default(),
            Some((bits, shift)) => ContextBits::new(bits, shift).ok_or_else(|| {
                PyValueError::new_err(
                    "context_ids is (bits, shift) with bits <= 16 and bits + shift <= 64",
                )
            })?,
        };
        let backend_command = if start_backend { backend_command(py)? } else { Vec::new() };
        let options = OpenOptions {
            name,
            number,
            partition,
            runtime_dir,
            backend_command,
            context,
            arena_bytes: arena_nbytes,
            ..OpenOptions::default()
        };
        Ok(Self::new(transfer::open(py, options)?))
    }

    #[getter]
    fn name(&self) -> &str {
        &self.core.identity().name
    }

    #[getter]
    fn number(&self) -> u32 {
        self.core.identity().number
    }

    #[getter]
    fn partition(&self) -> &str {
        &self.core.identity().partition
    }

    #[getter]
    fn closed(&self) -> bool {
        self.core.is_closed()
    }

    #[getter]
    fn self_peer(slf: &Bound<'_, Self>) -> Peer {
        Peer::new(slf, PeerId::SELF)
    }

    #[getter]
    fn peers<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let peers = slf.get().core.peers().map_err(|error| errors::from_core(py, error))?;
        PyTuple::new(py, peers.into_iter().map(|peer| Peer::introduced(slf, peer)))
    }

    #[pyo3(signature = (target, *, timeout = None, road = "auto"))]
    fn connect(
        slf: &Bound<'_, Self>,
        target: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        road: &str,
    ) -> PyResult<Peer> {
        let timeout = arguments::duration(timeout)?;
        let (target, road) = (arguments::target(target)?, arguments::road(road)?);
        transfer::connect(slf, &target, road, timeout)
    }

    #[pyo3(signature = (target, *, timeout = None, road = "auto"))]
    fn iconnect(
        slf: &Bound<'_, Self>,
        target: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        road: &str,
    ) -> PyResult<Request> {
        let timeout = arguments::duration(timeout)?;
        let (target, road) = (arguments::target(target)?, arguments::road(road)?);
        let request = slf.get().core.iconnect(&target, road, timeout);
        let request = request.map_err(|error| errors::from_core(slf.py(), error))?;
        Ok(Request::connecting(slf, request))
    }

    fn disconnect(slf: &Bound<'_, Self>, peer: &Bound<'_, Peer>) -> PyResult<()> {
        let peer = arguments::known(slf, peer)?;
        let this = slf.get();
        let parted = slf.py().detach(|| this.core.disconnect(peer));
        this.reap();
        parted.map_err(|error| errors::from_core(slf.py(), error))
    }

    #[pyo3(signature = (
        buffer, dest, *, r#match = 0, immediate = 0, synchronous = false, untagged = false,
        timeout = None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "keywords of the Python method")]
    fn send(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        dest: &Bound<'_, Peer>,
        r#match: u64,
        immediate: u32,
        synchronous: bool,
        untagged: bool,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let dest = arguments::known(slf, dest)?;
        let space = arguments::space(untagged);
        let envelope = Envelope { match_info: r#match, immediate, space, synchronous };
        transfer::send(slf, Buffer::readable(buffer)?, dest, &envelope, timeout)
    }

    #[pyo3(signature = (
        buffer, dest, *, r#match = 0, immediate = 0, synchronous = false, untagged = false,
    ))]
    fn isend(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        dest: &Bound<'_, Peer>,
        r#match: u64,
        immediate: u32,
        synchronous: bool,
        untagged: bool,
    ) -> PyResult<Request> {
        let dest = arguments::known(slf, dest)?;
        let space = arguments::space(untagged);
        let envelope = Envelope { match_info: r#match, immediate, space, synchronous };
        transfer::isend(slf, Buffer::readable(buffer)?, dest, &envelope)
    }

    #[pyo3(signature = (buffer, dest, *, r#match = 0, immediate = 0, untagged = false))]
    fn issend(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        dest: &Bound<'_, Peer>,
        r#match: u64,
        immediate: u32,
        untagged: bool,
    ) -> PyResult<Request> {
        Self::isend(slf, buffer, dest, r#match, immediate, true, untagged)
    }

    #[pyo3(signature = (
        buffer, *, r#match = None, mask = None, source = None, untagged = false, timeout = None,
    ))]
    fn recv_into(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
        timeout: Option<f64>,
    ) -> PyResult<Py<Status>> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        transfer::recv_into(slf, Buffer::writable(buffer)?, &selector, timeout)
    }

    #[pyo3(signature = (
        *, r#match = None, mask = None, source = None, untagged = false, timeout = None,
    ))]
    fn recv(
        slf: &Bound<'_, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
        timeout: Option<f64>,
    ) -> PyResult<Message> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        transfer::recv(slf, &selector, arguments::deadline(timeout)?)
    }

    #[pyo3(signature = (buffer, *, r#match = None, mask = None, source = None, untagged = false))]
    fn irecv_into(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
    ) -> PyResult<Request> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        transfer::irecv(slf, Lent::Buffer(Buffer::writable(buffer)?), &selector)
    }

    #[pyo3(signature = (
        max_nbytes, *, r#match = None, mask = None, source = None, untagged = false,
    ))]
    fn irecv(
        slf: &Bound<'_, Self>,
        max_nbytes: u64,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
    ) -> PyResult<Request> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        transfer::irecv(slf, Lent::owned(max_nbytes)?, &selector)
    }

    #[pyo3(signature = (
        *, r#match = None, mask = None, source = None, untagged = false, timeout = None,
    ))]
    fn probe(
        slf: &Bound<'_, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
        timeout: Option<f64>,
    ) -> PyResult<Status> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        transfer::probe(slf, &selector, arguments::deadline(timeout)?)
    }

    #[pyo3(signature = (*, r#match = None, mask = None, source = None, untagged = false))]
    fn iprobe(
        slf: &Bound<'_, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
    ) -> PyResult<Option<Status>> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        let found = slf.get().core.iprobe(&selector);
        let found = found.map_err(|error| errors::from_core(slf.py(), error))?;
        Ok(found.map(|status| Status::new(slf, status)))
    }

    #[pyo3(signature = (
        *, r#match = None, mask = None, source = None, untagged = false, timeout = None,
    ))]
    fn mprobe(
        slf: &Bound<'_, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
        timeout: Option<f64>,
    ) -> PyResult<ClaimedMessage> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        let (claim, status) = transfer::claim(slf, &selector, arguments::deadline(timeout)?)?;
        Ok(ClaimedMessage::new(slf, claim, status))
    }

    #[pyo3(signature = (*, r#match = None, mask = None, source = None, untagged = false))]
    fn improbe(
        slf: &Bound<'_, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
    ) -> PyResult<Option<ClaimedMessage>> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        let found = slf.get().core.improbe(&selector);
        let found = found.map_err(|error| errors::from_core(slf.py(), error))?;
        Ok(found.map(|(claim, status)| ClaimedMessage::new(slf, claim, status)))
    }

    #[pyo3(signature = (
        buffer, *, min_free = 1, r#match = None, mask = None, source = None, untagged = false,
    ))]
    fn multi_recv(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        min_free: usize,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
    ) -> PyResult<MultiReceive> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        MultiReceive::post(slf, buffer, min_free, &selector)
    }

    /// Cancels a request of this endpoint; `False` when it is too late.
    fn cancel(slf: &Bound<'_, Self>, request: &Bound<'_, Request>) -> PyResult<bool> {
        request.get().require_endpoint(slf)?;
        request.get().cancel_now(slf.py())
    }

    #[pyo3(signature = (handler, /))]
    fn on_unexpected(slf: &Bound<'_, Self>, handler: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        handler::install(slf, &slf.get().handler, handler)
    }

    #[pyo3(signature = (obj, dest, *, r#match = 0, timeout = None))]
    fn send_object(
        slf: &Bound<'_, Self>,
        obj: &Bound<'_, PyAny>,
        dest: &Bound<'_, Peer>,
        r#match: u64,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let objects = slf.py().import("diolkos.objects")?;
        objects.call_method1("send_object", (slf, obj, dest, r#match, timeout))?;
        Ok(())
    }

    #[pyo3(signature = (
        *, r#match = None, mask = None, source = None, max_nbytes = None, timeout = None,
    ))]
    fn recv_object<'py>(
        slf: &Bound<'py, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'py, Peer>>,
        max_nbytes: Option<u64>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let objects = slf.py().import("diolkos.objects")?;
        let arguments = (slf, r#match, mask, source, max_nbytes, timeout);
        objects.call_method1("recv_object", arguments)
    }

    /// For event loops: `None` when the message has left, else the request.
    #[pyo3(signature = (buffer, dest, r#match, immediate, synchronous, untagged, /))]
    fn try_send(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        dest: &Bound<'_, Peer>,
        r#match: u64,
        immediate: u32,
        synchronous: bool,
        untagged: bool,
    ) -> PyResult<Option<Request>> {
        let dest = arguments::known(slf, dest)?;
        let space = arguments::space(untagged);
        let envelope = Envelope { match_info: r#match, immediate, space, synchronous };
        transfer::try_send(slf, Buffer::readable(buffer)?, dest, &envelope)
    }

    /// For event loops: the status when a message is here, the request when the rest of it is on
    /// its way, `None` when there is none.
    #[pyo3(signature = (buffer, r#match, mask, source, untagged, /))]
    fn try_recv_into(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
    ) -> PyResult<Option<Py<PyAny>>> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        transfer::try_recv_into(slf, Buffer::writable(buffer)?, &selector)
    }

    /// As `try_recv_into`, into memory of its own: the message, the request, or `None`.
    #[pyo3(signature = (r#match, mask, source, untagged, /))]
    fn try_recv(
        slf: &Bound<'_, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        untagged: bool,
    ) -> PyResult<Option<Py<PyAny>>> {
        let selector = arguments::selector(slf, r#match, mask, source, untagged)?;
        transfer::try_recv(slf, &selector)
    }

    #[pyo3(signature = (shape, dtype = None, *, align = 64, peer = None),
        text_signature = "($self, shape, dtype='u1', *, align=64, peer=None)",
    )]
    fn alloc(
        slf: &Bound<'_, Self>,
        shape: &Bound<'_, PyAny>,
        dtype: Option<&Bound<'_, PyAny>>,
        align: usize,
        peer: Option<&Bound<'_, Peer>>,
    ) -> PyResult<Memory> {
        let peer = peer.map(|peer| arguments::known(slf, peer)).transpose()?;
        let layout = Layout::shaped(shape, Element::named(dtype)?)?;
        Memory::alloc(slf, layout, align, peer)
    }

    #[getter]
    fn arena(&self) -> ArenaStatus {
        self.core.arena().into()
    }

    #[pyo3(signature = (buffer, access = "r", *, peer = None))]
    fn register(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        access: &str,
        peer: Option<&Bound<'_, Peer>>,
    ) -> PyResult<Region> {
        let peer = peer.map(|peer| arguments::known(slf, peer)).transpose()?;
        Region::register(slf, buffer, access, peer)
    }

    #[pyo3(signature = (
        local, peer, key, offset = None, *, notify = None, immediate = 0, timeout = None,
    ),
        text_signature = "($self, local, peer, key, offset=0, *, notify=None, immediate=0, \
                          timeout=None)",
    )]
    #[expect(clippy::too_many_arguments, reason = "keywords of the Python method")]
    fn rdma_write(
        slf: &Bound<'_, Self>,
        local: &Bound<'_, PyAny>,
        peer: &Bound<'_, Peer>,
        key: &Bound<'_, Key>,
        offset: Option<&Bound<'_, PyAny>>,
        notify: Option<u64>,
        immediate: u32,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let place = Place::new(arguments::known(slf, peer)?, key, offset)?;
        let notice = rdma::notice(notify, immediate);
        rdma::write(slf, Buffer::readable(local)?, place, notice, timeout)
    }

    #[pyo3(signature = (local, peer, key, offset = None, *, notify = None, immediate = 0),
        text_signature = "($self, local, peer, key, offset=0, *, notify=None, immediate=0)",
    )]
    fn irdma_write(
        slf: &Bound<'_, Self>,
        local: &Bound<'_, PyAny>,
        peer: &Bound<'_, Peer>,
        key: &Bound<'_, Key>,
        offset: Option<&Bound<'_, PyAny>>,
        notify: Option<u64>,
        immediate: u32,
    ) -> PyResult<Request> {
        let place = Place::new(arguments::known(slf, peer)?, key, offset)?;
        let local = Buffer::readable(local)?;
        let bytes = local.len_bytes();
        let request = rdma::try_write(slf, local, place, rdma::notice(notify, immediate))?;
        Ok(request.unwrap_or_else(|| rdma::done(slf, place.peer, bytes)))
    }

    #[pyo3(signature = (into, peer, key, offset = None, *, timeout = None),
        text_signature = "($self, into, peer, key, offset=0, *, timeout=None)",
    )]
    fn rdma_read(
        slf: &Bound<'_, Self>,
        into: &Bound<'_, PyAny>,
        peer: &Bound<'_, Peer>,
        key: &Bound<'_, Key>,
        offset: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let place = Place::new(arguments::known(slf, peer)?, key, offset)?;
        rdma::read(slf, Buffer::writable(into)?, place, timeout)
    }

    #[pyo3(signature = (into, peer, key, offset = None),
        text_signature = "($self, into, peer, key, offset=0)",
    )]
    fn irdma_read(
        slf: &Bound<'_, Self>,
        into: &Bound<'_, PyAny>,
        peer: &Bound<'_, Peer>,
        key: &Bound<'_, Key>,
        offset: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Request> {
        let place = Place::new(arguments::known(slf, peer)?, key, offset)?;
        let into = Buffer::writable(into)?;
        let bytes = into.len_bytes();
        let request = rdma::try_read(slf, into, place)?;
        Ok(request.unwrap_or_else(|| rdma::done(slf, place.peer, bytes)))
    }

    #[pyo3(signature = (peer, key, offset, value, *, timeout = None))]
    fn fetch_add(
        slf: &Bound<'_, Self>,
        peer: &Bound<'_, Peer>,
        key: &Bound<'_, Key>,
        offset: &Bound<'_, PyAny>,
        value: u64,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        let place = Place::new(arguments::known(slf, peer)?, key, Some(offset))?;
        rdma::atomic(slf, place, AtomicOp::FetchAdd(value), timeout)
    }

    #[pyo3(signature = (peer, key, offset, expected, desired, *, timeout = None))]
    fn compare_swap(
        slf: &Bound<'_, Self>,
        peer: &Bound<'_, Peer>,
        key: &Bound<'_, Key>,
        offset: &Bound<'_, PyAny>,
        expected: u64,
        desired: u64,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        let place = Place::new(arguments::known(slf, peer)?, key, Some(offset))?;
        rdma::atomic(slf, place, AtomicOp::CompareSwap { expected, desired }, timeout)
    }

    #[pyo3(signature = (peer, *, timeout = None))]
    fn rdma_fence(
        slf: &Bound<'_, Self>,
        peer: &Bound<'_, Peer>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        rdma::fence(slf, arguments::known(slf, peer)?, timeout)
    }

    fn reach(
        slf: &Bound<'_, Self>,
        peer: &Bound<'_, Peer>,
        key: &Bound<'_, Key>,
    ) -> PyResult<&'static str> {
        let reach = slf.get().core.reach(arguments::known(slf, peer)?, &key.get().0);
        reach.map(region::reach_name).map_err(|error| errors::from_core(slf.py(), error))
    }

    #[pyo3(signature = (buffer, peer, *, r#match = 0, immediate = 0))]
    fn lend(
        slf: &Bound<'_, Self>,
        buffer: &Bound<'_, PyAny>,
        peer: &Bound<'_, Peer>,
        r#match: u64,
        immediate: u32,
    ) -> PyResult<Request> {
        let peer = arguments::known(slf, peer)?;
        let envelope = Envelope { match_info: r#match, immediate, ..Envelope::default() };
        loan::lend(slf, Buffer::readable(buffer)?, peer, &envelope)
    }

    #[pyo3(signature = (
        *, r#match = None, mask = None, source = None, dtype = None, shape = None, timeout = None,
    ),
        text_signature = "($self, *, match=None, mask=None, source=None, dtype='u1', shape=None, \
                          timeout=None)",
    )]
    fn recv_loan(
        slf: &Bound<'_, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
        dtype: Option<&Bound<'_, PyAny>>,
        shape: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Loan> {
        let selector = arguments::selector(slf, r#match, mask, source, false)?;
        let wanted = loan::Wanted { dtype, shape };
        loan::recv(slf, &selector, &wanted, arguments::deadline(timeout)?)
    }

    #[pyo3(signature = (*, r#match = None, mask = None, source = None))]
    fn irecv_loan(
        slf: &Bound<'_, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
    ) -> PyResult<Request> {
        loan::irecv(slf, &arguments::selector(slf, r#match, mask, source, false)?)
    }

    /// For `send_object`: whether there are regions whose keys may be in an object.
    #[getter]
    fn has_regions(&self) -> bool {
        !self.regions.is_empty()
    }

    /// For `send_object`: grants the region of a key to a peer, if it is one of ours.
    #[pyo3(signature = (key, peer, /))]
    fn grant_key(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, Key>,
        peer: &Bound<'_, Peer>,
    ) -> PyResult<bool> {
        let granted = slf.get().regions.grant(&key.get().0, arguments::known(slf, peer)?);
        granted.map_err(|error| errors::from_core(slf.py(), error))
    }

    /// For event loops: the old value when it is done, else the request, whose status has it as its
    /// `match`.
    #[pyo3(signature = (peer, key, offset, value, /))]
    fn try_fetch_add(
        slf: &Bound<'_, Self>,
        peer: &Bound<'_, Peer>,
        key: &Bound<'_, Key>,
        offset: &Bound<'_, PyAny>,
        value: u64,
    ) -> PyResult<Py<PyAny>> {
        let place = Place::new(arguments::known(slf, peer)?, key, Some(offset))?;
        rdma::try_atomic(slf, place, AtomicOp::FetchAdd(value))
    }

    /// As `try_fetch_add`.
    #[pyo3(signature = (peer, key, offset, expected, desired, /))]
    fn try_compare_swap(
        slf: &Bound<'_, Self>,
        peer: &Bound<'_, Peer>,
        key: &Bound<'_, Key>,
        offset: &Bound<'_, PyAny>,
        expected: u64,
        desired: u64,
    ) -> PyResult<Py<PyAny>> {
        let place = Place::new(arguments::known(slf, peer)?, key, Some(offset))?;
        rdma::try_atomic(slf, place, AtomicOp::CompareSwap { expected, desired })
    }

    /// For event loops: `None` when there is nothing to wait for, else the request.
    #[pyo3(signature = (peer, /))]
    fn try_rdma_fence(slf: &Bound<'_, Self>, peer: &Bound<'_, Peer>) -> PyResult<Option<Request>> {
        rdma::try_fence(slf, arguments::known(slf, peer)?)
    }

    /// For event loops: the loan that is here, the request of one that is being copied, or `None`.
    #[pyo3(signature = (r#match, mask, source, /))]
    fn try_recv_loan(
        slf: &Bound<'_, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        loan::try_recv(slf, &arguments::selector(slf, r#match, mask, source, false)?)
    }

    /// For event loops: whether a loan is here that no receive has taken.
    #[pyo3(signature = (r#match, mask, source, /))]
    fn has_loan(
        slf: &Bound<'_, Self>,
        r#match: Option<u64>,
        mask: Option<u64>,
        source: Option<&Bound<'_, Peer>>,
    ) -> PyResult<bool> {
        loan::is_here(slf, &arguments::selector(slf, r#match, mask, source, false)?)
    }

    fn progress(&self, py: Python<'_>) -> PyResult<()> {
        self.reap();
        self.core.progress().map_err(|error| errors::from_core(py, error))
    }

    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        if self.core.is_forked() {
            return Err(errors::from_core(py, diolkos::Error::Forked));
        }
        if self.core.is_closed() {
            return Err(errors::from_core(py, diolkos::Error::Closed));
        }
        Ok(self.core.descriptor().as_raw_fd())
    }

    fn linger(&self, py: Python<'_>) -> PyResult<bool> {
        self.core.linger(waiting::SPIN).map_err(|error| errors::from_core(py, error))
    }

    fn rest(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        let again = self.core.rest().map_err(|error| errors::from_core(py, error))?;
        Ok(again.map(|left| left.as_secs_f64()))
    }

    fn arm(&self, py: Python<'_>) -> PyResult<bool> {
        self.reap();
        self.core.arm().map_err(|error| errors::from_core(py, error))
    }

    fn disarm(&self, py: Python<'_>) -> PyResult<()> {
        self.core.disarm().map_err(|error| errors::from_core(py, error))
    }

    #[getter]
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.core.counters().map_err(|error| errors::from_core(py, error))?;
        let dict = PyDict::new(py);
        for (name, value) in [
            ("tx_messages", counters.tx_messages),
            ("tx_bytes", counters.tx_bytes),
            ("rx_messages", counters.rx_messages),
            ("rx_bytes", counters.rx_bytes),
            ("doorbells_rung", counters.doorbells_rung),
            ("sleeps", counters.sleeps),
            ("unexpected", counters.unexpected),
            ("posted", counters.posted),
            ("requests", counters.requests),
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.core.close());
        self.reap();
        self.regions.end();
        self.handler.clear();
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "an Endpoint belongs to the process that opened it and cannot be pickled; \
             open one of its own in the other process",
        ))
    }

    fn __repr__(&self) -> String {
        let identity = self.core.identity();
        let state = if self.core.is_forked() {
            " of the parent process"
        } else if self.core.is_closed() {
            " closed"
        } else {
            ""
        };
        format!(
            "<diolkos.Endpoint {} number {} in partition {}{state}>",
            identity.name, identity.number, identity.partition
        )
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.handler.traverse(&visit)
    }

    fn __clear__(&self) {
        self.handler.clear();
    }
}

/// Two endpoints of this process, joined without a backend; each with its peer.
#[pyfunction]
pub fn local_pair(py: Python<'_>) -> PyResult<[(Py<Endpoint>, Py<Peer>); 2]> {
    let pair = diolkos::Endpoint::local_pair().map_err(|error| errors::from_core(py, error))?;
    let [a, b] = pair.map(|(core, peer)| {
        let endpoint = Bound::new(py, Endpoint::new(core))?;
        let peer = Py::new(py, Peer::introduced(&endpoint, peer))?;
        PyResult::Ok((endpoint.unbind(), peer))
    });
    Ok([a?, b?])
}

/// What starts a backend for this user when none runs.
fn backend_command(py: Python<'_>) -> PyResult<Vec<std::ffi::OsString>> {
    let executable = py.import("sys")?.getattr("executable")?;
    if !executable.is_truthy()? {
        // An embedded interpreter that does not know its own program.
        return Ok(Vec::new());
    }
    let mut command = vec![executable.extract::<std::ffi::OsString>()?];
    command.extend(["-m", "diolkos", "backend", "--idle-exit", "60"].map(Into::into));
    Ok(command)
}
