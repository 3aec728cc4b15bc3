// SPDX-License-Identifier: Apache-2.0
//! Memory that a request uses, whoever it belongs to.

use diolkos::{Sink, Source};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

use crate::buffer::Buffer;

/// What must stay where it is until a request is complete.
pub enum Lent {
    /// An object of the program.
    Buffer(Buffer),
    /// Memory of our own, on its way to become a message. Its length is zero until then.
    Owned(Vec<u8>),
    /// Nothing: a connect.
    Nothing,
}

impl Lent {
    /// Memory of our own for a message of `len_bytes`; its contents are undefined until received.
    pub fn owned(len_bytes: u64) -> PyResult<Self> {
        let mut memory = Vec::new();
        let len = usize::try_from(len_bytes).unwrap_or(usize::MAX);
        if memory.try_reserve_exact(len).is_err() {
            return Err(PyMemoryError::new_err(format!(
                "no memory for a message of {len_bytes} bytes"
            )));
        }
        Ok(Self::Owned(memory))
    }

    /// The memory for a send.
    pub fn source(&self) -> Source {
        match self {
            Self::Buffer(buffer) => buffer.source(),
            // SAFETY: an empty source touches no memory.
            Self::Owned(_) | Self::Nothing => unsafe { Source::from_raw(std::ptr::null(), 0) },
        }
    }

    /// The memory for a receive.
    pub fn sink(&mut self) -> Sink {
        match self {
            Self::Buffer(buffer) => buffer.sink(),
            // SAFETY: the vector's memory stays where it is while the vector is only moved, and
            // whoever holds `self` keeps it until the request is complete.
            Self::Owned(memory) => unsafe {
                Sink::from_raw(memory.as_mut_ptr(), memory.capacity())
            },
            // SAFETY: an empty sink touches no memory.
            Self::Nothing => unsafe { Sink::from_raw(std::ptr::null_mut(), 0) },
        }
    }

    /// The received message, when the memory was our own.
    ///
    /// # Safety
    /// A receive into [`Lent::sink`] must have completed with this many bytes transferred.
    pub unsafe fn received(self, transferred_bytes: u64) -> Option<Vec<u8>> {
        match self {
            Self::Owned(mut memory) => {
                assert!(transferred_bytes <= memory.capacity() as u64);
                // SAFETY: within the capacity (asserted), and written by the receive (promised).
                unsafe { memory.set_len(transferred_bytes as usize) };
                Some(memory)
            }
            Self::Buffer(_) | Self::Nothing => None,
        }
    }
}
