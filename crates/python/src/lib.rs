// SPDX-License-Identifier: Apache-2.0
//! `diolkos._core`: the Python face of the crate `diolkos`.
//!
//! It converts and delegates; there is no protocol logic here. One file per class:
//!
//! ```text
//!   endpoint    Endpoint, and the calls of its users        status     what became of a request
//!   request     something under way                         message    received memory of its own
//!   claim       a message found by a probe, and taken       multi      one buffer, many messages
//!   peer        somebody to send to                         handler    messages without a receive
//!   memory      memory of an endpoint's arena               loan       memory of a peer, to look at
//!   region      memory that peers may use, and its key      rdma       operations on those of peers
//!   relay       the switched road, for the backend          bench      loops for measuring
//! ```
//!
//! # Rules
//!
//! 1. **Try first, wait later.** Every blocking call looks for its result under the interpreter's
//!    lock, for about as long as giving the lock up would cost, and only then detaches
//!    ([`waiting`]). While detached it waits in slices and looks for signals between them.
//! 2. **Memory is lent to the core, never shared with it by accident.** A [`lent::Lent`] travels
//!    with the request that uses it and is given back when the request is complete. A request
//!    that nobody wants any more leaves its memory with the endpoint, which lets go of it once the
//!    core has ([`orphans`]).
//! 3. **No lock while waiting for the interpreter's.** Whoever is attached may wait for the core's
//!    lock or for that of an object ([`lock`]), so nobody may want to be attached while holding
//!    one. The core calls Python in one place only, without its lock ([`handler`]); objects keep
//!    theirs for as long as it takes to move a value in or out.
//! 4. **A forked child leaves everything alone.** The core refuses every call there; memory that
//!    was lent is the child's own copy and is simply released.
//!
//! `python/diolkos/_core.pyi` describes what is here for users; `stubtest` compares the two.

mod arguments;
mod bench;
mod bench_granted;
mod buffer;
mod claim;
mod endpoint;
mod errors;
mod fastcall;
mod handler;
mod layout;
mod lent;
mod link;
mod loan;
mod lock;
mod memory;
mod message;
mod multi;
mod orphans;
mod peer;
mod rdma;
mod region;
mod relay;
mod request;
mod status;
mod transfer;
mod wait_any;
mod waiting;

use pyo3::prelude::*;

/// The native module.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    status::prepare(module.py());
    module.add_class::<endpoint::Endpoint>()?;
    fastcall::install(&module.py().get_type::<endpoint::Endpoint>())?;
    module.add_class::<peer::Peer>()?;
    module.add_class::<status::Status>()?;
    module.add_class::<request::Request>()?;
    module.add_class::<message::Message>()?;
    module.add_class::<claim::ClaimedMessage>()?;
    module.add_class::<multi::MultiReceive>()?;
    module.add_class::<multi::Delivery>()?;
    module.add_class::<memory::Memory>()?;
    module.add_class::<memory::ArenaStatus>()?;
    module.add_class::<loan::Loan>()?;
    module.add_class::<region::Region>()?;
    module.add_class::<region::Key>()?;
    module.add_class::<relay::Relay>()?;
    module.add_function(wrap_pyfunction!(wait_any::wait_any, module)?)?;
    module.add_function(wrap_pyfunction!(endpoint::local_pair, module)?)?;
    module.add_function(wrap_pyfunction!(bench::bench_pingpong, module)?)?;
    module.add_function(wrap_pyfunction!(bench::bench_rate, module)?)?;
    module.add_function(wrap_pyfunction!(bench_granted::bench_rdma, module)?)?;
    module.add_function(wrap_pyfunction!(bench::cache_line_ns, module)?)?;
    module.add_function(wrap_pyfunction!(bench::eventfd_wake, module)?)?;
    Ok(())
}
