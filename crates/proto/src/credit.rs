// SPDX-License-Identifier: Apache-2.0
//! How much may be sent before it is received.
//!
//! Everything that a receiver must keep for a message without a receive is paid for by the sender
//! beforehand: bytes of eager data and one message each. The receiver gives both back when the
//! message is matched. So a receiver can always empty its ring, whatever its program does, which
//! is why two peers that flood each other do not deadlock; and what it keeps is bounded by
//! `CREDIT_BYTES` and `CREDIT_MESSAGES` for each peer.

use crate::lane::LaneFault;
use crate::limits::{CREDIT_BYTES, CREDIT_MESSAGES};

/// The sender's account with one receiver; all counts are free-running.
#[derive(Debug, Default)]
pub struct SendCredit {
    used_bytes: u64,
    used_messages: u64,
    returned_bytes: u64,
    returned_messages: u64,
}

impl SendCredit {
    /// Pays for a message of `bytes`; `false` when the account is short.
    #[inline(always)]
    pub fn try_pay(&mut self, bytes: u64) -> bool {
        let bytes_out = self.used_bytes - self.returned_bytes;
        let messages_out = self.used_messages - self.returned_messages;
        if bytes_out + bytes > CREDIT_BYTES || messages_out >= CREDIT_MESSAGES {
            return false;
        }
        self.used_bytes += bytes;
        self.used_messages += 1;
        true
    }

    /// Takes back a payment whose message could not be sent after all.
    #[inline]
    pub fn refund(&mut self, bytes: u64) {
        self.used_bytes -= bytes;
        self.used_messages -= 1;
    }

    /// Believes what the receiver says it gave back, if it can be true.
    ///
    /// # Errors
    /// [`LaneFault`] when it gave back more than was paid, or took something back.
    pub fn update(&mut self, (bytes, messages): (u64, u64)) -> Result<(), LaneFault> {
        let bytes_fit = (self.returned_bytes..=self.used_bytes).contains(&bytes);
        let messages_fit = (self.returned_messages..=self.used_messages).contains(&messages);
        if !bytes_fit || !messages_fit {
            return Err(LaneFault("it gave back more credit than it was owed"));
        }
        self.returned_bytes = bytes;
        self.returned_messages = messages;
        Ok(())
    }
}

/// The receiver's check on one sender: what it holds, paid and not yet given back.
#[derive(Debug, Default)]
pub struct HeldCredit {
    bytes: u64,
    messages: u64,
}

impl HeldCredit {
    /// Takes in a message of `bytes` that found no receive.
    ///
    /// # Errors
    /// [`LaneFault`] when the sender had no credit left for it.
    pub fn hold(&mut self, bytes: u64) -> Result<(), LaneFault> {
        if self.bytes + bytes > CREDIT_BYTES || self.messages >= CREDIT_MESSAGES {
            return Err(LaneFault("it sent more than it had credit for"));
        }
        self.bytes += bytes;
        self.messages += 1;
        Ok(())
    }

    /// Lets a held message of `bytes` go.
    pub fn release(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.messages -= 1;
    }

    /// Bytes and messages held now.
    #[must_use]
    pub fn held(&self) -> (u64, u64) {
        (self.bytes, self.messages)
    }
}
