// SPDX-License-Identifier: Apache-2.0
//! Sleeping and waking: a wake-up that is lost once is a program that hangs once a week.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use diolkos::{Error, HandlerAction, Status};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::Maker;
use crate::port::{HUNG, Lent, Port, anything, expect, pair, tag, until, until_asleep};

pub fn a_sleeping_receiver_is_woken(make: Maker) {
    let (a, b) = pair(make);
    for (number, len) in (0..30).zip([0, 8, 1000, 40_000, 300_000].into_iter().cycle()) {
        let before = b.sleeps();
        let receiver = b.clone();
        let thread = std::thread::spawn(move || receiver.receive(number, len, &tag(1)));
        until_asleep(&b.endpoint, before);
        a.send(number, len, 1);
        thread.join().expect("the receiver");
    }
}

pub fn a_sleeping_sender_is_woken_by_room(make: Maker) {
    // The receiver looks only when the sender has filled the ring and sleeps.
    const LEN: usize = 30 << 20;
    let (a, b) = pair(make);
    for number in 0..3 {
        let receiving = b.irecv(LEN, &tag(1));
        let before = a.sleeps();
        let sender = a.clone();
        let thread = std::thread::spawn(move || sender.send(number, LEN, 1));
        until("acceptance", || {
            b.endpoint.progress().expect("progress");
            b.endpoint.counters().expect("counters").rx_messages == number + 1
        });
        until_asleep(&a.endpoint, before);
        let (status, bytes) = receiving.wait(&b.endpoint);
        expect(&status.expect("a receive"), &bytes, number, LEN);
        thread.join().expect("the sender");
    }
}

pub fn ping_pong_between_sleepers(make: Maker) {
    // Each side waits for its peer to fall asleep before it answers, so every message has to wake
    // somebody.
    const ROUNDS: u64 = 300;
    let (a, b) = pair(make);
    let play = |own: Port, other: Port, serves: bool| {
        move || {
            for number in 0..ROUNDS {
                let slept = other.sleeps();
                if serves {
                    if number % 3 == 0 {
                        until_asleep(&other.endpoint, slept.saturating_sub(1));
                    }
                    own.send(number, 8, 1);
                    own.receive(number, 8, &tag(2));
                } else {
                    own.receive(number, 8, &tag(1));
                    own.send(number, 8, 2);
                }
            }
        }
    };
    let second = std::thread::spawn(play(b.clone(), a.clone(), false));
    play(a, b, true)();
    second.join().expect("the other side");
}

/// Waits for a request as an event loop does: armed, on the descriptor.
fn wait_in_loop(port: &Port, lent: &mut Lent) -> Status {
    let deadline = Instant::now() + HUNG;
    loop {
        if let Some(status) = lent.test(&port.endpoint) {
            return status;
        }
        let found = port.endpoint.arm().expect("armed");
        wait_for_descriptor(port, lent, found);
        port.endpoint.disarm().expect("disarmed");
        assert!(Instant::now() < deadline, "the event loop spins");
    }
}

/// Waits for a request as a thread does that waits for several endpoints at a time.
fn wait_dozing(port: &Port, lent: &mut Lent) -> Status {
    let deadline = Instant::now() + HUNG;
    loop {
        if let Some(status) = lent.test(&port.endpoint) {
            return status;
        }
        let doze = port.endpoint.doze().expect("dozing");
        wait_for_descriptor(port, lent, doze.found);
        drop(doze);
        assert!(Instant::now() < deadline, "the dozing thread spins");
    }
}

fn wait_for_descriptor(port: &Port, lent: &Lent, found: bool) {
    // Another thread may have taken it in between the test and the arming.
    if found || lent.request.is_none_or(|request| is_complete(port, request)) {
        return;
    }
    let mut poll = [PollFd::from_borrowed_fd(port.endpoint.descriptor(), PollFlags::IN)];
    let timeout = Timespec { tv_sec: HUNG.as_secs() as i64, tv_nsec: 0 };
    let ready = rustix::event::poll(&mut poll, Some(&timeout)).expect("poll");
    assert!(ready > 0, "the descriptor stayed silent");
}

fn is_complete(port: &Port, request: diolkos::RequestId) -> bool {
    port.endpoint.is_complete(request).expect("a request")
}

/// Whether an event loop would find the descriptor readable now.
fn is_readable(port: &Port) -> bool {
    let mut poll = [PollFd::from_borrowed_fd(port.endpoint.descriptor(), PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&now)).expect("poll") > 0
}

