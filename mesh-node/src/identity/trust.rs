//! The roots of a cluster, as the signer publishes them and every daemon follows them.
//!
//! In:  a ClusterTrustBundle, or a ConfigMap where those are not served.
//! Out: the latest [`Bundle`]; for the signer, since when each root has been known.
//! Invariant: roots that were read stay in force while the API is away, and when the object is deleted.
//! Source: Kubernetes KEP-3257, `certificates.k8s.io/v1.ClusterTrustBundle`.

use super::api::{ApiError, Served, failed};
use super::names::{ROOTS_CONFIG_MAP, ROOTS_KEY, SIGNER, SINCE_ANNOTATION, TRUST_BUNDLE};
use super::svid::{certificate_section, encode};
use super::{Bundle, explain};
use crate::model::TrustDomain;
use crate::telemetry;
use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use futures_util::StreamExt;
use k8s_openapi::api::certificates::v1::{ClusterTrustBundle, ClusterTrustBundleSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

/// An object that carries roots.
pub(super) trait Carrier:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Its name.
    const NAME: &str;
    /// How errors name it.
    const KIND: &str;

    fn api(client: Client, namespace: &str) -> Api<Self>;
    fn new(metadata: ObjectMeta, pem: String) -> Self;
    fn pem(&self) -> &str;
}

impl Carrier for ClusterTrustBundle {
    const NAME: &str = TRUST_BUNDLE;
    const KIND: &str = "the ClusterTrustBundle mesh.internal:svid:roots";

    fn api(client: Client, _namespace: &str) -> Api<Self> {
        Api::all(client)
    }

    fn new(metadata: ObjectMeta, trust_bundle: String) -> Self {
        Self { metadata, spec: ClusterTrustBundleSpec { signer_name: Some(SIGNER.to_owned()), trust_bundle } }
    }

    fn pem(&self) -> &str {
        &self.spec.trust_bundle
    }
}

impl Carrier for ConfigMap {
    const NAME: &str = ROOTS_CONFIG_MAP;
    const KIND: &str = "the ConfigMap mesh-roots";

    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }

    fn new(metadata: ObjectMeta, pem: String) -> Self {
        Self { metadata, data: Some([(ROOTS_KEY.to_owned(), pem)].into()), ..Self::default() }
    }

    fn pem(&self) -> &str {
        self.data.as_ref().and_then(|data| data.get(ROOTS_KEY)).map_or("", String::as_str)
    }
}

/// Follows the published roots until it is dropped.
pub(super) struct Trust {
    latest: Arc<ArcSwapOption<Bundle>>,
    kind: &'static str,
    task: JoinHandle<()>,
}

impl Drop for Trust {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Trust {
    pub(super) fn follow(client: &Client, namespace: &str, trust_domain: &TrustDomain, served: Served) -> Self {
        let (client, namespace, trust_domain) = (client.clone(), namespace.to_owned(), trust_domain.clone());
        let latest = Arc::<ArcSwapOption<Bundle>>::default();
        let into = Arc::clone(&latest);
        let (kind, task) = if served.cluster_trust_bundles {
            let following = follow::<ClusterTrustBundle>(client, namespace, trust_domain, into);
            (ClusterTrustBundle::KIND, telemetry::spawn("identity_trust", following))
        } else {
            let following = follow::<ConfigMap>(client, namespace, trust_domain, into);
            (ConfigMap::KIND, telemetry::spawn("identity_trust", following))
        };
        Self { latest, kind, task }
    }

    /// The roots read last.
    pub(super) fn bundle(&self) -> Result<Bundle, ApiError> {
        self.latest.load().as_deref().cloned().ok_or(ApiError::NoRoots { object: self.kind })
    }
}

async fn follow<K: Carrier>(
    client: Client,
    namespace: String,
    trust_domain: TrustDomain,
    latest: Arc<ArcSwapOption<Bundle>>,
) {
    let only = watcher::Config::default().fields(&format!("metadata.name={}", K::NAME));
    let mut events = pin!(watcher(K::api(client, &namespace), only).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                match parse(K::KIND, object.pem()).and_then(|roots| {
                    Bundle::new(trust_domain.clone(), &roots).map_err(|error| malformed(K::KIND, explain(&error)))
                }) {
                    Ok(bundle) => latest.store(Some(Arc::new(bundle))),
                    Err(error) => tracing::error!(error = explain(&error), "the last roots stay in force"),
                }
            }
            Ok(watcher::Event::Delete(_)) => {
                tracing::warn!(object = K::KIND, "it was deleted; the last roots stay in force");
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::warn!(object = K::KIND, error = explain(&error), "it cannot be watched"),
        }
    }
}

