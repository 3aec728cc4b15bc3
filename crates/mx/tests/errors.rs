// SPDX-License-Identifier: Apache-2.0
//! Every code that can be provoked, and misuse that once crashed or hung.

mod common;

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, Ordering};

use common::*;

static HANDLED: AtomicI32 = AtomicI32::new(-1);

unsafe extern "C" fn note(text: *mut c_char, code: Code) -> Code {
    // SAFETY: handlers are called with a string.
    assert!(!unsafe { CStr::from_ptr(text) }.is_empty());
    HANDLED.store(code, Ordering::SeqCst);
    code
}

unsafe extern "C" fn turn_into_two(_: *mut c_char, _: Code) -> Code {
    2
}

#[test]
fn starting_the_library() {
    // Kept to the end: other tests start the library too.
    let _library = library();
    assert_eq!(mx__init_api(API), 3);
    // The second call has damaged nothing.
    drop(open());
    assert_eq!(mx_finalize(), 0);
    assert_eq!(mx_finalize(), 0);
    let mut ep = null();
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_open_endpoint(0, ANY, KEY, null(), 0, &mut ep), 4);
        let mut nic = 0;
        assert_eq!(mx_board_number_to_nic_id(0, &mut nic), 4);
        assert_eq!(mx_get_info(null(), 1, null(), 0, (&raw mut nic).cast(), 8), 4);
    }
    assert_eq!(mx__init_api(0), 38);
    assert_eq!(mx__init_api(0x201), 38);
    assert_eq!(mx__init_api(0x3ff), 0);
}

#[test]
fn opening() {
    let _library = library();
    let first = try_open(3, &[]).unwrap_or_else(|code| panic!("{code}"));
    assert_eq!(first.id(), 3);
    assert_eq!(try_open(3, &[]).err(), Some(20));
    assert_eq!(try_open(256, &[]).err(), Some(9));
    assert_eq!(try_open(0xffff_fffe, &[]).err(), Some(9));
    let mut ep = null();
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_open_endpoint(1, ANY, KEY, null(), 0, &mut ep), 8);
        assert_eq!(mx_open_endpoint(ANY, ANY, KEY, null(), 0, &mut ep), 0);
        assert_eq!(mx_close_endpoint(ep), 0);
        assert_eq!(mx_open_endpoint(0, ANY, KEY, null(), 1, &mut ep), 24);
        assert_eq!(mx_open_endpoint(0, ANY, KEY, null(), 0, null_mut()), 9);
    }
    assert_eq!(try_open(ANY, &[Param { key: 3, value: [0] }]).err(), Some(25));
    assert_eq!(try_open(ANY, &[context_param(17, 0)]).err(), Some(26));
    assert_eq!(try_open(ANY, &[context_param(16, 49)]).err(), Some(26));
    assert_eq!(try_open(ANY, &[context_param(255, 255)]).err(), Some(26));
    drop(try_open(ANY, &[context_param(16, 48), Param { key: 1, value: [9] }]).unwrap());
    let handler = [Param { key: 0, value: [note as *const () as u64] }];
    let own = try_open(ANY, &handler).unwrap();
    HANDLED.store(-1, Ordering::SeqCst);
    let mut request = null_mut();
    // SAFETY: pointers to live values.
    assert_eq!(unsafe { mx_irecv(own.0, null(), 257, 0, 0, null_mut(), &mut request) }, 12);
    assert_eq!(HANDLED.load(Ordering::SeqCst), 12);
}

