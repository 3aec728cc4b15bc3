// SPDX-License-Identifier: Apache-2.0
//! The gate: ten thousand spinning round trips make not one system call, and neither do long messages
//! out of granted memory.
//!
//! ```text
//!   this test --runs itself as--> child: ping <---- round trips, spinning ----> pong
//!                                        both behind a seccomp filter
//! ```
//!
//! Strict mode would let reads and writes through, and a doorbell is a write. So the filter is one of
//! our own: it allows the end of the process and nothing else; any other call ends it by `SIGSYS`.
//!
//! The promise is that of [`Endpoint::spin`], the wait of a program that does not mean to sleep, for
//! any budget: it never sleeps, yields or asks the kernel for the time. (The clock is read from the
//! vDSO, which is no call where the machine's clock source allows it; the test says so where it does
//! not.) [`Endpoint::test`] is another matter: a program that only tests has nobody else to look at
//! its descriptors for it, so it does that itself, at most once a millisecond.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diolkos::{Block, Endpoint, Envelope, PeerId, Selector, Sent, Space, Status, StatusCode};

/// Tells the child what it is.
const ROLE: &str = "DIOLKOS_SYSTEM_CALLS";
/// Round trips: length in bytes, and how many.
const PLAN: [(usize, u64); 3] = [(8, 10_000), (4096, 1_000), (LONGEST, 100)];
/// A message that the receiver takes out of granted memory.
const LONGEST: usize = 256 << 10;
/// Round trips of each length before the gate closes: memory has been touched, pools have grown.
const WARM_UP: u64 = 2_000;
/// Longer than any wait here. A spin ends early when the thread lost its processor for a while; it
/// is begun again, for the promise is about the calls that it makes and not about the time.
const BUDGET: Duration = Duration::from_secs(60);

/// A child that takes so long has hung, in seconds.
const HUNG_S: u32 = 120;

/// How a child behaves.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// Round trips, and nothing else.
    Honest,
    /// One of the round trips contains a system call: the gate must notice.
    Calling,
}

#[test]
fn ten_thousand_spinning_round_trips_without_a_system_call() {
    if let Ok(role) = std::env::var(ROLE) {
        child(if role == "calling" { Role::Calling } else { Role::Honest });
    }
    if !clock_is_a_plain_function() {
        println!("skipped: reading this machine's clock is a system call");
        return;
    }
    let (signal, said) = run("honest");
    assert_eq!(signal, None, "a round trip made a system call: {said}");
    assert!(said.contains("gate closed"), "{said}");
    // The gate itself: without this, a filter that was never installed would pass for a success.
    let (signal, said) = run("calling");
    assert!(said.contains("gate closed"), "{said}");
    assert_eq!(signal, Some(libc::SIGSYS), "the gate lets system calls through: {said}");
}

/// Runs this test as a child; the signal that ended it, and what it said.
fn run(role: &str) -> (Option<i32>, String) {
    let own = std::env::current_exe().expect("the path of this program");
    let output = Command::new(own)
        .args(["--exact", "ten_thousand_spinning_round_trips_without_a_system_call"])
        .args(["--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::null())
        .output()
        .expect("a child");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    assert!(status.signal().is_some() || status.success(), "{status}: {said}");
    (status.signal(), said)
}

/// Whether the vDSO serves the clock; other clock sources trap into the kernel.
fn clock_is_a_plain_function() -> bool {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let source = std::fs::read_to_string(path).unwrap_or_default();
    ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"].contains(&source.trim())
}

/// One end of the pair, with buffers that outlive every request on them.
struct End {
    endpoint: Endpoint,
    peer: PeerId,
    from: Block,
    to: Block,
}

impl End {
    fn new((endpoint, peer): (Endpoint, PeerId)) -> Self {
        let allocate = || endpoint.alloc(LONGEST, 64, Some(peer)).expect("memory");
        let (from, to) = (allocate(), allocate());
        Self { endpoint, peer, from, to }
    }

    fn send(&mut self, number: u64, len: usize) {
        // It changes only here, after the send before has ended.
        self.from.sink().write(0, &number.to_le_bytes());
        let source = self.from.source().part(0, len);
        let sent = self.endpoint.isend(source, self.peer, &Envelope::default());
        match sent.expect("a send") {
            Sent::Done => {}
            Sent::Pending(request) => expect(&self.spin(request), len),
        }
    }

    fn receive(&mut self, number: u64, len: usize) {
        let sink = self.to.sink().first(len);
        let selector = Selector { match_info: 0, mask: 0, source: None, space: Space::Tagged };
        let request = self.endpoint.irecv(sink, &selector).expect("a receive");
        expect(&self.spin(request), len);
        assert_eq!(self.to.source().part(0, 8).to_vec(), number.to_le_bytes());
    }

    fn spin(&self, request: diolkos::RequestId) -> Status {
        loop {
            if let Some(status) = self.endpoint.spin(request, BUDGET).expect("a request") {
                return status;
            }
        }
    }
}

fn expect(status: &Status, len: usize) {
    assert_eq!((status.code, status.transferred_bytes), (StatusCode::Success, len as u64));
}

/// The round trips of one side.
fn play(end: &mut End, starts: bool, trips: u64, len: usize) {
    for number in 0..trips {
        if starts {
            end.send(number, len);
            end.receive(number, len);
        } else {
            end.receive(number, len);
            end.send(number, len);
        }
    }
}

/// The child: two threads that meet, close the gate behind themselves, and play.
fn child(role: Role) -> ! {
    // SAFETY: takes a number and touches no memory. The signal ends a child that hangs.
    unsafe { libc::alarm(HUNG_S) };
    let [a, b] = Endpoint::local_pair().expect("a pair");
    let (mut ping, mut pong) = (End::new(a), End::new(b));
    // A plain word: a barrier of the standard library is a system call.
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    let side = move |end: &mut End, starts: bool| -> ! {
        pin(usize::from(starts));
        for (len, _) in PLAN {
            play(end, starts, WARM_UP, len);
        }
        if starts {
            // Before the other may close its gate: nobody holds the lock of the output then.
            println!("gate closed");
            std::io::stdout().flush().expect("an output");
        }
        close_gate();
        INSIDE.fetch_add(1, Ordering::AcqRel);
        while INSIDE.load(Ordering::Acquire) < 2 {
            std::hint::spin_loop();
        }
        for (len, trips) in PLAN {
            play(end, starts, trips, len);
        }
        if role == Role::Calling && starts {
            // SAFETY: takes nothing and does nothing, but is a system call.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        // The one that started has the last answer, so both are through when it ends the process:
        // at once, for the harness's main thread waits for this one.
        if !starts {
            loop {
                std::hint::spin_loop();
            }
        }
        // SAFETY: ends the process at once, by a raw system call and without any clean-up.
        unsafe { libc::syscall(libc::SYS_exit_group, 0) };
        unreachable!("a process survived its exit");
    };
    std::thread::spawn(move || side(&mut pong, false));
    side(&mut ping, true)
}

/// Binds this thread to a processor, where there are two.
fn pin(cpu: usize) {
    // SAFETY: an all-zero set is an empty set; the call reads it and keeps nothing. A machine
    // without this processor refuses, and the threads then share.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// From here on this thread may end the process. Any other system call is the end of the process.
fn close_gate() {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        // The number of the call is the first word of what a filter sees.
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, libc::SYS_exit_group as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls read their arguments and keep nothing of ours: the kernel copies the
    // filter. They bind this thread only.
    let closed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    assert!(closed, "seccomp: {}", std::io::Error::last_os_error());
}
