// SPDX-License-Identifier: Apache-2.0
//! A peer that owns its outgoing file and writes into it what it likes, at random moments.
//!
//! ```text
//!   honest peer <--- exact data, both ways, all the time ---> victim <--- anything --- liar
//! ```
//!
//! The liar comes in three kinds: a scribbler that writes garbage over every writable byte; a
//! working endpoint whose file is scribbled over while it runs; and a craftsman that publishes
//! well-formed cells with frames and places that almost make sense. Whatever it does: the victim
//! reports `PeerMisbehaved` or is not harmed, its requests to the liar end, nothing grows, nothing
//! hangs, and the honest peer's data stays exact. A failure prints the kind and the seed.

#[allow(dead_code, reason = "other tests use the rest")]
mod dice;
#[path = "conformance/port.rs"]
#[allow(dead_code, reason = "the conformance suite uses the rest")]
mod port;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dice::Dice;
use diolkos::{Error, PeerId, Selector, StatusCode};
use diolkos_island::{ChannelEnds, Doorbell, IslandError, PeerIdentity, Road};
use diolkos_shm::layout::{self, CELL_COUNT, CELL_WORDS, CHANNEL_FILE_BYTES, WORD_CELLS};
use diolkos_shm::words::Words;
use diolkos_shm::{Access, Cell, Producer, Region, Source};
use port::{HUNG, Lent, Port, info, join, lonely, pattern, tag};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::net::{Shutdown, shutdown};

/// As in the conformance suite, whose harness this borrows.
pub type Maker = fn() -> Result<(ChannelEnds, ChannelEnds), IslandError>;

/// How long each kind of liar is tried.
const EACH_KIND: Duration = Duration::from_secs(4);
/// Seeds that are tried in any case.
const SEEDS_MIN: u64 = 8;
/// What the victim does with each liar.
const ACTIONS: u64 = 400;

/// The victim's end, and everything of the liar's.
struct Trap {
    victim: ChannelEnds,
    liar: ChannelEnds,
    /// The liar's outgoing file once more, to be written behind the back of its endpoint.
    file: Words,
}

fn trap() -> Trap {
    let (a_file, a_view) = channel_file(0);
    let (b_file, b_view) = channel_file(1);
    let again = b_file.try_clone().expect("a descriptor");
    let map = |fd, access| Region::map(fd, CHANNEL_FILE_BYTES, access).expect("memory");
    let (a_bell, b_bell) = Doorbell::pair().expect("doorbells");
    let end = |file, view, doorbell, own: u32| ChannelEnds {
        channel: 1,
        peer: PeerIdentity { number: 1 - own, name: "the other".into() },
        road: Road::Direct,
        reason: "a trap".into(),
        outgoing: map(file, Access::ReadWrite),
        incoming: map(view, Access::ReadOnly),
        doorbell,
        liveness: None,
        process_vm: false,
    };
    Trap {
        victim: end(a_file, b_view, a_bell, 0),
        liar: end(b_file, a_view, b_bell, 1),
        file: Words::new(Arc::new(map(again, Access::ReadWrite))),
    }
}

fn channel_file(direction: u32) -> (OwnedFd, OwnedFd) {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("hostile-test", flags).expect("a memfd");
    rustix::fs::ftruncate(&file, CHANNEL_FILE_BYTES as u64).expect("its size");
    rustix::io::pwrite(&file, &layout::header_bytes(1, direction), 0).expect("its header");
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).expect("its seals");
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let view = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, 0.into()).expect("a view");
    (file, view)
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Garbage from the first moment, no endpoint behind it.
    Scribbler,
    /// An endpoint that works, until its file is written over.
    Possessed,
    /// Well-formed cells with frames that almost make sense.
    Craftsman,
}

