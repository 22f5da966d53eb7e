use crate::config::Version;
use crate::env::Environment;
use crate::prev_result::PrevResult;
use crate::run;
use mesh_common::cni::{Attachment, MAX_CONTAINER_ID, Request, Response, is_container_id, is_ifname};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

/// Calico 3.28, cniVersion 1.0.0: only the interface on the host, no sandbox.
const CALICO_3_28: &str =
    r#"{"cniVersion":"1.0.0","interfaces":[{"name":"cali297e65c9f02"}],"ips":[{"address":"10.65.166.128/32"}]}"#;
/// Calico 3.28, cniVersion 0.3.1.
const CALICO_3_28_OLD: &str = r#"{"cniVersion":"0.3.1","interfaces":[{"name":"calie94f6a44bcc"}],"ips":[{"version":"4","address":"10.65.166.130/32"}],"dns":{}}"#;
/// Calico 3.32.
const CALICO_3_32: &str = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"calie94f6a44bcc"},{"mac":"4a:65:43:55:cb:60","mtu":1450,"name":"eth0","sandbox":"/run/netns/calpc"}],"ips":[{"address":"10.65.166.134/32","interface":1}],"routes":[{"dst":"10.65.166.134/26"}]}"#;
/// Dual stack, an interface that is not the pod's main one, numbers and members that nobody knows, odd white space.
const RICH: &str = r#"{ "cniVersion":"1.1.0",
  "x": 1.10, "y": 123456789012345678901234567890, "interfaces":[{"name":"host0"},{"name":"eth0","sandbox":"/n"},{"name":"net1","sandbox":"/n"}],
  "ips":[{"address":"10.0.0.2/24","interface":1,"gateway":"10.0.0.1"},{"address":"fd00::2/64","interface":1},{"address":"192.168.7.7/24","interface":2}]}"#;

fn environment(verb: &str) -> Environment {
    let some = |text: &str| Some(text.to_owned());
    Environment {
        command: some(verb),
        container_id: some("cid-1"),
        netns: some("/run/netns/pod"),
        ifname: some("eth0"),
        args: some(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=app;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=cid-1;K8S_POD_UID=u-1",
        ),
    }
}

fn config(version: &str, socket: &Path, prev_result: &str) -> String {
    format!(
        r#"{{"cniVersion":"{version}","name":"k8s-pod-network","type":"mesh-cni","socket":{socket:?},"timeout":10,"prevResult":{prev_result}}}"#
    )
}

fn nobody() -> PathBuf {
    PathBuf::from("/nonexistent/mesh.sock")
}

/// The code and the whole text of a failed call.
fn refusal(environment: &Environment, stdin: &str) -> (u64, String) {
    let document = run(environment, stdin.as_bytes()).expect_err("the call fails").to_json();
    let document: Value = serde_json::from_str(&document).unwrap();
    assert!(Version::parse(document["cniVersion"].as_str().unwrap()).is_some(), "{document}");
    (document["code"].as_u64().unwrap(), format!("{}; {}", document["msg"], document["details"]))
}

/// A daemon that answers one request.
struct Daemon {
    socket: PathBuf,
    served: Option<JoinHandle<Request>>,
}

impl Daemon {
    fn answering(name: &str, answer: &Response) -> Self {
        let mut answer = serde_json::to_string(answer).unwrap();
        answer.push('\n');
        let socket = std::env::temp_dir().join(format!("cn-{}-{name}.sock", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            serde_json::from_str(&line).unwrap()
        });
        Self { socket, served: Some(served) }
    }

