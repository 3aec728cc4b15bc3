// SPDX-License-Identifier: Apache-2.0
//! A fake backend on a real socket, and an island in the same thread: each test reads as a
//! conversation. Time is what the test says it is.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use diolkos_shm::layout::{CHANNEL_FILE_BYTES, HOME_FILE_BYTES, header_bytes};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::net::RecvFlags;
use serde_json::{Value, json};

use super::*;

mod fake;

use fake::*;

#[test]
fn opening_gives_identity_and_home() {
    let place = Place::new();
    let (island, _backend, _served) = opened(&place);
    let identity = Identity { number: 1, name: "me".into(), partition: "default".into() };
    assert_eq!(*island.identity(), identity);
    assert_eq!(island.home().unwrap().len_bytes(), HOME_FILE_BYTES);
    assert!(island.descriptor().is_some());
}

#[test]
fn a_refused_open_says_whose_fault() {
    let place = Place::new();
    let backend = FakeBackend::listen(&place);
    let serving = std::thread::spawn(move || {
        let served = backend.accept();
        served.expect("open");
        let hint = "ask";
        served.send(
            &json!({"type": "error", "id": 1, "code": "denied", "message": "no", "hint": hint}),
            &[],
        );
    });
    let error = ProcessIsland::open(&options(&place)).err().unwrap();
    assert!(matches!(error, IslandError::Denied { .. }), "{error:?}");
    assert_eq!(error.hint(), Some("ask"));
    serving.join().unwrap();
}

#[test]
fn a_connection_that_is_turned_away_says_why() {
    let place = Place::new();
    let backend = FakeBackend::listen(&place);
    let serving = std::thread::spawn(move || {
        // At once, and closed: the island's own request meets a closed socket.
        let reply = json!({"type": "error", "id": 0, "code": "limit", "message": "full"});
        backend.accept().send(&reply, &[]);
    });
    let error = ProcessIsland::open(&options(&place)).err().unwrap();
    assert!(matches!(error, IslandError::Limit { .. }), "{error:?}");
    serving.join().unwrap();
}

#[test]
fn without_backend_and_command_there_is_nothing_to_open() {
    let place = Place::new();
    let error = ProcessIsland::open(&options(&place)).err().unwrap();
    assert!(matches!(error, IslandError::BackendUnavailable { .. }), "{error:?}");
    assert!(error.hint().is_some());
}

#[test]
fn a_connect_is_answered_by_its_ticket() {
    let place = Place::new();
    let (mut island, _backend, served) = opened(&place);
    connect(&mut island, 5, Some(1000));
    island.connect(6, &Target::Number(9), Some(Road::Switched), None, None).unwrap();
    let first = served.expect("connect");
    assert_eq!((&first["target"], &first["timeout_ms"]), (&json!("peer"), &json!(1000)));
    let second = served.expect("connect");
    assert_eq!((&second["target"], &second["road"]), (&json!(9), &json!("switched")));
    assert!(island.poll_event(0).is_none());
    let refusal =
        json!({"type": "error", "id": second["id"], "code": "not_found", "message": "none"});
    served.send(&refusal, &[]);
    served.grant(
        json!({"type": "connected", "id": first["id"], "peer": peer(), "existing": false}),
        77,
    );
    match island.poll_event(0) {
        Some(Event::Refused { ticket: 6, error: IslandError::NotFound { .. } }) => {}
        other => panic!("{other:?}"),
    }
    match island.poll_event(0) {
        Some(Event::Connected { ticket: 5, ends }) => {
            assert_eq!((ends.channel, ends.peer.number), (77, 7));
            assert_eq!(ends.incoming.access(), diolkos_shm::Access::ReadOnly);
            assert!(ends.liveness.is_some());
        }
        other => panic!("{other:?}"),
    }
    assert!(island.poll_event(0).is_none());
}

