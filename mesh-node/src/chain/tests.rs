//! The chain's decisions as data, and its files in a directory.

mod files;

use super::entry::Entry;
use super::list::{List, ListError};
use super::method::{Method, method};
use super::plan::{Change, Plan, Seen, State, Wanted, plan};
use serde_json::{Value, json};

/// As the installer of Calico 3.28 and later writes it.
pub(super) const CALICO: &str = r#"{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "calico",
      "log_level": "info",
      "log_file_path": "/var/log/calico/cni/cni.log",
      "datastore_type": "kubernetes",
      "nodename": "node-a",
      "mtu": 0,
      "ipam": {
          "type": "calico-ipam"
      },
      "policy": {
          "type": "k8s"
      },
      "kubernetes": {
          "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"
      }
    },
    {
      "type": "portmap",
      "snat": true,
      "capabilities": {"portMappings": true}
    },
    {
      "type": "bandwidth",
      "capabilities": {"bandwidth": true}
    }
  ]
}
"#;

/// As the operator of Calico writes it: one line, newer version.
const OPERATOR: &str = r#"{"name":"k8s-pod-network","cniVersion":"1.0.0","plugins":[{"container_settings":{"allow_ip_forwarding":false},"datastore_type":"kubernetes","ipam":{"assign_ipv4":"true","assign_ipv6":"false","type":"calico-ipam"},"kubernetes":{"k8s_api_root":"https://10.96.0.1:443","kubeconfig":"/etc/cni/net.d/calico-kubeconfig"},"mtu":0,"nodename_file_optional":false,"policy":{"type":"k8s"},"type":"calico"},{"capabilities":{"bandwidth":true},"type":"bandwidth"},{"capabilities":{"portMappings":true},"snat":true,"type":"portmap"}]}"#;

pub(super) fn entry() -> Entry {
    Entry { socket: "/run/mesh/cni.sock".into(), exempt: vec!["kube-system".into(), "mesh-system".into()] }
}

fn seen(files: &[(&str, &str)], drop_ins: &[(&str, &str)]) -> Seen {
    let own = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_owned())).collect()
    };
    Seen { files: own(files), drop_ins: own(drop_ins) }
}

fn wanted(method: Method) -> Wanted {
    Wanted::Installed { method, firm: false, entry: entry() }
}

fn installed(method: Method, network: &str) -> State {
    State::Installed { method, network: network.to_owned() }
}

/// What the directory holds after `plan`.
fn after(mut seen: Seen, plan: &Plan) -> Seen {
    for change in &plan.changes {
        match change {
            Change::WriteDropIn { network, text } => drop(seen.drop_ins.insert(network.clone(), text.clone().into())),
            Change::RemoveDropIn { network } => drop(seen.drop_ins.remove(network)),
            Change::WriteList { file, text, .. } => drop(seen.files.insert(file.clone(), text.clone().into())),
        }
    }
    seen
}

#[test]
fn a_list_keeps_every_byte_that_is_not_ours() {
    for text in [CALICO, OPERATOR, r#"{ "plugins" :[ {"type":"a"} ] , "x":1e400,"name":"n","cniVersion":"1.1.0"}"#] {
        let list = List::parse(text.as_bytes()).unwrap();
        let with = list.with(&entry().inline()).unwrap();
        let again = List::parse(with.as_bytes()).unwrap();
        assert_eq!(again.entry(), Some(entry().inline()), "{with}");
        assert_eq!(again.without(), text);
        let plugins: Vec<Value> =
            serde_json::from_str::<Value>(&with.replace("1e400", "1")).unwrap()["plugins"].as_array().unwrap().clone();
        assert_eq!(plugins.last(), Some(&entry().inline()));
    }
}