    fn request(mut self) -> Request {
        self.served.take().unwrap().join().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn attachment(addresses: &[&str]) -> Attachment {
    Attachment {
        container_id: "cid-1".to_owned(),
        ifname: "eth0".to_owned(),
        netns: "/run/netns/pod".to_owned(),
        pod_namespace: "app".to_owned(),
        pod_name: "web-0".to_owned(),
        pod_uid: Some("u-1".to_owned()),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

#[test]
fn add_gives_the_result_on_as_it_was_and_tells_the_daemon_the_addresses() {
    let cases: [(&str, &str, &str, &[&str]); 4] = [
        ("calico-3-28", "1.0.0", CALICO_3_28, &["10.65.166.128"]),
        ("calico-3-28-old", "0.3.1", CALICO_3_28_OLD, &["10.65.166.130"]),
        ("calico-3-32", "1.0.0", CALICO_3_32, &["10.65.166.134"]),
        ("rich", "1.1.0", RICH, &["10.0.0.2", "fd00::2"]),
    ];
    for (name, version, prev_result, addresses) in cases {
        let daemon = Daemon::answering(name, &Response::Ok);
        let result = run(&environment("ADD"), config(version, &daemon.socket, prev_result).as_bytes());
        assert_eq!(result.unwrap().as_deref(), Some(prev_result), "{name}");
        assert_eq!(daemon.request(), Request::Add(attachment(addresses)), "{name}");
    }
}

#[test]
fn add_prints_the_result_in_the_version_of_the_configuration() {
    let cases = [
        (
            CALICO_3_28,
            "0.4.0",
            r#"{"cniVersion":"0.4.0","interfaces":[{"name":"cali297e65c9f02"}],"ips":[{"version":"4","address":"10.65.166.128/32"}]}"#,
        ),
        (
            CALICO_3_28_OLD,
            "1.1.0",
            r#"{"cniVersion":"1.1.0","interfaces":[{"name":"calie94f6a44bcc"}],"ips":[{"address":"10.65.166.130/32"}],"dns":{}}"#,
        ),
        (CALICO_3_28_OLD, "0.4.0", &CALICO_3_28_OLD.replace("0.3.1", "0.4.0")),
        (
            r#"{"ips":[{"address":"fd00::2/64"}]}"#,
            "1.0.0",
            r#"{"cniVersion":"1.0.0","ips":[{"address":"fd00::2/64"}]}"#,
        ),
        (
            r#"{"cniVersion":"1.0.0","ips":[{"address":"fd00::2/64"}],"big":123456789012345678901234567890}"#,
            "0.3.1",
            r#"{"cniVersion":"0.3.1","ips":[{"version":"6","address":"fd00::2/64"}],"big":123456789012345678901234567890}"#,
        ),
    ];
    for (prev_result, version, expected) in cases {
        let raw = RawValue::from_string(prev_result.to_owned()).unwrap();
        let printed = PrevResult::new(Some(raw)).unwrap().print(Version::parse(version).unwrap()).unwrap();
        assert_eq!(printed, expected);
    }
}

#[test]
fn pods_that_are_none_of_the_meshs_pass_without_a_daemon() {
    let mut system = environment("ADD");
    system.args = Some("K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns".to_owned());
    let mut foreign = environment("ADD");
    foreign.args = Some("FOO=bar".to_owned());
    let mut bare = environment("ADD");
    bare.args = None;
    for environment in [system, foreign, bare] {
        let result = run(&environment, config("1.0.0", &nobody(), CALICO_3_28).as_bytes());
        assert_eq!(result.unwrap().as_deref(), Some(CALICO_3_28), "{environment:?}");
        let check = Environment { command: Some("CHECK".to_owned()), ..environment };
        assert_eq!(run(&check, config("1.0.0", &nobody(), CALICO_3_28).as_bytes()).unwrap(), None);
    }
}

#[test]
fn the_list_of_excluded_namespaces_replaces_the_default() {
    let with = |namespaces: Value, namespace: &str| {
        let mut environment = environment("ADD");
        environment.args = Some(format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=a"));
        let prev_result: Value = serde_json::from_str(CALICO_3_28).unwrap();
        let config = json!({"cniVersion": "1.0.0", "name": "n", "type": "mesh-cni", "socket": nobody(),
            "excludeNamespaces": namespaces, "prevResult": prev_result});
        run(&environment, config.to_string().as_bytes()).is_ok()
    };
    assert!(with(json!(["a", "b"]), "b"));
    assert!(!with(json!(["a", "b"]), "kube-system"));
    assert!(!with(json!([]), "kube-system"));
    assert!(with(Value::Null, "kube-system"));
}

#[test]
fn add_fails_closed_without_the_daemon() {
    let (code, text) = refusal(&environment("ADD"), &config("1.0.0", &nobody(), CALICO_3_28));
    assert_eq!(code, 11, "{text}");
    assert!(text.contains("/nonexistent/mesh.sock") && text.contains("mesh-node"), "{text}");
}

#[test]
fn a_daemons_refusal_says_whether_to_try_again() {
    for (verb, retriable, code) in
        [("ADD", true, 11), ("ADD", false, 100), ("CHECK", true, 11), ("CHECK", false, 100), ("STATUS", true, 50)]
    {
        let answer = Response::Error { retriable, message: "no certificate yet".to_owned() };
        let daemon = Daemon::answering(&format!("refusal-{verb}-{retriable}"), &answer);
        let (got, text) = refusal(&environment(verb), &config("1.1.0", &daemon.socket, RICH));
        assert_eq!(got, code, "{verb} {retriable}");
        assert!(text.contains("no certificate yet"), "{text}");
        daemon.request();
    }
}

#[test]
fn del_succeeds_whatever_the_daemon_does() {
    let mut without_netns = environment("DEL");
    without_netns.netns = None;
    let no_prev = r#"{"cniVersion":"0.3.1","name":"n","type":"mesh-cni","socket":"/nonexistent/s"}"#;
    let broken_settings = r#"{"cniVersion":"1.0.0","name":"n","type":"mesh-cni","socket":"relative","tymeout":1}"#;
    for stdin in [&config("1.0.0", &nobody(), CALICO_3_28), no_prev] {
        assert_eq!(run(&without_netns, stdin.as_bytes()).unwrap(), None);
        assert_eq!(run(&environment("DEL"), stdin.as_bytes()).unwrap(), None);
    }
    assert_eq!(run(&environment("DEL"), broken_settings.as_bytes()).unwrap(), None);

    let daemon = Daemon::answering("del", &Response::Error { retriable: false, message: "no".to_owned() });
    assert_eq!(run(&environment("DEL"), config("1.0.0", &daemon.socket, CALICO_3_28).as_bytes()).unwrap(), None);
    assert_eq!(daemon.request(), Request::Del { container_id: "cid-1".to_owned(), ifname: "eth0".to_owned() });
}

#[test]
fn check_sends_what_the_runtime_believes() {
    let daemon = Daemon::answering("check", &Response::Ok);
    assert_eq!(run(&environment("CHECK"), config("0.4.0", &daemon.socket, CALICO_3_28_OLD).as_bytes()).unwrap(), None);
    assert_eq!(daemon.request(), Request::Check(attachment(&["10.65.166.130"])));
}

#[test]
fn status_tells_absent_from_not_ready() {
    let stdin = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"mesh-cni","socket":{:?}}}"#, nobody());
    let bare = Environment { command: Some("STATUS".to_owned()), ..Environment::default() };
    let (code, text) = refusal(&bare, &stdin);
    assert_eq!(code, 51, "{text}");
    let daemon = Daemon::answering("status", &Response::Ok);
    assert_eq!(run(&bare, config("1.1.0", &daemon.socket, "null").as_bytes()).unwrap(), None);
    assert_eq!(daemon.request(), Request::Status);
}

#[test]
fn gc_keeps_what_is_listed_and_needs_the_list() {
    let bare = Environment { command: Some("GC".to_owned()), ..Environment::default() };
    let with = |socket: &Path, list: &str| {
        format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"mesh-cni","socket":{socket:?}{list}}}"#)
    };
    let list = r#","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"},{"containerID":"b","ifname":"net1"}],"cni.dev/attachments":[]"#;
    let pair = |id: &str, ifname: &str| (id.to_owned(), ifname.to_owned());
    for (name, list, valid) in [
        ("gc-two", list, vec![pair("a", "eth0"), pair("b", "net1")]),
        ("gc-none", r#","cni.dev/valid-attachments":null"#, vec![]),
        ("gc-empty", r#","cni.dev/valid-attachments":[]"#, vec![]),
    ] {
        let daemon = Daemon::answering(name, &Response::Ok);
        assert_eq!(run(&bare, with(&daemon.socket, list).as_bytes()).unwrap(), None);
        assert_eq!(daemon.request(), Request::Gc { valid });
    }
    for list in [
        "",
        r#","cni.dev/valid-attachments":{}"#,
        r#","cni.dev/valid-attachments":[{"containerID":"../x","ifname":"e"}]"#,
    ] {
        assert_eq!(refusal(&bare, &with(&nobody(), list)).0, 7, "{list}");
    }
    assert_eq!(refusal(&bare, &with(&nobody(), r#","cni.dev/valid-attachments":[]"#)).0, 11);
    let many: Vec<Value> = (0..2000).map(|i| json!({"containerID": format!("{i:064}"), "ifname": "eth0"})).collect();
    let (code, text) = refusal(&bare, &with(&nobody(), &format!(r#","cni.dev/valid-attachments":{}"#, json!(many))));
    assert!(code == 7 && text.contains("longer than"), "{code} {text}");
}

#[test]
fn version_echoes_what_was_asked() {
    let bare = Environment { command: Some("VERSION".to_owned()), ..Environment::default() };
    for (stdin, echoed) in
        [(r#"{"cniVersion":"0.4.0"}"#, "0.4.0"), (r#"{"cniVersion":"2.0.0"}"#, "2.0.0"), ("", "1.1.0"), ("[]", "1.1.0")]
    {
        let answer: Value = serde_json::from_str(&run(&bare, stdin.as_bytes()).unwrap().unwrap()).unwrap();
        let expected = json!({"cniVersion": echoed, "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]});
        assert_eq!(answer, expected, "{stdin}");
    }
}

#[test]
fn a_wrong_environment_is_error_4_and_names_the_variable() {
    let stdin = config("1.1.0", &nobody(), RICH);
    let set = |change: fn(&mut Environment)| {
        let mut environment = environment("ADD");
        change(&mut environment);
        environment
    };
    let cases: Vec<(Environment, &str)> = vec![
        (Environment::default(), "CNI_COMMAND"),
        (set(|e| e.command = Some("UPDATE".into())), "CNI_COMMAND"),
        (set(|e| e.container_id = None), "CNI_CONTAINERID"),
        (set(|e| e.container_id = Some(String::new())), "CNI_CONTAINERID"),
        (set(|e| e.container_id = Some("../../etc".into())), "CNI_CONTAINERID"),
        (set(|e| e.container_id = Some("-x".into())), "CNI_CONTAINERID"),
        (set(|e| e.ifname = Some("a/b".into())), "CNI_IFNAME"),
        (set(|e| e.ifname = Some("sixteen-bytes-xx".into())), "CNI_IFNAME"),
        (set(|e| e.netns = None), "CNI_NETNS"),
        (set(|e| e.netns = Some("run/netns/x".into())), "CNI_NETNS"),
        (set(|e| e.args = Some("K8S_POD_NAMESPACE".into())), "CNI_ARGS"),
        (set(|e| e.args = Some("K8S_POD_NAMESPACE=a".into())), "K8S_POD_NAME"),
        (set(|e| e.args = Some("K8S_POD_NAME=a".into())), "K8S_POD_NAMESPACE"),
        (set(|e| e.args = Some("K8S_POD_NAME=a;K8S_POD_NAMESPACE=A b".into())), "K8S_POD_NAMESPACE"),
        (set(|e| e.args = Some("K8S_POD_NAME=a..b;K8S_POD_NAMESPACE=a".into())), "K8S_POD_NAME"),
        (set(|e| e.args = Some("K8S_POD_NAME=a;K8S_POD_NAMESPACE=a;K8S_POD_UID=/".into())), "K8S_POD_UID"),
        (set(|e| (e.container_id, e.netns) = (None, None)), "CNI_CONTAINERID, CNI_NETNS"),
        (Environment { command: Some("DEL".into()), ..Environment::default() }, "CNI_CONTAINERID, CNI_IFNAME"),
    ];
    for (environment, named) in cases {
        let (code, text) = refusal(&environment, &stdin);
        assert_eq!(code, 4, "{environment:?}: {text}");
        assert!(text.contains(named), "{environment:?}: {text}");
    }
}

#[test]
fn a_wrong_configuration_has_the_specifications_code_and_names_the_key() {
    let base = r#""cniVersion":"1.1.0","name":"n","type":"mesh-cni""#;
    let cases: Vec<(String, u64, &str)> = vec![
        (String::new(), 6, "decoded"),
        ("nonsense".to_owned(), 6, "decoded"),
        ("[]".to_owned(), 6, "object"),
        (r#"{"cniVersion":1}"#.to_owned(), 6, "decoded"),
        ("[".repeat(100_000), 6, "decoded"),
        (format!(r#"{{{base},"deep":{}}}"#, "[".repeat(200_000)), 6, "decoded"),
        (format!(r#"{{{base},"socket":"/a","socket":"/b"}}"#), 6, "twice"),
        (" ".repeat(2_000_000), 6, "longer"),
        (r#"{"name":"n"}"#.to_owned(), 1, "0.1.0"),
        (r#"{"cniVersion":"0.3.0","name":"n"}"#.to_owned(), 1, "0.3.0"),
        (r#"{"cniVersion":"2.0.0","name":"n"}"#.to_owned(), 1, "2.0.0"),
        (r#"{"cniVersion":"1.0.0"}"#.to_owned(), 7, "name"),
        (r#"{"cniVersion":"1.0.0","name":"a b"}"#.to_owned(), 7, "name"),
        (format!(r#"{{{base},"excludeNamespace":["a"]}}"#), 2, r#"excludeNamespace"#),
        (format!(r#"{{{base},"socket":"run/x"}}"#), 7, "socket"),
        (format!(r#"{{{base},"socket":"/{}"}}"#, "x".repeat(107)), 7, "socket"),
        (format!(r#"{{{base},"timeout":0}}"#), 7, "timeout"),
        (format!(r#"{{{base},"timeout":-1}}"#), 7, "timeout"),
        (format!(r#"{{{base},"timeout":601}}"#), 7, "timeout"),
        (format!(r#"{{{base},"timeout":"30s"}}"#), 7, "timeout"),
        (format!(r#"{{{base},"excludeNamespaces":"a"}}"#), 7, "excludeNamespaces"),
        (format!("{{{base}}}"), 7, "chained"),
        (format!(r#"{{{base},"prevResult":null}}"#), 7, "chained"),
        (format!(r#"{{{base},"prevResult":[]}}"#), 7, "prevResult"),
        (format!(r#"{{{base},"prevResult":{{"ips":3}}}}"#), 7, "prevResult"),
        (format!(r#"{{{base},"prevResult":{{}}}}"#), 7, "no address"),
        (
            format!(r#"{{{base},"prevResult":{{"cniVersion":"3","ips":[{{"address":"10.0.0.1/8"}}]}}}}"#),
            7,
            "cniVersion",
        ),
        (format!(r#"{{{base},"prevResult":{{"ips":[{{"address":"10.0.0.1"}}]}}}}"#), 7, "10.0.0.1"),
        (format!(r#"{{{base},"prevResult":{{"ips":[{{"address":"10.0.0.1/33"}}]}}}}"#), 7, "10.0.0.1/33"),
    ];
    for (stdin, code, named) in cases {
        let (got, text) = refusal(&environment("ADD"), &stdin);
        let shown: String = stdin.chars().take(200).collect();
        assert_eq!(got, code, "{shown}: {text}");
        assert!(text.contains(named), "{shown}: {text}");
    }
}

#[test]
fn keys_of_cni_are_accepted() {
    let stdin = format!(
        r#"{{"cniVersion":"1.0.0","name":"n","type":"mesh-cni","runtimeConfig":{{"mac":"x"}},"capabilities":{{"mac":true}},"args":{{"cni":{{}}}},
        "ipMasq":true,"ipam":{{}},"dns":{{}},"cni.dev/attachments":[],"example.com/note":1,"socket":null,"prevResult":{CALICO_3_28}}}"#
    );
    assert_eq!(refusal(&environment("ADD"), &stdin).0, 11);
}

#[test]
fn verbs_came_with_versions() {
    for (verb, version, code) in [
        ("CHECK", "0.3.1", Some(1)),
        ("CHECK", "0.4.0", Some(11)),
        ("STATUS", "1.0.0", Some(1)),
        ("STATUS", "1.1.0", Some(51)),
        ("GC", "1.0.0", Some(1)),
        ("DEL", "0.3.1", None),
    ] {
        let stdin = config(version, &nobody(), r#"{"ips":[{"address":"10.0.0.1/8"}]}"#);
        match code {
            Some(code) => assert_eq!(refusal(&environment(verb), &stdin).0, code, "{verb} {version}"),
            None => assert_eq!(run(&environment(verb), stdin.as_bytes()).unwrap(), None),
        }
    }
}

#[test]
fn an_unreadable_standard_input_is_error_5() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let refusal = run(&environment("ADD"), Broken).expect_err("nothing can be read");
    assert_eq!(refusal.failure.code(), 5);
    assert!(refusal.to_json().contains("gone"));
}

#[test]
fn addresses_are_told_in_order_and_once() {
    let raw = r#"{"ips":[{"address":"fd00::1/128"},{"address":"::ffff:10.0.0.1/128"},{"address":"10.0.0.1/8","interface":9},{"address":"10.0.0.2/8","interface":-1}]}"#;
    let prev_result = PrevResult::new(Some(RawValue::from_string(raw.to_owned()).unwrap())).unwrap();
    let expected: Vec<IpAddr> = ["fd00::1", "10.0.0.1", "10.0.0.2"].iter().map(|a| a.parse().unwrap()).collect();
    assert_eq!(prev_result.addresses("eth0").unwrap(), expected);
}

#[test]
fn ids_and_names_that_are_safe_in_paths() {
    for id in ["a", "0-_.", &"f".repeat(MAX_CONTAINER_ID)] {
        assert!(is_container_id(id), "{id}");
    }
    for id in ["", ".", "..", "_a", "a/b", "a b", "ä", "a\n", &"f".repeat(MAX_CONTAINER_ID + 1)] {
        assert!(!is_container_id(id), "{id}");
    }
    for name in ["eth0", "net1.100", "fifteen-bytes-x"] {
        assert!(is_ifname(name), "{name}");
    }
    for name in ["", ".", "..", "a/b", "a:b", "a b", "a\u{fffd}", "sixteen-bytes-xx"] {
        assert!(!is_ifname(name), "{name}");
    }
}
