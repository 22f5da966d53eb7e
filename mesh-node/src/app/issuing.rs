//! Who issues this node's certificates.
//!
//! In:  the settings, and a client when the node is of a cluster.
//! Out: the keyring.

use super::AppError;
use crate::config::{IssuerChoice, Run};
use crate::identity::{self, Clock, ClusterIssuer, Keyring, Way};
use crate::telemetry::Metrics;
use kube::Client;
use std::sync::Arc;

/// The keyring, over the issuer that the settings name.
pub(super) fn start(run: &Run, client: Option<Client>, metrics: &Metrics) -> Result<Keyring, AppError> {
    let config = config(run);
    let way = match run.issuing.issuer {
        IssuerChoice::Auto => Way::Auto,
        IssuerChoice::PodCertificate => Way::PodCertificate,
        IssuerChoice::Csr => Way::Csr,
        IssuerChoice::Embedded => {
            return Ok(Keyring::start(config, metrics)?);
        }
    };
    let Some(client) = client else {
        if way == Way::Auto {
            return Ok(Keyring::start(config, metrics)?);
        }
        return Err(AppError::IssuerNeedsCluster);
    };
    let config = config.for_cluster()?;
    let (namespace, node) = (run.cluster.namespace.as_str(), run.node_name.as_str());
    let issuer = ClusterIssuer::new(client, namespace, node, config.trust_domain.clone(), way);
    let keyring = Keyring::start_with(&config, Arc::new(issuer), Clock::system(), metrics)?;
    Ok(keyring)
}

fn config(run: &Run) -> identity::Config {
    let trust_domain = run.ca.trust_domain.as_str().into();
    identity::Config {
        svid_ttl: run.svid_ttl,
        root_ttl: run.ca.root_ttl,
        root_overlap: run.root_overlap,
        reread: run.root_reread,
        ..identity::Config::new(run.ca.ca_dir.clone(), run.state_dir.join("identity"), trust_domain)
    }
}