#[test]
fn what_the_policy_says_of_process_vm_comes_out() {
    let place = Place::new();
    let (mut island, _backend, served) = opened(&place);
    let mut introduced = json!({"type": "introduced", "peer": peer()});
    for (word, expected) in [(None, false), (Some(false), false), (Some(true), true)] {
        if let Some(word) = word {
            introduced["process_vm"] = json!(word);
        }
        served.grant(introduced.clone(), 80 + u64::from(expected));
        match island.poll_event(0) {
            Some(Event::Introduced(ends)) => assert_eq!(ends.process_vm, expected),
            other => panic!("{other:?}"),
        }
    }
    connect(&mut island, 5, None);
    let asked = served.expect("connect");
    let answer = json!({"type": "connected", "id": asked["id"], "peer": peer(), "existing": false,
                        "process_vm": true});
    served.grant(answer, 90);
    match island.poll_event(0) {
        Some(Event::Connected { ticket: 5, ends }) => assert!(ends.process_vm),
        other => panic!("{other:?}"),
    }
}

#[test]
fn on_the_switched_road_nobody_reaches_anybody_whatever_the_backend_says() {
    for (road, expected) in [(Road::Direct, true), (Road::Switched, false)] {
        let (outgoing, incoming, bell) = end(7);
        let peer = PeerIdentity { number: 7, name: "peer".into() };
        let descriptors = vec![outgoing, incoming, bell];
        let ends = grant::channel_ends(7, peer, road, String::new(), true, descriptors);
        assert_eq!(ends.expect("an end").process_vm, expected);
    }
}

#[test]
fn introductions_partings_and_known_channels_come_out_in_order() {
    let place = Place::new();
    let (mut island, _backend, served) = opened(&place);
    served.grant(json!({"type": "introduced", "peer": peer()}), 78);
    connect(&mut island, 1, None);
    let asked = served.expect("connect");
    served.send(
        &json!({"type": "connected", "id": asked["id"], "peer": peer(), "existing": true,
                "channel": 78, "road": "direct", "reason": ""}),
        &[],
    );
    served.send(&json!({"type": "gone", "channel": 78, "reason": "left"}), &[]);
    served.send(&json!({"type": "gone", "channel": 78, "reason": "twice"}), &[]);
    assert!(matches!(island.poll_event(0), Some(Event::Introduced(ends)) if ends.channel == 78));
    assert!(matches!(
        island.poll_event(0),
        Some(Event::AlreadyConnected { ticket: 1, channel: 78 })
    ));
    assert!(matches!(island.poll_event(0), Some(Event::Gone { channel: 78, .. })));
    assert!(island.poll_event(0).is_none());
}

#[test]
fn a_cancel_that_crosses_its_answer_becomes_an_introduction() {
    let place = Place::new();
    let (mut island, _backend, served) = opened(&place);
    connect(&mut island, 3, None);
    let asked = served.expect("connect");
    island.cancel(3);
    assert_eq!(served.expect("cancel")["target_id"], asked["id"]);
    // The ticket is used again before the late answer arrives.
    connect(&mut island, 3, None);
    assert_ne!(served.expect("connect")["id"], asked["id"]);
    served.grant(
        json!({"type": "connected", "id": asked["id"], "peer": peer(), "existing": false}),
        79,
    );
    assert!(matches!(island.poll_event(0), Some(Event::Introduced(ends)) if ends.channel == 79));
}

#[test]
fn disconnect_is_said_once() {
    let place = Place::new();
    let (mut island, _backend, served) = opened(&place);
    served.grant(json!({"type": "introduced", "peer": peer()}), 80);
    assert!(island.poll_event(0).is_some());
    island.disconnect(80);
    island.disconnect(80);
    island.disconnect(81);
    assert_eq!(served.expect("disconnect")["channel"], 80);
    connect(&mut island, 1, None);
    served.expect("connect");
}

