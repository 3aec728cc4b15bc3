// SPDX-License-Identifier: Apache-2.0
//! MX matching: posted receives and unexpected messages.
//!
//! Rules (`mx.md` 1.6.2 and 1.6.3 in the words of this module):
//!
//! 1. A message matches a receive when its space is the same, `message & mask == value`, and the
//!    receive names no source or names the sender.
//! 2. An arriving message takes the *oldest posted* receive that it matches.
//! 3. A new receive takes the *oldest unexpected* message that matches it.
//! 4. A context id, if configured, is a bit field of the match info. Every id has queues of its
//!    own; a pattern whose mask covers the whole field looks at one id, any other searches all of
//!    them in order of arrival.
//!
//! Queues are scanned in order: programs match near the front, and a short scan of contiguous
//! memory beats a hash table there. Arrivals are counted, so that a search over several context
//! ids still finds the oldest.

use std::collections::{HashMap, VecDeque};

use crate::frame::Space;

/// What a receive or a probe looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Value that the masked match info must have; no bits outside the mask.
    pub value: u64,
    /// Bits of the match info that count.
    pub mask: u64,
    /// The only sender that will do, if any.
    pub source: Option<u32>,
    /// Match space.
    pub space: Space,
}

/// What is known of a message when it is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Match info of the message.
    pub match_info: u64,
    /// Its sender.
    pub source: u32,
    /// Match space.
    pub space: Space,
}

impl Pattern {
    /// Whether a message fits.
    #[inline(always)]
    #[must_use]
    pub fn fits(&self, key: &Key) -> bool {
        key.match_info & self.mask == self.value
            && self.source.is_none_or(|source| source == key.source)
            && self.space == key.space
    }
}

/// Where the context id lies in the match info.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextBits {
    mask: u64,
    shift: u8,
}

impl ContextBits {
    /// A field of `bits` bits above `shift` others; `None` when it does not fit into 64 bits or is
    /// wider than 16.
    #[must_use]
    pub fn new(bits: u8, shift: u8) -> Option<Self> {
        if bits > 16 || u32::from(bits) + u32::from(shift) > 64 {
            return None;
        }
        if bits == 0 {
            return Some(Self::default());
        }
        Some(Self { mask: ((1_u64 << bits) - 1) << shift, shift })
    }

    #[inline(always)]
    fn id(self, match_info: u64) -> u16 {
        if self.mask == 0 { 0 } else { ((match_info & self.mask) >> self.shift) as u16 }
    }

    /// Whether a mask fixes the whole context id.
    #[inline(always)]
    #[must_use]
    pub fn fixed_by(self, mask: u64) -> bool {
        mask & self.mask == self.mask
    }
}

/// Context ids whose empty queues are kept for their next use.
const IDLE_CONTEXTS_MAX: usize = 64;

#[derive(Debug)]
struct Posted<P> {
    key: Pattern,
    value: P,
}

#[derive(Debug)]
struct Unexpected<U> {
    key: Key,
    /// When it came, as a count: a search over several context ids finds the oldest.
    order: u64,
    value: U,
}

#[derive(Debug)]
struct Queues<P, U> {
    posted: VecDeque<Posted<P>>,
    unexpected: VecDeque<Unexpected<U>>,
}

impl<P, U> Queues<P, U> {
    fn is_empty(&self) -> bool {
        self.posted.is_empty() && self.unexpected.is_empty()
    }
}

impl<P, U> Default for Queues<P, U> {
    fn default() -> Self {
        Self { posted: VecDeque::new(), unexpected: VecDeque::new() }
    }
}

/// A receive that a message fits, still in the list.
pub struct Front<'a, P> {
    value: P,
    posted: &'a mut VecDeque<Posted<P>>,
    count: &'a mut usize,
}

impl<P: Copy> Front<'_, P> {
    /// The receive.
    #[inline(always)]
    #[must_use]
    pub fn value(&self) -> P {
        self.value
    }

    /// Takes it out of the list.
    #[inline(always)]
    pub fn take(self) {
        self.posted.pop_front();
        *self.count -= 1;
    }
}

/// The two lists of an endpoint, for each context id. `P` names a receive, `U` a message.
#[derive(Debug)]
pub struct Matcher<P, U> {
    context: ContextBits,
    /// Context id 0, which is the only one most programs use.
    first: Queues<P, U>,
    others: HashMap<u16, Queues<P, U>>,
    /// Queues of other context ids at which the empty ones are thrown out: a peer chooses the ids
    /// of its messages, and must not make us keep a queue for each that it ever used.
    others_max: usize,
    next_order: u64,
    posted_count: usize,
    unexpected_count: usize,
}

impl<P: Copy, U: Copy> Matcher<P, U> {
    /// Empty lists.
    #[must_use]
    pub fn new(context: ContextBits) -> Self {
        Self {
            context,
            first: Queues::default(),
            others: HashMap::new(),
            others_max: IDLE_CONTEXTS_MAX,
            next_order: 0,
            posted_count: 0,
            unexpected_count: 0,
        }
    }

    /// Where the context id lies.
    #[must_use]
    pub fn context(&self) -> ContextBits {
        self.context
    }

    /// Receives waiting for a message.
    #[must_use]
    pub fn posted_count(&self) -> usize {
        self.posted_count
    }