#[test]
fn a_closed_endpoint_is_none() {
    let _library = library();
    let a = open();
    let (handle, own) = (a.0, a.addr());
    assert_eq!(mx_close_endpoint(handle), 0);
    assert_eq!(mx_close_endpoint(handle), 9);
    assert_eq!(mx_progress(handle), 9);
    assert_eq!(mx_wakeup(handle), 9);
    assert_eq!(mx_close_endpoint(null()), 9);
    assert_eq!(mx_progress(std::ptr::without_provenance(4097)), 9);
    let mut request = null_mut();
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_isend(handle, null(), 0, own, 0, null_mut(), &mut request), 9);
        assert_eq!(mx_isend(null(), null(), 0, own, 0, null_mut(), &mut request), 9);
        assert_eq!(mx_irecv(handle, null(), 0, 0, 0, null_mut(), &mut request), 9);
        assert_eq!(mx_test(handle, &mut request, null_mut(), null_mut()), 9);
        assert_eq!(mx_get_endpoint_addr(handle, null_mut()), 9);
    }
    // An address of a closed endpoint at another one is of no session there.
    let b = open();
    let mut send = b.isend(b"x", own, 1, 5);
    let status = b.wait(&mut send);
    assert_eq!((status.code, status.context as usize, status.source), (10, 5, own));
    let mut send = b.isend(b"x", Addr::default(), 1, 6);
    assert_eq!(b.wait(&mut send).code, 10);
}

#[test]
fn segments() {
    let _library = library();
    let a = open();
    let own = a.addr();
    let mut request = null_mut();
    let nothing = Segment { base: null_mut(), length: 0 };
    let null_byte = Segment { base: null_mut(), length: 1 };
    // SAFETY: pointers to live values; the lists are as long as said, or refused unread.
    unsafe {
        for count in [257, 1 << 24, u32::MAX] {
            assert_eq!(mx_isend(a.0, &nothing, count, own, 0, null_mut(), &mut request), 12);
            assert_eq!(mx_irecv(a.0, &nothing, count, 0, 0, null_mut(), &mut request), 12);
        }
        assert_eq!(mx_isend(a.0, null(), 1, own, 0, null_mut(), &mut request), 12);
        assert_eq!(mx_isend(a.0, &null_byte, 1, own, 0, null_mut(), &mut request), 11);
        let two = [null_byte, null_byte];
        assert_eq!(mx_irecv(a.0, two.as_ptr(), 2, 0, 0, null_mut(), &mut request), 11);
        let huge = [Segment { base: (&raw mut request).cast(), length: u32::MAX }; 256];
        assert_eq!(mx_isend(a.0, huge.as_ptr(), 256, own, 0, null_mut(), &mut request), 15);
        assert_eq!(mx_irecv(a.0, &nothing, 1, 1, 0, null_mut(), &mut request), 14);
    }
    assert!(request.is_null());
}

#[test]
fn a_receive_of_a_terabyte_takes_what_comes() {
    let _library = library();
    let a = open();
    let mut room = [0_u8; 4];
    // The same room over and over: no message comes that would use more than the first.
    let mut list = [Segment { base: room.as_mut_ptr().cast(), length: u32::MAX }; 256];
    list[0].length = 4;
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = resident();
    let mut request = null_mut();
    // SAFETY: pointers to live values; the message is as long as the first segment.
    let code = unsafe { mx_irecv(a.0, list.as_ptr(), 256, 1, ALL, null_mut(), &mut request) };
    assert_eq!(code, 0);
    assert!(resident() < before + (64 << 20), "memory for a message that has not come");
    let mut send = a.isend(b"four", a.addr(), 1, 0);
    assert_eq!(a.wait(&mut request).xfer_length, 4);
    a.wait(&mut send);
    assert_eq!(&room, b"four");
}