/// Each of these makes the backend a lost one, and nothing else happens.
#[test]
fn nonsense_from_the_backend_ends_the_connection() {
    let (outgoing, incoming, bell) = end(90);
    let small = sealed(4096, &header_bytes(90, 0));
    let unsealed = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&unsealed, CHANNEL_FILE_BYTES as u64).unwrap();
    let fields = json!({"type": "introduced", "peer": peer(), "channel": 90, "road": "direct",
                        "reason": ""});
    let with = |key: &str, value: Value| {
        let mut changed = fields.clone();
        changed[key] = value;
        changed
    };
    let good: [&OwnedFd; 4] = [&outgoing, &incoming, &bell, &bell];
    let long = "x".repeat(5000);
    let cases: Vec<(Vec<u8>, Vec<&OwnedFd>)> = vec![
        (b"garbage".to_vec(), vec![]),
        (b"{}".to_vec(), vec![]),
        (vec![b' '; 60_000], vec![]),
        (br#"{"type":"opened","id":1}"#.to_vec(), vec![]),
        (json!({"type": "surprise"}).to_string().into(), vec![]),
        (json!({"type": "gone", "channel": -1, "reason": ""}).to_string().into(), vec![]),
        (json!({"type": "gone", "channel": 1, "reason": long}).to_string().into(), vec![]),
        (fields.to_string().into(), vec![]),
        (fields.to_string().into(), good[..2].to_vec()),
        (fields.to_string().into(), [&good[..], &[&bell]].concat()),
        (fields.to_string().into(), vec![&incoming, &incoming, &bell]),
        (fields.to_string().into(), vec![&outgoing, &outgoing, &bell]),
        (fields.to_string().into(), vec![&small, &incoming, &bell]),
        (fields.to_string().into(), vec![&unsealed, &incoming, &bell]),
        (fields.to_string().into(), vec![&outgoing, &incoming, &outgoing]),
        (with("channel", json!(0)).to_string().into(), good.to_vec()),
        (with("road", json!("scenic")).to_string().into(), good.to_vec()),
        (with("peer", json!({"number": 1, "name": ""})).to_string().into(), good.to_vec()),
        (with("peer", json!({"number": -1, "name": "x"})).to_string().into(), good.to_vec()),
    ];
    for (packet, descriptors) in cases {
        let place = Place::new();
        let (mut island, backend, served) = opened(&place);
        served.send_raw(&packet, &descriptors);
        let shown = String::from_utf8_lossy(&packet[..packet.len().min(80)]).into_owned();
        assert!(matches!(island.poll_event(0), Some(Event::BackendLost)), "{shown}");
        assert!(island.descriptor().is_none());
        // The next poll returns to it, or to another.
        assert!(island.poll_event(0).is_none());
        backend.accept().expect("open");
    }
}

#[test]
fn a_lost_backend_takes_the_endpoint_back_with_its_channels() {
    let place = Place::new();
    let (mut island, backend, served) = opened(&place);
    for channel in 1..=450 {
        served.grant(json!({"type": "introduced", "peer": peer()}), channel);
        assert!(island.poll_event(0).is_some());
    }
    island.disconnect(450);
    drop((served, backend));
    assert!(matches!(island.poll_event(0), Some(Event::BackendLost)));
    for now_ms in 0..1000 {
        assert!(island.poll_event(now_ms).is_none());
    }
    let backend = FakeBackend::listen(&place);
    assert!(island.poll_event(1100).is_none());
    let served = backend.accept();
    let open = served.expect("open");
    assert_eq!((&open["name"], &open["number"]), (&json!("me"), &json!(1)));
    assert_eq!(open["resume"]["number"], 1);
    assert_eq!(open["resume"]["generation"], 100);
    assert!(island.poll_event(1101).is_none());
    let old_home = Arc::clone(island.home().unwrap());
    served.welcome(&open, 101);
    assert!(matches!(island.poll_event(1102), Some(Event::BackendReturned)));
    assert!(!Arc::ptr_eq(&old_home, island.home().unwrap()));
    let mut claims = open["resume"]["channels"].as_array().unwrap().clone();
    for _ in 0..2 {
        claims.extend(served.expect("claim")["channels"].as_array().unwrap().clone());
    }
    let numbers: Vec<u64> = claims.iter().map(|c| c["channel"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=449).collect::<Vec<u64>>());
    assert_eq!((&claims[0]["peer_number"], &claims[0]["road"]), (&json!(7), &json!("direct")));
}

