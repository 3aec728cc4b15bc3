// SPDX-License-Identifier: Apache-2.0
//! Random programs against naive models of MX.
//!
//! `lockstep`: the wires are drained after every call, so the order of arrival is the order of the
//! sends, and two flat lists for each endpoint say exactly what must happen: every status, every
//! byte, every refusal to cancel.
//!
//! `interleaved`: endpoints are polled at random moments over rings that are far too small. Then
//! only the rules are certain, and they are checked at the end, over all messages and receives:
//!
//! 1. Every message goes to at most one receive, every receive takes at most one message, and what
//!    is matched fits.
//! 2. No message is left that fits a receive that is left.
//! 3. When a receive took a message although an earlier one of the same sender fits it too, that
//!    earlier one was taken by a receive posted earlier.
//! 4. With one sender the outcome does not depend on timing at all: each message, in the order of
//!    the sends, takes the first free receive in the order of posting.

use proptest::prelude::*;

use super::world::{LARGE, Message, Receive, World, check_contents, tag};
use crate::Space;
use crate::limits::EAGER_BYTES_MAX;
use crate::machine::{Claim, Envelope, MultiEvent, RequestId, Selector, Sent, Status, StatusCode};
use crate::testing::{Limits, Sink};

const LENGTHS: [usize; 6] = [0, 1, 40, 1500, 12_000, LARGE];

/// A call of a program. Endpoints, old requests and claims are drawn as numbers and taken modulo
/// what there is.
#[derive(Clone, Debug)]
enum Call {
    Send { from: usize, to: usize, info: u64, len: usize, synchronous: bool, space: Space },
    Receive { at: usize, wants: Wants, room: usize },
    Probe { at: usize, wants: Wants },
    Claim { at: usize, wants: Wants },
    ReceiveClaim { which: usize, room: usize },
    DiscardClaim { which: usize },
    Cancel { which: usize },
    Multi { at: usize, wants: Wants, size: usize, min_free: usize },
    CancelMulti { which: usize },
}

/// What a receive looks for, the sender as the number of an endpoint.
#[derive(Clone, Copy, Debug)]
struct Wants {
    info: u64,
    mask: u64,
    from: Option<usize>,
    space: Space,
}

impl Wants {
    fn fits(&self, message: &Known) -> bool {
        message.message.match_info & self.mask == self.info & self.mask
            && self.from.is_none_or(|from| from == message.message.from)
            && self.space == message.space
    }

    fn selector(&self, w: &World, at: usize) -> Selector {
        Selector {
            match_info: self.info & self.mask,
            mask: self.mask,
            source: self.from.map(|from| w.peer(at, from)),
            space: self.space,
        }
    }
}

/// A message as the model knows it.
#[derive(Clone, Copy, Debug)]
struct Known {
    message: Message,
    space: Space,
    /// The sender learns how much was taken.
    is_told: bool,
}

fn wants(endpoints: usize) -> impl Strategy<Value = Wants> {
    let mask = prop_oneof![3 => Just(u64::MAX), 2 => Just(0), 2 => 0_u64..4];
    let from = proptest::option::weighted(0.3, 0..endpoints);
    (0_u64..4, mask, from, space()).prop_map(|(info, mask, from, space)| Wants {
        info,
        mask,
        from,
        space,
    })
}

fn space() -> impl Strategy<Value = Space> {
    prop_oneof![6 => Just(Space::Tagged), 1 => Just(Space::Untagged)]
}

fn length() -> impl Strategy<Value = usize> {
    (0..LENGTHS.len()).prop_map(|which| LENGTHS[which])
}

fn send(endpoints: usize) -> impl Strategy<Value = Call> {
    (0..endpoints, 0..endpoints, 0_u64..4, length(), proptest::bool::weighted(0.2), space())
        .prop_map(|(from, to, info, len, synchronous, space)| Call::Send {
            from,
            to,
            info,
            len,
            synchronous,
            space,
        })
}

