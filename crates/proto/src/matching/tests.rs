// SPDX-License-Identifier: Apache-2.0
//! The matcher against a naive model: two flat lists, in the order of posting and of arrival,
//! searched from the front. A failure prints the seed and the shortest program that shows it.

use super::*;
use proptest::prelude::*;

/// What a program does to the lists. Match info is drawn from few values, so that much matches.
#[derive(Clone, Debug)]
enum Step {
    /// A receive: takes an unexpected message, or is posted.
    Receive(Pattern),
    /// A message: takes a posted receive, or becomes unexpected.
    Arrive(Key),
    /// A probe, with any mask.
    Find(Pattern),
    /// A matched probe, with any mask.
    Take(Pattern),
    /// A peer leaves: its receives and its messages go.
    Leave(u32),
    /// One receive is cancelled.
    Cancel(usize),
}

#[derive(Default)]
struct Model {
    posted: Vec<(Pattern, u32)>,
    unexpected: Vec<(Key, u32)>,
}

/// Every fourth receive stays posted when it matches, as a multi-receive does.
fn stays(receive: u32) -> bool {
    receive % 4 == 3
}

impl Model {
    fn match_message(&mut self, key: &Key) -> Option<u32> {
        let at = self.posted.iter().position(|(pattern, _)| model_fits(pattern, key))?;
        let receive = self.posted[at].1;
        if !stays(receive) {
            self.posted.remove(at);
        }
        Some(receive)
    }

    fn find(&self, pattern: &Pattern) -> Option<usize> {
        self.unexpected.iter().position(|(key, _)| model_fits(pattern, key))
    }

    fn take(&mut self, pattern: &Pattern) -> Option<(Key, u32)> {
        self.find(pattern).map(|at| self.unexpected.remove(at))
    }
}

/// The rule in the words of the reference, written differently from the code: bit by bit.
fn model_fits(pattern: &Pattern, key: &Key) -> bool {
    let bits_fit = (0..64).all(|bit| {
        let counts = pattern.mask >> bit & 1 == 1;
        !counts || pattern.value >> bit & 1 == key.match_info >> bit & 1
    });
    let source_fits = match pattern.source {
        None => true,
        Some(source) => source == key.source,
    };
    bits_fit && source_fits && pattern.space == key.space
}

/// Runs a program against both and compares every answer.
fn run(context: ContextBits, steps: &[Step]) {
    let mut matcher: Matcher<u32, u32> = Matcher::new(context);
    let mut model = Model::default();
    for (name, step) in (0_u32..).zip(steps) {
        match step {
            Step::Receive(pattern) => {
                let mut pattern = *pattern;
                pattern.mask |= context.mask;
                let taken = matcher.take_unexpected(&pattern);
                assert_eq!(taken, model.take(&pattern));
                if taken.is_none() {
                    matcher.post(pattern, name);
                    model.posted.push((pattern, name));
                }
            }
            Step::Arrive(key) => {
                let matched = matcher.match_message(key, stays);
                assert_eq!(matched, model.match_message(key));
                if matched.is_none() {
                    matcher.push_unexpected(*key, name);
                    model.unexpected.push((*key, name));
                }
            }
            Step::Find(pattern) => {
                let expected = model.find(pattern).map(|at| model.unexpected[at]);
                assert_eq!(matcher.find_unexpected(pattern), expected);
            }
            Step::Take(pattern) => {
                assert_eq!(matcher.take_unexpected(pattern), model.take(pattern));
            }
            Step::Leave(source) => leave(&mut matcher, &mut model, *source),
            Step::Cancel(at) => {
                let Some((_, victim)) = model.posted.get(*at).copied() else { continue };
                model.posted.remove(*at);
                assert_eq!(matcher.remove_posted(|_, receive| receive == victim), [victim]);
            }
        }
        assert_eq!(matcher.posted_count(), model.posted.len());
        assert_eq!(matcher.unexpected_count(), model.unexpected.len());
    }
}

fn leave(matcher: &mut Matcher<u32, u32>, model: &mut Model, source: u32) {
    let mut receives = matcher.remove_posted(|pattern, _| pattern.source == Some(source));
    let mut messages = matcher.remove_unexpected(|key, _| key.source == source);
    receives.sort_unstable();
    messages.sort_unstable();
    let of_model = model.posted.extract_if(.., |(pattern, _)| pattern.source == Some(source));
    assert_eq!(receives, of_model.map(|(_, name)| name).collect::<Vec<_>>());
    let of_model = model.unexpected.extract_if(.., |(key, _)| key.source == source);
    assert_eq!(messages, of_model.map(|(_, name)| name).collect::<Vec<_>>());
}

/// Few values, at both ends of the 64 bits, where context ids like to be.
fn match_info() -> impl Strategy<Value = u64> {
    (0_u64..8, 0_u64..4).prop_map(|(low, high)| low | high << 62)
}

