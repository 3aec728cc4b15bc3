// SPDX-License-Identifier: Apache-2.0
//! Waiting, waking, cancelling, forgetting, time limits, context ids, handlers, segments.

mod common;

use std::ffi::{c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::*;

#[derive(Clone, Copy)]
struct Shared(Endpoint);
// SAFETY: the interface may be called from any thread.
unsafe impl Send for Shared {}

impl Shared {
    fn get(&self) -> Endpoint {
        self.0
    }
}

#[test]
fn waits_end_in_time() {
    let _library = library();
    let a = open();
    let mut room = [0; 4];
    let mut receive = a.irecv(&mut room, 1, ALL, 0);
    let (mut status, mut result) = (Status::default(), 9);
    let mut found = null_mut();
    // SAFETY: pointers to live values.
    unsafe {
        let before = Instant::now();
        assert_eq!(mx_wait(a.0, &mut receive, 50, &mut status, &mut result), 0);
        assert_eq!(result, 0);
        assert_eq!(mx_wait_any(a.0, 50, 0, 0, &mut status, &mut result), 0);
        assert_eq!(result, 0);
        assert_eq!(mx_peek(a.0, 50, &mut found, &mut result), 0);
        assert_eq!(result, 0);
        assert_eq!(mx_probe(a.0, 50, 0, 0, &mut status, &mut result), 0);
        assert_eq!(result, 0);
        let took = before.elapsed();
        assert!(took >= Duration::from_millis(200) && took < Duration::from_millis(2000));
        assert_eq!(mx_cancel(a.0, &mut receive, &mut result), 0);
    }
    assert_eq!(result, 1);
    assert!(receive.is_null());
}

#[test]
fn wakeup_ends_every_wait_that_has_begun() {
    let _library = library();
    let a = open();
    let mut room = [0; 4];
    let receive = a.irecv(&mut room, 1, ALL, 0) as usize;
    let shared = Shared(a.0);
    let waits: [fn(Endpoint, Request) -> u32; 4] = [
        |ep, mut request| {
            let mut result = 9;
            // SAFETY: pointers to live values.
            assert_eq!(unsafe { mx_wait(ep, &mut request, 0, null_mut(), &mut result) }, 0);
            result
        },
        |ep, _| {
            let mut result = 9;
            // SAFETY: as above.
            assert_eq!(unsafe { mx_wait_any(ep, 0, 5, ALL, null_mut(), &mut result) }, 0);
            result
        },
        |ep, _| {
            let (mut result, mut request) = (9, null_mut());
            // SAFETY: as above.
            assert_eq!(unsafe { mx_peek(ep, 0, &mut request, &mut result) }, 0);
            result
        },
        |ep, _| {
            let mut result = 9;
            // SAFETY: as above.
            assert_eq!(unsafe { mx_probe(ep, 0, 5, ALL, null_mut(), &mut result) }, 0);
            result
        },
    ];
    let waiting: Vec<_> = waits
        .into_iter()
        .chain(waits)
        .map(|wait| thread::spawn(move || wait(shared.get(), receive as Request)))
        .collect();
    thread::sleep(Duration::from_millis(100));
    assert!(waiting.iter().all(|thread| !thread.is_finished()));
    assert_eq!(mx_wakeup(a.0), 0);
    for thread in waiting {
        assert_eq!(thread.join().unwrap(), 0);
    }
    // It does not affect what comes later.
    let before = Instant::now();
    assert!(a.wait_any(5, ALL, 60).is_none());
    assert!(before.elapsed() >= Duration::from_millis(60));
    let (mut request, mut result) = (receive as Request, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { mx_cancel(a.0, &mut request, &mut result) }, 0);
}

#[test]
fn a_thread_that_waits_is_woken_by_another_ones_completion() {
    let _library = library();
    let a = open();
    let shared = Shared(a.0);
    let waiter = thread::spawn(move || Ep(shared.get()).wait_any_forget(7));
    thread::sleep(Duration::from_millis(100));
    let mut room = [0; 4];
    let mut send = a.isend(b"self", a.addr(), 9, 0);
    let _receive = a.irecv(&mut room, 7, 0xf, 0);
    let _ = &mut send;
    thread::sleep(Duration::from_millis(20));
    assert!(!waiter.is_finished());
    let mut to_self = a.isend(b"more", a.addr(), 7, 0);
    assert_eq!(waiter.join().unwrap(), 7);
    let _ = &mut to_self;
}

trait ForgetsItself {
    fn wait_any_forget(self, match_info: u64) -> u64;
}

impl ForgetsItself for Ep {
    /// Waits, and does not close the endpoint at the end.
    fn wait_any_forget(self, match_info: u64) -> u64 {
        let ep = std::mem::ManuallyDrop::new(self);
        ep.wait_any(match_info, ALL, 20_000).unwrap().match_info
    }
}

#[test]
fn closing_ends_waits() {
    let _library = library();
    let a = open();
    let shared = Shared(a.0);
    let waiter = thread::spawn(move || {
        let mut result = 9;
        // SAFETY: pointers to live values.
        unsafe { mx_probe(shared.get(), 0, 0, 0, null_mut(), &mut result) }
    });
    thread::sleep(Duration::from_millis(50));
    drop(a);
    assert_eq!(waiter.join().unwrap(), 9);
}

#[test]
fn an_endpoint_may_be_closed_under_the_calls_of_other_threads() {
    /// Calls of every kind, until one says that there is no endpoint.
    fn call_until_closed(ep: Endpoint, own: Addr) {
        let mut room = [0_u8; 8];
        let segment = Segment { base: room.as_mut_ptr().cast(), length: 8 };
        let (mut request, mut result) = (null_mut(), 0);
        let mut addr = Addr::default();
        for turn in 0_u64.. {
            // SAFETY: pointers to live values; the buffer is not used after the endpoint is closed.
            let code = unsafe {
                match turn % 6 {
                    0 => mx_isend(ep, &segment, 1, own, turn % 3, null_mut(), null_mut()),
                    1 => mx_irecv(ep, &segment, 1, turn % 3, ALL, null_mut(), &mut request),
                    2 => match mx_cancel(ep, &mut request, &mut result) {
                        // It has its message already, or another thread has completed it.
                        0 | 13 => mx_forget(ep, &mut request).min(0),
                        code => code,
                    },
                    3 => mx_test_any(ep, 0, 0, null_mut(), &mut result),
                    4 => mx_connect(ep, nic(), id_of(own), KEY, 1, &mut addr),
                    _ => mx_set_request_timeout(ep, null_mut(), (turn % 2) as u32),
                }
            };
            if code == 9 {
                return;
            }
            assert!([0, 15, 30].contains(&code), "call {} returned {code}", turn % 6);
        }
    }
    let _library = library();
    for _ in 0..40 {
        let a = std::mem::ManuallyDrop::new(open());
        let own = a.addr();
        let shared = Shared(a.0);
        let callers = [(); 3].map(|()| thread::spawn(move || call_until_closed(shared.get(), own)));
        let closers = [(); 2].map(|()| thread::spawn(move || mx_close_endpoint(shared.get())));
        let mut codes = closers.map(|closer| closer.join().unwrap());
        codes.sort_unstable();
        assert_eq!(codes, [0, 9]);
        for caller in callers {
            caller.join().unwrap();
        }
    }
}

#[test]
fn what_is_cancelled_is_freed_or_stays() {
    let _library = library();
    let a = open();
    let mut room = [0; 4];
    let (mut result, mut freed) = (9, a.irecv(&mut room, 1, ALL, 0));
    let mut kept = a.irecv(&mut room, 2, ALL, 22);
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_cancel(a.0, &mut freed, &mut result), 0);
        assert_eq!((result, freed.is_null()), (1, true));
        assert_eq!(omx_cancel_notest(a.0, &mut kept, &mut result), 0);
        assert_eq!((result, kept.is_null()), (1, false));
        assert_eq!(mx_cancel(a.0, &mut kept, &mut result), 0);
        assert_eq!(result, 0);
    }
    let status = a.wait_any(0, 0, 1000).unwrap();
    assert_eq!((status.code, status.context as usize), (6, 22));
    assert!(a.wait_any(0, 0, 1).is_none());
}