fn receive(endpoints: usize) -> impl Strategy<Value = Call> {
    (0..endpoints, wants(endpoints), length()).prop_map(|(at, wants, room)| Call::Receive {
        at,
        wants,
        room,
    })
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        10 => send(3),
        8 => receive(3),
        2 => (0..3_usize, wants(3)).prop_map(|(at, wants)| Call::Probe { at, wants }),
        2 => (0..3_usize, wants(3)).prop_map(|(at, wants)| Call::Claim { at, wants }),
        2 => (any::<usize>(), length())
            .prop_map(|(which, room)| Call::ReceiveClaim { which, room }),
        1 => any::<usize>().prop_map(|which| Call::DiscardClaim { which }),
        2 => any::<usize>().prop_map(|which| Call::Cancel { which }),
        2 => (0..3_usize, wants(3), 1..30_000_usize, 0..20_000_usize)
            .prop_map(|(at, wants, size, min_free)| Call::Multi { at, wants, size, min_free }),
        1 => any::<usize>().prop_map(|which| Call::CancelMulti { which }),
    ]
}

/// A multi-receive as the model knows it.
struct Buffer {
    request: RequestId,
    sink: Sink,
    size: usize,
    used: usize,
    min_free: usize,
    expected: Vec<(usize, Known)>,
}

/// A receive in the model's list of posted ones.
#[derive(Clone, Copy)]
enum Posted {
    Plain(Receive),
    Multi(usize),
}

/// The model: flat lists.
#[derive(Default)]
struct Lockstep {
    posted: [Vec<(Wants, Posted)>; 3],
    unexpected: [Vec<Known>; 3],
    claims: Vec<(usize, Claim, Known)>,
    buffers: Vec<(usize, Buffer)>,
}

impl Lockstep {
    fn run(&mut self, w: &mut World, call: &Call) {
        match *call {
            Call::Send { from, to, info, len, synchronous, space } => {
                let envelope = Envelope { match_info: info, space, synchronous, immediate: 0 };
                let message = w.try_send(from, to, len, envelope).expect("a send");
                w.drive();
                let is_told = synchronous || len > EAGER_BYTES_MAX || from == to;
                self.arrive(w, to, Known { message, space, is_told });
            }
            Call::Receive { at, wants, room } => {
                let selector = wants.selector(w, at);
                let receive = w.receive(at, selector, room);
                w.drive();
                match self.take(at, &wants) {
                    Some(known) => expect_pair(w, &receive, &known),
                    None => self.posted[at].push((wants, Posted::Plain(receive))),
                }
            }
            Call::Probe { at, wants } => {
                let selector = wants.selector(w, at);
                let seen = w.machines[at].iprobe(&selector).expect("a probe");
                let expected = self.unexpected[at].iter().find(|known| wants.fits(known));
                assert_eq!(seen.map(|s| u64::from(s.immediate)), expected.map(number));
            }
            Call::Claim { at, wants } => {
                let selector = wants.selector(w, at);
                let seen = w.machines[at].improbe(&selector).expect("a probe");
                let expected = self.take(at, &wants);
                assert_eq!(
                    seen.as_ref().map(|(_, status)| u64::from(status.immediate)),
                    expected.as_ref().map(number)
                );
                if let (Some((claim, _)), Some(known)) = (seen, expected) {
                    self.claims.push((at, claim, known));
                }
            }
            Call::ReceiveClaim { which, room } => {
                if let Some((at, claim, known)) = pick(&mut self.claims, which) {
                    let sink = Sink::new(room);
                    let request = w.machines[at].imrecv(claim, sink).expect("a receive");
                    w.drive();
                    expect_pair(w, &Receive { at, request, sink }, &known);
                }
            }
            Call::DiscardClaim { which } => {
                if let Some((at, claim, known)) = pick(&mut self.claims, which) {
                    w.machines[at].discard(claim);
                    w.drive();
                    w.expect_sent(
                        &known.message,
                        if known.is_told { 0 } else { known.message.len },
                    );
                }
            }
            Call::Cancel { which } => self.cancel(w, which),
            Call::Multi { at, wants, size, min_free } => {
                self.post_buffer(w, at, wants, size, min_free);
            }
            Call::CancelMulti { which } => {
                if !self.buffers.is_empty() {
                    let which = which % self.buffers.len();
                    let (at, request) = (self.buffers[which].0, self.buffers[which].1.request);
                    let before = self.posted[at].len();
                    self.posted[at].retain(|(_, p)| !matches!(p, Posted::Multi(i) if *i == which));
                    let was_posted = self.posted[at].len() < before;
                    assert_eq!(w.machines[at].cancel(request), Ok(was_posted));
                }
            }
        }
    }

