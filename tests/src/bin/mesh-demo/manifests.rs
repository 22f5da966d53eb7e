//! Reads the application from its manifests.
//!
//! In:  a directory of ordinary Kubernetes YAML.
//! Out: pods and services in the demo's terms; every other object as it is.
//! Invariant: what a pod needs of the kubelet here (arguments, environment, service addresses) comes from the
//! manifest; a field that is missing is named with its object.
//! Source: Kubernetes, "Define Dependent Environment Variables"; "Services", environment variables.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Everything in the manifests.
#[derive(Debug, Default)]
pub(crate) struct Application {
    pub(crate) pods: Vec<Workload>,
    pub(crate) services: Vec<Service>,
    pub(crate) others: Vec<Value>,
}

/// A pod to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) account: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Empty for a pod that only sleeps.
    pub(crate) arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A service to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) selector: BTreeMap<String, String>,
    /// What each port is called, which says what is spoken there, and its number.
    pub(crate) ports: Vec<(String, u16)>,
}

impl Workload {
    /// The container's environment: `services` are what Kubernetes adds, and what `$(NAME)` may refer to.
    pub(crate) fn environment(&self, services: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = services.clone();
        for (name, value) in &self.environment {
            let value = expand(value, &all);
            all.insert(name.clone(), value);
        }
        all
    }
}

/// Replaces `$(NAME)`; one that is not known stays as it is.
fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$(") {
        expanded.push_str(before);
        match after.split_once(')') {
            Some((name, after)) if known.contains_key(name) => {
                expanded.push_str(&known[name]);
                rest = after;
            }
            _ => {
                expanded.push_str("$(");
                rest = after;
            }
        }
    }
    expanded + rest
}

/// Reads every `.yaml` file of a directory, in the order of their names.
///
/// **Errors**: a file cannot be read, or an object lacks what the demo needs of it.
pub(crate) fn read(dir: &Path) -> Result<Application> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list the manifests in {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let mut application = Application::default();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        application.add(&text, None).with_context(|| format!("in {}", path.display()))?;
    }
    Ok(application)
}

/// Reads one file, as `kubectl apply --namespace` does: what names no namespace belongs to this one.
///
/// **Errors**: as for [`read`].
pub(crate) fn read_into(path: &Path, namespace: &str) -> Result<Application> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut application = Application::default();
    application.add(&text, Some(namespace)).with_context(|| format!("in {}", path.display()))?;
    Ok(application)
}

impl Application {
    fn add(&mut self, text: &str, namespace: Option<&str>) -> Result<()> {
        let objects: Vec<Value> = serde_saphyr::from_multiple(text).context("this is no YAML")?;
        for mut object in objects {
            if let Some(namespace) = namespace
                && object["metadata"]["namespace"].is_null()
                && object["kind"] != "GatewayClass"
            {
                object["metadata"]["namespace"] = namespace.into();
            }
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let what = || format!("{kind} {name}");
            match kind.as_str() {
                "Pod" => self.pods.push(pod(&object).with_context(what)?),
                "Service" => self.services.push(service(&object).with_context(what)?),
                _ => self.others.push(object),
            }
        }
        Ok(())
    }
}

fn pod(object: &Value) -> Result<Workload> {
    let spec = &object["spec"];
    let container = &spec["containers"][0];
    let environment = list(&container["env"])
        .map(|entry| Ok((string(&entry["name"], "env.name")?, string(&entry["value"], "env.value")?)))
        .collect::<Result<_>>()?;
    Ok(Workload {
        namespace: string(&object["metadata"]["namespace"], "metadata.namespace")?,
        name: string(&object["metadata"]["name"], "metadata.name")?,
        account: spec["serviceAccountName"].as_str().unwrap_or("default").to_owned(),
        labels: strings(&object["metadata"]["labels"]),
        arguments: list(&container["args"]).map(|word| string(word, "args")).collect::<Result<_>>()?,
        environment,
    })
}

fn service(object: &Value) -> Result<Service> {
    let ports = list(&object["spec"]["ports"])
        .map(|port| {
            let number = port["port"].as_u64().context("no ports.port")?;
            Ok((string(&port["name"], "ports.name")?, u16::try_from(number).context("ports.port")?))
        })
        .collect::<Result<_>>()?;
    Ok(Service {
        namespace: string(&object["metadata"]["namespace"], "metadata.namespace")?,
        name: string(&object["metadata"]["name"], "metadata.name")?,
        selector: strings(&object["spec"]["selector"]),
        ports,
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn string(value: &Value, field: &str) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("no {field}"))
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookinfo_is_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/bookinfo");
        let application = read(&dir).unwrap();
        let names: Vec<&str> = application.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["productpage", "details", "reviews", "ratings"]);
        assert_eq!(application.services[0].ports, [("http".to_owned(), 9080)]);
        let v2 = application.pods.iter().find(|pod| pod.name == "reviews-v2").unwrap();
        assert_eq!((v2.account.as_str(), v2.labels["version"].as_str()), ("bookinfo-reviews", "v2"));
        let services = [("RATINGS_SERVICE_HOST".to_owned(), "10.96.0.4".to_owned())].into();
        let environment = v2.environment(&services);
        assert_eq!(environment["RATINGS_HOSTNAME"], "10.96.0.4");
        assert_eq!(environment["SERVICE_VERSION"], "v2");
        let policy = application.others.iter().find(|object| object["metadata"]["name"] == "productpage");
        assert!(policy.is_some(), "{:?}", application.others);
    }

    #[test]
    fn references_are_expanded() {
        let known = [("A".to_owned(), "1".to_owned())].into();
        assert_eq!(expand("x$(A)y$(A)", &known), "x1y1");
        assert_eq!(expand("$(B) $(A) $(", &known), "$(B) 1 $(");
    }
}
