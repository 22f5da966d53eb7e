use super::*;
use std::time::Duration;

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn frames_are_seen_however_they_are_cut() {
    let bytes = [PREFACE.to_vec(), frame(4, 0, b""), frame(HEADERS, 1, b"abc"), frame(6, 0, &[0; 8])].concat();
    let all = [(4, 0), (HEADERS, 1), (6, 0)].map(|(kind, stream)| Frame { kind, stream });
    for size in 1..=bytes.len() {
        let (mut walk, mut seen) = (Walk::Preface(0), Vec::new());
        bytes.chunks(size).for_each(|chunk| walk.pass(chunk, |frame| seen.push(frame)));
        assert_eq!(seen, all, "in pieces of {size}");
    }
}

#[test]
fn what_is_no_http_2_is_not_looked_at() {
    for text in ["GET / HTTP/1.1\r\n", "PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n", "PROPFIND / HTTP/1.1\r\n"] {
        let mut walk = Walk::Preface(0);
        text.as_bytes().chunks(3).for_each(|chunk| walk.pass(chunk, |frame| panic!("{frame:?} in {text}")));
        assert!(matches!(walk, Walk::Foreign), "{text}");
    }
}

#[test]
fn whoever_asks_may_ping_and_whoever_only_pings_is_ended() {
    let start = Instant::now();
    let new = || Budget { left: Budget::MOST, since: start };
    let mut asking = new();
    for _ in 0..100_000 {
        asking.earn();
        assert!((0..3).all(|_| asking.spends(|| start)), "a PING and two windows for each answer");
    }
    let mut flooding = new();
    let spent = (0..100_000).take_while(|_| flooding.spends(|| start)).count();
    assert_eq!(spent, 1000);
    let mut resting = new();
    let slowly = |number: u64| move || start + Duration::from_millis(20 * number);
    assert!((0..100_000).all(|number| resting.spends(slowly(number))), "fifty a second");
}