#[test]
fn requests_that_are_none() {
    let _library = library();
    let a = open();
    let (mut request, mut result) = (null_mut(), 9);
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_test(a.0, &mut request, null_mut(), &mut result), 13);
        assert_eq!(mx_wait(a.0, null_mut(), 1, null_mut(), &mut result), 13);
        assert_eq!(mx_cancel(a.0, &mut request, &mut result), 13);
        assert_eq!(mx_ibuffered(a.0, &mut request, &mut result), 13);
        assert_eq!(mx_forget(a.0, &mut request), 13);
        let mut context: *mut c_void = null_mut();
        assert_eq!(mx_context(&mut request, &mut context), 13);
        assert_eq!(mx_test_any(a.0, 1, 0, null_mut(), &mut result), 14);
        assert_eq!(mx_wait_any(a.0, 1, 1, 0, null_mut(), &mut result), 14);
        assert_eq!(mx_iprobe(a.0, 1, 0, null_mut(), &mut result), 14);
        assert_eq!(mx_probe(a.0, 1, 1, 0, null_mut(), &mut result), 14);
    }
    // One that was completed is told from one that is there.
    let mut room = [0; 1];
    let mut send = a.isend(b"x", a.addr(), 0, 0);
    let mut receive = a.irecv(&mut room, 0, 0, 0);
    let mut stale = receive;
    a.wait(&mut receive);
    // SAFETY: pointers to live values; the record of a request outlives it.
    unsafe {
        assert_eq!(mx_test(a.0, &mut stale, null_mut(), &mut result), 13);
        assert_eq!(mx_cancel(a.0, &mut send, &mut result), 13);
        assert_eq!(mx_ibuffered(a.0, &mut send, &mut result), 0);
        assert_eq!(result, 1);
    }
    a.wait(&mut send);
}

#[test]
fn requests_of_another_endpoint() {
    let _library = library();
    let (a, b) = (open(), open());
    let mut rooms = [[0; 1]; 2];
    // The same places in both tables, and the same names.
    let mut ours = a.irecv(&mut rooms[0], 1, ALL, 0);
    let mut theirs = b.irecv(&mut rooms[1], 1, ALL, 0);
    let mut stranger = theirs;
    let mut result = 9;
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_test(a.0, &mut stranger, null_mut(), &mut result), 13);
        assert_eq!(mx_wait(a.0, &mut stranger, 1, null_mut(), &mut result), 13);
        assert_eq!(mx_cancel(a.0, &mut stranger, &mut result), 13);
        assert_eq!(omx_cancel_notest(a.0, &mut stranger, &mut result), 13);
        assert_eq!(mx_ibuffered(a.0, &mut stranger, &mut result), 13);
        assert_eq!(mx_forget(a.0, &mut stranger), 13);
        assert_eq!(mx_set_request_timeout(a.0, stranger, 1), 13);
    }
    assert_eq!(stranger, theirs);
    for (ep, request) in [(&a, &mut ours), (&b, &mut theirs)] {
        let mut send = ep.isend(b"x", ep.addr(), 1, 0);
        assert_eq!(ep.wait(request).xfer_length, 1);
        ep.wait(&mut send);
    }
}

#[test]
fn connecting() {
    let _library = library();
    let (a, b) = (open(), open());
    let id = b.id();
    assert_eq!(a.connect(id, KEY + 1, 0), Err(34));
    let to_b = a.connect(id, KEY, 0).unwrap();
    // A wrong key afterwards fails and harms nothing.
    assert_eq!(a.connect(id, KEY + 1, 100), Err(34));
    assert_eq!(a.connect(id, KEY, 100), Ok(to_b));
    assert_eq!(a.connect(a.id(), KEY, 0), Ok(a.addr()));
    assert_eq!(a.connect(a.id(), KEY + 1, 0), Err(34));
    assert_eq!(a.connect(255, KEY, 0), Err(33));
    assert_eq!(a.connect(256, KEY, 0), Err(32));
    let mut addr = Addr::default();
    let mut request = null_mut();
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_connect(a.0, nic() ^ 1, 0, KEY, 0, &mut addr), 36);
        assert_eq!(mx_iconnect(a.0, 0, 0, KEY, 0, null_mut(), &mut request), 36);
        for (id, key, code) in [(id, KEY, 0), (id, 0, 11), (255, KEY, 8), (300, KEY, 12)] {
            let context = 40 as *mut c_void;
            assert_eq!(mx_iconnect(a.0, nic(), id, key, 77, context, &mut request), 0);
            let status = a.wait_any(77, ALL, 5000).unwrap();
            assert_eq!((status.code, status.context as usize), (code, 40), "{id} {key}");
            if code == 0 {
                assert_eq!(status.source, to_b);
            }
        }
    }
}

