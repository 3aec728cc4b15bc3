// SPDX-License-Identifier: Apache-2.0
//! What MX promises about messages, over real memory.

use std::sync::{Arc, Mutex};

use diolkos::{
    Envelope, Error, HandlerAction, MultiEvent, PeerId, RequestId, Selector, Space, StatusCode,
};

use crate::Maker;
use crate::port::{anything, expect, info, join, lonely, pair, pattern, tag, until, wait};

/// Every way that a payload can take, and the edges between them.
const LENGTHS: [usize; 22] = [
    0,
    1,
    7,
    8,
    9,
    31,
    32,
    33,
    64,
    1023,
    1024,
    1025,
    4096,
    6144,
    6145,
    16_384,
    65_535,
    65_536,
    65_537,
    300_000,
    1 << 20,
    9_000_001,
];

pub fn every_length_arrives_whichever_comes_first(make: Maker) {
    let (a, b) = pair(make);
    let receiver = b.clone();
    let thread = std::thread::spawn(move || {
        for (number, len) in (0..).zip(LENGTHS) {
            receiver.receive(number, len, &tag(1));
        }
    });
    for (number, len) in (0..).zip(LENGTHS) {
        a.send(number, len, 1);
    }
    thread.join().expect("the receiver");
    // Now the other way, with the message there first as far as it can be.
    for (number, len) in (0..).zip(LENGTHS) {
        let sending = b.isend(number, len, 2);
        until("arrival", || a.endpoint.iprobe(&tag(2)).expect("a probe").is_some());
        let receiving = a.irecv(len, &tag(2));
        let (status, bytes) = wait_both(&a, receiving, &b, sending);
        expect(&status, &bytes, number, len);
    }
}

/// Drives both ends from one thread until the receive and the send are over.
fn wait_both(
    at: &crate::port::Port,
    mut receiving: crate::port::Lent,
    from: &crate::port::Port,
    mut sending: crate::port::Lent,
) -> (diolkos::Status, Vec<u8>) {
    let mut status = None;
    until("the end of a message", || {
        from.endpoint.progress().expect("progress");
        status = status.or_else(|| receiving.test(&at.endpoint));
        sending.request.is_none() | sending.test(&from.endpoint).is_some() && status.is_some()
    });
    (status.expect("just seen"), receiving.ended())
}

pub fn a_mixed_stream_keeps_its_order(make: Maker) {
    const COUNT: u64 = 3000;
    let len = |number: u64| [0, 8, 33, 1000, 5000, 40_000, 70_000][number as usize % 7];
    let (a, b) = pair(make);
    let sender = std::thread::spawn(move || {
        let mut pending = std::collections::VecDeque::new();
        for number in 0..COUNT {
            pending.push_back(a.isend(number, len(number), 1));
            if pending.len() > 100 {
                let (status, _) = pending.pop_front().expect("not empty").wait(&a.endpoint);
                assert!(status.is_none_or(|status| status.code == StatusCode::Success));
            }
        }
        for sending in pending {
            sending.wait(&a.endpoint);
        }
    });
    for number in 0..COUNT {
        b.receive(number, len(number), &anything());
    }
    sender.join().expect("the sender");
}

pub fn matching_looks_at_tag_mask_source_and_space(make: Maker) {
    let (a, b) = pair(make);
    let c = lonely(2);
    let (c_to_b, b_to_c) = join(make, &c, &b.endpoint);
    a.send(1, 50, 0x11);
    a.send(2, 50, 0x12);
    a.try_isend(pattern(3, 50), &Envelope { space: Space::Untagged, ..info(0x11) }).expect("sent");
    c_to_b.send(4, 50, 0x11);
    until("arrival", || {
        b.endpoint.progress().expect("progress");
        b.endpoint.counters().expect("counters").unexpected == 4
    });
    let masked = |value, mask| Selector { match_info: value, mask, ..anything() };
    b.receive(4, 50, &Selector { source: Some(b_to_c.peer), ..anything() });
    b.receive(2, 50, &masked(0x02, 0x0f));
    b.receive(3, 50, &Selector { space: Space::Untagged, ..anything() });
    b.receive(1, 50, &masked(0x10, 0xf0));
    let nonsense = b.try_irecv(1, &masked(2, 1)).err();
    assert!(matches!(nonsense, Some(Error::Invalid(_))), "{nonsense:?}");
}

