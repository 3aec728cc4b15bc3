// SPDX-License-Identifier: Apache-2.0
//! The unexpected handler: the program is asked about each message that found no receive.
//!
//! The machine cannot call back while it is borrowed, so a message for the handler stops progress
//! on the endpoint (as MX demands: "while it runs, progression is disabled"), the caller takes the
//! call, runs the program's function without any lock, and hands the answer back.

use super::receive::Held;
use super::{Machine, Status};
use crate::frame::Space;
use crate::lane::Lane;

/// The program's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerAction {
    /// Keep the message: match it against the receives once more, else queue it.
    Continue,
    /// The message is consumed and forgotten; an announced one is refused.
    Finished,
}

/// A message that waits for the program's answer.
#[derive(Debug)]
pub struct HandlerCall {
    /// The message.
    pub status: Status,
    /// Its data, when all of it is here.
    pub data: Option<Vec<u8>>,
}

pub(super) struct Pending {
    pub arrival: u32,
    taken: bool,
}

impl<L: Lane> Machine<L> {
    /// Whether messages without a receive are offered to a handler.
    pub fn install_handler(&mut self, installed: bool) {
        self.handler_installed = installed;
    }

    /// Whether a handler is installed.
    #[must_use]
    pub fn has_handler(&self) -> bool {
        self.handler_installed
    }

    /// Whether [`Machine::take_handler_call`] would return a call.
    #[inline(always)]
    #[must_use]
    pub fn handler_is_due(&self) -> bool {
        self.pending_handler.as_ref().is_some_and(|pending| !pending.taken)
    }

    /// The call that is due, if any; answer it with [`Machine::answer_handler`].
    pub fn take_handler_call(&mut self) -> Option<HandlerCall> {
        let pending = self.pending_handler.as_mut()?;
        if pending.taken {
            return None;
        }
        pending.taken = true;
        let source_of = |requests: &mut super::request::Requests<L>, request: u32| match requests
            .slot(request)
            .body
        {
            super::request::Body::Sending { source, .. } => Some(L::source_to_vec(&source)),
            _ => None,
        };
        let arrival = self.arrivals.get(pending.arrival);
        let whole = |data: &Vec<u8>| data.len() as u64 == arrival.status.message_bytes;
        let data = match &arrival.held {
            Held::Eager { data } if whole(data) => Some(data.clone()),
            Held::Local { request } => source_of(&mut self.requests, *request),
            _ => None,
        };
        Some(HandlerCall { status: arrival.status, data })
    }

    /// The answer to the call taken last. Progress goes on.
    pub fn answer_handler(&mut self, action: HandlerAction) {
        // The message that was asked about may be gone, and another one be due already.
        let Some(pending) = self.pending_handler.take_if(|pending| pending.taken) else { return };
        match action {
            HandlerAction::Finished => self.discard_arrival(pending.arrival),
            HandlerAction::Continue => {
                let status = self.arrivals.get(pending.arrival).status;
                match self.match_posted(&status.key(), status.message_bytes) {
                    Some((request, sink)) => self.bind(pending.arrival, request, sink),
                    None => self.matcher.push_unexpected(status.key(), pending.arrival),
                }
            }
        }
    }

    /// A message found no receive: it goes to the handler, or to the list.
    pub(super) fn arrived_unexpected(&mut self, arrival: u32) {
        // A message to oneself from inside the handler cannot wait for the handler. Loans are no
        // messages that it could consume.
        let is_loan = self.arrivals.get(arrival).status.space == Space::Lent;
        if self.handler_installed && self.pending_handler.is_none() && !is_loan {
            self.pending_handler = Some(Pending { arrival, taken: false });
        } else {
            let key = self.arrivals.get(arrival).status.key();
            self.matcher.push_unexpected(key, arrival);
        }
    }
}
