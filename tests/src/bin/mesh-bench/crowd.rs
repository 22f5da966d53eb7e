//! Many pods, or services with routes, that exist only as objects, to see what they cost a daemon.
//!
//! In:  a directory that daemons watch, a number.
//! Out: files of a hundred each; their removal.
//! Invariant: each pod looks as a Deployment's pod looks in a cluster: labels, owner, containers, status; none
//! shares its address with another.

use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const PER_FILE: usize = 100;
const NAMESPACE: &str = "crowd";
/// The namespace of services and their routes.
const ROUTED: &str = "routed";

/// Writes pods `0..count`.
pub(crate) fn write(dir: &Path, count: usize) -> Result<()> {
    place(&dir.join("crowd.yaml"), &namespace(NAMESPACE))?;
    for first in (0..count).step_by(PER_FILE) {
        let mut text = String::new();
        for number in first..count.min(first + PER_FILE) {
            // Writing to a String cannot fail.
            let _ = write!(text, "---\n{}", pod(number));
        }
        place(&file(dir, first), &text)?;
    }
    Ok(())
}

/// Removes what [`write()`] wrote.
pub(crate) fn remove(dir: &Path, count: usize) -> Result<()> {
    let files = (0..count).step_by(PER_FILE).map(|first| file(dir, first));
    for path in files.chain([dir.join("crowd.yaml")]) {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn file(dir: &Path, first: usize) -> PathBuf {
    dir.join(format!("crowd-{first:06}.yaml"))
}

/// Writes `count` routes, a hundred for each of as many services as that takes; gives how many there are then.
pub(crate) fn write_routes(dir: &Path, count: usize) -> Result<usize> {
    place(&dir.join("routes.yaml"), &namespace(ROUTED))?;
    let services = count.div_ceil(PER_FILE);
    for service in 0..services {
        let mut text = service_of(service);
        for number in 0..PER_FILE {
            // Writing to a String cannot fail.
            let _ = write!(text, "---\n{}", route(service, number));
        }
        place(&routes(dir, service), &text)?;
    }
    Ok(services * PER_FILE)
}

/// Removes what [`write_routes`] wrote.
pub(crate) fn remove_routes(dir: &Path, count: usize) -> Result<()> {
    let files = (0..count.div_ceil(PER_FILE)).map(|service| routes(dir, service));
    for path in files.chain([dir.join("routes.yaml")]) {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn routes(dir: &Path, service: usize) -> PathBuf {
    dir.join(format!("routes-{service:06}.yaml"))
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

fn service_of(service: usize) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: service-{service}
  namespace: {ROUTED}
spec:
  type: ClusterIP
  clusterIP: 10.97.{}.{}
  ports:
    - name: http
      port: 80
",
        service / 250,
        1 + service % 250
    )
}

fn route(service: usize, number: usize) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: route-{service}-{number}
  namespace: {ROUTED}
spec:
  parentRefs:
    - group: \"\"
      kind: Service
      name: service-{service}
      port: 80
  rules:
    - matches:
        - path:
            type: PathPrefix
            value: /part-{number}
          headers:
            - name: x-part
              value: \"{number}\"
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier:
            set:
              - name: x-route
                value: \"{number}\"
      backendRefs:
        - name: service-{service}
          port: 80
"
    )
}

/// Writes a file in one step, so that no daemon reads half of it.
fn place(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn pod(number: usize) -> String {
    let application = number / 20;
    let node = number / 100;
    let address = format!("10.{}.{}.{}", 100 + number / 60_000, number / 250 % 240, 2 + number % 250);
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: app-{application}-5d8f9c7b6d-{number:05x}
  namespace: {NAMESPACE}
  uid: 00000000-0000-4000-8000-{number:012x}
  creationTimestamp: \"2026-01-01T00:00:00Z\"
  labels:
    app: app-{application}
    version: v1
    app.kubernetes.io/name: app-{application}
    app.kubernetes.io/part-of: crowd
    pod-template-hash: 5d8f9c7b6d
  ownerReferences:
    - apiVersion: apps/v1
      kind: ReplicaSet
      name: app-{application}-5d8f9c7b6d
      controller: true
spec:
  nodeName: elsewhere-{node}
  serviceAccountName: app-{application}
  containers:
    - name: app
      image: registry.example/app-{application}:1.0
      ports:
        - name: http
          containerPort: 8080
status:
  phase: Running
  podIP: {address}
  podIPs:
    - ip: {address}
  conditions:
    - type: Ready
      status: \"True\"
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_pods_share_a_name_or_an_address() {
        let line = |number: usize, key: &str| {
            let text = pod(number);
            text.lines().find(|line| line.trim_start().starts_with(key)).unwrap().to_owned()
        };
        let addresses: BTreeSet<String> = (0..10_000).map(|number| line(number, "podIP:")).collect();
        let names: BTreeSet<String> = (0..10_000).map(|number| line(number, "name:")).collect();
        assert_eq!((addresses.len(), names.len()), (10_000, 10_000));
    }

    #[test]
    fn what_is_written_is_removed() {
        let dir = std::env::temp_dir().join(format!("mesh-crowd-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        write(&dir, 250).unwrap();
        let text = fs::read_to_string(file(&dir, 200)).unwrap();
        assert_eq!(text.matches("kind: Pod").count(), 50);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
        remove(&dir, 250).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::remove_dir(&dir).unwrap();
    }
}