#[test]
fn a_peer_that_closes_fails_what_is_sent_to_it() {
    let _library = library();
    let (a, b, to_b) = pair();
    let id = b.id();
    let data = vec![1; 100_000];
    let mut pending = a.isend(&data, to_b, 1, 0);
    drop(b);
    let status = a.wait(&mut pending);
    assert_eq!((status.code, status.xfer_length, status.source), (8, 0, to_b));
    let mut late = a.isend(b"x", to_b, 1, 0);
    assert_eq!(a.wait(&mut late).code, 8);
    // The same id again is another session.
    let again = try_open(id, &[]).unwrap_or_else(|code| panic!("{code}"));
    let to_again = a.connect(id, KEY, 0).unwrap();
    assert_ne!(to_again, to_b);
    let mut stale = a.isend(b"x", to_b, 1, 0);
    assert_eq!(a.wait(&mut stale).code, 10);
    let mut good = a.isend(b"x", to_again, 1, 0);
    assert_eq!(a.wait(&mut good).code, 0);
    assert_eq!(mx_disconnect(a.0, to_again), 0);
    assert_eq!(mx_disconnect(a.0, to_again), 0);
    let mut parted = a.isend(b"x", to_again, 1, 0);
    assert_eq!(a.wait(&mut parted).code, 9);
    drop(again);
}

#[test]
fn the_handler_decides_what_is_returned() {
    let _library = library();
    // SAFETY: functions of the library.
    let (fatal, returning) = unsafe { (MX_ERRORS_ARE_FATAL, MX_ERRORS_RETURN) };
    assert_eq!(mx_set_error_handler(Some(note)) as *const (), returning as *const ());
    HANDLED.store(-1, Ordering::SeqCst);
    assert_eq!(mx__init_api(API), 3);
    assert_eq!(HANDLED.load(Ordering::SeqCst), 3);
    let a = open();
    let mut room = [0; 1];
    let mut send = a.isend(b"long", a.addr(), 0, 0);
    let mut receive = a.irecv(&mut room, 0, 0, 0);
    // A failed request is told too, by its native number; its answer becomes the status.
    assert_eq!(a.wait(&mut receive).code, 5);
    assert_eq!(HANDLED.load(Ordering::SeqCst), 95);
    a.wait(&mut send);
    assert_eq!(mx_set_error_handler(Some(turn_into_two)) as *const (), note as *const ());
    assert_eq!(mx__init_api(API), 2);
    mx_set_error_handler(Some(returning));
    let _ = fatal;
}

#[test]
fn every_number_has_a_text() {
    for code in (-3..120).chain([i32::MAX, i32::MIN]) {
        // SAFETY: the library's own strings.
        let (a, b) =
            unsafe { (CStr::from_ptr(mx_strerror(code)), CStr::from_ptr(mx_strstatus(code))) };
        assert!(!a.is_empty() && !b.is_empty());
    }
    // SAFETY: as above.
    assert_eq!(unsafe { CStr::from_ptr(mx_strerror(0)) }, c"Success");
}

#[test]
fn names_and_numbers() {
    let _library = library();
    let id = nic();
    assert!(id >> 48 == 0 && id >> 40 & 3 == 2);
    let (mut found, mut board) = (0, 9);
    let mut name = [0 as c_char; 80];
    // SAFETY: pointers to live values, with the room that the interface wants.
    unsafe {
        assert_eq!(mx_hostname_to_nic_id(c"localhost".as_ptr(), &mut found), 0);
        assert_eq!(found, id);
        assert_eq!(mx_nic_id_to_hostname(id, name.as_mut_ptr()), 0);
        found = 0;
        assert_eq!(mx_hostname_to_nic_id(name.as_ptr(), &mut found), 0);
        assert_eq!(found, id);
        assert!(CStr::from_ptr(name.as_ptr()).to_bytes().ends_with(b":0"));
        assert_eq!(mx_hostname_to_nic_id(c"nobody:0".as_ptr(), &mut found), 28);
        assert_eq!(mx_hostname_to_nic_id(c"LOCALHOST".as_ptr(), &mut found), 28);
        assert_eq!(mx_nic_id_to_hostname(id + 1, name.as_mut_ptr()), 28);
        assert_eq!(mx_nic_id_to_board_number(id, &mut board), 0);
        assert_eq!(board, 0);
        assert_eq!(mx_nic_id_to_board_number(id + 1, &mut board), 8);
        assert_eq!(mx_board_number_to_nic_id(1, &mut found), 8);
        assert_eq!(mx_board_number_to_nic_id(ANY, &mut found), 8);
    }
}