pub fn an_event_loop_is_woken(make: Maker) {
    const ROUNDS: u64 = 500;
    let (a, b) = pair(make);
    let sender = a.clone();
    let thread = std::thread::spawn(move || {
        for number in 0..ROUNDS {
            sender.send(number, 100, 1);
            sender.receive(number, 0, &tag(2));
        }
    });
    for number in 0..ROUNDS {
        let mut receiving = b.irecv(100, &tag(1));
        let status = wait_in_loop(&b, &mut receiving);
        expect(&status, &receiving.ended(), number, 100);
        b.send(number, 0, 2);
    }
    thread.join().expect("the sender");
    assert!(!is_readable(&b), "a quiet descriptor after everything was taken");
}

pub fn all_ways_of_waiting_share_an_endpoint(make: Maker) {
    // An event loop, a thread that dozes, and two that block: each takes messages off the rings
    // and events off the descriptors that another one waits for.
    const ROUNDS: u64 = 300;
    let (a, b) = pair(make);
    let serve = |which: u64, wait: fn(&Port, &mut Lent) -> Status| {
        let port = b.clone();
        std::thread::spawn(move || {
            for number in 0..ROUNDS {
                let mut receiving = port.irecv(100, &tag(which));
                let status = wait(&port, &mut receiving);
                expect(&status, &receiving.ended(), number, 100);
                port.send(number, 0, which + 10);
            }
        })
    };
    let block = |port: &Port, lent: &mut Lent| {
        let request = lent.request.take().expect("posted");
        crate::port::wait(&port.endpoint, request)
    };
    let threads = [serve(0, wait_in_loop), serve(1, wait_dozing), serve(2, block), serve(3, block)];
    for number in 0..ROUNDS {
        // The order changes, so that each is served while the others wait on.
        for which in (0..4).map(|turn| (turn + number) % 4) {
            a.send(number, 100, which);
            a.receive(number, 0, &tag(which + 10));
        }
    }
    for thread in threads {
        thread.join().expect("one that waits");
    }
}

pub fn who_wakes_up_leaves_the_others_asleep(make: Maker) {
    // Each says to the peers that it is awake, while another still relies on being rung for.
    let (a, b) = pair(make);
    for round in 0..20 {
        let before = b.sleeps();
        let sleeper = b.clone();
        let thread = std::thread::spawn(move || sleeper.receive(round, 8, &tag(1)));
        until_asleep(&b.endpoint, before);
        b.endpoint.arm().expect("armed");
        b.endpoint.disarm().expect("disarmed");
        drop(b.endpoint.doze().expect("dozing"));
        a.send(round, 8, 1);
        thread.join().expect("the sleeper");

        let mut receiving = b.irecv(8, &tag(2));
        assert!(!b.endpoint.arm().expect("armed"));
        let other = b.irecv(8, &tag(3));
        let late = Some(Instant::now() + Duration::from_millis(1));
        let request = other.request.expect("posted");
        assert_eq!(b.endpoint.wait(request, late).expect("a wait"), None);
        drop(b.endpoint.doze().expect("dozing"));
        a.send(round, 8, 2);
        wait_for_descriptor(&b, &receiving, false);
        b.endpoint.disarm().expect("disarmed");
        let status = receiving.test(&b.endpoint).expect("it has come");
        expect(&status, &receiving.ended(), round, 8);
        assert!(b.endpoint.cancel(request).expect("a receive"));
        other.ended();
    }
}

pub fn a_deadline_is_kept(make: Maker) {
    let (_a, b) = pair(make);
    let receiving = b.irecv(8, &tag(1));
    let request = receiving.request.expect("posted");
    for wait in [Duration::ZERO, Duration::from_micros(20), Duration::from_millis(20)] {
        let begin = Instant::now();
        let ended = b.endpoint.wait(request, Some(begin + wait)).expect("a wait");
        assert_eq!(ended, None);
        let took = begin.elapsed();
        assert!(took >= wait, "back after {took:?} of {wait:?}");
        assert!(took < wait + Duration::from_secs(5), "back after {took:?} of {wait:?}");
    }
    assert!(b.endpoint.cancel(request).expect("a receive"));
    receiving.ended();
}