#[test]
fn forgotten_requests_are_never_found() {
    let _library = library();
    let (a, b, to_b) = pair();
    let mut rooms = [[0_u8; 4]; 3];
    let segments =
        rooms.each_mut().map(|room| Segment { base: room.as_mut_ptr().cast(), length: 4 });
    // SAFETY: the rooms live to the end.
    unsafe {
        assert_eq!(mx_irecv(b.0, segments.as_ptr(), 2, 1, ALL, null_mut(), null_mut()), 0);
        assert_eq!(mx_irecv(b.0, &segments[2], 1, 2, ALL, null_mut(), null_mut()), 0);
    }
    let mut first = a.isend(b"12345678", to_b, 1, 0);
    let mut second = a.isend(b"abcd", to_b, 2, 0);
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_forget(a.0, &mut first), 0);
        assert!(first.is_null());
        assert_eq!(mx_forget(a.0, &mut second), 0);
    }
    assert!(b.wait_any(0, 0, 100).is_none());
    assert!(a.wait_any(0, 0, 1).is_none());
    assert_eq!(rooms, [*b"1234", *b"5678", *b"abcd"]);
}

#[test]
fn sends_and_connects_may_be_buffered_and_forgotten() {
    let _library = library();
    let (a, b, to_b) = pair();
    let data = vec![1; 200_000];
    let (mut large, mut result) = (a.isend(&data, to_b, 1, 0), 9);
    let mut small = a.isend(b"x", to_b, 1, 0);
    let mut room = [0; 1];
    let mut receive = a.irecv(&mut room, 9, ALL, 0);
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_ibuffered(a.0, &mut large, &mut result), 0);
        assert_eq!(result, 0);
        assert_eq!(mx_ibuffered(a.0, &mut small, &mut result), 0);
        assert_eq!(mx_ibuffered(a.0, &mut receive, &mut result), 13);
        assert_eq!(mx_cancel(a.0, &mut large, &mut result), 13);
        assert_eq!(mx_iconnect(a.0, nic(), 255, KEY, 5, null_mut(), null_mut()), 0);
    }
    assert!(a.wait_any(5, ALL, 100).is_none());
    drop(b);
    assert_eq!(a.wait(&mut large).code, 8);
}