#[test]
fn information() {
    let _library = library();
    let a = open();
    let mut out = [0xee_u8; 4096];
    let board = 0_u32;
    let mut ask = |ep: Endpoint, key, input: Option<(u32, u32)>, room: u32| {
        out.fill(0xee);
        let (pointer, length) = match &input {
            Some((value, length)) => (std::ptr::from_ref(value).cast(), *length),
            None => (null(), 0),
        };
        // SAFETY: pointers to live values.
        let code = unsafe { mx_get_info(ep, key, pointer, length, out.as_mut_ptr().cast(), room) };
        (code, out.to_vec())
    };
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes[..4].try_into().unwrap());
    for ep in [null(), a.0] {
        for (key, value) in [(1, 1), (3, 256), (4, u32::MAX), (11, 1), (15, 1), (16, 2)] {
            let (code, bytes) = ask(ep, key, Some((board, 4)), 4);
            assert_eq!((code, word(&bytes)), (0, value), "key {key}");
            assert_eq!(bytes[4], 0xee);
            assert_eq!(ask(ep, key, Some((board, 1)), 3).0, 35, "key {key}");
        }
        let (code, bytes) = ask(ep, 2, None, 16);
        assert_eq!(code, 0);
        assert_eq!(bytes[..8], nic().to_ne_bytes());
        assert_eq!(bytes[8..16], [0; 8]);
        assert_eq!(ask(ep, 2, None, 8).0, 35);
        let count = word(&ask(ep, 5, None, 4).1) as usize;
        let (code, labels) = ask(ep, 6, None, 128 * count as u32);
        assert_eq!(code, 0);
        for label in labels[..128 * count].chunks(128) {
            assert!(label[0] != 0 && label[127] == 0);
        }
        assert_eq!(ask(ep, 6, None, 128 * count as u32 - 1).0, 35);
        assert_eq!(ask(ep, 7, Some((0, 1)), 4 * count as u32).0, 0);
        for key in 8..=10 {
            assert_eq!(&ask(ep, key, None, 64).1[..14], b"N/A (Diolkos)\0");
            assert_eq!(ask(ep, key, None, 2).0, 35);
        }
        for key in [-1, 0, 17, 4096] {
            assert_eq!(ask(ep, key, None, 64).0, 21);
        }
        assert_eq!(ask(ep, 16, Some((1, 4)), 4).0, 8);
        assert_eq!(ask(ep, 14, Some((255, 1)), 4).0, 8);
    }
    assert!(word(&ask(a.0, 13, None, 4).1) >= 4096);
    // SAFETY: null pointers are refused.
    assert_eq!(unsafe { mx_get_info(a.0, 1, null(), 0, null_mut(), 4) }, 22);
}

#[test]
fn the_raw_interface_has_no_device() {
    let _library = library();
    let mut raw = 8 as *mut c_void;
    // SAFETY: pointers to live values.
    unsafe {
        assert_eq!(mx_raw_open_endpoint(0, null(), 0, &mut raw), 5);
        assert!(raw.is_null());
        assert_eq!(mx_raw_open_endpoint(7, null(), 0, &mut raw), 8);
    }
    assert_eq!(mx_raw_close_endpoint(null_mut()), 9);
}
