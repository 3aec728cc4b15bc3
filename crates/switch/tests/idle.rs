// SPDX-License-Identifier: Apache-2.0
//! A relay never spins. In a process of its own, so that its one thread is easy to find.

use std::time::Duration;

use diolkos_island::local;
use diolkos_switch::Relay;
use rustix::net::{Shutdown, shutdown};

/// Nanoseconds that the relay's thread has run, from the kernel's accounts.
fn run_time_ns() -> Option<u64> {
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        if std::fs::read_to_string(path.join("comm")).unwrap().trim() == "diolkos-relay" {
            let text = std::fs::read_to_string(path.join("schedstat")).unwrap();
            return text.split(' ').next().unwrap().parse().ok();
        }
    }
    None
}

fn moment() {
    let moment = Duration::from_millis(50).try_into().unwrap();
    rustix::event::poll(&mut [], Some(&moment)).unwrap();
}

#[test]
fn an_idle_relay_uses_no_processor_time() {
    let (near, near_inner) = local::pair().unwrap();
    let (far, far_inner) = local::pair().unwrap();
    // Nor when its endpoints hang their doorbells up.
    shutdown(&near.doorbell, Shutdown::Both).unwrap();
    drop(far.doorbell);
    let _relay = Relay::start(near_inner, far_inner).unwrap();
    // Until it has gone to sleep: its account stands still.
    let mut before = None;
    for _ in 0..100 {
        moment();
        let now = run_time_ns();
        if now.is_some() && now == before {
            return;
        }
        before = now;
    }
    panic!("it still runs, {before:?} ns so far");
}
