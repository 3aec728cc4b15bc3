// SPDX-License-Identifier: Apache-2.0
//! What a program may ask about: boards, limits, counters.

use std::ffi::c_void;
use std::sync::Arc;

use diolkos_shm::layout::{HOME_CHANNELS_MAX, HOME_WORD_CHANNELS, HOME_WORD_ENDPOINT};
use diolkos_shm::sync::Ordering;
use diolkos_shm::words::Words;

use crate::board;
use crate::codes;
use crate::endpoint::{ENDPOINTS_MAX, Port};
use crate::errors::fail;
use crate::library;
use crate::types::{Code, EndpointHandle};

/// Bytes of a label, the final zero included.
const LABEL_BYTES: usize = 128;
/// Payload that lies in the small part of a channel.
const SMALL_BYTES_MAX: u32 = 512;
const UNKNOWN_NODE: u32 = u32::MAX;
const NET_ETHER: u32 = 1;
const SPEED_OPEN_MX: u32 = 2;
const NO_HARDWARE: &str = "N/A (Diolkos)";

/// What is counted; each value is the lowest 32 bits.
pub const COUNTERS: [&str; 9] = [
    "Messages sent",
    "Bytes sent",
    "Messages received",
    "Bytes received",
    "Doorbells rung for sleeping peers",
    "Sleeps",
    "Unexpected messages now",
    "Posted receives now",
    "Requests now",
];

/// An answer, as bytes of the program's own kinds.
pub struct Out(Vec<u8>);

impl Out {
    pub fn word(value: u32) -> Self {
        Self(value.to_ne_bytes().to_vec())
    }

    pub fn words(values: &[u32]) -> Self {
        Self(values.iter().flat_map(|value| value.to_ne_bytes()).collect())
    }

    pub fn text(text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        Self(bytes)
    }

    pub fn labels() -> Self {
        let mut bytes = vec![0; COUNTERS.len() * LABEL_BYTES];
        for (label, place) in COUNTERS.iter().zip(bytes.chunks_mut(LABEL_BYTES)) {
            place[..label.len()].copy_from_slice(label.as_bytes());
        }
        Self(bytes)
    }

    /// The NIC ids of all boards, and a zero.
    pub fn nic_ids() -> Self {
        Self([board::nic_id(), 0].iter().flat_map(|id| id.to_ne_bytes()).collect())
    }

    /// Writes it to the program's memory.
    ///
    /// # Errors
    /// The code for a null pointer, or for too little room.
    ///
    /// # Safety
    /// `to` is null or has `room` bytes.
    pub unsafe fn write(&self, to: *mut c_void, room: u32) -> Result<(), Code> {
        if to.is_null() {
            return Err(codes::BAD_INFO_VAL);
        }
        if (room as usize) < self.0.len() {
            return Err(codes::BAD_INFO_LENGTH);
        }
        // SAFETY: there is room, as just seen.
        unsafe { to.cast::<u8>().copy_from_nonoverlapping(self.0.as_ptr(), self.0.len()) };
        Ok(())
    }
}

/// The input value: a number of one or four bytes.
///
/// # Errors
/// The code for another length.
///
/// # Safety
/// `value` is null or has `length` bytes.
pub unsafe fn number(value: *const c_void, length: u32) -> Result<Option<u32>, Code> {
    if value.is_null() {
        return Ok(None);
    }
    match length {
        // SAFETY: as the caller says.
        1 => Ok(Some(u32::from(unsafe { value.cast::<u8>().read() }))),
        // SAFETY: as the caller says.
        4 => Ok(Some(unsafe { value.cast::<u32>().read_unaligned() })),
        _ => Err(codes::BAD_INFO_LENGTH),
    }
}

