// SPDX-License-Identifier: Apache-2.0
//! The two ends of a channel by themselves.

use diolkos_island::ChannelEnds;
use diolkos_shm::layout::{AREA_OFFSET, CHANNEL_FILE_BYTES, check_header};
use diolkos_shm::sync::Ordering;
use diolkos_shm::words::Words;
use diolkos_shm::{Access, Region};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::Maker;

fn ends(make: Maker) -> (ChannelEnds, ChannelEnds) {
    make().expect("a channel")
}

fn words(region: Region) -> Words {
    Words::new(std::sync::Arc::new(region))
}

pub fn both_ends_agree_on_the_channel(make: Maker) {
    let (a, b) = ends(make);
    assert_eq!(a.channel, b.channel);
    assert_ne!(a.peer, b.peer);
    let channel = a.channel;
    for region in [a.outgoing, a.incoming, b.outgoing, b.incoming] {
        assert_eq!(region.len_bytes(), CHANNEL_FILE_BYTES);
        let words = words(region);
        let header = std::array::from_fn(|i| words.load(i, Ordering::Relaxed));
        assert_eq!(check_header(&header, channel), Ok(()));
        assert!(check_header(&header, channel + 1).is_err());
    }
    let (other, _) = ends(make);
    assert_ne!(other.channel, channel, "two channels have two numbers");
}

pub fn what_one_end_writes_the_other_reads(make: Maker) {
    let (a, b) = ends(make);
    for (outgoing, incoming) in [(a.outgoing, b.incoming), (b.outgoing, a.incoming)] {
        let (outgoing, incoming) = (words(outgoing), words(incoming));
        for index in [8, 0x1000 / 8, AREA_OFFSET / 8, CHANNEL_FILE_BYTES / 8 - 1] {
            assert_eq!(incoming.load(index, Ordering::Acquire), 0, "a fresh file is empty");
            outgoing.store(index, 77, Ordering::Release);
            assert_eq!(incoming.load(index, Ordering::Acquire), 77);
        }
    }
}

pub fn the_file_of_the_peer_cannot_be_written(make: Maker) {
    let (a, b) = ends(make);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("our own mappings");
    let permissions = |region: &Region| {
        let start = format!("{:x}-", region.base().as_ptr() as usize);
        let line = maps.lines().find(|line| line.starts_with(&start)).expect("it is mapped");
        line.split(' ').nth(1).map(str::to_owned)
    };
    for end in [&a, &b] {
        assert_eq!(end.outgoing.access(), Access::ReadWrite);
        assert_eq!(end.incoming.access(), Access::ReadOnly);
        assert_eq!(permissions(&end.outgoing).as_deref(), Some("rw-s"));
        assert_eq!(permissions(&end.incoming).as_deref(), Some("r--s"));
    }
}

pub fn a_doorbell_wakes_the_other_end_and_nobody_else(make: Maker) {
    let (a, b) = ends(make);
    let is_rung = |end: &ChannelEnds| {
        let mut poll = [PollFd::new(&end.doorbell, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut poll, Some(&now)).expect("poll") > 0
    };
    assert!(!is_rung(&a) && !is_rung(&b));
    a.doorbell.ring();
    assert!(!is_rung(&a) && is_rung(&b));
    b.doorbell.ring();
    assert!(is_rung(&a) && is_rung(&b));
    a.doorbell.silence();
    assert!(!is_rung(&a) && is_rung(&b));
}
