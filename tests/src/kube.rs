//! A Kubernetes of files: the objects that an API server would hold, each in a YAML file that both daemons watch.
//!
//! In:  what a user applies, and what happens to pods.
//! Out: files, replaced in one step each; endpoint slices as the endpoint controller would make them.
//! Invariant: the time stamps of objects are those of their order, so that nothing depends on the clock.

mod service;

pub use service::{Service, ServiceSpec};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Kind, namespace and name of an object; the namespace is empty for those that have none.
type Key = (String, String, String);

/// The objects of the cluster.
#[derive(Debug)]
pub struct Kube {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    /// How many objects there have been.
    created: u32,
    services: BTreeMap<Key, service::Controlled>,
}

impl Kube {
    pub(crate) fn create(dir: PathBuf) -> Result<Self> {
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { dir, state: Mutex::default() })
    }

    /// The directory with the files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates or replaces an object. What Kubernetes would add (uid, time of creation) is added.
    ///
    /// **Errors**: it has no kind or name, or the file cannot be written.
    pub fn apply(&self, object: Value) -> Result<()> {
        self.write(&mut self.state(), object)
    }

    /// Removes an object; `namespace` is empty for those that have none.
    ///
    /// **Errors**: there is none, or its file cannot be removed.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let mut state = self.state();
        state.services.remove(&key);
        self.remove(&mut state, &key)?;
        self.reconcile(&mut state)
    }

    /// An object as it is now.
    #[must_use]
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state().objects.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Changes an object.
    ///
    /// **Errors**: there is none, or its file cannot be written.
    pub fn change(&self, kind: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut object = self.object(kind, namespace, name).with_context(|| format!("no {kind} {namespace}/{name}"))?;
        change(&mut object);
        self.apply(object)
    }

    /// Creates a namespace with labels, or gives one other labels.
    ///
    /// **Errors**: the file cannot be written.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: BTreeMap<_, _> = labels.iter().copied().chain([("kubernetes.io/metadata.name", name)]).collect();
        self.apply(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
            "status": {"phase": "Active"},
        }))
    }

    /// Creates or replaces an Istio PeerAuthentication; `name` is `namespace/name`.
    ///
    /// **Errors**: the name has no namespace, or the file cannot be written.
    pub fn peer_authentication(&self, name: &str, spec: Value) -> Result<()> {
        self.istio_security("PeerAuthentication", name, spec)
    }

    /// Creates or replaces an Istio AuthorizationPolicy; `name` is `namespace/name`.
    ///
    /// **Errors**: as [`Kube::peer_authentication`].
    pub fn authorization_policy(&self, name: &str, spec: Value) -> Result<()> {
        self.istio_security("AuthorizationPolicy", name, spec)
    }

    fn istio_security(&self, kind: &str, name: &str, spec: Value) -> Result<()> {
        let (namespace, name) = split(name)?;
        self.apply(json!({
            "apiVersion": "security.istio.io/v1",
            "kind": kind,
            "metadata": {"namespace": namespace, "name": name},
            "spec": spec,
        }))
    }

    /// Creates a service and keeps its endpoint slices as pods come and go.
    ///
    /// **Errors**: the name has no namespace, or a file cannot be written.
    pub fn service(&self, spec: ServiceSpec) -> Result<Service> {
        let mut state = self.state();
        let (service, object, controlled) = spec.build(state.services.len())?;
        self.write(&mut state, object)?;
        state.services.insert(("Service".to_owned(), service.namespace.clone(), service.name.clone()), controlled);
        self.reconcile(&mut state)?;
        Ok(service)
    }

    /// Writes a pod, its service account if it is the first, and what follows for endpoints.
    pub(crate) fn pod(&self, pod: Value) -> Result<()> {
        let mut state = self.state();
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned();
        if !state.objects.contains_key(&("ServiceAccount".to_owned(), namespace.clone(), account.clone())) {
            let metadata = json!({"namespace": namespace, "name": account});
            self.write(&mut state, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}))?;
        }
        self.write(&mut state, pod)?;
        self.reconcile(&mut state)
    }

    /// Makes endpoint slices what services and pods demand.
    fn reconcile(&self, state: &mut State) -> Result<()> {
        let pods: Vec<Value> =
            state.objects.iter().filter(|((kind, ..), _)| kind == "Pod").map(|(_, pod)| pod.clone()).collect();
        let wanted: BTreeMap<Key, Value> = state
            .services
            .values()
            .flat_map(|service| service.slices(&pods))
            .map(|slice| Ok((key(&slice)?, slice)))
            .collect::<Result<_>>()?;
        let controlled = |object: &Value| object["metadata"]["labels"][service::CONTROLLER] == service::CONTROLLER_NAME;
        let gone: Vec<Key> = state
            .objects
            .iter()
            .filter(|(key, object)| key.0 == "EndpointSlice" && controlled(object) && !wanted.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.remove(state, &key)?;
        }
        for slice in wanted.into_values() {
            self.write(state, slice)?;
        }
        Ok(())
    }

    fn write(&self, state: &mut State, mut object: Value) -> Result<()> {
        let key = key(&object)?;
        let before = state.objects.get(&key);
        let metadata = &mut object["metadata"];
        for field in ["uid", "creationTimestamp"] {
            if metadata[field].is_null() {
                metadata[field] = match before {
                    Some(before) => before["metadata"][field].clone(),
                    None if field == "uid" => json!(uid(&key, state.created)),
                    None => json!(timestamp(state.created)),
                };
            }
        }
        if before == Some(&object) {
            return Ok(());
        }
        let file = self.dir.join(file_name(&key));
        let yaml = serde_saphyr::to_string(&object).context("cannot write YAML")?;
        let draft = self.dir.join(format!(".{}.draft", file_name(&key)));
        fs::write(&draft, yaml)
            .and_then(|()| fs::rename(&draft, &file))
            .with_context(|| format!("cannot write {}", file.display()))?;
        state.created += 1;
        state.objects.insert(key, object);
        Ok(())
    }

    fn remove(&self, state: &mut State, key: &Key) -> Result<()> {
        let file = self.dir.join(file_name(key));
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        state.objects.remove(key);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts of `namespace/name`.
pub(crate) fn split(name: &str) -> Result<(&str, &str)> {
    name.split_once('/').with_context(|| format!("`{name}` is not of the form namespace/name"))
}

fn key(object: &Value) -> Result<Key> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = text(&object["kind"]).context("an object without `kind`")?;
    let name = text(&object["metadata"]["name"]).context("an object without `metadata.name`")?;
    Ok((kind, text(&object["metadata"]["namespace"]).unwrap_or_default(), name))
}

fn file_name((kind, namespace, name): &Key) -> String {
    let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}.") };
    format!("{}.{namespace}{name}.yaml", kind.to_lowercase())
}

/// A uid that depends on the object and on how many there were before it.
fn uid(key: &Key, number: u32) -> String {
    let mut hasher = DefaultHasher::new();
    (key, number).hash(&mut hasher);
    let hash = hasher.finish();
    format!("{number:08x}-{:04x}-4000-8000-{:012x}", hash >> 48, hash & 0xffff_ffff_ffff)
}

/// A time stamp one second after that of the object before.
fn timestamp(number: u32) -> String {
    let (hours, minutes, seconds) = (number / 3600 % 24, number / 60 % 60, number % 60);
    format!("2026-01-01T{hours:02}:{minutes:02}:{seconds:02}Z")
}

/// An address as Kubernetes lists it.
pub(crate) fn pod_ip(address: IpAddr) -> Value {
    json!({"ip": address.to_string()})
}
