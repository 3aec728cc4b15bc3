// SPDX-License-Identifier: Apache-2.0
//! Floods, many peers, and partings.

use std::collections::VecDeque;
use std::time::Instant;

use diolkos::{Error, Selector, StatusCode};

use crate::Maker;
use crate::port::{
    HUNG, Lent, Port, anything, info, join, lonely, pair, pattern, tag, until, until_asleep, wait,
};

pub fn two_endpoints_flood_each_other(make: Maker) {
    const COUNT: u64 = 4000;
    let len = |number: u64| [8, 0, 2000, 70_000, 33, 20_000][number as usize % 6];
    let (a, b) = pair(make);
    let play = |port: Port, own: u64, other: u64| {
        move || {
            // First everything is sent as far as it goes, and nothing received.
            let mut pending: VecDeque<Lent> = VecDeque::new();
            let mut sent = 0;
            while sent < COUNT {
                match port.try_isend(pattern(own + sent, len(sent)), &info(1)) {
                    Ok(sending) => {
                        pending.push_back(sending);
                        sent += 1;
                    }
                    Err(Error::Busy) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let held = port.endpoint.counters().expect("counters").unexpected;
            assert!(held <= 1024, "{held} messages are held");
            for number in 0..COUNT {
                port.receive(other + number, len(number), &anything());
                if sent < COUNT
                    && let Ok(sending) = port.try_isend(pattern(own + sent, len(sent)), &info(1))
                {
                    pending.push_back(sending);
                    sent += 1;
                }
            }
            assert_eq!(sent, COUNT);
            for sending in pending {
                let (status, _) = sending.wait(&port.endpoint);
                assert!(status.is_none_or(|status| status.code == StatusCode::Success));
            }
        }
    };
    let other = std::thread::spawn(play(b.clone(), 1 << 40, 0));
    play(a.clone(), 0, 1 << 40)();
    other.join().expect("the other side");
    for port in [a, b] {
        let counters = port.endpoint.counters().expect("counters");
        assert_eq!((counters.unexpected, counters.requests), (0, 0));
    }
}

pub fn sixty_four_peers(make: Maker) {
    const ROUNDS: u64 = 5;
    let hub = lonely(0);
    let spokes: Vec<(Port, Port)> =
        (1..=64).map(|number| join(make, &hub, &lonely(number))).collect();
    assert_eq!(hub.peers().expect("peers").len(), 64);
    std::thread::scope(|scope| {
        for which in 0..4 {
            let spokes = &spokes;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    for (_, spoke) in spokes.iter().skip(which).step_by(4) {
                        spoke.send(round, 100, 1);
                    }
                    for (_, spoke) in spokes.iter().skip(which).step_by(4) {
                        spoke.receive(round + 7, 40_000, &tag(2));
                    }
                }
            });
        }
        for round in 0..ROUNDS {
            for (own, _) in &spokes {
                let from = Selector { source: Some(own.peer), ..tag(1) };
                own.receive(round, 100, &from);
                own.send(round + 7, 40_000, 2);
            }
        }
    });
}

fn gone(port: &Port) -> Option<StatusCode> {
    port.endpoint.peer_info(port.peer).expect("an endpoint").and_then(|info| info.gone)
}

pub fn closing_is_seen_by_the_peer(make: Maker) {
    let (a, b) = pair(make);
    let receiving = a.irecv(8, &Selector { source: Some(a.peer), ..tag(1) });
    let sending = a.isend(1, 300_000, 1);
    let before = a.sleeps();
    let waiter = a.clone();
    let thread = std::thread::spawn(move || {
        let status = wait(&waiter.endpoint, receiving.request.expect("posted"));
        receiving.ended();
        status
    });
    until_asleep(&a.endpoint, before);
    b.endpoint.close();
    assert_eq!(thread.join().expect("the waiter").code, StatusCode::PeerClosed);
    let (status, _) = sending.wait(&a.endpoint);
    assert_eq!(status.map(|status| status.code), Some(StatusCode::PeerClosed));
    assert_eq!(gone(&a), Some(StatusCode::PeerClosed));
    let refused = a.try_isend(vec![1], &info(1)).err();
    assert!(matches!(refused, Some(Error::PeerGone(StatusCode::PeerClosed))), "{refused:?}");
    assert!(matches!(b.endpoint.progress(), Err(Error::Closed)));
    b.endpoint.close();
}