#[test]
fn a_lost_backend_is_looked_for_ten_times_a_second() {
    let place = Place::new();
    let (mut island, backend, served) = opened(&place);
    drop((served, backend));
    assert!(matches!(island.poll_event(0), Some(Event::BackendLost)));
    assert!(island.poll_event(0).is_none());
    let backend = FakeBackend::listen(&place);
    rustix::fs::fcntl_setfl(&backend.listener, OFlags::NONBLOCK).unwrap();
    let came = |island: &mut ProcessIsland, now_ms| {
        assert!(island.poll_event(now_ms).is_none());
        rustix::net::accept(&backend.listener).is_ok()
    };
    assert!(!came(&mut island, 50));
    assert!(!came(&mut island, 99));
    assert!(came(&mut island, 100));
}

#[test]
fn an_endpoint_that_is_not_taken_back_asks_again() {
    let place = Place::new();
    let (mut island, backend, served) = opened(&place);
    drop(served);
    assert!(matches!(island.poll_event(0), Some(Event::BackendLost)));
    assert!(island.poll_event(0).is_none());
    let served = backend.accept();
    let open = served.expect("open");
    served.send(
        &json!({"type": "error", "id": open["id"], "code": "busy", "message": "name taken"}),
        &[],
    );
    assert!(island.poll_event(10).is_none());
    assert!(island.poll_event(1009).is_none());
    assert!(island.poll_event(1010).is_none());
    let served = backend.accept();
    served.welcome(&served.expect("open"), 102);
    assert!(matches!(island.poll_event(1011), Some(Event::BackendReturned)));
}

#[test]
fn connects_wait_for_a_lost_backend_but_not_longer_than_they_may() {
    let place = Place::new();
    let (mut island, backend, served) = opened(&place);
    connect(&mut island, 1, None);
    served.expect("connect");
    drop((served, backend));
    assert!(matches!(island.poll_event(0), Some(Event::BackendLost)));
    connect(&mut island, 2, Some(500));
    connect(&mut island, 3, Some(100));
    let refused = island.connect(4, &Target::Number(2), None, Some(0), None);
    assert!(matches!(refused, Err(IslandError::BackendUnavailable { .. })));
    assert!(island.poll_event(1000).is_none());
    assert!(island.poll_event(1099).is_none());
    match island.poll_event(1100) {
        Some(Event::Refused { ticket: 3, error: IslandError::Timeout { .. } }) => {}
        other => panic!("{other:?}"),
    }
    island.cancel(2);
    assert!(island.poll_event(5000).is_none());
}

#[test]
fn a_backend_is_started_and_reached() {
    let place = Place::new();
    let backend = FakeBackend::listen(&place);
    // Out of sight until the command puts it in place.
    let (hidden, seen) = (place.0.join("hidden"), place.0.join("backend.sock"));
    std::fs::rename(&seen, &hidden).unwrap();
    let serving = backend.serve_open();
    let script = format!(
        "[ \"$1\" = --runtime-dir ] && [ \"$3\" = --ready-fd ] && mv {} {} && echo + >&$4",
        hidden.display(),
        seen.display()
    );
    let mut options = options(&place);
    options.backend_command = command(&script);
    let island = ProcessIsland::open(&options).unwrap();
    assert_eq!(island.identity().number, 1);
    serving.join().unwrap();
}