/// Writes garbage over the liar's file until it is stopped.
fn scribble(file: Words, seed: u64, stop: Arc<AtomicBool>) {
    let mut dice = Dice::new(seed);
    while !stop.load(Ordering::Relaxed) {
        match dice.below(16) {
            // Everything, header included.
            0 => {
                let index = dice.below(CHANNEL_FILE_BYTES as u64 / 8) as usize;
                file.store(index, dice.next(), Ordering::Relaxed);
            }
            1 => file.store(dice.below(0x200) as usize, dice.any_size(), Ordering::Relaxed),
            2 | 3 => {
                let word = layout::WORD_CONSUMED + dice.below(4) as usize;
                file.store(word, dice.any_size(), Ordering::Relaxed);
            }
            4 => file.store(layout::WORD_SLEEPING, dice.below(4), Ordering::Relaxed),
            // Now and then only: a peer that closes cannot lie any more.
            5 if dice.below(500) == 0 => file.store(layout::WORD_CLOSING, 1, Ordering::Relaxed),
            // A cell that looks like the next one.
            _ => {
                let slot = dice.below(64);
                let base = WORD_CELLS + slot as usize * CELL_WORDS;
                for word in 1..CELL_WORDS {
                    file.store(base + word, dice.any_size(), Ordering::Relaxed);
                }
                let kind = dice.below(7);
                let rest = dice.below(4) << 8 | dice.below(2) << 15 | dice.below(40) << 16;
                let stamp = slot + 1 + dice.below(4) * CELL_COUNT as u64;
                file.store(base, stamp | (kind | rest) << 32, Ordering::Release);
            }
        }
    }
}

/// Publishes well-formed cells with frames and lengths that are nearly right.
fn craft(liar: ChannelEnds, seed: u64, stop: Arc<AtomicBool>) {
    let mut dice = Dice::new(seed);
    let outgoing = Words::new(Arc::new(liar.outgoing));
    let incoming = Words::new(Arc::new(liar.incoming));
    let mut producer = Producer::new(outgoing.clone(), incoming, 1 << 20);
    let bytes = pattern(seed, 70_000);
    // Most seeds lie rarely, so that the victim gets deep into its protocols before it notices.
    let honesty = 1 + dice.below(200);
    let mut credits = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let lies = dice.below(honesty) == 0;
        let len = if lies { dice.below(70_000) } else { dice.below(300) } as usize;
        let kind = if lies { dice.below(8) } else { [1, 3][dice.below(2) as usize] };
        let length = if lies { dice.any_size() } else { len as u64 };
        let words = match kind {
            3 => [dice.below(4), dice.below(8) << 32, length],
            4 => [dice.below(8) | dice.below(8) << 32, length, 0],
            5 => [dice.below(8), length, 0],
            _ => [dice.below(4), 0, length],
        };
        let cell = Cell { kind: kind as u8, words, ..Cell::default() };
        let pushed = if kind == 3 || kind == 4 {
            producer.push(&cell)
        } else {
            // SAFETY: `bytes` outlives the push.
            let source = unsafe { Source::from_raw(bytes.as_ptr(), len) };
            producer.push_payload(&cell, &source, 0, len)
        };
        if pushed.is_err() {
            std::thread::yield_now();
        }
        if dice.below(4) == 0 {
            // Read everything, give credit back as it comes, or a little more than that.
            credits = (credits.0 + dice.below(2000), credits.1 + dice.below(3));
            outgoing.store(layout::WORD_CREDIT_BYTES, credits.0, Ordering::Relaxed);
            outgoing.store(layout::WORD_CREDIT_MESSAGES, credits.1, Ordering::Relaxed);
        }
    }
}

/// An endpoint that means well, over a file that somebody else writes into.
fn possess(liar: ChannelEnds, file: Words, seed: u64, stop: Arc<AtomicBool>) {
    let mut dice = Dice::new(seed);
    let endpoint = lonely(66);
    let peer = endpoint.adopt(liar).expect("a usable end");
    let port = Port { endpoint, peer };
    let after = Duration::from_micros(dice.below(20_000));
    let begin = Instant::now();
    let scribbler = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while begin.elapsed() < after && !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            scribble(file, seed, stop);
        }
    });
    let mut pending: Vec<Lent> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let len = [0, 8, 500, 30_000, 200_000][dice.below(5) as usize];
        if let Ok(sending) = port.try_isend(pattern(seed, len), &info(dice.below(4))) {
            pending.push(sending);
        }
        if let Ok(receiving) = port.try_irecv(200_000, &tag(dice.below(4))) {
            pending.push(receiving);
        }
        pending.retain_mut(|lent| lent.request.is_some() && lent.test(&port.endpoint).is_none());
        if pending.len() > 200 {
            break;
        }
    }
    port.endpoint.close();
    for lent in pending {
        lent.ended();
    }
    stop.store(true, Ordering::Relaxed);
    scribbler.join().expect("the scribbler");
}