fn space() -> impl Strategy<Value = Space> {
    prop_oneof![4 => Just(Space::Tagged), 1 => Just(Space::Untagged)]
}

fn key() -> impl Strategy<Value = Key> {
    (match_info(), 0_u32..3, space()).prop_map(|(match_info, source, space)| Key {
        match_info,
        source,
        space,
    })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let mask = prop_oneof![2 => Just(u64::MAX), 1 => Just(0), 3 => match_info()];
    let source = proptest::option::weighted(0.3, 0_u32..3);
    (match_info(), mask, source, space()).prop_map(|(value, mask, source, space)| Pattern {
        value,
        mask,
        source,
        space,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => pattern().prop_map(Step::Receive),
        6 => key().prop_map(Step::Arrive),
        2 => pattern().prop_map(Step::Find),
        2 => pattern().prop_map(Step::Take),
        1 => (0_u32..3).prop_map(Step::Leave),
        1 => (0_usize..8).prop_map(Step::Cancel),
    ]
}

/// A pattern whose value has bits outside its mask never comes here (the machine refuses it), and
/// a receive fixes the context id, so the value is cut to the mask after both are known.
fn tidy(context: ContextBits, steps: &mut [Step]) {
    for step in steps {
        match step {
            Step::Receive(pattern) => pattern.value &= pattern.mask | context.mask,
            Step::Find(pattern) | Step::Take(pattern) => pattern.value &= pattern.mask,
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn answers_like_two_flat_lists(
        (bits, shift) in prop_oneof![
            Just((0, 0)), Just((1, 0)), Just((2, 1)), Just((2, 62)), Just((1, 63)), Just((16, 48)),
        ],
        mut steps in proptest::collection::vec(step(), 0..120),
    ) {
        let context = ContextBits::new(bits, shift).expect("a valid field");
        tidy(context, &mut steps);
        run(context, &steps);
    }
}

#[test]
fn a_context_field_must_fit_and_be_at_most_16_bits() {
    for (bits, shift, valid) in [
        (0, 0, true),
        (0, 64, true),
        (0, 65, false),
        (1, 63, true),
        (1, 64, false),
        (16, 48, true),
        (16, 49, false),
        (17, 0, false),
        (255, 255, false),
    ] {
        assert_eq!(ContextBits::new(bits, shift).is_some(), valid, "{bits} bits, shift {shift}");
    }
}

#[test]
fn a_search_over_all_context_ids_finds_the_oldest() {
    let context = ContextBits::new(4, 0).expect("a valid field");
    let mut matcher: Matcher<u32, u32> = Matcher::new(context);
    for (name, id) in [(10, 5), (11, 0), (12, 3)] {
        let key = Key { match_info: id, source: 0, space: Space::Tagged };
        matcher.push_unexpected(key, name);
    }
    let any = Pattern { value: 0, mask: 0, source: None, space: Space::Tagged };
    let taken: Vec<u32> =
        std::iter::from_fn(|| matcher.take_unexpected(&any)).map(|(_, name)| name).collect();
    assert_eq!(taken, [10, 11, 12]);
}

#[test]
fn messages_of_unknown_context_ids_leave_nothing_behind() {
    // A peer chooses the context ids of its messages. Looking a message up must not make queues
    // for an id that no receive was ever posted for.
    let context = ContextBits::new(16, 0).expect("a valid field");
    let mut matcher: Matcher<u32, u32> = Matcher::new(context);
    matcher.post(Pattern { value: 0, mask: u64::MAX, source: None, space: Space::Tagged }, 1);
    for id in 1..=u64::from(u16::MAX) {
        let key = Key { match_info: id, source: 0, space: Space::Tagged };
        assert_eq!(matcher.match_message(&key, |_| false), None);
    }
    assert!(matcher.others.is_empty());
}

#[test]
fn queues_of_context_ids_do_not_pile_up() {
    let context = ContextBits::new(16, 0).expect("a valid field");
    let mut matcher: Matcher<u32, u32> = Matcher::new(context);
    let key = |id| Key { match_info: id, source: 0, space: Space::Tagged };
    let pattern = |id| Pattern { value: id, mask: u64::MAX, source: None, space: Space::Tagged };
    for id in 1..=500 {
        matcher.push_unexpected(key(id), 1);
    }
    for id in 501..=u64::from(u16::MAX) {
        matcher.push_unexpected(key(id), 2);
        assert!(matcher.take_unexpected(&pattern(id)).is_some());
    }
    assert!(matcher.others.len() <= 1000, "{} queues for 500 messages", matcher.others.len());
    for id in 1..=500 {
        assert!(matcher.take_unexpected(&pattern(id)).is_some());
    }
    assert_eq!(matcher.unexpected_count(), 0);
}