pub fn a_synchronous_send_waits_for_its_receive(make: Maker) {
    let (a, b) = pair(make);
    for len in [0, 8, 40_000, 300_000] {
        let synchronous = Envelope { synchronous: true, ..info(1) };
        let mut sending = a.try_isend(pattern(9, len), &synchronous).expect("a send");
        until("arrival", || b.endpoint.iprobe(&tag(1)).expect("a probe").is_some());
        for _ in 0..100 {
            assert!(sending.test(&a.endpoint).is_none(), "complete before it matched");
        }
        let receiving = b.irecv(len, &tag(1));
        let (status, bytes) = wait_both(&b, receiving, &a, sending);
        expect(&status, &bytes, 9, len);
    }
}

pub fn short_receives_truncate(make: Maker) {
    let (a, b) = pair(make);
    for len in [1, 8, 33, 5000, 40_000, 300_000] {
        for room in [0, len / 2, len - 1] {
            let sending = a.isend(5, len, 1);
            let receiving = b.irecv(room, &tag(1));
            let (status, bytes) = wait_both(&b, receiving, &a, sending);
            assert_eq!(status.code, StatusCode::Truncated);
            assert_eq!(status.message_bytes, len as u64);
            assert_eq!(status.transferred_bytes, room as u64);
            assert_eq!(bytes, &pattern(5, len)[..room]);
        }
    }
}

pub fn probes_and_claims(make: Maker) {
    let (a, b) = pair(make);
    assert_eq!(b.endpoint.iprobe(&anything()).expect("a probe"), None);
    for len in [8, 40_000, 300_000] {
        let sending = a.isend(3, len, 7);
        let seen = b.endpoint.probe(&tag(7), None).expect("a probe").expect("no deadline");
        assert_eq!((seen.message_bytes, seen.source), (len as u64, b.peer));
        let (claim, status) =
            b.endpoint.mprobe(&tag(7), None).expect("a probe").expect("no deadline");
        assert_eq!(status.message_bytes, len as u64);
        assert_eq!(b.endpoint.iprobe(&tag(7)).expect("a probe"), None);
        let receiving =
            b.lend(len, |endpoint, sink| endpoint.imrecv(claim, sink), |request| *request);
        let (status, bytes) = wait_both(&b, receiving, &a, sending);
        expect(&status, &bytes, 3, len);
    }
}

pub fn one_buffer_takes_many_messages(make: Maker) {
    let (a, b) = pair(make);
    let lens = [100, 0, 5000, 40_000, 8, 70_000];
    let mut buffer = b.lend(
        200_000,
        |endpoint, sink| endpoint.post_multi(sink, 90_000, &tag(1)),
        |request| *request,
    );
    let request = buffer.request.expect("posted");
    let sending: Vec<_> = (0..).zip(lens).map(|(number, len)| a.isend(number, len, 1)).collect();
    let mut places = Vec::new();
    until("the end of the buffer", || {
        a.endpoint.progress().expect("progress");
        match b.endpoint.poll_multi(request).expect("a buffer") {
            MultiEvent::Delivery { offset, status } => {
                assert_eq!(status.code, StatusCode::Success);
                places.push((offset, status.message_bytes as usize));
                false
            }
            MultiEvent::Nothing => false,
            MultiEvent::Released(code) => {
                assert_eq!(code, StatusCode::Success);
                true
            }
        }
    });
    buffer.request = None;
    let bytes = buffer.ended();
    places.sort_unstable();
    for ((number, len), (offset, stored)) in (0..).zip(lens).zip(places) {
        assert_eq!(stored, len);
        assert!(bytes[offset..offset + len] == pattern(number, len), "message {number}");
    }
    for sending in sending {
        sending.wait(&a.endpoint);
    }
}