/// The counters of an endpoint, or of all that this user may see.
pub fn counters(port: Option<&Port>) -> Result<Out, Code> {
    let values = match port {
        Some(port) => {
            let counters = port.core.counters().map_err(|error| codes::of_error(&error))?;
            [
                counters.tx_messages,
                counters.tx_bytes,
                counters.rx_messages,
                counters.rx_bytes,
                counters.doorbells_rung,
                counters.sleeps,
                counters.unexpected,
                counters.posted,
                counters.requests,
            ]
        }
        None => board_counters(),
    };
    Ok(Out::words(&values.map(|value| value as u32)))
}

/// Sums of what the endpoints publish in their homes; zeros when no backend runs.
fn board_counters() -> [u64; COUNTERS.len()] {
    let mut sum = [0_u64; COUNTERS.len()];
    let Ok((_, homes)) = diolkos_island::process::query_info(None) else { return sum };
    for home in homes {
        let home = Words::new(Arc::new(home));
        let word = |index: usize| home.load(index, Ordering::Relaxed);
        for line in 0..HOME_CHANNELS_MAX {
            let at = HOME_WORD_CHANNELS + 8 * line;
            if word(at) != 0 {
                for (i, value) in sum[..5].iter_mut().enumerate() {
                    *value = value.wrapping_add(word(at + 1 + i));
                }
            }
        }
        // In the order of `publish_counters`: sleeps, unexpected, posted, requests.
        for (value, word_at) in sum[5..].iter_mut().zip([2, 4, 6, 7]) {
            *value = value.wrapping_add(word(HOME_WORD_ENDPOINT + word_at));
        }
    }
    sum
}

/// The input is a board; without one it is that of the endpoint, or the first.
fn check_board(input: Option<u32>) -> Result<(), Code> {
    if board::exists(input.unwrap_or(0)) { Ok(()) } else { Err(codes::BOARD_UNKNOWN) }
}

fn answer(key: Code, port: Option<&Port>, input: Option<u32>) -> Result<Out, Code> {
    if matches!(key, 7..=16) {
        check_board(input)?;
    }
    Ok(match key {
        1 => Out::word(1),
        2 => Out::nic_ids(),
        3 => Out::word(ENDPOINTS_MAX),
        4 => Out::word(u32::MAX),
        5 => Out::word(COUNTERS.len() as u32),
        6 => Out::labels(),
        7 => counters(port)?,
        8..=10 => Out::text(NO_HARDWARE),
        11 => Out::word(1),
        12 => Out::word(SMALL_BYTES_MAX),
        13 => Out::word(diolkos::EAGER_BYTES_MAX as u32),
        14 => Out::word(UNKNOWN_NODE),
        15 => Out::word(NET_ETHER),
        16 => Out::word(SPEED_OPEN_MX),
        _ => return Err(codes::BAD_INFO_KEY),
    })
}

/// An endpoint that may be missing, but not be closed.
pub fn optional_port<'a>(handle: EndpointHandle) -> Result<Option<&'a Port>, Code> {
    match Port::at(handle) {
        None if !handle.is_null() => Err(codes::BAD_ENDPOINT),
        port => Ok(port),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_get_info(
    handle: EndpointHandle,
    key: Code,
    input: *const c_void,
    input_length: u32,
    output: *mut c_void,
    output_length: u32,
) -> Code {
    let told = || {
        if !library::is_initialized() {
            return Err(codes::NOT_INITIALIZED);
        }
        let port = optional_port(handle)?;
        if !(1..=16).contains(&key) {
            return Err(codes::BAD_INFO_KEY);
        }
        let input = match key {
            // SAFETY: memory of the program, as the interface demands.
            7..=16 => unsafe { number(input, input_length) }?,
            _ => None,
        };
        let out = answer(key, port, input)?;
        // SAFETY: memory of the program, as the interface demands.
        unsafe { out.write(output, output_length) }
    };
    match told() {
        Ok(()) => codes::SUCCESS,
        Err(code) => fail(Port::at(handle), code, "mx_get_info"),
    }
}