#[test]
fn entries_of_ours_are_found_wherever_they_stand() {
    let ours = r#"{"type":"mesh-cni","socket":"/old"}"#;
    let cases = [
        (format!("{ours},A,B"), "A,B"),
        (format!("A,{ours},B"), "A,B"),
        (format!("A,B,{ours}"), "A,B"),
        (format!("{ours}, {ours} ,A , {ours},{ours},B,{ours}"), "A,B"),
    ];
    for (plugins, rest) in cases {
        let text = |plugins: &str| {
            let plugins = plugins.replace('A', r#"{"type":"a"}"#).replace('B', r#"{"type":"b"}"#);
            format!(r#"{{"name":"n","cniVersion":"1.0.0","plugins":[{plugins}]}}"#)
        };
        let before = text(&plugins);
        let list = List::parse(before.as_bytes()).unwrap();
        assert_eq!(list.without(), text(rest), "{plugins}");
        let with = list.with(&json!({"type": "mesh-cni"})).unwrap();
        assert_eq!(with, text(&format!(r#"{rest},{{"type":"mesh-cni"}}"#)), "{plugins}");
    }
}

#[test]
fn the_version_is_the_one_that_the_runtime_will_tell() {
    let version = |members: &str| {
        let text = format!(r#"{{"name":"n",{members}"plugins":[{{"type":"a"}}]}}"#);
        List::parse(text.as_bytes()).map(|list| list.version)
    };
    assert_eq!(version(r#""cniVersion":"0.4.0","#), Ok("0.4.0"));
    assert_eq!(version(r#""cniVersion":"0.4.0","cniVersions":["1.0.0","1.2.0","0.3.1"],"#), Ok("1.0.0"));
    assert_eq!(version(r#""cniVersions":["1.1.0"],"#), Ok("1.1.0"));
    assert_eq!(version(r#""cniVersion":"0.2.0","#), Err(ListError::Version("0.2.0".to_owned())));
    assert_eq!(version(""), Err(ListError::Version(String::new())));
    assert_eq!(version(r#""cniVersion":1,"#), Err(ListError::Member("cniVersion is no string")));
}

#[test]
fn what_the_runtime_could_not_use_is_refused_by_name() {
    for (text, named) in [
        ("", "decoded"),
        (&CALICO[..300], "decoded"),
        (r#"{"cniVersion":"1.0.0","plugins":[]}"#, "name"),
        (r#"{"cniVersion":"1.0.0","name":"../x","plugins":[]}"#, "../x"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":{}}"#, "plugins"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[1]}"#, "plugins"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[],"plugins":[]}"#, "duplicate"),
        (r#"{"cniVersion":"1.0.0","name":"n","loadOnlyInlinedPlugins":7}"#, "loadOnlyInlinedPlugins"),
    ] {
        let error = List::parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn the_runtimes_version_decides() {
    for (text, expected) in [
        ("containerd://1.6.20~ds1", Some(Method::Conflist)),
        ("containerd://1.7.27", Some(Method::Conflist)),
        ("containerd://2.0.5-k3s1", Some(Method::Conflist)),
        ("containerd://2.1.0-rc.1", Some(Method::DropIn)),
        ("containerd://v2.2.9", Some(Method::DropIn)),
        ("containerd://10.0.0", Some(Method::DropIn)),
        ("cri-o://1.32.4", Some(Method::Conflist)),
        ("cri-o://1.33.0+git", Some(Method::DropIn)),
        ("docker://27.0.1", None),
        ("containerd://", None),
        ("containerd://2", None),
        ("containerd", None),
        ("", None),
    ] {
        assert_eq!(method(text).ok(), expected, "{text}");
    }
    assert!(method("docker://27.0.1").unwrap_err().to_string().contains("--chain"));
}

#[test]
fn a_plan_is_carried_out_once() {
    for text in [CALICO, OPERATOR] {
        for method in [Method::DropIn, Method::Conflist] {
            let first = plan(&seen(&[("10-calico.conflist", text)], &[]), &wanted(method));
            assert_eq!(first.state, installed(method, "k8s-pod-network"));
            assert_eq!(first.changes.len(), 1);
            let then = after(seen(&[("10-calico.conflist", text)], &[]), &first);
            assert_eq!(plan(&then, &wanted(method)), Plan { changes: vec![], state: first.state });
            let removed = plan(&then, &Wanted::Removed);
            assert_eq!(after(then, &removed), seen(&[("10-calico.conflist", text)], &[]));
        }
    }
}

#[test]
fn the_drop_in_is_a_plugin_of_the_networks_version() {
    let plan = plan(&seen(&[("10-calico.conflist", CALICO)], &[]), &wanted(Method::DropIn));
    let [Change::WriteDropIn { network, text }] = &plan.changes[..] else { panic!("{plan:?}") };
    assert_eq!(network, "k8s-pod-network");
    assert_eq!(
        serde_json::from_str::<Value>(text).unwrap(),
        json!({"cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "mesh-cni", "socket": "/run/mesh/cni.sock",
            "excludeNamespaces": ["kube-system", "mesh-system"]})
    );
}

#[test]
fn another_method_takes_over_before_the_old_one_ends() {
    let files = [("10-calico.conflist", CALICO)];
    let start = seen(&files, &[]);
    let inline = after(start.clone(), &plan(&start, &wanted(Method::Conflist)));
    let to_drop_in = plan(&inline, &wanted(Method::DropIn));
    assert!(
        matches!(&to_drop_in.changes[..], [Change::WriteDropIn { .. }, Change::WriteList { .. }]),
        "{to_drop_in:?}"
    );
    let drop_in = after(inline, &to_drop_in);
    let back = plan(&drop_in, &wanted(Method::Conflist));
    assert!(matches!(&back.changes[..], [Change::WriteList { .. }, Change::RemoveDropIn { .. }]), "{back:?}");
}

#[test]
fn the_plugin_follows_the_primary_network() {
    let old = seen(&[("10-calico.conflist", CALICO)], &[]);
    let renamed = CALICO.replace("k8s-pod-network", "cluster-net");
    for (method, changes) in [(Method::DropIn, 2), (Method::Conflist, 2)] {
        let mut then = after(old.clone(), &plan(&old, &wanted(method)));
        then.files.insert("05-other.conflist".to_owned(), renamed.clone().into());
        let follow = plan(&then, &wanted(method));
        assert_eq!(follow.state, installed(method, "cluster-net"));
        assert_eq!(follow.changes.len(), changes, "{follow:?}");
        let end = after(then, &follow);
        assert_eq!(end.files["10-calico.conflist"], CALICO.as_bytes());
        assert_eq!(plan(&end, &wanted(method)).changes, []);
    }
}

#[test]
fn files_of_others_stay() {
    let foreign = r#"{"type":"other"}"#;
    let there = seen(&[("10-calico.conflist", CALICO)], &[("another-net", foreign), ("third-net", "{ damaged")]);
    let expected = vec![Change::RemoveDropIn { network: "third-net".to_owned() }];
    assert_eq!(plan(&there, &Wanted::Removed).changes, expected);
}

#[test]
fn a_list_that_reads_no_directory_gets_an_entry_unless_that_is_forbidden() {
    let text = CALICO.replacen('{', r#"{ "loadOnlyInlinedPlugins": "True","#, 1);
    let there = seen(&[("10-calico.conflist", &text)], &[]);
    assert_eq!(plan(&there, &wanted(Method::DropIn)).state, installed(Method::Conflist, "k8s-pod-network"));
    let firm = Wanted::Installed { method: Method::DropIn, firm: true, entry: entry() };
    let State::Refused { problem, .. } = plan(&there, &firm).state else { panic!("not refused") };
    assert!(problem.contains("--chain"), "{problem}");
}

#[test]
fn what_is_not_understood_is_left_as_it_is() {
    let start = seen(&[("10-calico.conflist", CALICO)], &[]);
    let good = after(start.clone(), &plan(&start, &wanted(Method::DropIn)));
    for (file, text) in [
        ("10-calico.conflist", &CALICO[..200]),
        ("05-flannel.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"flannel"}"#),
        ("05-x.json", "{}"),
        ("05-x.conflist", r#"{"cniVersion":"0.1.0","name":"n","plugins":[{"type":"a"}]}"#),
    ] {
        let mut there = good.clone();
        there.files.insert(file.to_owned(), text.as_bytes().to_owned());
        let plan = plan(&there, &wanted(Method::DropIn));
        assert_eq!(plan.changes, [], "{file}");
        let State::Refused { file: named, problem } = plan.state else { panic!("{file} is not refused") };
        assert_eq!(named, file);
        assert!(!problem.is_empty());
    }
    assert_eq!(plan(&seen(&[], &[]), &wanted(Method::DropIn)).state, State::Waiting);
}