/// Talks to the victim in both directions until it is stopped; every byte is checked.
fn talk_honestly(port: &Port, serves: bool, stop: &AtomicBool) -> u64 {
    let mut number = 0;
    loop {
        let len = [8, 3000, 50_000, 150_000][number as usize % 4];
        let last = serves && stop.load(Ordering::Relaxed);
        if serves {
            // The immediate word of the last round says that it is the last.
            let envelope = diolkos::Envelope { immediate: u32::from(last), ..info(100) };
            let sending = port.try_isend(pattern(number, len), &envelope).expect("a send");
            sending.wait(&port.endpoint);
            port.receive(number, len, &tag(101));
        }
        let last = if serves {
            last
        } else {
            let from = Selector { source: Some(port.peer), ..tag(100) };
            let (status, bytes) = port.irecv(len, &from).wait(&port.endpoint);
            let status = status.expect("a receive");
            port::expect(&status, &bytes, number, len);
            port.send(number, len, 101);
            status.immediate != 0
        };
        number += 1;
        if last {
            return number;
        }
    }
}

/// What the victim does with the liar: sends, receives, probes, claims, without ever waiting for
/// it.
fn act(victim: &Port, dice: &mut Dice, pending: &mut Vec<Lent>) {
    let from_liar = Selector { source: Some(victim.peer), match_info: 0, mask: 0, ..tag(0) };
    let len = [0, 8, 100, 5000, 60_000, 300_000][dice.below(6) as usize];
    let posted = match dice.below(8) {
        0..=2 => victim.try_isend(pattern(1, len), &info(dice.below(4))).ok(),
        3..=5 => victim.try_irecv(len, &from_liar).ok(),
        6 => match victim.endpoint.improbe(&from_liar) {
            Ok(Some((claim, _))) if dice.below(2) == 0 => {
                victim.endpoint.discard(claim).expect("an endpoint");
                None
            }
            Ok(Some((claim, _))) => {
                // The data may have died with its sender meanwhile.
                let mut request = None;
                let posted = victim.lend(
                    len,
                    |endpoint, sink| {
                        request = endpoint.imrecv(claim, sink).ok();
                        Ok(())
                    },
                    |()| diolkos::RequestId::from_raw(0),
                );
                keep(posted, request)
            }
            _ => None,
        },
        _ => {
            if let Some(request) = pending.last().and_then(|lent| lent.request) {
                let short = Some(Instant::now() + Duration::from_micros(dice.below(300)));
                if let Ok(Some(_)) = victim.endpoint.wait(request, short)
                    && let Some(mut lent) = pending.pop()
                {
                    lent.request = None;
                }
            }
            None
        }
    };
    pending.extend(posted.filter(|lent| lent.request.is_some()));
    pending.retain_mut(|lent| lent.test(&victim.endpoint).is_none());
}

/// A buffer with the request that uses it, if any.
fn keep(mut posted: Lent, request: Option<diolkos::RequestId>) -> Option<Lent> {
    posted.request = request;
    request.is_some().then_some(posted)
}

fn gone(victim: &Port) -> Option<StatusCode> {
    victim.endpoint.peer_info(victim.peer).expect("an endpoint").and_then(|info| info.gone)
}

/// One liar against one victim; tells whether it was found out.
fn run(kind: Kind, seed: u64) -> bool {
    let Trap { victim: end, liar, file } = trap();
    let (endpoint, honest) = (lonely(0), lonely(1));
    let (victim_to_honest, honest_to_victim) =
        join(diolkos_island::local::pair, &endpoint, &honest);
    let peer: PeerId = endpoint.adopt(end).expect("a usable end");
    let victim = Port { endpoint, peer };
    let stop = Arc::new(AtomicBool::new(false));
    let enough = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let liars_stop = Arc::clone(&stop);
        let liar = scope.spawn(move || match kind {
            Kind::Scribbler => scribble(file, seed, liars_stop),
            Kind::Possessed => possess(liar, file, seed, liars_stop),
            Kind::Craftsman => craft(liar, seed, liars_stop),
        });
        let serving = scope.spawn(|| talk_honestly(&honest_to_victim, true, &enough));
        let served = scope.spawn(|| talk_honestly(&victim_to_honest, false, &enough));
        let mut dice = Dice::new(seed ^ 0xabcd);
        let mut pending = Vec::new();
        for _ in 0..ACTIONS {
            act(&victim, &mut dice, &mut pending);
            let held = victim.endpoint.counters().expect("an endpoint").unexpected;
            assert!(held <= 2 * 1024, "{held} messages are held");
        }
        enough.store(true, Ordering::Relaxed);
        let rounds = serving.join().expect("the honest peer");
        assert_eq!(served.join().expect("the victim's honest thread"), rounds);
        stop.store(true, Ordering::Relaxed);
        liar.join().expect("the liar");
        let found_out = match gone(&victim) {
            None | Some(StatusCode::PeerClosed) => false,
            Some(StatusCode::PeerMisbehaved) => true,
            Some(other) => panic!("the liar left as {other:?}"),
        };
        let _ = victim.endpoint.disconnect(victim.peer);
        for lent in pending {
            let request = lent.request.expect("kept only with a request");
            match victim.endpoint.test(request) {
                Ok(Some(_)) => {}
                other => panic!("a request to the liar did not end: {other:?}"),
            }
            lent.ended();
        }
        found_out
    })
}