    fn take(&mut self, at: usize, wants: &Wants) -> Option<Known> {
        let which = self.unexpected[at].iter().position(|known| wants.fits(known))?;
        Some(self.unexpected[at].remove(which))
    }

    fn arrive(&mut self, w: &mut World, at: usize, known: Known) {
        let which = self.posted[at].iter().position(|(wants, _)| wants.fits(&known));
        match which.map(|which| (which, self.posted[at][which].1)) {
            None => {
                if known.is_told {
                    assert!(w.is_open(known.message.from, known.message.request()));
                }
                self.unexpected[at].push(known);
            }
            Some((which, Posted::Plain(receive))) => {
                self.posted[at].remove(which);
                expect_pair(w, &receive, &known);
            }
            Some((which, Posted::Multi(buffer))) => {
                if !self.fill(w, buffer, known) {
                    self.posted[at].remove(which);
                }
            }
        }
    }

    /// A message goes to a buffer; `false` when it takes no more.
    fn fill(&mut self, w: &mut World, buffer: usize, known: Known) -> bool {
        let buffer = &mut self.buffers[buffer].1;
        let room = buffer.size - buffer.used;
        let taken = known.message.len.min(room);
        buffer.expected.push((buffer.used, known));
        buffer.used = (buffer.used + known.message.len.max(1)).min(buffer.size);
        w.expect_sent(&known.message, if known.is_told { taken } else { known.message.len });
        buffer.size - buffer.used >= buffer.min_free.max(1)
    }

    fn post_buffer(
        &mut self,
        w: &mut World,
        at: usize,
        wants: Wants,
        size: usize,
        min_free: usize,
    ) {
        let sink = Sink::new(size);
        let selector = wants.selector(w, at);
        let request = w.machines[at].post_multi(sink, min_free, &selector).expect("a buffer");
        w.drive();
        let which = self.buffers.len();
        let buffer = Buffer { request, sink, size, used: 0, min_free, expected: Vec::new() };
        self.buffers.push((at, buffer));
        let mut takes = size >= min_free.max(1);
        while takes && let Some(known) = self.take(at, &wants) {
            takes = self.fill(w, which, known);
        }
        if takes {
            self.posted[at].push((wants, Posted::Multi(which)));
        }
    }

    fn cancel(&mut self, w: &mut World, which: usize) {
        let plain: Vec<(usize, Receive)> = self
            .posted
            .iter()
            .enumerate()
            .flat_map(|(at, list)| list.iter().map(move |(_, posted)| (at, *posted)))
            .filter_map(|(at, posted)| match posted {
                Posted::Plain(receive) => Some((at, receive)),
                Posted::Multi(_) => None,
            })
            .collect();
        if plain.is_empty() {
            return;
        }
        let (at, victim) = plain[which % plain.len()];
        assert_eq!(w.machines[at].cancel(victim.request), Ok(true));
        self.posted[at].retain(
            |(_, posted)| !matches!(posted, Posted::Plain(r) if r.request == victim.request),
        );
    }

    /// Everything that is still open is where the model has it.
    fn finish(mut self, w: &mut World) {
        for (at, buffer) in &self.buffers {
            expect_deliveries(w, *at, buffer);
        }
        for at in 0..3 {
            assert_eq!(w.machines[at].unexpected().0, self.unexpected[at].len());
            assert_eq!(w.machines[at].posted_count(), self.posted[at].len());
            for known in std::mem::take(&mut self.unexpected[at]) {
                let wants = Wants {
                    info: known.message.match_info,
                    mask: u64::MAX,
                    from: Some(known.message.from),
                    space: known.space,
                };
                let selector = wants.selector(w, at);
                let (claim, _) = w.machines[at].improbe(&selector).unwrap().expect("the message");
                w.machines[at].discard(claim);
            }
        }
    }
}