pub fn cancelled_receives_take_nothing(make: Maker) {
    let (a, b) = pair(make);
    let receiving = b.irecv(8, &tag(1));
    let request = receiving.request.expect("posted");
    assert!(b.endpoint.cancel(request).expect("a receive"));
    let untouched = receiving.ended();
    a.send(1, 8, 1);
    b.receive(1, 8, &tag(1));
    assert_eq!(untouched, [0xee; 8]);
    assert!(b.endpoint.cancel(request).is_err());
}

pub fn immediate_data_rides_along(make: Maker) {
    let (a, b) = pair(make);
    for (immediate, len) in [(0xdead_beef, 0), (1, 40_000), (u32::MAX, 300_000)] {
        let envelope = Envelope { immediate, ..info(1) };
        let sending = a.try_isend(pattern(1, len), &envelope).expect("a send");
        let receiving = b.irecv(len, &tag(1));
        let (status, _) = wait_both(&b, receiving, &a, sending);
        assert_eq!(status.immediate, immediate);
    }
}

pub fn messages_to_oneself(make: Maker) {
    let (a, _b) = pair(make);
    for len in [0, 8, 40_000, 300_000] {
        let sending = a.isend_to(PeerId::SELF, pattern(4, len), &info(1)).expect("a send");
        a.receive(4, len, &Selector { source: Some(PeerId::SELF), ..tag(1) });
        let (status, _) = sending.wait(&a.endpoint);
        assert_eq!(status.map(|status| status.transferred_bytes), Some(len as u64));
    }
}

pub fn the_handler_sees_what_nobody_waits_for(make: Maker) {
    let (a, b) = pair(make);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    b.endpoint
        .set_unexpected_handler(Some(Box::new(move |status, data| {
            let data = data.map(<[u8]>::to_vec);
            notes.lock().expect("no panic").push((status.match_info, status.message_bytes, data));
            if status.match_info == 2 { HandlerAction::Continue } else { HandlerAction::Finished }
        })))
        .expect("a handler");
    a.send(1, 8, 1);
    a.send(2, 8, 2);
    let refused = a.isend(3, 300_000, 3);
    a.send(4, 8, 4);
    b.receive(4, 8, &tag(4));
    until("three calls", || {
        b.endpoint.progress().expect("progress");
        seen.lock().expect("no panic").len() == 3
    });
    b.receive(2, 8, &tag(2));
    let (status, _) = refused.wait(&a.endpoint);
    let status = status.expect("an announced message");
    assert_eq!((status.code, status.transferred_bytes), (StatusCode::Truncated, 0));
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen[0], (1, 8, Some(pattern(1, 8))));
    assert_eq!(seen[2], (3, 300_000, None));
}

pub fn names_of_requests_are_checked(make: Maker) {
    let (a, _b) = pair(make);
    let receiving = a.irecv(8, &tag(1));
    let old = receiving.request.expect("posted");
    assert!(a.endpoint.cancel(old).expect("a receive"));
    receiving.ended();
    for request in [old, RequestId::from_raw(0), RequestId::from_raw(u64::MAX)] {
        assert!(matches!(a.endpoint.test(request), Err(Error::Invalid(_))));
        assert!(matches!(a.endpoint.wait(request, None), Err(Error::Invalid(_))));
        assert!(matches!(a.endpoint.wait_any(&[request], None), Err(Error::Invalid(_))));
        assert!(matches!(a.endpoint.poll_multi(request), Err(Error::Invalid(_))));
        a.endpoint.forget(request);
    }
    let nobody = PeerId::from_raw(4711);
    let refused = a.isend_to(nobody, vec![1], &info(1)).err();
    assert!(matches!(refused, Some(Error::NotConnected)), "{refused:?}");
    let sending = a.isend(1, 300_000, 1);
    let refused = a.endpoint.cancel(sending.request.expect("pending"));
    assert!(matches!(refused, Err(Error::Invalid(_))), "a send cannot be cancelled");
    a.endpoint.disconnect(a.peer).expect("a peer");
    assert_eq!(
        wait(&a.endpoint, sending.request.expect("pending")).code,
        StatusCode::EndpointClosed
    );
    sending.ended();
}
