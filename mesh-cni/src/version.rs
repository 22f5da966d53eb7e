//! VERSION: which versions of the specification are spoken.
//!
//! In:  an object with `cniVersion`, or nothing.
//! Out: the same `cniVersion`, the newest if there is none, and the list.
//! Source: CNI 1.1.0, section 5, "Version".

use crate::config::Version;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    cni_version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Supported<'a> {
    cni_version: &'a str,
    supported_versions: [&'static str; 4],
}

pub(crate) fn supported(stdin: &[u8]) -> String {
    let asked =
        serde_json::from_slice(stdin).ok().map(|asked: Asked| asked.cni_version).filter(|text| !text.is_empty());
    let supported = Supported {
        cni_version: asked.as_deref().unwrap_or(Version::NEWEST.as_str()),
        supported_versions: Version::ALL.map(Version::as_str),
    };
    serde_json::to_string(&supported).unwrap_or_default()
}
