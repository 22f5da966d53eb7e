use super::*;
use crate::world::{Change, CustomKind, fixture};

const OBJECTS: &str = r#"
{kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}}
---
kind: Pod
metadata:
  name: web-1
  namespace: shop
  uid: u-1
  creationTimestamp: 2026-01-31T12:00:00Z
  labels: {app: web}
  annotations: {cni.projectcalico.org/podIP: 10.0.0.9/32, other: dropped}
  ownerReferences: [{kind: ReplicaSet, name: web, controller: true}]
spec:
  nodeName: worker-1
  serviceAccountName: web
  containers:
  - ports: [{name: http, containerPort: 8080, protocol: TCP}]
    livenessProbe: {httpGet: {port: http}}
    readinessProbe: {tcpSocket: {port: 8080, host: 192.0.2.3}}
    lifecycle: {preStop: {httpGet: {port: 9}}}
status: {phase: Running, podIP: 10.0.0.9, podIPs: [{ip: 10.0.0.9}, {ip: "fd00::9"}]}
---
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.1.0.1
  clusterIPs: [10.1.0.1, "fd01::1"]
  externalIPs: [192.0.2.1]
  ports: [{name: http, port: 80, protocol: TCP}]
  sessionAffinity: None
  internalTrafficPolicy: Local
status: {loadBalancer: {ingress: [{ip: 192.0.2.2, ipMode: VIP}]}}
---
kind: EndpointSlice
metadata: {name: web-a, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.0.0.9], conditions: {ready: true, serving: true}, nodeName: worker-1}]
---
kind: ServiceAccount
metadata: {name: web, namespace: shop, labels: {rank: high}}
---
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}, portLevelMtls: {"8080": {mode: DISABLE}}, unknown: [1, null]}
"#;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-saved-{name}-{}", std::process::id()));
        Self(path)
    }

    fn edit(&self, kind: Kind, edit: impl FnOnce(String) -> String) {
        let path = path(&self.0, kind);
        let text = fs::read_to_string(&path).expect("the file is there");
        fs::write(path, edit(text)).expect("the file can be written");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn saved(name: &str) -> (Directory, World) {
    let directory = Directory::new(name);
    let mut objects = OBJECTS.to_owned();
    for kind in CustomKind::ALL {
        let (group, version, kind) = (kind.group(), kind.versions()[0], kind.name());
        let metadata = "{name: a, namespace: shop, creationTimestamp: 2026-01-31T12:00:00Z}";
        let spec = "{list: [{number: 1.5, text: '1'}], none: null, map: {a: true}}";
        objects +=
            &format!("---\n{{apiVersion: {group}/{version}, kind: {kind}, metadata: {metadata}, spec: {spec}}}\n");
    }
    let world = Mutex::new(fixture::world(&objects));
    save(&directory.0, &world, &kinds().collect::<Vec<_>>(), SystemTime::UNIX_EPOCH).expect("it is saved");
    (directory, world.into_inner().expect("nobody panicked"))
}

#[test]
fn what_is_read_is_what_was_saved() {
    let (directory, world) = saved("whole");
    let loaded = load(&directory.0).expect("it is whole").expect("it is there");
    assert_eq!(loaded.time, "1970-01-01T00:00:00.000Z");
    let mut read = World::default();
    loaded.tell(|object| read.apply(Change::Upsert(Box::new(object)))).expect("it is still whole");
    assert_eq!(loaded.objects, kinds().count());
    assert_eq!(read, world);
    assert!(kinds().all(|kind| read.count(kind) == 1), "the fixture has one of each kind");
}

#[test]
fn nothing_saved_is_no_error() {
    assert_eq!(load(&Directory::new("absent").0).expect("no error"), None);
}

#[test]
fn only_root_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, _) = saved("mode");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&directory.0), 0o700);
    assert!(kinds().all(|kind| mode(&path(&directory.0, kind)) == 0o600));
}

#[test]
fn a_damaged_world_is_left_aside_as_a_whole() {
    let refused = |name: &str, kind: Kind, edit: fn(String) -> String| {
        let (directory, _) = saved(name);
        directory.edit(kind, edit);
        load(&directory.0).expect_err("it is damaged").to_string()
    };
    let cut = refused("cut", Kind::Pod, |text| text[..text.len() / 2].to_owned());
    assert!(cut.ends_with("Pod.jsonl is damaged in line 2"), "{cut}");
    let short = refused("short", Kind::Service, |text| text.lines().take(1).collect::<Vec<_>>().join("\n"));
    assert!(short.ends_with("Service.jsonl ends after 0 of 1 objects"), "{short}");
    let form = refused("form", Kind::Namespace, |text| text.replace("\"format\":1", "\"format\":2"));
    assert!(form.contains("another version of the daemon wrote it"), "{form}");
    let empty = refused("empty", Kind::EndpointSlice, |_| String::new());
    assert!(empty.ends_with("EndpointSlice.jsonl is damaged in line 1"), "{empty}");

    let (directory, _) = saved("missing");
    fs::remove_file(path(&directory.0, Kind::PeerAuthentication)).expect("it was there");
    assert!(matches!(load(&directory.0), Err(SavedError::Read { .. })), "pods without their policies are not served");
}
