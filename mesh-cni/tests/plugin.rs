//! The plugin's binary against daemons that answer, refuse, dawdle, babble or are not there.
#![expect(clippy::unwrap_used, reason = "a test ends where a step of it fails")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PREV_RESULT: &str =
    r#"{"cniVersion":"1.0.0","interfaces":[{"name":"cali297e65c9f02"}],"ips":[{"address":"10.65.166.128/32"}]}"#;

/// How long the plugin may take beyond its own deadline on a busy machine.
const GRACE: Duration = Duration::from_secs(10);

/// A socket's path that is removed at the end.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("cn-plugin-{}-{name}.sock", std::process::id())))
    }

    /// Serves connections with `script`, each with its request read.
    fn serve(name: &str, script: impl Fn(&mut UnixStream) + Send + 'static) -> Self {
        let socket = Self::new(name);
        let listener = UnixListener::bind(&socket.0).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                script(&mut stream);
            }
        });
        socket
    }

    fn call(&self, verb: &str, timeout: f64) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mesh-cni"))
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "cid-1")
            .env("CNI_NETNS", "/run/netns/cn-pod")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=app;K8S_POD_NAME=web")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let prev_result: Value = serde_json::from_str(PREV_RESULT).unwrap();
        let version = if verb == "STATUS" { "1.1.0" } else { "1.0.0" };
        let config = json!({"cniVersion": version, "name": "k8s-pod-network", "type": "mesh-cni", "socket": self.0,
            "timeout": timeout, "prevResult": prev_result});
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// ADD fails with `code` and a text that has `words`; DEL succeeds all the same.
    fn fails_closed(&self, code: u64, words: &str) {
        let output = self.call("ADD", 0.5);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["code"], code, "{document}");
        assert_eq!(document["cniVersion"], "1.0.0");
        assert!(document.to_string().contains(words), "{document}");

        let output = self.call("DEL", 0.5);
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_daemon_that_agrees() {
    let socket = Socket::serve("agrees", |stream| stream.write_all(b"{\"result\":\"ok\"}\n").unwrap());
    let output = socket.call("ADD", 10.0);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{PREV_RESULT}\n"));
    for verb in ["CHECK", "DEL", "STATUS"] {
        let output = socket.call(verb, 10.0);
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{verb}: {output:?}");
    }
}

#[test]
fn a_daemon_that_is_absent() {
    Socket::new("absent").fails_closed(11, "is mesh-node running on this node?");
}

#[test]
fn a_socket_that_nobody_serves() {
    let socket = Socket::new("left-over");
    drop(UnixListener::bind(&socket.0).unwrap());
    socket.fails_closed(11, "is mesh-node running on this node?");
}

#[test]
fn a_daemon_that_refuses() {
    let refuse = |retriable: bool| {
        move |stream: &mut UnixStream| {
            let answer = json!({"result": "error", "retriable": retriable, "message": "no certificate for app/web"});
            writeln!(stream, "{answer}").unwrap();
        }
    };
    Socket::serve("later", refuse(true)).fails_closed(11, "no certificate for app/web");
    Socket::serve("never", refuse(false)).fails_closed(100, "no certificate for app/web");
}

#[test]
fn a_daemon_that_does_not_answer() {
    let begun = Instant::now();
    let socket = Socket::serve("mute", |stream| {
        let _ = stream.read(&mut [0]);
    });
    socket.fails_closed(11, "no answer within 0.5 s");
    assert!(begun.elapsed() < GRACE);
}

#[test]
fn a_daemon_that_trickles() {
    let begun = Instant::now();
    let socket = Socket::serve("trickle", |stream| {
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        while stream.write_all(b" ").is_ok() {
            // Waits for the plugin to hang up, without ever getting there.
            let _ = stream.read(&mut [0]);
        }
    });
    socket.fails_closed(11, "no answer within 0.5 s");
    assert!(begun.elapsed() < GRACE);
}

#[test]
fn a_daemon_whose_backlog_is_full() {
    let socket = Socket::new("backlog");
    let _listener = UnixListener::bind(&socket.0).unwrap();
    // The backlog is full when a connection would have to wait.
    let (sender, receiver) = std::sync::mpsc::channel();
    let path = socket.0.clone();
    thread::spawn(move || {
        while let Ok(stream) = UnixStream::connect(&path) {
            if sender.send(stream).is_err() {
                return;
            }
        }
    });
    let mut waiting = Vec::new();
    while let Ok(stream) = receiver.recv_timeout(Duration::from_secs(1)) {
        waiting.push(stream);
        assert!(waiting.len() < 10_000, "the backlog has no end");
    }
    socket.fails_closed(11, "no answer within 0.5 s");
}

#[test]
fn a_daemon_that_hangs_up() {
    Socket::serve("hangup", |_| {}).fails_closed(11, "without an answer");
    Socket::serve("half", |stream| stream.write_all(b"{\"result\":\"ok\"").unwrap())
        .fails_closed(11, "without an answer");
}

#[test]
fn a_daemon_that_babbles() {
    let answers: [&[u8]; 6] = [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\n",
        b"{}\n",
        b"{\"result\":\"perhaps\"}\n",
        b"\xff\xfe\x00\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
    ];
    for (at, answer) in answers.into_iter().enumerate() {
        let socket = Socket::serve(&format!("babble-{at}"), move |stream| stream.write_all(answer).unwrap());
        socket.fails_closed(101, "cannot be understood");
    }
}

#[test]
fn a_daemon_that_never_stops_talking() {
    let socket = Socket::serve("endless", |stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    socket.fails_closed(101, "longer than 65536 bytes");
}

#[test]
fn a_run_by_hand_says_what_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-cni")).env_clear().stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["code"], 4);
    assert!(document["details"].as_str().unwrap().contains("run by the container runtime"), "{document}");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-cni"))
        .env_clear()
        .env("CNI_COMMAND", "DEL")
        .env("CNI_CONTAINERID", "cid-1")
        .env("CNI_IFNAME", std::ffi::OsStr::from_bytes(b"eth\xff"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().unwrap().write_all(br#"{"cniVersion":"1.0.0","name":"n"}"#)?;
            child.wait_with_output()
        })
        .unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["code"], 4, "{document}");
    assert!(document["details"].as_str().unwrap().contains("CNI_IFNAME"), "{document}");
}
