//! Both ends of a wire over real sockets: what travels together, and what never waits.

use super::*;
use crate::proxy::lab::{Lab, pair};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_answer_that_is_there_travels_with_accept_and_the_end() {
    let lab = Lab::new("answers").await;
    let (mut application, upstream) = pair().await;
    application.write_all(b"hello").await.expect("a write");
    application.shutdown().await.expect("a shutdown");
    let [mut near, mut far] = lab.wires().await;
    let buffers = Buffers::default();
    let peer = async {
        let (mut sender, mut receiver) = far.split();
        let accept = receiver.next(&buffers).await.expect("a frame");
        assert_eq!((accept.is_empty(), accept.then), (true, Some(Event::Control(Control::Accept))));
        // The rest has arrived already: nothing is awaited for it.
        let rest = tokio::select! {
            biased;
            rest = receiver.next(&buffers) => rest.expect("frames"),
            () = std::future::ready(()) => panic!("ACCEPT came alone"),
        };
        assert_eq!((rest.is_empty(), rest.then), (false, Some(Event::Control(Control::Fin))));
        receiver.release();
        sender.control(&Control::Fin).await.expect("a write");
    };
    near.accept();
    let (ended, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(carry(&upstream, &mut near), peer) })
        .await
        .expect("it ends in time");
    assert!(matches!(ended, Ended::Clean), "{ended:?}");
}

#[tokio::test]
async fn accept_does_not_wait_for_an_application_that_is_silent() {
    let lab = Lab::new("silent").await;
    let (application, upstream) = pair().await;
    let [mut near, mut far] = lab.wires().await;
    let buffers = Buffers::default();
    near.accept();
    let peer = async {
        let accept = far.split().1.next(&buffers).await.expect("a frame");
        assert_eq!((accept.is_empty(), accept.then), (true, Some(Event::Control(Control::Accept))));
    };
    tokio::time::timeout(DEADLINE, async {
        tokio::select! {
            ended = carry(&upstream, &mut near) => panic!("it ended: {ended:?}"),
            () = peer => {}
        }
    })
    .await
    .expect("ACCEPT comes in time");
    drop(application);
}

#[tokio::test]
async fn a_reset_says_first_that_the_application_had_accepted() {
    let lab = Lab::new("resets").await;
    let (application, upstream) = pair().await;
    io::reset(application);
    let [mut near, mut far] = lab.wires().await;
    let buffers = Buffers::default();
    near.accept();
    let peer = async {
        let (_, mut receiver) = far.split();
        let mut said = Vec::new();
        while said.len() < 2 {
            said.extend(receiver.next(&buffers).await.expect("a frame").then);
            receiver.release();
        }
        said
    };
    let (ended, said) = tokio::time::timeout(DEADLINE, async { tokio::join!(carry(&upstream, &mut near), peer) })
        .await
        .expect("it ends in time");
    assert!(matches!(ended, Ended::Reset), "{ended:?}");
    assert_eq!(said, [Event::Control(Control::Accept), Event::Control(Control::Reset(String::new()))]);
}

async fn carry(upstream: &TcpStream, wire: &mut Wire) -> Ended {
    let (buffers, counts, cancelled) = (Buffers::default(), Counts::default(), Cancelled::default());
    over_wire(upstream, (wire, None), Role::Dialled, (&buffers, &counts, &cancelled)).await
}