#[test]
fn context_ids_divide_the_messages() {
    let _library = library();
    let a = open();
    let b = try_open(ANY, &[context_param(10, 10)]).unwrap();
    let to_b = a.connect(b.id(), KEY, 0).unwrap();
    let mut request = null_mut();
    // SAFETY: pointers to live values.
    unsafe {
        let field = 0x3ff << 10;
        assert_eq!(mx_irecv(b.0, null(), 0, 0, 0, null_mut(), &mut request), 42);
        assert_eq!(mx_irecv(b.0, null(), 0, 0, field ^ 1 << 12, null_mut(), &mut request), 42);
        assert_eq!(mx_irecv(b.0, null(), 0, 1, 1, null_mut(), &mut request), 42);
    }
    let message = |id: u64, tag: u64| id << 10 | tag;
    let mut sends =
        [(3, 1), (700, 2), (0, 3)].map(|(id, tag)| a.isend(b"x", to_b, message(id, tag), 0));
    for send in &mut sends {
        a.wait(send);
    }
    // Any mask finds the oldest of all ids.
    let (mut status, mut result) = (Status::default(), 0);
    // SAFETY: pointers to live values.
    assert_eq!(unsafe { mx_probe(b.0, 5000, 0, 0, &mut status, &mut result) }, 0);
    assert_eq!((result, status.match_info), (1, message(3, 1)));
    let mut room = [0; 1];
    for (id, tag) in [(700, 2), (0, 3), (3, 1)] {
        let _receive = b.irecv(&mut room, message(id, 0), 0x3ff << 10, 0);
        let status = b.wait_any(0, 0, 5000).unwrap();
        assert_eq!((status.code, status.match_info), (0, message(id, tag)));
    }
}

