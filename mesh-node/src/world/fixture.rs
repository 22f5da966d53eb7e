//! Worlds for tests, written as users write them.
//!
//! In:  YAML documents separated by `---`, each with a `kind`, custom ones with `apiVersion`.
//! Out: a `World` that holds them.

use super::{Change, CustomKind, Object, World};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    kind: String,
    #[serde(default)]
    api_version: String,
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
        "Secret" => Object::Secret(serde_saphyr::from_str(yaml).expect(read)),
        "PeerAuthentication" => Object::PeerAuthentication(serde_saphyr::from_str(yaml).expect(read)),
        other => {
            let group = head.api_version.split('/').next().unwrap_or_default();
            let kind = CustomKind::find(group, other);
            let kind = kind.unwrap_or_else(|| panic!("no object of kind {other} of {} is read", head.api_version));
            Object::Custom(kind, serde_saphyr::from_str(yaml).expect(read))
        }
    };
    if !object.kind().is_cluster_scoped() && object.metadata().namespace.is_empty() {
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
