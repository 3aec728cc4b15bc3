// SPDX-License-Identifier: Apache-2.0
//! Loans: the same content wherever the memory can be reached, and an end in every case.

use diolkos::{Block, Envelope, Error, Loan, RequestId, Selector, Source, StatusCode};

use crate::Maker;
use crate::port::{Port, anything, info, pair, pattern, tag, until, wait};
use crate::regions::{block, grants, served};

const MIB: usize = 1 << 20;

fn lend(port: &Port, block: &Block, match_info: u64) -> RequestId {
    port.endpoint.lend(block.source(), port.peer, &info(match_info)).expect("lent")
}

fn borrow(lender: &Port, borrower: &Port, selector: &Selector) -> Loan {
    served(&lender.endpoint, || {
        let request = borrower.endpoint.irecv_loan(selector).expect("a receive");
        assert_eq!(wait(&borrower.endpoint, request).code, StatusCode::Success);
        borrower.endpoint.take_loan(request).expect("an endpoint").expect("a loan")
    })
}

fn finish(port: &Port, other: &Port, request: RequestId) -> StatusCode {
    served(&other.endpoint, || wait(&port.endpoint, request).code)
}

pub fn a_loan_shows_the_same_bytes(make: Maker) {
    let (a, b) = pair(make);
    for (number, len) in (1..).zip([0, 8, 4096, 100_000, 64 * MIB]) {
        let bytes = pattern(number, len);
        let memory = block(&a.endpoint, &bytes);
        assert!(a.endpoint.is_lendable(&memory.source()));
        for early in [true, false] {
            let posted = early.then(|| b.endpoint.irecv_loan(&tag(number)).expect("a receive"));
            let envelope = Envelope { immediate: 5, ..info(number) };
            let lent = a.endpoint.lend(memory.source(), a.peer, &envelope).expect("lent");
            if !early {
                let lent = Selector { space: diolkos::Space::Lent, ..tag(number) };
                until("arrival", || {
                    b.endpoint.progress().expect("progress");
                    b.endpoint.iprobe(&lent).is_err()
                        || b.endpoint.counters().expect("counters").unexpected == 1
                });
            }
            let request =
                posted.unwrap_or_else(|| b.endpoint.irecv_loan(&tag(number)).expect("a receive"));
            let status = served(&a.endpoint, || wait(&b.endpoint, request));
            assert_eq!((status.code, status.source), (StatusCode::Success, b.peer));
            assert_eq!((status.match_info, status.immediate), (number, 5));
            assert_eq!(status.message_bytes, len as u64);
            let loan = b.endpoint.take_loan(request).expect("an endpoint").expect("a loan");
            assert!(b.endpoint.take_loan(request).expect("an endpoint").is_none(), "twice");
            assert_eq!(loan.len_bytes(), len);
            assert!(loan.source().to_vec() == bytes, "{len} bytes");
            assert_eq!(loan.is_copied(), !grants(&b));
            if grants(&b) {
                a.endpoint.progress().expect("progress");
                assert!(!a.endpoint.is_complete(lent).expect("a request"), "not back yet");
            }
            drop(loan);
            assert_eq!(finish(&a, &b, lent), StatusCode::Success);
        }
    }
    assert_eq!(a.endpoint.counters().expect("counters").requests, 0);
    assert_eq!(b.endpoint.counters().expect("counters").requests, 0);
}

pub fn a_loan_outlives_its_lender(make: Maker) {
    let (a, b) = pair(make);
    let memory = block(&a.endpoint, &pattern(1, MIB));
    let _lent = lend(&a, &memory, 1);
    let loan = borrow(&a, &b, &anything());
    a.endpoint.close();
    drop(memory);
    drop(a);
    assert!(loan.source().to_vec() == pattern(1, MIB));
    until("the news", || b.endpoint.peers().expect("peers").is_empty());
    b.endpoint.close();
    assert!(loan.source().to_vec() == pattern(1, MIB));
}

