use super::*;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, oneshot};

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cn-source-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn attachment(container_id: &str, netns: &str) -> Attachment {
    Attachment {
        container_id: container_id.to_owned(),
        ifname: "eth0".to_owned(),
        netns: netns.to_owned(),
        pod_namespace: "app".to_owned(),
        pod_name: "web".to_owned(),
        pod_uid: None,
        addresses: vec!["10.0.0.1".parse().unwrap()],
    }
}

fn line(request: &Request) -> Vec<u8> {
    let mut line = serde_json::to_vec(request).unwrap();
    line.push(b'\n');
    line
}

async fn ask(path: &Path, bytes: &[u8]) -> Response {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // A daemon that refuses may close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.strip_suffix('\n').unwrap()).unwrap()
}

fn always(response: Response) -> Respond {
    Arc::new(move |_| {
        let response = response.clone();
        Box::pin(async move { response })
    })
}

fn refusal(response: Response) -> String {
    match response {
        Response::Error { message, .. } => message,
        Response::Ok => panic!("should have been refused"),
    }
}

#[tokio::test]
async fn requests_reach_the_responder_and_answers_go_back() {
    let directory = Directory::new("serve");
    let path = directory.0.join("deep/cni.sock");
    let listener = bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    let respond: Respond = Arc::new(|request| {
        Box::pin(async move {
            match request {
                Request::Add(attachment) => Response::Error { retriable: true, message: attachment.pod_name },
                Request::Check(_) | Request::Del { .. } | Request::Status | Request::Gc { .. } => Response::Ok,
            }
        })
    });
    telemetry::spawn("serve", serve(listener, respond));
    assert_eq!(ask(&path, &line(&Request::Status)).await, Response::Ok);
    let added = ask(&path, &line(&Request::Add(attachment("a", "/n")))).await;
    assert_eq!(added, Response::Error { retriable: true, message: "web".to_owned() });
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_a_reason() {
    let directory = Directory::new("refuse");
    let path = directory.0.join("cni.sock");
    telemetry::spawn("serve", serve(bind(&path).unwrap(), always(Response::Ok)));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"\n".to_vec(), "understood"),
        (b"{\"verb\":\"ADOPT\"}\n".to_vec(), "understood"),
        (b"{\"verb\":\"DEL\",\"container_id\":\"a\",\"ifname\":\"e\",\"x\":1}\n".to_vec(), "understood"),
        ([vec![b'['; 60_000], vec![b'\n']].concat(), "understood"),
        ([vec![b' '; MAX_MESSAGE], vec![b'\n']].concat(), "longer"),
        (b"{\"verb\":\"STATUS\"}\n{\"verb\":\"STATUS\"}\n".to_vec(), "more than one"),
        (line(&Request::Add(attachment("../../etc/passwd", "/n"))), "container_id"),
        (line(&Request::Add(attachment("a", "n"))), "netns"),
    ];
    for (bytes, reason) in cases {
        let message = refusal(ask(&path, &bytes).await);
        assert!(message.contains(reason), "{message}");
    }
    // The line ends with the connection.
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"{\"verb\":\"STATUS\"}").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("within the request"), "{answer}");
}

#[tokio::test]
async fn a_request_that_dawdles_is_refused() {
    let directory = Directory::new("slow");
    let path = directory.0.join("cni.sock");
    telemetry::spawn("serve", serve(bind(&path).unwrap(), always(Response::Ok)));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"{\"verb\":").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("did not arrive within 5 s") && answer.contains("\"retriable\":true"), "{answer}");
}