pub fn closing_ends_the_waits_of_other_threads(make: Maker) {
    for waiters in 1..4 {
        let (a, _b) = pair(make);
        let threads: Vec<_> = (0..waiters)
            .map(|which| {
                let port = a.clone();
                std::thread::spawn(move || {
                    let receiving = port.irecv(8, &tag(which));
                    let deadline = Some(Instant::now() + HUNG);
                    let ended = port.endpoint.wait(receiving.request.expect("posted"), deadline);
                    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
                    receiving.ended();
                })
            })
            .collect();
        until("all receives", || a.endpoint.counters().expect("counters").posted == waiters);
        until_asleep(&a.endpoint, 0);
        a.endpoint.close();
        for thread in threads {
            thread.join().expect("a waiter");
        }
    }
}

pub fn disconnecting_leaves_the_other_peers_alone(make: Maker) {
    let (a, b) = pair(make);
    let (c_to_a, a_to_c) = join(make, &lonely(2), &a.endpoint);
    let receiving = a.irecv(8, &Selector { source: Some(a.peer), ..tag(1) });
    a.endpoint.disconnect(a.peer).expect("a peer");
    let (status, _) = receiving.wait(&a.endpoint);
    assert_eq!(status.map(|status| status.code), Some(StatusCode::EndpointClosed));
    until("the parting", || {
        b.endpoint.progress().expect("progress");
        gone(&b) == Some(StatusCode::PeerClosed)
    });
    c_to_a.send(1, 8, 1);
    a_to_c.receive(1, 8, &tag(1));
    // A further channel between the same two endpoints.
    let (a_again, b_again) = join(make, &a.endpoint, &b.endpoint);
    assert_ne!(a_again.peer, a.peer);
    a_again.send(2, 8, 1);
    b_again.receive(2, 8, &tag(1));
}

pub fn what_was_sent_before_a_close_arrives(make: Maker) {
    for len in [0, 8, 1000, 40_000] {
        let (a, b) = pair(make);
        for number in 0..10 {
            a.send(number, len, 1);
        }
        a.endpoint.close();
        for number in 0..10 {
            b.receive(number, len, &tag(1));
        }
        until("the parting", || {
            b.endpoint.progress().expect("progress");
            gone(&b) == Some(StatusCode::PeerClosed)
        });
    }
}

/// Bytes of memory that stand behind a mapping of this process, shared ones in proportion.
fn bytes_behind(base: usize) -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("our own mappings");
    let start = format!("{base:x}-");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&start));
    let line = lines.find(|line| line.starts_with("Pss:")).expect("it is mapped");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    kib.expect("a number") << 10
}

pub fn idle_memory_is_small(make: Maker) {
    let (a, b) = (lonely(0), lonely(1));
    let (a_end, b_end) = make().expect("a channel");
    let regions = [&a_end.outgoing, &a_end.incoming, &b_end.outgoing, &b_end.incoming];
    let bases = regions.map(|region| region.base().as_ptr() as usize);
    let bytes = || bases.map(bytes_behind).iter().sum::<u64>();
    let to_b = Port { peer: a.adopt(a_end).expect("a usable end"), endpoint: a };
    let to_a = Port { peer: b.adopt(b_end).expect("a usable end"), endpoint: b };
    assert!(bytes() <= 256 << 10, "a fresh channel takes {} bytes", bytes());
    for number in 0..10 {
        to_b.send(number, 500, 1);
        to_a.receive(number, 500, &tag(1));
        to_a.send(number, 500, 1);
        to_b.receive(number, 500, &tag(1));
    }
    assert!(bytes() <= 256 << 10, "a channel for short messages takes {} bytes", bytes());
}
