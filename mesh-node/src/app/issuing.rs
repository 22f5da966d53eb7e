//! Who issues this node's certificates.
//!
//! In:  the settings, and a client when the node is of a cluster.
//! Out: the keyring; in a cluster also the signer, which leads when it is elected.

use super::AppError;
use crate::config::{IssuerChoice, Run};
use crate::identity::signer::{self, Signer};
use crate::identity::{self, Clock, ClusterIssuer, Keyring, Way};
use crate::telemetry::Metrics;
use kube::Client;
use std::sync::Arc;

/// What issues certificates here.
pub(super) struct Issuing {
    pub(super) keyring: Keyring,
    signer: Option<Signer>,
}

impl Issuing {
    pub(super) fn start(run: &Run, client: Option<Client>, metrics: &Metrics) -> Result<Self, AppError> {
        let config = config(run);
        let way = match run.issuing.issuer {
            IssuerChoice::Auto => Way::Auto,
            IssuerChoice::PodCertificate => Way::PodCertificate,
            IssuerChoice::Csr => Way::Csr,
            IssuerChoice::Embedded => {
                return Ok(Self { keyring: Keyring::start(config, metrics)?, signer: None });
            }
        };
        let Some(client) = client else {
            if way == Way::Auto {
                return Ok(Self { keyring: Keyring::start(config, metrics)?, signer: None });
            }
            return Err(AppError::IssuerNeedsCluster);
        };
        let config = config.for_cluster()?;
        let (namespace, node) = (run.cluster.namespace.as_str(), run.node_name.as_str());
        let issuer = ClusterIssuer::new(client.clone(), namespace, node, config.trust_domain.clone(), way);
        let keyring = Keyring::start_with(&config, Arc::new(issuer), Clock::system(), metrics)?;
        let signer = run.issuing.sign.then(|| {
            let settings = signer::Settings {
                namespace: namespace.to_owned(),
                service_account: run.issuing.service_account.clone(),
                node: node.to_owned(),
                trust_domain: config.trust_domain.clone(),
                root_ttl: config.root_ttl,
                overlap: config.root_overlap,
            };
            Signer::start(client, settings, Clock::system(), metrics)
        });
        Ok(Self { keyring, signer })
    }

    /// Lets another daemon sign. Certificates in use stay in use.
    pub(super) async fn resign(self) {
        if let Some(signer) = self.signer {
            signer.resign().await;
        }
    }
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
