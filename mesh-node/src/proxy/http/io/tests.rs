//! Both ends of a stream that carries HTTP, over real sockets.

use super::*;
use crate::proxy::lab::Lab;
use hyper::rt::ReadBuf;
use std::future::poll_fn;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);

async fn read(transport: &mut Transport) -> io::Result<Vec<u8>> {
    let mut bytes = [0; 64];
    let mut buffer = ReadBuf::new(&mut bytes);
    poll_fn(|context| Pin::new(&mut *transport).poll_read(context, buffer.unfilled())).await?;
    Ok(buffer.filled().to_vec())
}

async fn write(transport: &mut Transport, bytes: &[u8]) -> io::Result<()> {
    let taken = poll_fn(|context| Pin::new(&mut *transport).poll_write(context, bytes)).await?;
    assert_eq!(taken, bytes.len());
    poll_fn(|context| Pin::new(&mut *transport).poll_flush(context)).await
}

async fn finish(transport: &mut Transport) -> io::Result<()> {
    poll_fn(|context| Pin::new(&mut *transport).poll_shutdown(context)).await
}

#[tokio::test]
async fn what_meets_the_word_to_drain_is_still_served() {
    let lab = Lab::new("drains").await;
    let [near, far] = lab.wires().await;
    let heard = Arc::<Drain>::default();
    let (mut dialler, mut dialled) = (Transport::dialled(far, &heard), Transport::arrived(near, (vec![], false), true));
    let told = dialled.drain().expect("it can be told");
    let going = async {
        // Neither side knows of what the other says.
        write(&mut dialler, b"request").await?;
        told.give();
        assert_eq!(read(&mut dialled).await?, b"request");
        assert!(!heard.is_given());
        write(&mut dialled, b"response").await?;
        assert_eq!(read(&mut dialler).await?, b"response");
        assert!(heard.is_given());
        heard.given().await;
        finish(&mut dialler).await?;
        assert_eq!(read(&mut dialled).await?, b"", "the end");
        finish(&mut dialled).await?;
        assert_eq!(read(&mut dialler).await?, b"", "the end");
        Ok::<_, io::Error>(())
    };
    tokio::time::timeout(DEADLINE, going).await.expect("it ends in time").expect("nothing breaks off");
}

#[tokio::test]
async fn whoever_only_waits_for_a_request_says_so_too() {
    let lab = Lab::new("drains idle").await;
    let [near, far] = lab.wires().await;
    let heard = Arc::<Drain>::default();
    let (mut dialler, mut dialled) = (Transport::dialled(far, &heard), Transport::arrived(near, (vec![], false), true));
    dialled.drain().expect("it can be told").give();
    let waiting = async {
        tokio::select! {
            _ = read(&mut dialled) => panic!("nothing was sent"),
            _ = read(&mut dialler) => panic!("nothing was sent"),
            () = heard.given() => {}
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("it is told in time");
}

#[tokio::test]
async fn an_older_peer_is_told_nothing_that_it_does_not_know() {
    let lab = Lab::new("drains older").await;
    let [near, far] = lab.wires().await;
    assert!(Transport::arrived(near, (vec![], false), false).drain().is_none());
    assert!(Transport::dialled(far, &Arc::default()).drain().is_none());
}
