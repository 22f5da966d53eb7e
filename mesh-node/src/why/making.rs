//! What controllers would make of a tree of objects, where nothing runs.
//!
//! In:  a world; the plans of its controllers.
//! Out: the world with a pod of each template, an address of each service, and the endpoints that follow; [`Made`].
//! Invariant: what is there is left alone: no pod is made of a plan that has one, no endpoints of a service that has some.
//! Invariant: addresses that are made up are of ranges that nobody uses.
//! Source: Kubernetes, the controllers of workloads and of endpoint slices; RFC 2544 for the range of addresses.

use super::{Noun, Place};
use crate::api::apps::{Exposure, Maker, Plan, PodPlan};
use crate::api::core::{Pod, PodIp, PodStatus, PortOrName, Service};
use crate::api::discovery::{Conditions, Endpoint, EndpointPort, EndpointSlice, SERVICE_NAME_LABEL};
use crate::api::meta::{ObjectMeta, OwnerReference};
use crate::model::{Labels, Name};
use crate::translate;
use crate::world::{Change, Object, World};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// What to say where addresses are made up.
pub(super) const REMARK: &str = "nothing runs there: pods are made of templates, with addresses of 198.18.0.0/15. Rules that ask for \
                                 addresses may say something else of those that pods get";

/// The pods that were made, with what they were made of.
#[derive(Debug, Default)]
pub(super) struct Made {
    pods: BTreeMap<Name, (Maker, Name)>,
    addresses: u32,
}

impl Made {
    /// Fills a world. If it is a plan that asks, it gets one more pod that asks, which no service has: so it is not asked about itself.
    pub(super) fn fill(world: &mut World, plans: &[Plan], source: &Place) -> Self {
        let mut made = Self::default();
        if plans.is_empty() {
            return made;
        }
        let (mut of_pods, mut of_services): (BTreeMap<_, _>, BTreeMap<_, _>) = Default::default();
        for plan in plans {
            match plan {
                Plan::Pods(maker, plan) => {
                    of_pods.entry((*maker, plan.metadata.full_name())).or_insert(&**plan);
                }
                Plan::Endpoints(exposure) => {
                    of_services.entry(exposure.metadata.full_name()).or_insert(exposure);
                }
            }
        }
        // What another made is told by that one's plan.
        of_pods.retain(|(maker, name), plan| {
            plan.metadata.owner_references.is_empty() && pods_of(world, *maker, name).is_empty()
        });
        for (of, plan) in &of_pods {
            made.make_pod(world, of, plan);
        }
        let served = served(world);
        for (name, exposure) in of_services {
            let Some(service) = world.service(&name).filter(|service| service.spec.kind != "ExternalName") else {
                continue;
            };
            made.give_address(world, &service);
            if !served.contains(&name) && !service.spec.selector.is_empty() {
                make_endpoints(world, &service, exposure);
            }
        }
        if let Place::Kind(Noun::Maker(maker), name) = source {
            let of = (*maker, name.clone());
            of_pods.get(&of).into_iter().for_each(|plan| made.make_pod(world, &of, plan));
        }
        made
    }

    /// What a pod was made of.
    pub(super) fn of(&self, pod: &Name) -> Option<&(Maker, Name)> {
        self.pods.get(pod)
    }

    fn address(&mut self) -> Ipv4Addr {
        const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
        const MANY: u32 = 1 << 17;
        self.addresses = (self.addresses + 1) % MANY;
        Ipv4Addr::from(u32::from(FIRST) | self.addresses)
    }

    fn make_pod(&mut self, world: &mut World, (maker, of): &(Maker, Name), plan: &PodPlan) {
        let Some(template) = plan.template() else { return };
        let mut names = (0_u32..).map(|number| Name::new(of.namespace.clone(), format!("{}-{number}", of.name)));
        let Some(name) = names.find(|name| world.pod(name).is_none()) else { return };
        let address = self.address().to_string();
        let pod = Pod {
            metadata: ObjectMeta {
                name: name.name.clone(),
                namespace: name.namespace.clone(),
                owner_references: vec![OwnerReference {
                    kind: maker.name().to_owned(),
                    name: plan.metadata.name.to_string(),
                    controller: true,
                }],
                uid: String::new(),
                ..template.metadata.clone()
            },
            spec: template.spec.clone(),
            status: PodStatus {
                phase: "Running".to_owned(),
                pod_ip: address.clone(),
                pod_ips: vec![PodIp { ip: address }],
            },
        };
        world.apply(Change::Upsert(Box::new(Object::Pod(pod))));
        self.pods.insert(name, (*maker, of.clone()));
    }

