//! Worlds for tests, written as users write them.
//!
//! In:  YAML documents separated by `---`, each with a `kind`.
//! Out: a `World` that holds them.

use super::{Change, Kind, Object, World};
use serde::Deserialize;

#[derive(Deserialize)]
struct Head {
    kind: String,
}

/// The object that a document describes.
pub(crate) fn object(yaml: &str) -> Object {
    let read = "the fixture is valid YAML of a known kind";
    let head: Head = serde_saphyr::from_str(yaml).expect(read);
    let mut object = match head.kind.as_str() {
        "Namespace" => Object::Namespace(serde_saphyr::from_str(yaml).expect(read)),
        "ServiceAccount" => Object::ServiceAccount(serde_saphyr::from_str(yaml).expect(read)),
        "Pod" => Object::Pod(serde_saphyr::from_str(yaml).expect(read)),
        "Service" => Object::Service(serde_saphyr::from_str(yaml).expect(read)),
        "EndpointSlice" => Object::EndpointSlice(serde_saphyr::from_str(yaml).expect(read)),
        "PeerAuthentication" => Object::PeerAuthentication(serde_saphyr::from_str(yaml).expect(read)),
        other => panic!("no object of kind {other} is read"),
    };
    if object.kind() != Kind::Namespace && object.metadata().namespace.is_empty() {
        object.metadata_mut().namespace = "default".into();
    }
    object
}

/// The world that holds these documents.
pub(crate) fn world(yaml: &str) -> World {
    let mut world = World::default();
    for document in yaml.split("---\n").filter(|document| !document.trim().is_empty()) {
        world.apply(Change::Upsert(Box::new(object(document))));
    }
    world
}