#[test]
fn segments_are_gathered_and_scattered() {
    let _library = library();
    let (a, b, to_b) = pair();
    let lengths = [7, 23, 61, 26, 0, 13456, 0, 11111, 333_333];
    let total: usize = lengths.iter().sum();
    let data: Vec<u8> = (0..total).map(|i| (i % 251) as u8).collect();
    let list = |base: *mut u8| {
        let mut at = 0;
        lengths.map(|length| {
            // SAFETY: inside the buffer.
            let base = unsafe { base.add(at) }.cast();
            at += length;
            Segment { base, length: length as u32 }
        })
    };
    for from in 0..lengths.len() {
        for to in from + 1..=lengths.len() {
            let (start, length) =
                (lengths[..from].iter().sum::<usize>(), lengths[from..to].iter().sum::<usize>());
            let mut room = vec![0xee_u8; total];
            let sending = list(data.as_ptr().cast_mut());
            let receiving = list(room.as_mut_ptr());
            let (mut send, mut receive) = (null_mut(), null_mut());
            // SAFETY: the lists and buffers live until both requests are complete.
            unsafe {
                let part = &receiving[from..to];
                let count = part.len() as u32;
                assert_eq!(
                    mx_irecv(b.0, part.as_ptr(), count, 1, ALL, null_mut(), &mut receive),
                    0
                );
                let part = &sending[from..to];
                assert_eq!(mx_isend(a.0, part.as_ptr(), count, to_b, 1, null_mut(), &mut send), 0);
            }
            let (mut got, mut sent) = (None, None);
            while got.is_none() || sent.is_none() {
                if got.is_none() {
                    got = b.test(&mut receive);
                }
                if sent.is_none() {
                    sent = a.test(&mut send);
                }
            }
            assert_eq!(got.unwrap().xfer_length as usize, length);
            assert_eq!(room[start..start + length], data[start..start + length]);
            assert!(room[..start].iter().all(|byte| *byte == 0xee));
            assert!(room[start + length..].iter().all(|byte| *byte == 0xee));
        }
    }
}

#[test]
fn segments_to_oneself_on_both_sides() {
    let _library = library();
    let a = open();
    let out = [0_u8; 12];
    let data = *b"abcdefghijkl";
    let piece = |base: *const u8, at: usize, length: u32| Segment {
        base: base.wrapping_add(at).cast_mut().cast(),
        length,
    };
    let sending =
        [piece(data.as_ptr(), 0, 5), piece(data.as_ptr(), 5, 0), piece(data.as_ptr(), 5, 7)];
    let receiving = [piece(out.as_ptr(), 8, 4), piece(out.as_ptr(), 0, 8)];
    let (mut send, mut receive) = (null_mut(), null_mut());
    // SAFETY: the buffers live until both requests are complete.
    unsafe {
        let own = a.addr();
        assert_eq!(mx_isend(a.0, sending.as_ptr(), 3, own, 0, null_mut(), &mut send), 0);
        assert_eq!(mx_irecv(a.0, receiving.as_ptr(), 2, 0, 0, null_mut(), &mut receive), 0);
    }
    assert_eq!(a.wait(&mut receive).xfer_length, 12);
    a.wait(&mut send);
    assert_eq!(&out, b"efghijklabcd");
}

static SEEN: AtomicU64 = AtomicU64::new(0);
static CLOSED_WITH: AtomicU32 = AtomicU32::new(0);

extern "C" fn finishes_odd_ones(
    context: *mut c_void,
    source: Addr,
    match_info: u64,
    length: u32,
    data: *mut c_void,
) -> Code {
    let ep: Endpoint = context;
    SEEN.fetch_add(1, Ordering::SeqCst);
    assert_ne!(source, Addr::default());
    if length == 8 {
        assert!(!data.is_null());
        // SAFETY: the whole message is there.
        let first = unsafe { *data.cast::<u8>() };
        assert_eq!(u64::from(first), match_info);
    }
    CLOSED_WITH.store(mx_close_endpoint(ep) as u32, Ordering::SeqCst);
    Code::from(match_info % 2 == 1)
}