pub fn a_borrower_that_leaves_gives_its_loans_back(make: Maker) {
    for borrowed in [true, false] {
        let (a, b) = pair(make);
        let memory = block(&a.endpoint, &pattern(1, MIB));
        let lent = lend(&a, &memory, 1);
        let loan = borrowed.then(|| borrow(&a, &b, &anything()));
        b.endpoint.close();
        let code = wait(&a.endpoint, lent).code;
        if !borrowed || grants(&a) {
            assert_eq!(code, StatusCode::PeerClosed);
        }
        drop(loan);
        until("the news", || a.endpoint.peers().expect("peers").is_empty());
        let refused = a.endpoint.lend(memory.source(), a.peer, &info(1)).err();
        assert!(matches!(refused, Some(Error::PeerGone(_))), "{refused:?}");
    }
}

pub fn memory_that_was_lent_is_used_for_nobody_else(make: Maker) {
    let (a, b) = pair(make);
    let memory = block(&a.endpoint, &pattern(1, MIB));
    let lent = lend(&a, &memory, 1);
    let loan = borrow(&a, &b, &anything());
    a.endpoint.disconnect(a.peer).expect("a peer");
    wait(&a.endpoint, lent);
    drop(memory);
    // Whatever is allocated now, the peer that still looks sees nothing of it.
    let others: Vec<Block> = (0..4).map(|_| block(&a.endpoint, &[0xaa; MIB])).collect();
    assert!(loan.source().to_vec() == pattern(1, MIB), "memory was used again");
    drop(others);
    assert_eq!(a.endpoint.arena().granted_bytes, 0);
}

pub fn loans_and_messages_are_kept_apart(make: Maker) {
    let (a, b) = pair(make);
    let memory = block(&a.endpoint, &pattern(1, 1000));
    let first = lend(&a, &memory, 1);
    let second = lend(&a, &memory, 2);
    a.send(7, 100, 1);
    b.receive(7, 100, &anything());
    // The one that is asked for, and only loans.
    let loan = borrow(&a, &b, &tag(2));
    drop(loan);
    assert_eq!(finish(&a, &b, second), StatusCode::Success);
    let request = b.endpoint.irecv_loan(&tag(9)).expect("a receive");
    assert!(b.endpoint.cancel(request).expect("a loan receive"));
    a.send(8, 100, 9);
    b.receive(8, 100, &tag(9));
    drop(borrow(&a, &b, &tag(1)));
    assert_eq!(finish(&a, &b, first), StatusCode::Success);
    let to_self = a.endpoint.lend(memory.source(), diolkos::PeerId::SELF, &info(1)).err();
    assert!(matches!(to_self, Some(Error::Invalid(_))), "{to_self:?}");
}

pub fn a_loan_that_nobody_wants_any_more_goes_back(make: Maker) {
    let (a, b) = pair(make);
    let memory = block(&a.endpoint, &pattern(1, MIB));
    let request = b.endpoint.irecv_loan(&tag(1)).expect("a receive");
    b.endpoint.forget(request);
    let lent = lend(&a, &memory, 1);
    assert_eq!(finish(&a, &b, lent), StatusCode::Success);
    // Complete and never taken: the endpoint gives it back.
    let request = b.endpoint.irecv_loan(&tag(2)).expect("a receive");
    let lent = lend(&a, &memory, 2);
    until("completion", || {
        a.endpoint.progress().expect("progress");
        b.endpoint.progress().expect("progress");
        b.endpoint.is_complete(request).expect("a request")
    });
    b.endpoint.forget(request);
    assert_eq!(finish(&a, &b, lent), StatusCode::Success);
    assert_eq!(b.endpoint.arena().used_bytes, 0, "a copy was kept");
}

pub fn other_memory_is_lent_as_a_copy(make: Maker) {
    let (a, b) = pair(make);
    let bytes = pattern(3, 300_000);
    // SAFETY: `bytes` is kept until the request has ended.
    let source = unsafe { Source::from_raw(bytes.as_ptr(), bytes.len()) };
    assert!(!a.endpoint.is_lendable(&source));
    let lent = a.endpoint.lend(source, a.peer, &info(1)).expect("lent");
    let loan = borrow(&a, &b, &anything());
    assert!(loan.is_copied());
    assert!(loan.source().to_vec() == bytes);
    // The data has left, so the loan is back, whether the copy is held or not.
    assert_eq!(finish(&a, &b, lent), StatusCode::Success);
    assert!(loan.source().to_vec() == bytes);
}