pub fn a_deadline_is_kept_under_a_flood(make: Maker) {
    // Something comes all the time, but never what we wait for.
    let (a, b) = pair(make);
    let stop = Arc::new(AtomicBool::new(false));
    let flood = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut pending: Option<Lent> = None;
            while !stop.load(Ordering::Relaxed) {
                pending = match pending {
                    Some(mut sending) => match sending.test(&a.endpoint) {
                        None => Some(sending),
                        Some(_) => None,
                    },
                    None => {
                        let sent = a.try_isend(vec![0; 8], &crate::port::info(1));
                        Some(sent.expect("a send")).filter(|sending| sending.request.is_some())
                    }
                };
            }
            a.endpoint.close();
            pending.map(Lent::ended);
        })
    };
    let buffer =
        b.lend(1 << 26, |endpoint, sink| endpoint.post_multi(sink, 1, &tag(1)), |request| *request);
    let receiving = b.irecv(8, &tag(2));
    let request = receiving.request.expect("posted");
    for _ in 0..20 {
        let begin = Instant::now();
        let ended = b.endpoint.wait(request, Some(begin + Duration::from_millis(10)));
        assert_eq!(ended.expect("a wait"), None);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().expect("the flood");
    b.endpoint.close();
    buffer.ended();
    receiving.ended();
}

pub fn a_signal_interrupts_one_wait_and_loses_nothing(make: Maker) {
    let _ = interruptible_thread();
    let (a, b) = pair(make);
    // One thread sleeps for both; when a signal takes it away, the other must not be left behind
    // with nobody on the descriptors.
    let (threads_tx, threads_rx) = mpsc::channel();
    let interrupted = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicU64::new(0));
    let waiters: Vec<_> = (0..2)
        .map(|which| {
            let (port, threads) = (b.clone(), threads_tx.clone());
            let (count, done) = (Arc::clone(&interrupted), Arc::clone(&done));
            std::thread::spawn(move || {
                let receiving = port.irecv(8, &tag(which));
                let request = receiving.request.expect("posted");
                threads.send(interruptible_thread()).expect("the test listens");
                let deadline = Instant::now() + HUNG;
                loop {
                    match port.endpoint.wait(request, Some(deadline)) {
                        Ok(Some(status)) => {
                            done.fetch_add(1, Ordering::SeqCst);
                            break expect(&status, &receiving.ended(), which, 8);
                        }
                        Ok(None) => panic!("waiter {which} hung"),
                        // The first program to be interrupted looks at its signals, and takes its
                        // time. The other thread must be served meanwhile.
                        Err(Error::Interrupted) => {
                            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                                until("the other's message", || done.load(Ordering::SeqCst) == 1);
                            }
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    let threads = [threads_rx.recv(), threads_rx.recv()].map(|t| t.expect("a thread"));
    until_asleep(&b.endpoint, 0);
    until("an interruption", || {
        for thread in threads {
            interrupt(thread);
        }
        interrupted.load(Ordering::SeqCst) > 0
    });
    for which in [1, 0] {
        a.send(which, 8, which);
    }
    for waiter in waiters {
        waiter.join().expect("a waiter");
    }
}

/// Makes this thread one that a signal interrupts without further effect, and names it.
fn interruptible_thread() -> libc::pthread_t {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: an all-zero `sigaction` is a valid one with an empty mask and no flags, so waiting
    // calls return EINTR; the handler does nothing, which any signal handler may; the calls
    // touch no other memory.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
        libc::pthread_self()
    }
}

fn interrupt(thread: libc::pthread_t) {
    // SAFETY: the thread is joined only after the last call of this function.
    let _ = unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
}

pub fn the_first_of_several_requests_is_found(make: Maker) {
    let (a, b) = pair(make);
    let mut receiving: Vec<Lent> = (0..5).map(|which| b.irecv(8, &tag(which))).collect();
    for which in [3, 0, 4, 1, 2] {
        let requests: Vec<_> = receiving.iter().filter_map(|lent| lent.request).collect();
        assert!(b.endpoint.test_any(&requests).expect("requests").is_none());
        a.send(which, 8, which);
        let deadline = Some(Instant::now() + HUNG);
        let (at, status) =
            b.endpoint.wait_any(&requests, deadline).expect("requests").expect("it comes");
        assert_eq!(status.match_info, which);
        let index = receiving.iter().position(|lent| lent.request == Some(requests[at]));
        let lent = receiving.swap_remove(index.expect("one of them"));
        expect(&status, &lent.ended(), which, 8);
    }
    let sending = a.isend(1, 300_000, 77);
    let receiving = b.irecv(300_000, &tag(77));
    let deadline = Some(Instant::now() + HUNG);
    std::thread::scope(|scope| {
        scope.spawn(|| sending.wait(&a.endpoint));
        let (_, status) =
            b.endpoint.wait_matching(77, u64::MAX, deadline).expect("a wait").expect("it comes");
        expect(&status, &receiving.ended(), 1, 300_000);
    });
}

pub fn many_threads_share_an_endpoint(make: Maker) {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 150;
    let (a, b) = pair(make);
    let lens = [0, 8, 500, 40_000, 100_000];
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (own, other) = (a.clone(), b.clone());
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let number = thread << 32 | round;
                    own.send(number, lens[round as usize % lens.len()], 2 * thread);
                    own.receive(number, 8, &tag(2 * thread + 1));
                }
            });
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let number = thread << 32 | round;
                    other.receive(number, lens[round as usize % lens.len()], &tag(2 * thread));
                    other.send(number, 8, 2 * thread + 1);
                }
            });
        }
    });
    let counters = a.endpoint.counters().expect("counters");
    assert_eq!((counters.requests, counters.posted, counters.unexpected), (0, 0, 0));
    assert_eq!(counters.tx_messages, THREADS * ROUNDS);
}