#[test]
fn the_unexpected_handler_decides() {
    let _library = library();
    let (a, b, to_b) = pair();
    SEEN.store(0, Ordering::SeqCst);
    assert_eq!(mx_register_unexp_handler(b.0, Some(finishes_odd_ones), b.0.cast_mut()), 0);
    let mut eager = [1_u8, 2, 3].map(|byte| a.isend(&[byte; 8], to_b, u64::from(byte), 0));
    let long = vec![5; 100_000];
    let mut refused = a.isend(&long, to_b, 5, 0);
    let mut empty = a.issend(&[], to_b, 7);
    let deadline = Instant::now() + Duration::from_secs(20);
    while SEEN.load(Ordering::SeqCst) < 5 {
        assert_eq!(mx_progress(b.0), 0);
        assert!(Instant::now() < deadline);
    }
    assert_eq!(CLOSED_WITH.load(Ordering::SeqCst), 41);
    for send in &mut eager {
        assert_eq!(a.wait(send).code, 0);
    }
    let status = a.wait(&mut refused);
    assert_eq!((status.code, status.xfer_length, status.msg_length), (5, 0, 100_000));
    assert_eq!(a.wait(&mut empty).code, 0);
    assert_eq!(mx_register_unexp_handler(b.0, None, null_mut()), 0);
    // Only the even one was kept.
    let mut room = [0; 8];
    let mut receive = b.irecv(&mut room, 0, 0, 0);
    assert_eq!(b.wait(&mut receive).match_info, 2);
    assert!(b.wait_any(0, 0, 1).is_none());
}

static RECEIVE: AtomicU64 = AtomicU64::new(0);

extern "C" fn posts_a_receive(context: *mut c_void, match_info: u64, length: c_int) {
    assert_eq!(length, 4);
    let mut request = null_mut();
    let segment = Segment { base: (&raw const ROOM) as *mut c_void, length: 4 };
    // SAFETY: the room is static, and one receive writes it.
    let code = unsafe { mx_irecv(context, &segment, 1, match_info, ALL, null_mut(), &mut request) };
    assert_eq!(code, 0);
    RECEIVE.store(request as u64, Ordering::SeqCst);
}

static ROOM: [AtomicU32; 1] = [AtomicU32::new(0)];

#[test]
fn the_old_callback_may_post_the_receive() {
    let _library = library();
    let (a, b, to_b) = pair();
    assert_eq!(mx_register_unexp_callback(b.0, Some(posts_a_receive), b.0.cast_mut()), 0);
    let mut send = a.isend(&7_u32.to_ne_bytes(), to_b, 0x1111_1111_ffff_ffff, 0);
    let status = b.wait_any(0, 0, 20_000).unwrap();
    assert_eq!((status.code, status.match_info), (0, 0x1111_1111_ffff_ffff));
    assert_eq!(ROOM[0].load(Ordering::SeqCst), 7);
    assert_eq!(a.wait(&mut send).code, 0);
}

#[test]
fn contexts_of_addresses() {
    let _library = library();
    let (a, b, to_b) = pair();
    let mut context = 48 as *mut c_void;
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_get_endpoint_addr_context(to_b, &mut context), 0);
        assert!(context.is_null());
        assert_eq!(mx_set_endpoint_addr_context(to_b, 44 as *mut c_void), 0);
    }
    let to_a = b.connect(a.id(), KEY, 0).unwrap();
    let mut room = [0; 1];
    let mut receive = a.irecv(&mut room, 0, 0, 0);
    let mut send = b.isend(b"x", to_a, 1, 0);
    let status = a.wait(&mut receive);
    assert_eq!(status.source, to_b);
    // SAFETY: as above.
    unsafe {
        assert_eq!(mx_get_endpoint_addr_context(status.source, &mut context), 0);
        assert_eq!(context as usize, 44);
        assert_eq!(mx_get_endpoint_addr_context(to_a, &mut context), 0);
        assert!(context.is_null());
        assert_eq!(mx_get_endpoint_addr_context(Addr::default(), &mut context), 0);
        let (mut nic_id, mut id, mut session) = (0, 0, 0);
        assert_eq!(mx_decompose_endpoint_addr2(to_b, &mut nic_id, &mut id, &mut session), 0);
        assert_eq!((nic_id, id), (nic(), b.id()));
        assert_ne!(session, 0);
    }
    b.wait(&mut send);
}