fn number(known: &Known) -> u64 {
    known.message.number
}

fn pick<T>(list: &mut Vec<T>, which: usize) -> Option<T> {
    if list.is_empty() { None } else { Some(list.remove(which % list.len())) }
}

/// A receive took this message, and the sender was told what it must be told.
fn expect_pair(w: &mut World, receive: &Receive, known: &Known) {
    let room = receive.sink.contents().len();
    w.expect_received(receive, &known.message);
    let taken = known.message.len.min(room);
    w.expect_sent(&known.message, if known.is_told { taken } else { known.message.len });
}

fn expect_deliveries(w: &mut World, at: usize, buffer: &Buffer) {
    let mut expected = buffer.expected.clone();
    let contents = buffer.sink.contents();
    while let Ok(MultiEvent::Delivery { offset, status }) =
        w.machines[at].poll_multi(buffer.request)
    {
        let which = expected
            .iter()
            .position(|(_, known)| number(known) == u64::from(status.immediate))
            .expect("a message that belongs here");
        let (place, known) = expected.swap_remove(which);
        assert_eq!(offset, place);
        let room = buffer.size - place;
        w.check_status(at, &status, &known.message, room);
        let stored = known.message.len.min(room);
        check_contents(&contents[place..place + stored], &known.message);
    }
    assert!(expected.is_empty(), "messages that were not delivered: {expected:?}");
}

/// A receive of the second kind of test, and what became of it.
struct Posting {
    wants: Wants,
    receive: Receive,
    status: Option<Status>,
}

/// Calls and, between them, looks at random endpoints.
#[derive(Clone, Debug)]
enum Turn {
    Call(Call),
    Poll(usize),
    Sleepily(usize),
}

fn turn(endpoints: usize) -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => send(endpoints).prop_map(Turn::Call),
        3 => receive(endpoints).prop_map(Turn::Call),
        4 => (0..endpoints).prop_map(Turn::Poll),
        2 => (0..endpoints).prop_map(Turn::Sleepily),
    ]
}

/// Runs a program at random speeds and returns, for each endpoint, what was sent to it and what
/// it posted.
fn interleave(w: &mut World, turns: &[Turn]) -> Vec<(Vec<Known>, Vec<Posting>)> {
    let endpoints = w.machines.len();
    let mut all: Vec<(Vec<Known>, Vec<Posting>)> = Vec::new();
    all.resize_with(endpoints, Default::default);
    for turn in turns {
        match *turn {
            Turn::Call(Call::Send { from, to, info, len, synchronous, space }) => {
                w.wake(from);
                let envelope = Envelope { match_info: info, space, synchronous, immediate: 0 };
                let message = w.try_send(from, to, len, envelope).expect("a send");
                let is_told = synchronous || len > EAGER_BYTES_MAX || from == to;
                all[to].0.push(Known { message, space, is_told });
            }
            Turn::Call(Call::Receive { at, wants, room }) => {
                w.wake(at);
                let selector = wants.selector(w, at);
                let receive = w.receive(at, selector, room);
                all[at].1.push(Posting { wants, receive, status: None });
            }
            Turn::Poll(at) => {
                w.wake(at);
                w.machines[at].poll();
            }
            Turn::Sleepily(at) => {
                w.step_sleepily(at);
            }
            Turn::Call(_) => unreachable!("not drawn here"),
        }
    }
    w.drive_sleepily();
    for (_, postings) in &mut all {
        for posting in postings {
            posting.status = w.test(posting.receive.at, posting.receive.request);
        }
    }
    all
}