fn malformed(object: &str, reason: String) -> ApiError {
    ApiError::Malformed { object: object.to_owned(), reason }
}

/// The certificates of a text in PEM.
pub(super) fn parse(object: &str, text: &str) -> Result<Vec<CertificateDer<'static>>, ApiError> {
    let sections = pem::parse_many(text).map_err(|error| malformed(object, explain(&error)))?;
    if let Some(other) = sections.iter().find(|section| section.tag() != "CERTIFICATE") {
        return Err(malformed(object, format!("it holds a {}", other.tag())));
    }
    if sections.is_empty() {
        return Err(malformed(object, "it holds none".to_owned()));
    }
    Ok(sections.into_iter().map(|section| CertificateDer::from(section.into_contents())).collect())
}

/// What is published, as the signer reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// The roots, as they stand there.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// Since when each has been there, by fingerprint.
    pub(super) since: BTreeMap<String, SystemTime>,
}

/// What tells one root from every other.
pub(super) fn fingerprint(root: &CertificateDer<'_>) -> String {
    digest(&SHA256, root).as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The object that carries the roots, for the signer, which alone writes it.
pub(super) struct Board {
    client: Client,
    namespace: String,
    served: Served,
}

impl Board {
    pub(super) fn new(client: Client, namespace: String, served: Served) -> Self {
        Self { client, namespace, served }
    }

    /// What is published; `None` when nothing is.
    pub(super) async fn read(&self) -> Result<Option<Published>, ApiError> {
        if self.served.cluster_trust_bundles {
            self.read_as::<ClusterTrustBundle>().await
        } else {
            self.read_as::<ConfigMap>().await
        }
    }

    /// Publishes roots, and since when each has been known.
    ///
    /// **Errors**: also when another writes at the same time; then read and try again.
    pub(super) async fn write(&self, published: &Published) -> Result<(), ApiError> {
        if self.served.cluster_trust_bundles {
            self.write_as::<ClusterTrustBundle>(published).await
        } else {
            self.write_as::<ConfigMap>(published).await
        }
    }

    async fn read_as<K: Carrier>(&self) -> Result<Option<Published>, ApiError> {
        let api = K::api(self.client.clone(), &self.namespace);
        let found = api.get_opt(K::NAME).await.map_err(failed(format!("read {}", K::KIND)))?;
        Ok(found.map(|object| {
            // What cannot be read is written anew.
            let roots = parse(K::KIND, object.pem()).unwrap_or_default();
            let since = object.meta().annotations.as_ref().and_then(|annotations| annotations.get(SINCE_ANNOTATION));
            let since: BTreeMap<String, u64> =
                since.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            let since = since.into_iter().filter_map(|(root, seconds)| Some((root, time(seconds)?))).collect();
            Published { roots, since }
        }))
    }

    async fn write_as<K: Carrier>(&self, published: &Published) -> Result<(), ApiError> {
        let api = K::api(self.client.clone(), &self.namespace);
        let sections: Vec<_> = published.roots.iter().map(certificate_section).collect();
        let seconds = |time: &SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let since: BTreeMap<_, _> = published.since.iter().map(|(root, time)| (root, seconds(time))).collect();
        // A map of strings and numbers is JSON always.
        let since = serde_json::to_string(&since).unwrap_or_default();
        let found = api.get_opt(K::NAME).await.map_err(failed(format!("read {}", K::KIND)))?;
        let mut metadata = found.map_or_else(
            || ObjectMeta { name: Some(K::NAME.to_owned()), ..ObjectMeta::default() },
            |object| object.meta().clone(),
        );
        metadata.annotations.get_or_insert_default().insert(SINCE_ANNOTATION.to_owned(), since);
        let exists = metadata.resource_version.is_some();
        let object = K::new(metadata, encode(&sections));
        let params = PostParams::default();
        let written =
            if exists { api.replace(K::NAME, &params, &object).await } else { api.create(&params, &object).await };
        written.map(|_| ()).map_err(failed(format!("publish {}", K::KIND)))
    }
}
