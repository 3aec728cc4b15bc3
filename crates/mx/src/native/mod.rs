// SPDX-License-Identifier: Apache-2.0
//! The native interface of Open-MX (`mx.md` 1.9): the same under other names, with one numbering
//! for results and statuses, timeouts last, and plain buffers beside lists of segments. What has no
//! difference at all stands beside its MX sister.

mod complete;
mod endpoint;
mod post;
