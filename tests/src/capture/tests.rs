use super::pcap::{self, Segment};
use super::{Captured, tls_records};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

const RECORD: [u8; 8] = [23, 3, 3, 0, 3, 1, 2, 3];

fn example(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, last), port).into()
}

fn segment(client: bool, sequence: u32, payload: &[u8]) -> Segment {
    let (from, to) = if client { (example(1, 40000), example(2, 80)) } else { (example(2, 80), example(1, 40000)) };
    Segment { from, to, sequence, syn: false, ack: true, dscp: 0, payload: payload.to_vec() }
}

fn syn(client: bool, sequence: u32) -> Segment {
    Segment { syn: true, ack: !client, dscp: 23, ..segment(client, sequence, b"") }
}

#[test]
fn records_are_counted_and_plain_text_is_none() {
    assert_eq!(tls_records(&RECORD.repeat(3)), Some(3));
    assert_eq!(tls_records(&RECORD[..6]), Some(1));
    assert_eq!(tls_records(b""), Some(0));
    assert_eq!(tls_records(b"GET / HTTP/1.1\r\n"), None);
    assert_eq!(tls_records(&[&RECORD[..], b"plain"].concat()), None);
}

#[test]
fn segments_out_of_order_and_sent_again_make_one_stream() {
    let start = u32::MAX - 2;
    let segments = [
        syn(true, start.wrapping_sub(1)),
        syn(false, 7),
        segment(true, start.wrapping_add(5), b"fgh"),
        segment(true, start, b"abcde"),
        segment(true, start, b"abc"),
        segment(true, start.wrapping_sub(1), b"x"),
        segment(false, 8, &RECORD),
    ];
    let captured = Captured::new(&segments).unwrap();
    assert_eq!(captured.flows.len(), 1);
    assert_eq!(captured.flows[0].sent, b"abcdefgh");
    assert_eq!(captured.flows[0].received, RECORD);
    assert_eq!(captured.flows[0].syn_dscp, Some(23));
    assert!(captured.contains(b"defg"));
    assert!(captured.only_tls_on(&[80]).unwrap_err().to_string().contains("plain text"));
}

#[test]
fn a_gap_is_an_error() {
    let segments = [syn(true, 0), segment(true, 1, b"abc"), segment(true, 5, b"efg")];
    assert!(Captured::new(&segments).is_err());
}

#[test]
fn tls_on_the_right_port_passes_and_on_another_does_not() {
    let segments = [syn(true, 0), segment(true, 1, &RECORD), segment(false, 1, &RECORD)];
    let captured = Captured::new(&segments).unwrap();
    captured.only_tls_on(&[80]).unwrap();
    assert!(captured.only_tls_on(&[8080]).is_err());
    assert!(Captured::new(&[]).unwrap().only_tls_on(&[80]).is_err());
}

#[test]
fn a_frame_is_read() {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd]);
    frame.extend([0x65, 0xc0, 0, 0, 0, 23, 6, 64]);
    let address = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
    frame.extend([address(1).octets(), address(2).octets()].concat());
    let (client, server) = ((address(1), 0x1234).into(), (address(2), 0x5678).into());
    frame.extend([0x12, 0x34, 0x56, 0x78, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0]);
    frame.extend(b"abc");
    let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
    let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    file.extend([0; 16]);
    file.extend(1_u32.to_le_bytes());
    file.extend([&[0; 8][..], &length, &length, &frame].concat());
    file.extend([0; 10]);
    let segments = pcap::segments(&file).unwrap();
    let expected =
        Segment { from: client, to: server, sequence: 9, syn: true, ack: false, dscp: 23, payload: b"abc".to_vec() };
    assert_eq!(segments, [expected]);
}
