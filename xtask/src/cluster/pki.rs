//! Who the components are: keys, certificates and kubeconfigs.
//!
//! In:  the names and addresses of the machines.
//! Out: files in the cluster's `pki` directory.
//! Source: Kubernetes, "PKI certificates and requirements"; "Using Node Authorization" for the names of kubelets.

use super::layout::{API, API_SERVICE, CONTROL_ADDRESS, Layout, NODES};
use crate::run;
use anyhow::{Context, Result};
use serde_json::json;
use std::process::Command;

/// The group of Calico's parts, to which `calico.yaml` gives rights.
pub(super) const CALICO_GROUP: &str = "calico:nodes";

/// Makes every file.
///
/// **Errors**: openssl failed, or the directory cannot be written.
pub(super) fn make(layout: &Layout) -> Result<()> {
    let pki = Pki { layout };
    std::fs::create_dir_all(layout.pki("")).context("cannot create the cluster's directory of keys")?;
    pki.authority("ca")?;
    pki.authority("front-proxy-ca")?;
    pki.openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "service-accounts.key"])?;
    pki.openssl(&["pkey", "-in", "service-accounts.key", "-pubout", "-out", "service-accounts.pub"])?;
    let names = format!(
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,\
         IP:{API_SERVICE},IP:{CONTROL_ADDRESS}"
    );
    pki.certificate("api-server", "ca", "/CN=kube-apiserver", &names)?;
    pki.certificate("front-proxy", "front-proxy-ca", "/CN=front-proxy-client", "")?;
    pki.certificate("api-to-kubelet", "ca", "/O=system:masters/CN=kube-apiserver-kubelet-client", "")?;
    pki.client("admin", "/O=system:masters/CN=admin")?;
    pki.client("controllers", "/CN=system:kube-controller-manager")?;
    pki.client("scheduler", "/CN=system:kube-scheduler")?;
    pki.client("proxy", "/CN=system:kube-proxy")?;
    pki.client("calico", &format!("/O={CALICO_GROUP}/CN=calico-node"))?;
    for node in NODES {
        let subject = format!("/O=system:nodes/CN=system:node:{}", node.name);
        pki.certificate(node.name, "ca", &subject, &format!("DNS:{},IP:{}", node.name, node.address))?;
        pki.kubeconfig(node.name)?;
    }
    Ok(())
}

struct Pki<'layout> {
    layout: &'layout Layout,
}

impl Pki<'_> {
    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        run::output(Command::new("openssl").args(arguments).current_dir(self.layout.pki(""))).map(drop)
    }

    /// Makes `name.key` and `name.crt`, which others are signed with.
    fn authority(&self, name: &str) -> Result<()> {
        self.sign(name, &format!("/CN={name}"), &["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
    }

    /// Makes `name.key`, and `name.crt` for both sides of a connection.
    fn certificate(&self, name: &str, authority: &str, subject: &str, names: &str) -> Result<()> {
        let (certificate, key) = (format!("{authority}.crt"), format!("{authority}.key"));
        let names = format!("subjectAltName={names}");
        let mut options = vec![
            "-CA",
            &certificate,
            "-CAkey",
            &key,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-addext",
            "keyUsage=critical,digitalSignature",
            "-addext",
            "extendedKeyUsage=serverAuth,clientAuth",
        ];
        if names != "subjectAltName=" {
            options.extend(["-addext", &names]);
        }
        self.sign(name, subject, &options)
    }

    fn sign(&self, name: &str, subject: &str, options: &[&str]) -> Result<()> {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let mut arguments = vec![
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-noenc",
            "-days",
            "365",
            "-subj",
            subject,
            "-keyout",
            &key,
            "-out",
            &certificate,
        ];
        arguments.extend(options);
        self.openssl(&arguments)
    }

    /// A certificate, and a kubeconfig with it.
    fn client(&self, name: &str, subject: &str) -> Result<()> {
        self.certificate(name, "ca", subject, "")?;
        self.kubeconfig(name)
    }

    fn kubeconfig(&self, name: &str) -> Result<()> {
        let file = |ending: &str| self.layout.pki(&format!("{name}.{ending}"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
            "clusters": [{"name": "cluster", "cluster": {"server": API, "certificate-authority": self.layout.pki("ca.crt")}}],
            "users": [{"name": name, "user": {"client-certificate": file("crt"), "client-key": file("key")}}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": name}}],
        });
        let path = file("kubeconfig");
        std::fs::write(&path, format!("{config:#}\n")).with_context(|| format!("cannot write {}", path.display()))
    }
}