#[test]
fn progress_goes_on_while_the_program_computes_unless_it_is_disabled() {
    let _library = library();
    let (a, b, to_b) = pair();
    let data = vec![3; 4 << 20];
    let mut room = vec![0; 4 << 20];
    for disabled in [false, true] {
        if disabled {
            assert_eq!(mx_disable_progression(a.0), 0);
            assert_eq!(mx_disable_progression(a.0), 0);
        }
        let mut receive = b.irecv(&mut room, 1, ALL, 0);
        let mut send = a.isend(&data, to_b, 1, 0);
        // Nobody calls for a; b waits.
        let (mut status, mut result) = (Status::default(), 9);
        // SAFETY: pointers to live values.
        let code = unsafe {
            mx_wait(
                b.0,
                &mut receive,
                if disabled { 300 } else { 10_000 },
                &mut status,
                &mut result,
            )
        };
        assert_eq!((code, result), (0, u32::from(!disabled)));
        if disabled {
            assert!(a.test(&mut send).is_none());
            assert_eq!(mx_reenable_progression(a.0), 0);
            assert_eq!(mx_reenable_progression(a.0), 0);
            b.wait(&mut receive);
        }
        assert_eq!(a.wait(&mut send).code, 0);
    }
}

#[test]
fn a_send_for_which_there_is_no_room_times_out() {
    let _library = library();
    let (a, b, to_b) = pair();
    // Its thread would take the messages in.
    assert_eq!(mx_disable_progression(b.0), 0);
    assert_eq!(mx_set_request_timeout(a.0, null_mut(), 200), 0);
    let data = [1; 32];
    let mut sends = Vec::new();
    for _ in 0..2000 {
        sends.push(a.isend(&data, to_b, 1, 0));
    }
    let before = Instant::now();
    let codes: Vec<Code> = sends.iter_mut().map(|send| a.wait(send).code).collect();
    let took = before.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(codes[0], 0);
    assert_eq!(codes[1999], 9);
    drop(b);
}

#[test]
fn many_threads_share_an_endpoint() {
    let _library = library();
    let (a, b, to_b) = pair();
    let (from, to) = (Shared(a.0), Shared(b.0));
    let senders: Vec<_> = (0..2)
        .map(|_| {
            thread::spawn(move || {
                let a = std::mem::ManuallyDrop::new(Ep(from.get()));
                for i in 0..500_u64 {
                    let mut send = a.isend(&i.to_ne_bytes(), to_b, 1, 0);
                    assert_eq!(a.wait(&mut send).code, 0);
                }
            })
        })
        .collect();
    let receivers: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let b = std::mem::ManuallyDrop::new(Ep(to.get()));
                let mut room = [0; 8];
                for _ in 0..250 {
                    let mut receive = b.irecv(&mut room, 1, ALL, 0);
                    assert_eq!(b.wait(&mut receive).code, 0);
                }
            })
        })
        .collect();
    for thread in senders.into_iter().chain(receivers) {
        thread.join().unwrap();
    }
}

#[test]
fn threads_open_and_close_endpoints() {
    let _library = library();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(|| {
                for _ in 0..16 {
                    let ep = open();
                    let mut room = [0; 4];
                    let (mut receive, mut result) = (ep.irecv(&mut room, 1, ALL, 0), 9);
                    // SAFETY: pointers to live values.
                    assert_eq!(unsafe { mx_cancel(ep.0, &mut receive, &mut result) }, 0);
                    assert_eq!(result, 1);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn closed_endpoints_leave_few_descriptors() {
    let _library = library();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    for _ in 0..20 {
        drop(open());
    }
    let before = count();
    for _ in 0..50 {
        let (_a, _b, _) = pair();
    }
    assert!(count() <= before + 2, "{before} and then {}", count());
}