pub fn a_thread_that_only_tests_does_not_steal_from_those_that_wait(make: Maker) {
    // It takes messages off the rings, and wake-ups off the descriptors, for everybody.
    const ROUNDS: u64 = 300;
    let (a, b) = pair(make);
    let stop = Arc::new(AtomicBool::new(false));
    let busy = {
        let (port, stop) = (b.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let receiving = port.irecv(8, &tag(99));
            let request = receiving.request.expect("posted");
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(port.endpoint.test(request).expect("a request"), None);
            }
            assert!(port.endpoint.cancel(request).expect("a receive"));
            receiving.ended();
        })
    };
    let waiters: Vec<_> = (0..2)
        .map(|which| {
            let port = b.clone();
            std::thread::spawn(move || {
                for number in 0..ROUNDS {
                    port.receive(number, 8, &tag(which));
                    port.send(number, 0, which + 10);
                }
            })
        })
        .collect();
    for number in 0..ROUNDS {
        for which in 0..2 {
            a.send(number, 8, which);
            a.receive(number, 0, &tag(which + 10));
        }
    }
    for waiter in waiters {
        waiter.join().expect("a waiter");
    }
    stop.store(true, Ordering::Relaxed);
    busy.join().expect("the busy thread");
}

pub fn a_handler_that_takes_its_time_delays_nobody_for_ever(make: Maker) {
    // While it runs in one thread, nothing is taken off the rings; another thread may fall asleep
    // over messages that are there already. When it returns, that thread must be told.
    let (a, b) = pair(make);
    for round in 0..50 {
        let (inside_tx, inside_rx) = mpsc::channel();
        let (leave_tx, leave_rx) = mpsc::channel::<()>();
        let leave_rx = std::sync::Mutex::new(leave_rx);
        b.endpoint
            .set_unexpected_handler(Some(Box::new(move |_, _| {
                inside_tx.send(()).expect("the test listens");
                let _ = leave_rx.lock().expect("no panic").recv();
                HandlerAction::Finished
            })))
            .expect("a handler");
        let before = b.sleeps();
        let first = b.clone();
        let handles = std::thread::spawn(move || first.receive(round, 8, &tag(1)));
        until_asleep(&b.endpoint, before);
        a.send(round, 8, 99);
        inside_rx.recv().expect("the handler runs");
        // Behind the handler's message: one for a second thread, which goes to sleep over it, and
        // the one that the first thread waits for. Nobody rings for them any more.
        a.send(round, 8, 2);
        a.send(round, 8, 1);
        let before = b.sleeps();
        let second = b.clone();
        let sleeps = std::thread::spawn(move || second.receive(round, 8, &tag(2)));
        until_asleep(&b.endpoint, before);
        drop(leave_tx);
        handles.join().expect("the thread of the handler");
        sleeps.join().expect("the thread that slept");
        b.endpoint.set_unexpected_handler(None).expect("no handler");
    }
    assert_eq!(b.endpoint.iprobe(&anything()).expect("a probe"), None);
}