/// Memory of this process in bytes, without what is shared.
fn own_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).expect("a count");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    kib.expect("a number") << 10
}

fn try_seeds(kind: Kind) -> (u64, u64) {
    let begin = Instant::now();
    let (mut seeds, mut found_out) = (0, 0);
    while seeds < SEEDS_MIN || begin.elapsed() < EACH_KIND {
        println!("{kind:?}, seed {seeds}");
        found_out += u64::from(run(kind, seeds));
        seeds += 1;
    }
    (seeds, found_out)
}

#[test]
fn a_liar_harms_only_itself() {
    // One test, so that the three kinds do not compete for the processors and the memory of one
    // is not counted for another.
    let before = own_bytes();
    for kind in [Kind::Scribbler, Kind::Possessed, Kind::Craftsman] {
        let (seeds, found_out) = try_seeds(kind);
        println!("{kind:?}: {found_out} of {seeds} found out");
        assert!(found_out > 0, "{kind:?}: none of {seeds} was found out");
    }
    let grown = own_bytes().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes more than before");
}

#[test]
fn a_channel_file_with_a_wrong_header_is_refused() {
    for word in 0..6 {
        let Trap { victim, liar: _liar, file } = trap();
        let index = [0, 1, 2, 3, 4, 5][word];
        file.store(index, file.load(index, Ordering::Relaxed) ^ 0x10, Ordering::Relaxed);
        let refused = lonely(0).adopt(victim);
        assert!(matches!(refused, Err(Error::Introduction(_))), "word {word}: {refused:?}");
    }
}

/// What a liar may do to its end of the doorbells.
#[derive(Clone, Copy, Debug)]
enum Mischief {
    Blocking,
    Full,
    ShutDown,
    Closed,
    Flooded,
}

#[test]
fn nothing_done_to_a_doorbell_stops_or_ends_the_victim() {
    for mischief in [
        Mischief::Blocking,
        Mischief::Full,
        Mischief::ShutDown,
        Mischief::Closed,
        Mischief::Flooded,
    ] {
        eprintln!("{mischief:?}");
        let Trap { victim: end, liar, file } = trap();
        let endpoint = lonely(0);
        let peer = endpoint.adopt(end).expect("a usable end");
        let bell = liar.doorbell;
        match mischief {
            Mischief::Blocking => {
                let flags = rustix::fs::fcntl_getfl(&bell).expect("flags");
                rustix::fs::fcntl_setfl(&bell, flags - OFlags::NONBLOCK).expect("flags");
            }
            Mischief::ShutDown => shutdown(&bell, Shutdown::Both).expect("a socket"),
            Mischief::Flooded => (0..10_000).for_each(|_| bell.ring()),
            Mischief::Full | Mischief::Closed => {}
        }
        let bell = (!matches!(mischief, Mischief::Closed)).then_some(bell);
        // The liar sleeps, it says, so every message rings; and it never takes a ring.
        file.store(layout::WORD_SLEEPING, 1, Ordering::Relaxed);
        let (done, is_done) = std::sync::mpsc::channel();
        let at_work = endpoint.clone();
        std::thread::spawn(move || {
            let victim = Port { endpoint: at_work, peer };
            for number in 0..100 {
                victim.send(number, 8, 1);
            }
            let _ = done.send(());
        });
        assert!(is_done.recv_timeout(HUNG).is_ok(), "the victim hangs: {mischief:?}");
        // Nor does it keep a victim from sleeping until its time.
        let sleeps = || endpoint.counters().expect("counters").sleeps;
        let before = sleeps();
        let soon = Instant::now() + Duration::from_millis(20);
        let found = endpoint.probe(&tag(1), Some(soon)).expect("a wait");
        assert!(found.is_none() && Instant::now() >= soon);
        assert!(sleeps() - before < 20, "{mischief:?} keeps the victim awake");
        drop(bell);
    }
}