#[test]
fn a_backend_that_cannot_start_says_why() {
    let place = Place::new();
    let mut options = options(&place);
    for (script, expected) in [
        ("printf '!no room (free some)'", "no room (free some)"),
        ("exit 3", "without a word"),
        ("printf nonsense", "saying \"nonsense\""),
        ("echo Traceback; echo 'No module named diolkos' >&2; exit 1", "No module named diolkos"),
        ("echo warning >&2; echo '!after a warning'", "after a warning"),
    ] {
        options.backend_command = command(script);
        match ProcessIsland::open(&options).err() {
            Some(IslandError::BackendUnavailable { what }) => {
                assert!(what.contains(expected), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }
    options.backend_command = vec!["/no/such/program".into()];
    assert!(matches!(
        ProcessIsland::open(&options).err(),
        Some(IslandError::BackendUnavailable { .. })
    ));
}

#[test]
fn a_backend_that_never_answers_is_waited_for_so_long_only() {
    let place = Place::new();
    let mut options = options(&place);
    options.start_timeout = Duration::from_millis(50);
    options.backend_command = command("printf '=another'");
    assert!(matches!(
        ProcessIsland::open(&options).err(),
        Some(IslandError::BackendUnavailable { .. })
    ));
    let _listens_only = FakeBackend::listen(&place);
    assert!(matches!(
        ProcessIsland::open(&options).err(),
        Some(IslandError::BackendUnavailable { .. })
    ));
}

#[test]
fn a_waiting_connect_starts_another_backend() {
    let place = Place::new();
    let (mut island, backend, served) = opened(&place);
    drop((served, backend));
    std::fs::remove_file(place.0.join("backend.sock")).unwrap();
    island.backend_command = command("printf '!broken'");
    assert!(matches!(island.poll_event(0), Some(Event::BackendLost)));
    connect(&mut island, 8, None);
    for now_ms in 0.. {
        match island.poll_event(now_ms) {
            None => std::thread::yield_now(),
            Some(Event::Refused { ticket: 8, error: IslandError::BackendUnavailable { what } }) => {
                assert!(what.contains("broken"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn command(script: &str) -> Vec<OsString> {
    ["sh", "-c", script, "sh"].iter().map(OsString::from).collect()
}

#[test]
fn directories_that_others_can_use_are_refused() {
    for mode in [0o777, 0o755, 0o770, 0o720, 0o701] {
        let place = Place::new();
        let _backend = FakeBackend::listen(&place);
        rustix::fs::chmod(&place.0, mode.into()).unwrap();
        let error = ProcessIsland::open(&options(&place)).err().unwrap();
        assert!(matches!(error, IslandError::Denied { .. }), "{mode:o} {error:?}");
        rustix::fs::chmod(&place.0, Mode::RWXU).unwrap();
    }
}

#[test]
fn symbolic_links_are_refused() {
    let place = Place::new();
    let link = Place(std::env::temp_dir().join(format!("dio-link-{}", std::process::id())));
    std::os::unix::fs::symlink(&place.0, &link.0).unwrap();
    let mut options = options(&place);
    for name in [link.0.clone(), link.0.join("")] {
        options.runtime_dir = Some(name);
        let error = ProcessIsland::open(&options).err().unwrap();
        assert!(matches!(error, IslandError::Denied { .. }), "{error:?}");
    }
    std::fs::remove_file(&link.0).unwrap();
}

#[test]
fn a_long_path_is_no_obstacle() {
    let place = Place::new();
    let deep = Place(place.0.join("d".repeat(120)));
    rustix::fs::mkdir(&deep.0, Mode::RWXU).unwrap();
    // Bound under a short name, then moved to where no address reaches.
    let backend = FakeBackend::listen(&place);
    std::fs::rename(place.0.join("backend.sock"), deep.0.join("backend.sock")).unwrap();
    let serving = backend.serve_open();
    assert_eq!(ProcessIsland::open(&options(&deep)).unwrap().identity().name, "me");
    serving.join().unwrap();
}

#[test]
fn dropping_ends_the_connection_though_another_descriptor_of_it_lives() {
    let place = Place::new();
    let (island, _backend, served) = opened(&place);
    let _as_in_a_forked_child = island.descriptor().unwrap().try_clone_to_owned().unwrap();
    drop(island);
    let mut buffer = [0; 16];
    let (count, _) =
        rustix::net::recv(&served.socket, &mut buffer[..], RecvFlags::empty()).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn info_is_collected_from_its_pages() {
    let place = Place::new();
    let backend = FakeBackend::listen(&place);
    let serving = std::thread::spawn(move || {
        let served = backend.accept();
        let asked = served.expect("info");
        let home = read_only(&sealed(HOME_FILE_BYTES, &[]));
        for (page, endpoints, more) in [(0, 2, true), (1, 1, false)] {
            let listed: Vec<Value> = (0..endpoints).map(|n| json!({"number": n})).collect();
            let backend = if page == 0 { json!({"pid": 4}) } else { Value::Null };
            served.send(
                &json!({"type": "info", "id": asked["id"], "backend": backend,
                        "endpoints": listed, "channels": [{"channel": page}], "more": more}),
                &vec![&home; endpoints],
            );
        }
    });
    let (value, homes) = query_info(Some(&place.0)).unwrap();
    assert_eq!(value["backend"]["pid"], 4);
    assert_eq!(value["endpoints"].as_array().unwrap().len(), 3);
    assert_eq!(value["channels"], json!([{"channel": 0}, {"channel": 1}]));
    assert_eq!(homes.len(), 3);
    serving.join().unwrap();
}

/// Random bytes and bent packets, from the side that is trusted: never a panic, never a hang.
#[test]
fn seeded_nonsense_from_the_backend() {
    let seed = std::env::var("DIOLKOS_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("DIOLKOS_FUZZ_SEED={seed}");
    let mut state = seed | 1;
    let mut dice = |below: usize| {
        // xorshift64: Marsaglia, "Xorshift RNGs".
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let fields = json!({"type": "introduced", "peer": peer(), "channel": 90, "road": "direct",
                        "reason": "", "id": 16, "existing": true, "code": "busy", "message": ""});
    for _ in 0..5000 {
        let mut packet = fields.clone();
        packet["type"] = json!(["opened", "connected", "introduced", "gone", "error"][dice(5)]);
        let mut bytes = packet.to_string().into_bytes();
        for _ in 0..dice(4) {
            let at = dice(bytes.len());
            bytes[at] = dice(256) as u8;
        }
        bytes.truncate(dice(bytes.len()) + bytes.len() / 2);
        let _ = Reply::parse(&bytes);
    }
}

#[test]
fn requests_have_the_shape_of_the_protocol() {
    let shape = |request: &Request| serde_json::from_slice::<Value>(&request.encode()).unwrap();
    assert_eq!(
        shape(&Request::Cancel { id: 0, target_id: 17 }),
        json!({"type": "cancel", "id": 0, "target_id": 17})
    );
    assert_eq!(shape(&Request::Info { id: 2 }), json!({"type": "info", "id": 2}));
    let target = TargetWord::from(&Target::Number(3));
    assert_eq!(
        shape(&Request::Connect { id: 16, target, road: "auto", timeout_ms: None, key: None }),
        json!({"type": "connect", "id": 16, "target": 3, "road": "auto", "timeout_ms": null})
    );
    let place = Place::new();
    assert_eq!(
        shape(&Request::open(&options(&place), None)),
        json!({"type": "open", "id": 1, "version": 1, "name": "me", "number": null,
               "partition": "default", "resume": null})
    );
}

#[test]
fn packets_arrive_whole_with_their_descriptors() {
    let place = Place::new();
    let (mut island, _backend, served) = opened(&place);
    let Link::Up(control) = &mut island.link else { panic!("not up") };
    let bell = doorbell();
    served.send_raw(b"12345", &[&bell; control::DESCRIPTORS_MAX]);
    let packet = control.receive().unwrap().unwrap();
    assert_eq!(packet.bytes, b"12345");
    assert_eq!(packet.descriptors.len(), control::DESCRIPTORS_MAX);
    // A few more fit behind the alignment of the buffer.
    served.send_raw(b"1", &[&bell; control::DESCRIPTORS_MAX + 8]);
    assert!(control.receive().is_err());
    let mut long = vec![b'x'; messages::PACKET_BYTES_MAX + 1];
    served.send_raw(&long, &[]);
    assert!(control.receive().is_err());
    long.truncate(messages::PACKET_BYTES_MAX);
    served.send_raw(&long, &[]);
    assert_eq!(control.receive().unwrap().unwrap().bytes, long);
    assert!(control.receive().unwrap().is_none());
}