    /// Messages waiting for a receive.
    #[must_use]
    pub fn unexpected_count(&self) -> usize {
        self.unexpected_count
    }

    /// Adds a receive behind the others. Its mask must fix the context id.
    #[inline]
    pub fn post(&mut self, pattern: Pattern, value: P) {
        debug_assert!(self.context.fixed_by(pattern.mask));
        self.posted_count += 1;
        let posted = &mut self.queues(self.context.id(pattern.value)).posted;
        posted.push_back(Posted { key: pattern, value });
    }

    /// Finds the oldest receive for a message; `stays` says whether it remains posted.
    #[inline(always)]
    pub fn match_message(&mut self, key: &Key, stays: impl FnOnce(P) -> bool) -> Option<P> {
        if self.posted_count == 0 {
            return None;
        }
        let queues = match self.context.id(key.match_info) {
            0 => &mut self.first,
            id => self.others.get_mut(&id)?,
        };
        let first = queues.posted.front()?;
        let at = if first.key.fits(key) {
            0
        } else {
            queues.posted.iter().position(|entry| entry.key.fits(key))?
        };
        let value = queues.posted[at].value;
        if !stays(value) {
            if at == 0 {
                queues.posted.pop_front();
            } else {
                queues.posted.remove(at);
            }
            self.posted_count -= 1;
        }
        Some(value)
    }

    /// The first of the posted receives, if a message fits it: the shortest way to most matches.
    #[inline(always)]
    pub fn front_for(&mut self, key: &Key) -> Option<Front<'_, P>> {
        let queues = match self.context.id(key.match_info) {
            0 => &mut self.first,
            id => self.others.get_mut(&id)?,
        };
        let front = queues.posted.front()?;
        if !front.key.fits(key) {
            return None;
        }
        let value = front.value;
        Some(Front { value, posted: &mut queues.posted, count: &mut self.posted_count })
    }

    /// Adds a message that found no receive.
    #[inline]
    pub fn push_unexpected(&mut self, key: Key, value: U) {
        self.next_order += 1;
        let order = self.next_order;
        self.unexpected_count += 1;
        let unexpected = &mut self.queues(self.context.id(key.match_info)).unexpected;
        unexpected.push_back(Unexpected { key, order, value });
    }

    /// The oldest message that fits a pattern; it stays.
    #[must_use]
    pub fn find_unexpected(&self, pattern: &Pattern) -> Option<(Key, U)> {
        let (queues, at) = self.locate(pattern)?;
        let entry = &queues.unexpected[at];
        Some((entry.key, entry.value))
    }

    /// The oldest message that fits a pattern, taken out of the list.
    #[inline]
    pub fn take_unexpected(&mut self, pattern: &Pattern) -> Option<(Key, U)> {
        if self.unexpected_count == 0 {
            return None;
        }
        let (queues, at) = self.locate(pattern)?;
        let id = self.context.id(queues.unexpected[at].key.match_info);
        let entry = self.queues(id).unexpected.remove(at)?;
        self.unexpected_count -= 1;
        Some((entry.key, entry.value))
    }

    /// Takes out every receive that `wanted` names.
    pub fn remove_posted(&mut self, mut wanted: impl FnMut(&Pattern, P) -> bool) -> Vec<P> {
        let mut removed = Vec::new();
        for queues in std::iter::once(&mut self.first).chain(self.others.values_mut()) {
            queues.posted.retain(|entry| {
                let take = wanted(&entry.key, entry.value);
                if take {
                    removed.push(entry.value);
                }
                !take
            });
        }
        self.posted_count -= removed.len();
        removed
    }

    /// Takes out every message that `wanted` names.
    pub fn remove_unexpected(&mut self, mut wanted: impl FnMut(&Key, U) -> bool) -> Vec<U> {
        let mut removed = Vec::new();
        for queues in std::iter::once(&mut self.first).chain(self.others.values_mut()) {
            queues.unexpected.retain(|entry| {
                let take = wanted(&entry.key, entry.value);
                if take {
                    removed.push(entry.value);
                }
                !take
            });
        }
        self.unexpected_count -= removed.len();
        removed
    }

    #[inline(always)]
    fn queues(&mut self, id: u16) -> &mut Queues<P, U> {
        if id == 0 { &mut self.first } else { self.other_queues(id) }
    }

    #[inline(never)]
    fn other_queues(&mut self, id: u16) -> &mut Queues<P, U> {
        if self.others.len() >= self.others_max && !self.others.contains_key(&id) {
            self.others.retain(|_, queues| !queues.is_empty());
            self.others_max = IDLE_CONTEXTS_MAX.max(2 * self.others.len());
        }
        self.others.entry(id).or_default()
    }

    fn locate(&self, pattern: &Pattern) -> Option<(&Queues<P, U>, usize)> {
        let find = |queues: &Queues<P, U>| {
            queues.unexpected.iter().position(|entry| pattern.fits(&entry.key))
        };
        if self.context.fixed_by(pattern.mask) {
            let id = self.context.id(pattern.value);
            let queues = if id == 0 { &self.first } else { self.others.get(&id)? };
            return find(queues).map(|at| (queues, at));
        }
        std::iter::once(&self.first)
            .chain(self.others.values())
            .filter_map(|queues| find(queues).map(|at| (queues, at)))
            .min_by_key(|(queues, at)| queues.unexpected[*at].order)
    }
}

#[cfg(test)]
mod tests;