/// Rules 1 to 3 at one endpoint.
fn check_rules(w: &mut World, at: usize, sent: &[Known], postings: &[Posting]) {
    let mut taken_by = vec![None; sent.len()];
    for (order, posting) in postings.iter().enumerate() {
        let Some(status) = &posting.status else { continue };
        let which = sent
            .iter()
            .position(|known| number(known) == u64::from(status.immediate))
            .expect("a message that was sent here");
        let known = &sent[which];
        assert!(posting.wants.fits(known), "a message that does not fit");
        let earlier = taken_by[which].replace(order);
        assert_eq!(earlier, None, "received twice");
        let contents = posting.receive.sink.contents();
        w.check_status(at, status, &known.message, contents.len());
        check_contents(&contents, &known.message);
        let taken = known.message.len.min(contents.len());
        w.expect_sent(&known.message, if known.is_told { taken } else { known.message.len });
    }
    for (which, known) in sent.iter().enumerate() {
        let fitting = postings.iter().enumerate().filter(|(_, p)| p.wants.fits(known));
        for (order, posting) in fitting {
            match &posting.status {
                None => assert!(taken_by[which].is_some(), "{known:?} was left over"),
                Some(status) => {
                    let later = sent[which + 1..].iter().any(|other| {
                        number(other) == u64::from(status.immediate)
                            && other.message.from == known.message.from
                    });
                    let by_earlier = taken_by[which].is_some_and(|by| by < order);
                    assert!(!later || by_earlier, "{known:?} was overtaken");
                }
            }
        }
    }
    let unmatched = taken_by.iter().filter(|taken| taken.is_none()).count();
    assert_eq!(w.machines[at].unexpected().0, unmatched);
}

/// Rule 4: the only possible outcome when all messages come from one sender.
fn check_single_sender(sent: &[Known], postings: &[Posting]) {
    let mut free: Vec<bool> = vec![true; postings.len()];
    for known in sent {
        let first = postings
            .iter()
            .enumerate()
            .position(|(order, posting)| free[order] && posting.wants.fits(known));
        if let Some(order) = first {
            free[order] = false;
            let took = postings[order].status.map(|status| u64::from(status.immediate));
            assert_eq!(took, Some(number(known)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn lockstep(calls in proptest::collection::vec(call(), 0..60)) {
        let mut w = World::new(3, Limits::default());
        let mut model = Lockstep::default();
        for call in &calls {
            model.run(&mut w, call);
        }
        model.finish(&mut w);
    }

    #[test]
    fn interleaved(
        turns in proptest::collection::vec(turn(3), 0..120),
        cells in 1..20_usize,
        area_kib in 24..80_usize,
    ) {
        let mut w = World::new(3, Limits { cells, area_bytes: area_kib << 10 });
        let all = interleave(&mut w, &turns);
        for (at, (sent, postings)) in all.iter().enumerate() {
            check_rules(&mut w, at, sent, postings);
        }
    }

    #[test]
    fn interleaved_with_one_sender(
        turns in proptest::collection::vec(turn(2), 0..120),
        cells in 1..20_usize,
    ) {
        let mut w = World::new(2, Limits { cells, area_bytes: 24 << 10 });
        // Messages to oneself would be a second sender.
        let turns: Vec<Turn> = turns
            .into_iter()
            .filter(|turn| !matches!(turn, Turn::Call(Call::Send { from, to, .. }) if from == to))
            .collect();
        let all = interleave(&mut w, &turns);
        for (at, (sent, postings)) in all.iter().enumerate() {
            check_rules(&mut w, at, sent, postings);
            check_single_sender(sent, postings);
        }
    }
}

#[test]
fn the_model_would_notice_a_message_that_overtakes() {
    // The checks are code, too: a wrong outcome must not pass.
    let mut w = World::pair();
    let receive = w.receive(1, tag(1), 8);
    let [first, second] = [8, 8].map(|len| w.send(0, 1, 1, len));
    w.drive();
    let mut status = w.test(1, receive.request);
    if let Some(status) = &mut status {
        assert_eq!((status.code, u64::from(status.immediate)), (StatusCode::Success, first.number));
        status.immediate = second.number as u32;
    }
    let known =
        [first, second].map(|message| Known { message, space: Space::Tagged, is_told: false });
    let wants = Wants { info: 1, mask: u64::MAX, from: None, space: Space::Tagged };
    let postings = [Posting { wants, receive, status }];
    assert!(matches!(known[0].message.sent, Sent::Done));
    let check = || check_single_sender(&known, &postings);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err());
}
