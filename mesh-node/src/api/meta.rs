//! What every object has: names, labels, owners, and how absence is read.
//!
//! Out: [`ObjectMeta`].
//! Invariant: annotations that nobody reads are not kept, for there are many pods.
//! Source: Kubernetes `meta/v1.ObjectMeta`.

use super::announcement::ANNOUNCEMENT;
use super::custom::CalicoObject;
use crate::model::{Labels, Name, Text};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The annotations that are kept are those that start with one of these: Calico's, what nodes announce, and by what Istio's policies
/// are tried.
const KEPT_ANNOTATIONS: [&str; 4] =
    ["cni.projectcalico.org/", CalicoObject::METADATA, ANNOUNCEMENT, "istio.io/dry-run"];

/// Names, labels and owners of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeta {
    /// The name.
    #[serde(default, deserialize_with = "text")]
    pub name: Text,
    /// The namespace; empty for cluster-scoped objects.
    #[serde(default, deserialize_with = "text")]
    pub namespace: Text,
    /// Tells the object from its successor of the same name; empty if it came from no API server.
    #[serde(default, deserialize_with = "nullable")]
    pub uid: String,
    /// When it was created, `2026-01-31T12:00:00Z`: such texts sort by age. Empty if it came from no API server.
    #[serde(default, deserialize_with = "utc")]
    pub creation_timestamp: Text,
    /// Its labels.
    #[serde(default, deserialize_with = "shared_labels")]
    pub labels: Arc<Labels>,
    /// The annotations that are read: Calico's, and what the pod's node announces.
    #[serde(default, deserialize_with = "kept_annotations")]
    pub annotations: BTreeMap<String, String>,
    /// What created it.
    #[serde(default, deserialize_with = "nullable")]
    pub owner_references: Vec<OwnerReference>,
}

impl ObjectMeta {
    /// Namespace and name.
    #[must_use]
    pub fn full_name(&self) -> Name {
        Name::new(self.namespace.clone(), self.name.clone())
    }
}

/// A reference to what created an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnerReference {
    /// The owner's kind.
    #[serde(default)]
    pub kind: String,
    /// The owner's name.
    #[serde(default)]
    pub name: String,
    /// Does the owner manage the object?
    #[serde(default, deserialize_with = "nullable")]
    pub controller: bool,
}

/// Reads `null` as the default.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
    nullable::<D, String>(deserializer).map(Into::into)
}

fn shared_labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Labels>, D::Error> {
    nullable::<D, Labels>(deserializer).map(Into::into)
}

fn utc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
    let text = text(deserializer)?;
    if text.is_empty() || is_utc(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(format_args!("`{text}` is no time of the form 2026-01-31T12:00:00Z")))
    }
}

fn is_utc(text: &str) -> bool {
    const FORM: &[u8] = b"dddd-dd-ddTdd:dd:ddZ";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, &form)| if form == b'd' { byte.is_ascii_digit() } else { byte == form })
}

fn kept_annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Kept;

    impl<'de> Visitor<'de> for Kept {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("annotations")
        }

        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_map(self)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut kept = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, Option<String>>()? {
                if KEPT_ANNOTATIONS.iter().any(|kept| key.starts_with(kept)) {
                    kept.insert(key, value.unwrap_or_default());
                }
            }
            Ok(kept)
        }
    }

    deserializer.deserialize_option(Kept)
}
