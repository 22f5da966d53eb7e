//! What is known of the cluster and of this node, uninterpreted.
//!
//! In:  [`Change`]s from every source, in any order, repeated or not.
//! Out: [`World`]: the users' objects, this node's pod sandboxes, and what the sources could not read; [`Touched`]: what
//!      of it is different, and what it was before.
//! Invariant: the world is the last word on each key; nothing remembers how it came about.

use crate::api::core::{Namespace, Pod, Service, ServiceAccount};
use crate::api::custom::Custom;
pub use crate::api::custom::{CalicoFamily, CalicoKind, CalicoStore, CustomKind};
use crate::api::discovery::EndpointSlice;
use crate::api::istio::PeerAuthentication;
use crate::api::meta::ObjectMeta;
use crate::api::secret::Secret;
use crate::model::{Issue, Name};
pub use mesh_common::cni::Attachment;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod packed;
mod touched;

pub use touched::{Key, Touched};

use packed::{PackedPod, PackedService, PackedSlice, Packer};

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

/// A user's object of a kind that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A service account.
    ServiceAccount(ServiceAccount),
    /// A pod.
    Pod(Pod),
    /// A service.
    Service(Service),
    /// Some of a service's endpoints.
    EndpointSlice(EndpointSlice),
    /// A certificate with its key.
    Secret(Secret),
    /// Istio's choice of mutual TLS.
    PeerAuthentication(PeerAuthentication),
    /// An object of a kind that a custom definition brings.
    Custom(CustomKind, Custom),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Secret(_) => Kind::Secret,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
            Self::Custom(kind, _) => Kind::Custom(*kind),
        }
    }

    /// Names, labels and owners.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(object) => &object.metadata,
            Self::ServiceAccount(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::PeerAuthentication(object) => &object.metadata,
            Self::Custom(_, object) => &object.metadata,
        }
    }

    /// Names, labels and owners, to be changed.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Namespace(object) => &mut object.metadata,
            Self::ServiceAccount(object) => &mut object.metadata,
            Self::Pod(object) => &mut object.metadata,
            Self::Service(object) => &mut object.metadata,
            Self::EndpointSlice(object) => &mut object.metadata,
            Self::Secret(object) => &mut object.metadata,
            Self::PeerAuthentication(object) => &mut object.metadata,
            Self::Custom(_, object) => &mut object.metadata,
        }
    }
}

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Object::Namespace`].
    Namespace,
    /// [`Object::ServiceAccount`].
    ServiceAccount,
    /// [`Object::Pod`].
    Pod,
    /// [`Object::Service`].
    Service,
    /// [`Object::EndpointSlice`].
    EndpointSlice,
    /// [`Object::Secret`].
    Secret,
    /// [`Object::PeerAuthentication`].
    PeerAuthentication,
    /// [`Object::Custom`].
    Custom(CustomKind),
}

impl Kind {
    /// Every kind but those of [`CustomKind::ALL`].
    pub const OWN: [Self; 7] = [
        Self::Namespace,
        Self::ServiceAccount,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::Secret,
        Self::PeerAuthentication,
    ];

    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::OWN.into_iter().chain(CustomKind::ALL.map(Self::Custom))
    }

    /// The kind as users write it, with its group where another kind has the same name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Custom(kind) => kind.full_name(),
        }
    }

    /// Do its objects live outside namespaces?
    #[must_use]
    pub fn is_cluster_scoped(self) -> bool {
        match self {
            Self::Namespace => true,
            Self::Custom(kind) => kind.is_cluster_scoped(),
            Self::ServiceAccount
            | Self::Pod
            | Self::Service
            | Self::EndpointSlice
            | Self::Secret
            | Self::PeerAuthentication => false,
        }
    }
}

/// Where changes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceId {
    /// The users' objects.
    Objects,
    /// The pod sandboxes of this node.
    Attachments,
}

impl SourceId {
    /// Every source.
    pub const ALL: [Self; 2] = [Self::Objects, Self::Attachments];
}

/// One thing that a source learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object exists and is this.
    Upsert(Box<Object>),
    /// No such object exists.
    Delete(Kind, Name),
    /// Objects of this kind exist under these names and no others.
    Only(Kind, BTreeSet<Name>),
    /// The sandbox exists and is this.
    Attach(Attachment),
    /// No such sandbox exists.
    Detach {
        /// The runtime's id of the sandbox.
        container_id: String,
        /// The interface name inside the pod.
        ifname: String,
    },
    /// The source has told everything that it knew when it started.
    Synced(SourceId),
    /// The source cannot learn what is so now, and has told everything that it knew when it last could.
    Recalled(SourceId),
    /// These, and no others, are the issues of one origin, such as a file that cannot be read.
    Faults {
        /// The origin.
        origin: String,
        /// Its issues; none clears the origin.
        issues: Vec<Issue>,
    },
}

impl Change {
    /// The kind of the objects that it is about, if it is about any.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Upsert(object) => Some(object.kind()),
            Self::Delete(kind, _) | Self::Only(kind, _) => Some(*kind),
            Self::Attach(_) | Self::Detach { .. } | Self::Synced(_) | Self::Recalled(_) | Self::Faults { .. } => None,
        }
    }
}

/// What is known of the cluster and of this node.
///
/// **Shape**: maps are keyed by name, so the order of arrival leaves no trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    namespaces: BTreeMap<Name, Arc<Namespace>>,
    service_accounts: BTreeMap<Name, Arc<ServiceAccount>>,
    pods: BTreeMap<Name, PackedPod>,
    services: BTreeMap<Name, PackedService>,
    endpoint_slices: BTreeMap<Name, PackedSlice>,
    secrets: BTreeMap<Name, Arc<Secret>>,
    peer_authentications: BTreeMap<Name, Arc<PeerAuthentication>>,
    customs: BTreeMap<CustomKind, BTreeMap<Name, Arc<Custom>>>,
    attachments: BTreeMap<(String, String), Attachment>,
    faults: BTreeMap<String, Vec<Issue>>,
    synced: BTreeSet<SourceId>,
    recalled: BTreeSet<SourceId>,
    packer: Packer,
}

impl World {
    /// Learns `change`. Returns whether anything is different now.
    pub fn apply(&mut self, change: Change) -> bool {
        !self.learn(change).is_empty()
    }

    /// Learns `change`. Returns what is different now, with what it was before.
    pub fn learn(&mut self, change: Change) -> Touched {
        match change {
            Change::Upsert(object) => self.upsert(*object),
            Change::Delete(kind, name) => self.delete(kind, &name),
            Change::Only(kind, names) => self.retain(kind, &names),
            Change::Attach(attachment) => {
                let pod = pod_of(&attachment);
                let key = (attachment.container_id.clone(), attachment.ifname.clone());
                let before = self.attachments.insert(key, attachment.clone());
                if before.as_ref() == Some(&attachment) {
                    return Touched::default();
                }
                before.iter().map(pod_of).chain([pod]).map(|pod| (Key::Sandboxes(pod), None)).collect()
            }
            Change::Detach { container_id, ifname } => {
                let gone = self.attachments.remove(&(container_id, ifname));
                gone.iter().map(|gone| (Key::Sandboxes(pod_of(gone)), None)).collect()
            }
            Change::Synced(source) => {
                self.recalled.remove(&source);
                Touched::one_if(self.synced.insert(source), Key::Sources)
            }
            Change::Recalled(source) => {
                Touched::one_if(!self.synced.contains(&source) && self.recalled.insert(source), Key::Sources)
            }
            Change::Faults { origin, mut issues } => {
                issues.sort();
                let known = self.faults.get(&origin).map_or(&[][..], Vec::as_slice) == issues;
                if issues.is_empty() {
                    self.faults.remove(&origin);
                } else {
                    self.faults.insert(origin.clone(), issues);
                }
                Touched::one_if(!known, Key::Faults(origin))
            }
        }
    }

    fn upsert(&mut self, object: Object) -> Touched {
        let (kind, name) = (object.kind(), object.metadata().full_name());
        let known = name.clone();
        let before = match object {
            Object::Namespace(object) => put_shared(&mut self.namespaces, name, object, Object::Namespace),
            Object::ServiceAccount(object) => {
                put_shared(&mut self.service_accounts, name, object, Object::ServiceAccount)
            }
            Object::Pod(object) => {
                let (name, packed) = self.packer.pod(object);
                put(&mut self.pods, name, packed, |before| Object::Pod(before.unpack(&known)))
            }
            Object::Service(object) => {
                let (name, packed) = self.packer.service(object);
                put(&mut self.services, name, packed, |before| Object::Service(before.unpack(&known)))
            }
            Object::EndpointSlice(object) => {
                let (name, packed) = self.packer.slice(object);
                put(&mut self.endpoint_slices, name, packed, |before| Object::EndpointSlice(before.unpack(&known)))
            }
            Object::Secret(object) => put_shared(&mut self.secrets, name, object, Object::Secret),
            Object::PeerAuthentication(object) => {
                put_shared(&mut self.peer_authentications, name, object, Object::PeerAuthentication)
            }
            Object::Custom(kind, object) => {
                let objects = self.customs.entry(kind).or_default();
                put_shared(objects, name, object, |before| Object::Custom(kind, before))
            }
        };
        before.map(|before| (Key::Object(kind, known), before)).into_iter().collect()
    }

    fn delete(&mut self, kind: Kind, name: &Name) -> Touched {
        let before = match kind {
            Kind::Namespace => take_shared(&mut self.namespaces, name, Object::Namespace),
            Kind::ServiceAccount => take_shared(&mut self.service_accounts, name, Object::ServiceAccount),
            Kind::Pod => self.pods.remove(name).map(|before| Object::Pod(before.unpack(name))),
            Kind::Service => self.services.remove(name).map(|before| Object::Service(before.unpack(name))),
            Kind::EndpointSlice => {
                self.endpoint_slices.remove(name).map(|before| Object::EndpointSlice(before.unpack(name)))
            }
            Kind::Secret => take_shared(&mut self.secrets, name, Object::Secret),
            Kind::PeerAuthentication => take_shared(&mut self.peer_authentications, name, Object::PeerAuthentication),
            Kind::Custom(kind) => self.take_custom(kind, name),
        };
        before.map(|before| (Key::Object(kind, name.clone()), Some(before))).into_iter().collect()
    }

    fn retain(&mut self, kind: Kind, names: &BTreeSet<Name>) -> Touched {
        let gone = match kind {
            Kind::Namespace => others(&self.namespaces, names),
            Kind::ServiceAccount => others(&self.service_accounts, names),
            Kind::Pod => others(&self.pods, names),
            Kind::Service => others(&self.services, names),
            Kind::EndpointSlice => others(&self.endpoint_slices, names),
            Kind::Secret => others(&self.secrets, names),
            Kind::PeerAuthentication => others(&self.peer_authentications, names),
            Kind::Custom(kind) => self.customs.get(&kind).map_or_else(Vec::new, |objects| others(objects, names)),
        };
        let mut touched = Touched::default();
        gone.iter().for_each(|name| touched.extend(self.delete(kind, name)));
        // What came in order, as lists do, left nodes of the map half full.
        match kind {
            Kind::Pod => fill(&mut self.pods),
            Kind::Service => fill(&mut self.services),
            Kind::EndpointSlice => fill(&mut self.endpoint_slices),
            Kind::Namespace | Kind::ServiceAccount | Kind::Secret | Kind::PeerAuthentication | Kind::Custom(_) => {}
        }
        touched
    }

    /// A key for everything that is known, as if all of it had just been learnt.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        let of = |kind: Kind| move |name: &Name| Key::Object(kind, name.clone());
        let objects = self.namespaces.keys().map(of(Kind::Namespace));
        let objects = objects.chain(self.service_accounts.keys().map(of(Kind::ServiceAccount)));
        let objects = objects.chain(self.pods.keys().map(of(Kind::Pod)));
        let objects = objects.chain(self.services.keys().map(of(Kind::Service)));
        let objects = objects.chain(self.endpoint_slices.keys().map(of(Kind::EndpointSlice)));
        let objects = objects.chain(self.secrets.keys().map(of(Kind::Secret)));
        let objects = objects.chain(self.peer_authentications.keys().map(of(Kind::PeerAuthentication)));
        let customs = self.customs.iter().flat_map(move |(kind, objects)| objects.keys().map(of(Kind::Custom(*kind))));
        let objects = objects.chain(customs);
        let sandboxes = self.attachments.values().map(|attachment| Key::Sandboxes(pod_of(attachment)));
        objects.chain(sandboxes).chain(self.faults.keys().cloned().map(Key::Faults))
    }

    /// Takes an object away. A kind without objects leaves no trace.
    fn take_custom(&mut self, kind: CustomKind, name: &Name) -> Option<Object> {
        let objects = self.customs.get_mut(&kind)?;
        let before = take_shared(objects, name, |before| Object::Custom(kind, before));
        if objects.is_empty() {
            self.customs.remove(&kind);
        }
        before
    }

    /// Has every source told everything that it knew when it started? Nothing is swept before.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        SourceId::ALL.iter().all(|source| self.synced.contains(source))
    }

    /// Is the world whole, be it as it is now or as it was when a source last knew? Nothing is published before.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        SourceId::ALL.iter().all(|source| self.synced.contains(source) || self.recalled.contains(source))
    }

    /// How many objects of a kind there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Namespace => self.namespaces.len(),
            Kind::ServiceAccount => self.service_accounts.len(),
            Kind::Pod => self.pods.len(),
            Kind::Service => self.services.len(),
            Kind::EndpointSlice => self.endpoint_slices.len(),
            Kind::Secret => self.secrets.len(),
            Kind::PeerAuthentication => self.peer_authentications.len(),
            Kind::Custom(kind) => self.customs.get(&kind).map_or(0, BTreeMap::len),
        }
    }

    /// Every namespace.
    #[must_use]
    pub fn namespaces(&self) -> &BTreeMap<Name, Arc<Namespace>> {
        &self.namespaces
    }

    /// The namespace of this name.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(&Name::new("", name))
    }

    /// Every service account.
    #[must_use]
    pub fn service_accounts(&self) -> &BTreeMap<Name, Arc<ServiceAccount>> {
        &self.service_accounts
    }

    /// A pod.
    #[must_use]
    pub fn pod(&self, name: &Name) -> Option<Pod> {
        self.pods.get(name).map(|pod| pod.unpack(name))
    }

    /// The name of every pod.
    pub fn pod_names(&self) -> impl Iterator<Item = &Name> {
        self.pods.keys()
    }

    /// Every pod, as it is at this moment: each is made when it is asked for.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = Pod> + use<> {
        let packed: Vec<_> = self.pods.iter().map(|(name, pod)| (name.clone(), pod.clone())).collect();
        packed.into_iter().map(|(name, pod)| pod.unpack(&name))
    }

    /// A service.
    #[must_use]
    pub fn service(&self, name: &Name) -> Option<Service> {
        self.services.get(name).map(|service| service.unpack(name))
    }

    /// The name of every service.
    pub fn service_names(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// Every service, as it is at this moment: each is made when it is asked for.
    pub fn services(&self) -> impl ExactSizeIterator<Item = Service> + use<> {
        let packed: Vec<_> = self.services.iter().map(|(name, it)| (name.clone(), it.clone())).collect();
        packed.into_iter().map(|(name, service)| service.unpack(&name))
    }

    /// An endpoint slice.
    #[must_use]
    pub fn endpoint_slice(&self, name: &Name) -> Option<EndpointSlice> {
        self.endpoint_slices.get(name).map(|slice| slice.unpack(name))
    }

    /// The name of every endpoint slice.
    pub fn endpoint_slice_names(&self) -> impl Iterator<Item = &Name> {
        self.endpoint_slices.keys()
    }

    /// Every endpoint slice, as it is at this moment: each is made when it is asked for.
    pub fn endpoint_slices(&self) -> impl ExactSizeIterator<Item = EndpointSlice> + use<> {
        let packed: Vec<_> = self.endpoint_slices.iter().map(|(name, it)| (name.clone(), it.clone())).collect();
        packed.into_iter().map(|(name, slice)| slice.unpack(&name))
    }

    /// Every Secret.
    #[must_use]
    pub fn secrets(&self) -> &BTreeMap<Name, Arc<Secret>> {
        &self.secrets
    }

    /// Every peer-authentication policy.
    #[must_use]
    pub fn peer_authentications(&self) -> &BTreeMap<Name, Arc<PeerAuthentication>> {
        &self.peer_authentications
    }

    /// An object of a kind that a custom definition brings.
    #[must_use]
    pub fn custom(&self, kind: CustomKind, name: &Name) -> Option<&Arc<Custom>> {
        self.customs.get(&kind)?.get(name)
    }

    /// Every object of a kind that a custom definition brings, ordered by name.
    pub fn customs(&self, kind: CustomKind) -> impl Iterator<Item = (&Name, &Arc<Custom>)> {
        self.customs.get(&kind).into_iter().flatten()
    }

    /// The pod sandboxes of this node, ordered by container id and interface.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    /// The pods of a namespace.
    pub fn pods_in<'w>(&'w self, namespace: &'w str) -> impl Iterator<Item = &'w Name> {
        let first = Name::new(namespace, "");
        self.pods.range(first..).map(|(name, _)| name).take_while(move |name| &*name.namespace == namespace)
    }

    /// What one source could not read, by its origin.
    #[must_use]
    pub fn faults_of(&self, origin: &str) -> &[Issue] {
        self.faults.get(origin).map_or(&[], Vec::as_slice)
    }

    /// What the sources could not read, ordered by origin.
    pub fn faults(&self) -> impl Iterator<Item = &Issue> {
        self.faults.values().flatten()
    }
}

/// The pod of a sandbox.
fn pod_of(attachment: &Attachment) -> Name {
    Name::new(attachment.pod_namespace.as_str(), attachment.pod_name.as_str())
}

/// The names of the objects that are not among `names`.
fn others<T>(objects: &BTreeMap<Name, T>, names: &BTreeSet<Name>) -> Vec<Name> {
    objects.keys().filter(|name| !names.contains(*name)).cloned().collect()
}

/// Returns what `name` held before, if `object` differs from it.
#[expect(clippy::option_option, reason = "no difference, and nothing before, are not the same")]
fn put<T: PartialEq>(
    objects: &mut BTreeMap<Name, T>,
    name: Name,
    object: T,
    of: impl Fn(T) -> Object,
) -> Option<Option<Object>> {
    if objects.get(&name).is_some_and(|known| *known == object) {
        return None;
    }
    Some(objects.insert(name, object).map(of))
}

/// The same for objects that others may hold too.
#[expect(clippy::option_option, reason = "no difference, and nothing before, are not the same")]
fn put_shared<T: PartialEq + Clone>(
    objects: &mut BTreeMap<Name, Arc<T>>,
    name: Name,
    object: T,
    of: impl Fn(T) -> Object,
) -> Option<Option<Object>> {
    put(objects, name, Arc::new(object), |before| of(Arc::unwrap_or_clone(before)))
}

/// Returns what `name` held before, which it no longer does.
fn take_shared<T: Clone>(
    objects: &mut BTreeMap<Name, Arc<T>>,
    name: &Name,
    of: impl Fn(T) -> Object,
) -> Option<Object> {
    objects.remove(name).map(Arc::unwrap_or_clone).map(of)
}

/// Lets the map take no more room than it must.
fn fill<T>(objects: &mut BTreeMap<Name, T>) {
    *objects = std::mem::take(objects).into_iter().collect();
}
