// SPDX-License-Identifier: Apache-2.0
//! The machine under test, in one thread, without time: two or more endpoints joined by queues.
//!
//! ```text
//!   world       the harness: endpoints, numbered messages, `drive` until nothing moves
//!   timeline    each protocol as a story: what is called, what is seen
//!   multi       one buffer for many messages
//!   handler     the unexpected handler
//!   flow        credit, full rings, floods, sleepers that must be woken
//!   death       peers that leave or die, at every stage
//!   hostile     frames that no honest peer would write; hostile_random: any frames at all
//!   kept        requests as the MX interface has them
//!   granted     messages out of granted memory, and loans
//!   regions     operations on regions, granted and by copies
//!   process_vm  operations whose data the owner moves between the two processes' memory
//!   model       random programs against a naive model of MX
//! ```

mod death;
mod flow;
mod granted;
mod handler;
mod hostile;
mod hostile_random;
mod kept;
mod model;
mod multi;
mod process_vm;
mod regions;
mod timeline;
mod world;