#[tokio::test]
async fn a_new_daemon_takes_over_without_a_gap() {
    let directory = Directory::new("takeover");
    let path = directory.0.join("cni.sock");
    telemetry::spawn("old", serve(bind(&path).unwrap(), always(Response::Ok)));
    assert_eq!(ask(&path, &line(&Request::Status)).await, Response::Ok);
    let newer = Response::Error { retriable: false, message: "newer".to_owned() };
    let (began, begun) = oneshot::channel();
    let clients = {
        let path = path.clone();
        telemetry::spawn("clients", async move {
            let mut began = Some(began);
            let mut answers = 0;
            // Every connection is answered, by the one or the other.
            while ask(&path, &line(&Request::Status)).await == Response::Ok {
                answers += 1;
                if let Some(began) = began.take() {
                    began.send(()).unwrap();
                }
            }
            answers
        })
    };
    begun.await.unwrap();
    telemetry::spawn("new", serve(bind(&path).unwrap(), always(newer)));
    assert!(clients.await.unwrap() > 0);
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_dropped() {
    struct Dropped(Arc<Notify>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let directory = Directory::new("hangup");
    let path = directory.0.join("cni.sock");
    let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let respond: Respond = {
        let (begun, dropped) = (Arc::clone(&begun), Arc::clone(&dropped));
        Arc::new(move |_| {
            let guard = Dropped(Arc::clone(&dropped));
            begun.notify_one();
            Box::pin(async move {
                let _guard = guard;
                std::future::pending().await
            })
        })
    };
    telemetry::spawn("serve", serve(bind(&path).unwrap(), respond));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(&line(&Request::Status)).await.unwrap();
    begun.notified().await;
    drop(stream);
    timeout(Duration::from_secs(10), dropped.notified()).await.expect("the answer is dropped");
}

#[tokio::test]
async fn open_requests_are_bounded() {
    let directory = Directory::new("bounded");
    let path = directory.0.join("cni.sock");
    let open = Arc::new(AtomicUsize::new(0));
    let full = Arc::new(Notify::new());
    let go = Arc::new(Semaphore::new(0));
    let respond: Respond = {
        let (open, full, go) = (Arc::clone(&open), Arc::clone(&full), Arc::clone(&go));
        Arc::new(move |_| {
            if open.fetch_add(1, Ordering::SeqCst) + 1 == MAX_REQUESTS {
                full.notify_one();
            }
            let (open, go) = (Arc::clone(&open), Arc::clone(&go));
            Box::pin(async move {
                go.acquire().await.unwrap().forget();
                assert!(open.fetch_sub(1, Ordering::SeqCst) <= MAX_REQUESTS);
                Response::Ok
            })
        })
    };
    telemetry::spawn("serve", serve(bind(&path).unwrap(), respond));
    let clients: Vec<_> = (0..MAX_REQUESTS + 40)
        .map(|_| {
            let path = path.clone();
            telemetry::spawn("client", async move { ask(&path, &line(&Request::Status)).await })
        })
        .collect();
    timeout(Duration::from_secs(20), full.notified()).await.expect("as many requests as may be open");
    go.add_permits(clients.len());
    for client in clients {
        assert_eq!(client.await.unwrap(), Response::Ok);
    }
}

#[tokio::test]
async fn a_long_reason_still_fits_into_a_message() {
    let directory = Directory::new("reason");
    let path = directory.0.join("cni.sock");
    let message = "\u{1}ä".repeat(MAX_MESSAGE);
    telemetry::spawn("serve", serve(bind(&path).unwrap(), always(Response::Error { retriable: true, message })));
    assert!(refusal(ask(&path, &line(&Request::Status)).await).len() <= MAX_REASON);
}

#[test]
fn only_root_and_the_daemons_user_may_ask() {
    assert!(may_ask(0, 0) && may_ask(0, 1000) && may_ask(1000, 1000));
    assert!(!may_ask(1000, 0) && !may_ask(1001, 1000));
}

#[test]
fn attachments_survive() {
    let directory = Directory::new("store");
    let store = AttachmentStore::open(&directory.0).unwrap();
    let mut first = attachment("a", "/proc/self/ns/net");
    let second = attachment("b.c", "/proc/thread-self/ns/net");
    store.save(&first).unwrap();
    store.save(&second).unwrap();
    first.pod_uid = Some("u".to_owned());
    store.save(&first).unwrap();

    let loaded = AttachmentStore::open(&directory.0).unwrap().load().unwrap();
    assert_eq!(loaded.attached, [first, second.clone()]);
    assert!(loaded.detached.is_empty() && loaded.damaged.is_empty(), "{loaded:?}");
    let inside = directory.0.join("attachments");
    assert_eq!(fs::metadata(&inside).unwrap().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&inside).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }

    store.remove("a", "eth0").unwrap();
    store.remove("a", "eth0").unwrap();
    assert_eq!(store.load().unwrap().attached, [second]);
}

#[test]
fn attachments_whose_namespace_is_gone_are_detached() {
    let directory = Directory::new("gone");
    let left_over = directory.0.join("netns");
    fs::write(&left_over, "").unwrap();
    let store = AttachmentStore::open(&directory.0).unwrap();
    let gone = attachment("a", "/run/netns/cn-never-there");
    let unmounted = attachment("b", left_over.to_str().unwrap());
    for attachment in [&gone, &unmounted] {
        store.save(attachment).unwrap();
    }
    let loaded = store.load().unwrap();
    assert!(loaded.attached.is_empty() && loaded.damaged.is_empty(), "{loaded:?}");
    assert_eq!(loaded.detached, [gone, unmounted]);
}

#[test]
fn a_damaged_file_is_reported_and_harms_no_other() {
    let directory = Directory::new("damaged");
    let store = AttachmentStore::open(&directory.0).unwrap();
    let good = attachment("good", "/proc/self/ns/net");
    store.save(&good).unwrap();
    let inside = directory.0.join("attachments");
    let whole = serde_json::to_string(&good).unwrap();
    fs::write(inside.join("cut@eth0.json"), &whole[..whole.len() / 2]).unwrap();
    fs::write(inside.join("empty@eth0.json"), "").unwrap();
    fs::write(inside.join("long@eth0.json"), "[".repeat(2 * MAX_MESSAGE)).unwrap();
    fs::write(inside.join("other@eth0.json"), &whole).unwrap();
    fs::create_dir(inside.join("directory@eth0.json")).unwrap();
    fs::write(inside.join(".unfinished@eth0.json"), "{").unwrap();

    let loaded = store.load().unwrap();
    assert_eq!(loaded.attached, [good]);
    let damaged: Vec<_> = loaded.damaged.iter().map(ToString::to_string).collect();
    assert_eq!(damaged.len(), 5, "{damaged:#?}");
    for name in ["cut", "empty", "long", "other", "directory"] {
        assert!(damaged.iter().any(|text| text.contains(&format!("{name}@eth0.json"))), "{name}: {damaged:#?}");
    }
}

#[test]
fn no_id_leaves_the_directory() {
    let directory = Directory::new("escape");
    let store = AttachmentStore::open(&directory.0).unwrap();
    assert!(matches!(store.save(&attachment("../x", "/n")), Err(StoreError::Key { .. })));
    assert!(matches!(store.remove("a", "../../x"), Err(StoreError::Key { .. })));
}
