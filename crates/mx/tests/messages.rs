// SPDX-License-Identifier: Apache-2.0
//! Messages between two endpoints of this process, through a real backend.

mod common;

use std::ptr::null_mut;

use common::*;

#[test]
fn a_message_of_every_class_arrives_whole() {
    let _library = library();
    let (a, b, to_b) = pair();
    for length in [0, 1, 8, 32, 33, 128, 4096, 65536, 65537, 1 << 20] {
        let data: Vec<u8> = (0..length).map(|i| (i * 7 + length) as u8).collect();
        let mut room = vec![0; length + 8];
        let mut receive = b.irecv(&mut room, 5, ALL, 77);
        let mut send = a.isend(&data, to_b, 5, 88);
        // One thread has both ends, so each must be moved now and then.
        let mut got = None;
        let mut sent = None;
        while got.is_none() || sent.is_none() {
            got = got.or_else(|| b.test(&mut receive));
            sent = sent.or_else(|| if send.is_null() { None } else { a.test(&mut send) });
            if receive.is_null() && got.is_none() {
                unreachable!()
            }
            if got.is_some() && sent.is_some() {
                break;
            }
        }
        let (got, sent) = (got.unwrap(), sent.unwrap());
        assert_eq!((got.code, got.msg_length, got.xfer_length), (0, length as u32, length as u32));
        assert_eq!((got.match_info, got.context as usize), (5, 77));
        assert_eq!(id_of(got.source), a.id());
        assert_eq!((sent.code, sent.xfer_length, sent.context as usize), (0, length as u32, 88));
        assert_eq!(sent.source, to_b);
        assert_eq!(&room[..length], &data[..]);
        assert!(room[length..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn messages_to_oneself_are_synchronous() {
    let _library = library();
    let a = open();
    let own = a.addr();
    let mut send = a.isend(b"hello", own, 3, 0);
    assert!(a.test(&mut send).is_none());
    let mut room = [0; 5];
    let mut receive = a.irecv(&mut room, 3, ALL, 0);
    assert_eq!(a.wait(&mut receive).source, own);
    assert_eq!(a.wait(&mut send).xfer_length, 5);
    assert_eq!(&room, b"hello");
}

#[test]
fn a_short_receive_is_truncated_and_says_how_long_the_message_was() {
    let _library = library();
    let (a, b, to_b) = pair();
    for (length, is_synchronous) in [(100, false), (100, true), (200_000, false)] {
        let data = vec![9; length];
        let mut room = vec![0; length / 2];
        let mut receive = b.irecv(&mut room, 0, 0, 0);
        let mut send =
            if is_synchronous { a.issend(&data, to_b, 1) } else { a.isend(&data, to_b, 1, 0) };
        let (mut got, mut sent) = (None, None);
        while got.is_none() || sent.is_none() {
            if got.is_none() {
                got = b.test(&mut receive);
            }
            if sent.is_none() {
                sent = a.test(&mut send);
            }
        }
        let (got, sent) = (got.unwrap(), sent.unwrap());
        assert_eq!(
            (got.code, got.msg_length as usize, got.xfer_length as usize),
            (5, length, length / 2)
        );
        let visible = is_synchronous || length > 100_000;
        assert_eq!(sent.code, if visible { 5 } else { 0 });
        assert_eq!(sent.xfer_length as usize, if visible { length / 2 } else { length });
    }
}

#[test]
fn the_oldest_complete_request_is_found_whatever_it_is() {
    let _library = library();
    let (a, b, to_b) = pair();
    let first = a.isend(b"one", to_b, 0x10, 1);
    let second = a.isend(b"two", to_b, 0x20, 2);
    let (mut found, mut result) = (null_mut(), 0);
    // SAFETY: pointers to live values.
    assert_eq!(unsafe { mx_ipeek(a.0, &mut found, &mut result) }, 0);
    assert_eq!((found, result), (first, 1));
    let status = a.wait_any(0x20, 0xf0, 1000).unwrap();
    assert_eq!((status.match_info, status.context as usize), (0x20, 2));
    // SAFETY: as above.
    unsafe {
        assert_eq!(mx_ipeek(a.0, &mut found, &mut result), 0);
        assert_eq!((found, result), (first, 1));
        let mut context = null_mut();
        assert_eq!(mx_context(&mut found, &mut context), 0);
        assert_eq!(context as usize, 1);
    }
    assert!(a.test(&mut found).is_some());
    // SAFETY: as above.
    assert_eq!(unsafe { mx_ipeek(a.0, &mut found, &mut result) }, 0);
    assert_eq!(result, 0);
    assert!(a.wait_any(0, 0, 30).is_none());
    let _ = second;
    drop(b);
}