    /// A service that waits for its address gets one.
    fn give_address(&mut self, world: &mut World, service: &Service) {
        let spec = &service.spec;
        if !spec.cluster_ip.is_empty() || !spec.cluster_ips.is_empty() {
            return;
        }
        let mut given = service.clone();
        let address = self.address().to_string();
        given.spec.cluster_ips = vec![address.clone()];
        given.spec.cluster_ip = address;
        world.apply(Change::Upsert(Box::new(Object::Service(given))));
    }
}

/// The pods that a controller made, that have an address and have not ended, by name.
pub(super) fn pods_of(world: &World, maker: Maker, name: &Name) -> Vec<Name> {
    let is_made = |pod: &Pod| translate::makers(pod).contains(&(maker.name(), &*name.name));
    let runs = |pod: &Pod| {
        let has_address = !pod.status.pod_ip.is_empty() || !pod.status.pod_ips.is_empty();
        has_address && !matches!(&*pod.status.phase, "Succeeded" | "Failed")
    };
    let names = world.pods_in(&name.namespace);
    names.filter(|name| world.pod(name).is_some_and(|pod| is_made(&pod) && runs(&pod))).cloned().collect()
}

/// The services that have slices.
fn served(world: &World) -> BTreeSet<Name> {
    let service = |slice: EndpointSlice| {
        let of = slice.metadata.labels.get(SERVICE_NAME_LABEL)?;
        Some(Name::new(slice.metadata.namespace.clone(), of.as_str()))
    };
    world.endpoint_slices().filter_map(service).collect()
}

/// The slices that the pods which a service selects make: one of each pod and address.
fn make_endpoints(world: &mut World, service: &Service, exposure: &Exposure) {
    let name = service.metadata.full_name();
    let is_selected =
        |pod: &Pod| service.spec.selector.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value));
    let pods: Vec<Pod> =
        world.pods_in(&name.namespace).filter_map(|name| world.pod(name)).filter(is_selected).collect();
    for pod in pods {
        let ips = pod.status.pod_ips.iter().map(|own| &own.ip).chain([&pod.status.pod_ip]);
        let addresses: BTreeSet<IpAddr> = ips.filter_map(|text| text.parse().ok()).collect();
        for address in addresses {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let slice = EndpointSlice {
                metadata: ObjectMeta {
                    name: format!("{}-{}-{}", name.name, pod.metadata.name, family.to_ascii_lowercase()).into(),
                    namespace: name.namespace.clone(),
                    labels: Labels::from([(SERVICE_NAME_LABEL.to_owned(), name.name.to_string())]).into(),
                    ..ObjectMeta::default()
                },
                address_type: family.to_owned(),
                ports: ports(exposure, &pod),
                endpoints: vec![Endpoint {
                    addresses: vec![address.to_string()],
                    conditions: Conditions { ready: Some(true), serving: Some(true), terminating: Some(false) },
                    node_name: pod.spec.node_name.clone(),
                    zone: None,
                }],
            };
            world.apply(Change::Upsert(Box::new(Object::EndpointSlice(slice))));
        }
    }
}

/// The ports of a pod to which a service's lead; one that leads to a name which the pod does not have leads nowhere.
fn ports(exposure: &Exposure, pod: &Pod) -> Vec<EndpointPort> {
    let declared = || pod.spec.containers.iter().flat_map(|container| &container.ports);
    let leads = |port: &Option<PortOrName>| match port {
        Some(PortOrName::Port(port)) if *port != 0 => Some(*port),
        Some(PortOrName::Name(name)) => {
            declared().find(|declared| declared.name == *name).map(|declared| declared.container_port)
        }
        Some(PortOrName::Port(_)) | None => None,
    };
    let ports = exposure.spec.ports.iter().filter_map(|port| {
        let to = leads(&port.target_port.clone().or(Some(PortOrName::Port(port.port))))?;
        Some(EndpointPort { name: port.name.clone(), port: Some(to), protocol: port.protocol.clone() })
    });
    ports.collect()
}
