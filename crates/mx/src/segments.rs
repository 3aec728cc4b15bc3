// SPDX-License-Identifier: Apache-2.0
//! Messages in pieces.
//!
//! The endpoint sends from one stretch of memory and receives into one. A list with one segment
//! that is not empty is such a stretch; any other is gathered into private memory when it is sent,
//! or scattered from there when the receive is told to be complete.

use std::alloc::{Layout, alloc_zeroed};
use std::ptr::null_mut;

use diolkos::{Sink, Source};

use crate::codes;
use crate::types::{Code, Segment};

/// Segments of one message.
pub const SEGMENTS_MAX: u32 = 256;

/// Private memory of a message in pieces.
pub struct Staging {
    bytes: Vec<u8>,
    /// Where the bytes go when they are here; empty for a send.
    targets: Vec<Segment>,
}

impl Staging {
    /// Takes what `into_raw` gave out; `None` for null.
    pub fn take(raw: *mut Self) -> Option<Box<Self>> {
        // SAFETY: records hold null or what `into_raw` made of a box, and clear it when it is taken.
        (!raw.is_null()).then(|| unsafe { Box::from_raw(raw) })
    }

    /// Copies the first `length` bytes to where the program wants them.
    pub fn scatter(&self, length: usize) {
        let mut rest = &self.bytes[..length.min(self.bytes.len())];
        for target in &self.targets {
            let (piece, after) = rest.split_at(rest.len().min(target.length as usize));
            // SAFETY: the program's buffers stay valid until the request is complete, which it is
            // being told now; a list was checked to have no null segment with a length.
            unsafe {
                target.base.cast::<u8>().copy_from_nonoverlapping(piece.as_ptr(), piece.len());
            }
            rest = after;
            if rest.is_empty() {
                return;
            }
        }
    }
}

/// A message as the endpoint takes it.
pub enum Stretch {
    Whole(*mut u8, usize),
    Pieces(Box<Staging>),
}

/// Reads a list of the program.
///
/// # Errors
/// The code of what is wrong with it.
///
/// # Safety
/// `list` has `count` segments, which the program lends until the request is complete.
#[inline]
pub unsafe fn read(list: *const Segment, count: u32, is_receive: bool) -> Result<Stretch, Code> {
    if count == 0 {
        return Ok(Stretch::Whole(null_mut(), 0));
    }
    if count > SEGMENTS_MAX || list.is_null() {
        return Err(codes::BAD_SEG_CNT);
    }
    if count == 1 {
        // SAFETY: the list has this segment.
        let segment = unsafe { *list };
        return whole(&segment);
    }
    // SAFETY: as the caller says.
    let list = unsafe { std::slice::from_raw_parts(list, count as usize) };
    pieces(list, is_receive)
}

fn whole(segment: &Segment) -> Result<Stretch, Code> {
    if segment.base.is_null() && segment.length > 0 {
        return Err(codes::BAD_SEG_MEM);
    }
    Ok(Stretch::Whole(segment.base.cast(), segment.length as usize))
}

#[cold]
fn pieces(list: &[Segment], is_receive: bool) -> Result<Stretch, Code> {
    let mut full = list.iter().filter(|segment| segment.length > 0);
    let (first, more) = (full.next(), full.next().is_some());
    match first {
        None => return Ok(Stretch::Whole(null_mut(), 0)),
        Some(only) if !more => return whole(only),
        Some(_) => {}
    }
    if list.iter().any(|segment| segment.base.is_null() && segment.length > 0) {
        return Err(codes::BAD_SEG_MEM);
    }
    let length: u64 = list.iter().map(|segment| u64::from(segment.length)).sum();
    // A message has at most 4 GiB - 1; a receive may have more room than that, and never uses it.
    if !is_receive && length > u64::from(u32::MAX) {
        return Err(codes::NO_RESOURCES);
    }
    let length = length.min(u64::from(u32::MAX)) as usize;
    if is_receive {
        let bytes = zeroed(length).ok_or(codes::NO_RESOURCES)?;
        return Ok(Stretch::Pieces(Box::new(Staging { bytes, targets: list.to_vec() })));
    }
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(length).is_err() {
        return Err(codes::NO_RESOURCES);
    }
    for segment in list.iter().filter(|segment| segment.length > 0) {
        // SAFETY: the program's buffer, not null, readable while it posts the send.
        bytes.extend_from_slice(unsafe {
            std::slice::from_raw_parts(segment.base.cast::<u8>(), segment.length as usize)
        });
    }
    Ok(Stretch::Pieces(Box::new(Staging { bytes, targets: Vec::new() })))
}

/// So many zeros, of which the system makes present only what is written: a receive may have room for
/// far more than it will ever get.
fn zeroed(length: usize) -> Option<Vec<u8>> {
    let layout = Layout::array::<u8>(length).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the layout has a size.
    let bytes = unsafe { alloc_zeroed(layout) };
    // SAFETY: so many bytes of the global allocator, all of them zeros.
    (!bytes.is_null()).then(|| unsafe { Vec::from_raw_parts(bytes, length, length) })
}

impl Stretch {
    /// What the endpoint sends from, and the record's staging.
    #[inline]
    pub fn into_source(self) -> (Source, *mut Staging) {
        match self {
            // SAFETY: lent by the program until the request is complete.
            Self::Whole(base, length) => (unsafe { Source::from_raw(base, length) }, null_mut()),
            Self::Pieces(staging) => {
                // SAFETY: the staging lives until the request is complete; moving the box does not
                // move its bytes.
                let source =
                    unsafe { Source::from_raw(staging.bytes.as_ptr(), staging.bytes.len()) };
                (source, Box::into_raw(staging))
            }
        }
    }

    /// What the endpoint receives into, and the record's staging.
    #[inline]
    pub fn into_sink(self) -> (Sink, *mut Staging) {
        match self {
            // SAFETY: lent by the program until the request is complete.
            Self::Whole(base, length) => (unsafe { Sink::from_raw(base, length) }, null_mut()),
            Self::Pieces(mut staging) => {
                let (base, length) = (staging.bytes.as_mut_ptr(), staging.bytes.len());
                // SAFETY: the staging lives until the request is complete; moving the box does not
                // move its bytes.
                (unsafe { Sink::from_raw(base, length) }, Box::into_raw(staging))
            }
        }
    }
}
