//! Others' own files: Istio's samples are understood, and no field of any definition is left unclassified.
//!
//! Source: `samples/bookinfo` and the custom resource definitions of Istio's module, and the Gateway API's there; the definitions in
//! Calico's module; the types of network policies in `tests/tools/fields`.

use anyhow::{Context, Result, ensure};
use mesh_node::source::file::parse_documents;
use mesh_node::translate::fields::{self, Fate};
use mesh_node::world::{CalicoStore, Change, CustomKind, World};
use mesh_node::{compile, translate};
use mesh_tests::{env, execute, tools};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The definitions in Istio's module.
const OF_ISTIO: [&str; 2] =
    ["manifests/charts/base/files/crd-all.gen.yaml", "tests/integration/pilot/testdata/gateway-api-crd.yaml"];
/// Those in Calico's, of its own store, which know of no tiers yet.
const OF_CALICO: [&str; 4] = [
    "crd.projectcalico.org_networkpolicies.yaml",
    "crd.projectcalico.org_globalnetworkpolicies.yaml",
    "crd.projectcalico.org_networksets.yaml",
    "crd.projectcalico.org_globalnetworksets.yaml",
];

/// Files by which traffic would enter.
const ENTRANCES: [&str; 2] = ["bookinfo-gateway.yaml", "certmanager-gateway.yaml"];

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The files of one folder of Bookinfo.
fn samples(folder: &str) -> Result<Vec<PathBuf>> {
    let folder = tools::istio()?.join("samples/bookinfo").join(folder);
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// Bookinfo's services and those of its versions, with what these files add.
fn world(paths: &[&Path]) -> Result<(World, Vec<String>)> {
    let platform = tools::istio()?.join("samples/bookinfo/platform/kube");
    let (base, versions) = (platform.join("bookinfo.yaml"), platform.join("bookinfo-versions.yaml"));
    let (mut world, mut refused) = (World::default(), Vec::new());
    for path in [&*base, &*versions].iter().chain(paths) {
        let (objects, issues) = parse_documents(&read(path)?);
        refused.extend(issues.iter().map(ToString::to_string));
        for mut object in objects {
            // Kubernetes gives each an address; here the name does.
            if let mesh_node::world::Object::Service(service) = &mut object {
                let sum: u8 = service.metadata.name.bytes().fold(0, |sum, byte| sum.wrapping_mul(7).wrapping_add(byte));
                service.spec.cluster_ip = format!("10.96.0.{}", sum.max(1));
            }
            world.apply(Change::Upsert(Box::new(object)));
        }
    }
    Ok((world, refused))
}

#[test]
fn every_routing_file_of_bookinfo_is_understood() -> Result<()> {
    let networking = samples("networking")?;
    let gateway_api = samples("gateway-api")?;
    ensure!(networking.len() == 21 && gateway_api.len() == 6, "{networking:?} {gateway_api:?}");
    let rules = networking.iter().find(|path| path.ends_with("destination-rule-all.yaml")).context("no rules")?;
    let names = translate::Settings::default();
    let node = compile::Settings {
        node: "one".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        root_namespace: "istio-system".to_owned(),
        ..compile::Settings::default()
    };
    let gateway_folder = gateway_api[0].parent().context("a file without a folder")?;
    let mut routed = BTreeSet::new();
    for path in networking.iter().chain(&gateway_api) {
        let file = path.file_name().context("no name")?.to_string_lossy().into_owned();
        let of_its_own = file.starts_with("destination-rule") || file.starts_with("fault-injection");
        let paths: Vec<&Path> = if of_its_own { vec![path] } else { vec![rules, path] };
        let (world, refused) = world(&paths)?;
        let snapshot = compile::Compiler::of(&world, names.clone(), node.clone()).snapshot();
        let mut issues: Vec<String> = snapshot.issues.iter().map(ToString::to_string).collect();
        issues.extend(refused);
        // What the file needs that stands in none of the folder's.
        if file == "virtual-service-ratings-mysql-vm.yaml" {
            issues.retain(|issue| !issue.contains("has a subset v2-mysql-vm"));
        }
        // The solver is for another program to make.
        if file == "certmanager-gateway.yaml" {
            issues.retain(|issue| !issue.contains("there is no Service istio-system/cert-manager-resolver"));
        }
        // The class of the Gateway API's gateway is for the administrator to make.
        if path.starts_with(gateway_folder) {
            issues.retain(|issue| !issue.contains("there is no GatewayClass istio"));
        }
        ensure!(issues.is_empty(), "{file}: {issues:#?}");
        let routes = |port: &mesh_node::snapshot::ServicePortEntry| port.routes.is_some();
        if snapshot.directory.services.values().any(|service| service.ports.iter().any(routes))
            || snapshot.directory.hosts.exact.values().flatten().any(|host| host.service.ports.iter().any(routes))
        {
            routed.insert(file);
        }
    }
    // All but the gateways and the policies alone.
    let policies = ["destination-rule-all-mtls.yaml", "destination-rule-all.yaml", "destination-rule-reviews.yaml"];
    let paths = networking.iter().chain(&gateway_api).filter_map(|path| path.file_name());
    let all: BTreeSet<String> = paths.map(|name| name.to_string_lossy().into_owned()).collect();
    let expected: BTreeSet<String> =
        all.into_iter().filter(|name| !ENTRANCES.contains(&&**name) && !policies.contains(&&**name)).collect();
    ensure!(routed == expected, "routed {routed:#?}, expected {expected:#?}");
    Ok(())
}

#[test]
fn the_envoy_filter_is_refused_by_name() -> Result<()> {
    let files = samples("policy")?;
    let (objects, issues) = parse_documents(&read(files.first().context("no file")?)?);
    ensure!(objects.is_empty(), "{objects:?}");
    ensure!(issues.len() == 2, "{issues:?}");
    ensure!(issues.iter().all(|issue| issue.object.kind == "EnvoyFilter"), "{issues:?}");
    Ok(())
}

/// The paths of fields that hold values, as in `spec.http[].match[].uri.exact`.
fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            leaves(schema, &format!("{path}.{name}"), found);
        }
    } else if schema["additionalProperties"].is_object() {
        leaves(&schema["additionalProperties"], &format!("{path}.*"), found);
    } else if schema["items"].is_object() {
        leaves(&schema["items"], &format!("{path}[]"), found);
    } else {
        found.insert(path.to_owned());
    }
}

/// The fields of each kind as its definition has them, in all versions that are read.
fn definitions() -> Result<BTreeMap<CustomKind, BTreeSet<String>>> {
    let (istio, calico) = (tools::istio()?, tools::calico()?.join("libcalico-go/config/crd"));
    let paths = OF_ISTIO.map(|path| istio.join(path)).into_iter().chain(OF_CALICO.map(|path| calico.join(path)));
    let mut found: BTreeMap<CustomKind, BTreeSet<String>> = BTreeMap::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for document in text.split("\n---").filter(|document| document.contains("kind: CustomResourceDefinition")) {
            let definition: Value = serde_saphyr::from_str(document).with_context(|| path.display().to_string())?;
            let spec = &definition["spec"];
            let (group, name) = (&spec["group"], &spec["names"]["kind"]);
            let kind = CustomKind::find(group.as_str().unwrap_or_default(), name.as_str().unwrap_or_default());
            let Some(kind) = kind else { continue };
            ensure!(spec["names"]["plural"] == kind.plural(), "{kind:?} is {}", spec["names"]["plural"]);
            for version in spec["versions"].as_array().context("no versions")? {
                let name = version["name"].as_str().context("a version without a name")?;
                ensure!(
                    kind.versions().contains(&name) || version["served"] == false,
                    "{kind:?} of {name} is not read"
                );
                let schema = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
                leaves(schema, "spec", found.entry(kind).or_default());
            }
        }
    }
    Ok(found)
}

/// Does `path` lie in the field `of`, or is it that field?
fn is_within(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The fields of network policies as their types in Go have them.
fn types() -> Result<BTreeMap<CustomKind, BTreeSet<String>>> {
    let said = execute(&mut Command::new(env::tool("policy-fields")?), Duration::from_secs(60))?.success()?;
    let fields: BTreeMap<String, BTreeSet<String>> = serde_json::from_str(&said)?;
    let of_kind = |(full_name, fields): (String, BTreeSet<String>)| {
        let (name, group) = full_name.split_once('.').context("a kind without a group")?;
        Ok((CustomKind::find(group, name).with_context(|| format!("{full_name} is not read"))?, fields))
    };
    fields.into_iter().map(of_kind).collect()
}

#[test]
fn each_field_of_the_definitions_is_enforced_reported_or_refused() -> Result<()> {
    let mut definitions = definitions()?;
    for (kind, fields) in types()? {
        // What is stored has the same fields.
        if let CustomKind::Calico(kind, _) = kind {
            definitions.entry(CustomKind::Calico(kind, CalicoStore::Crd)).or_default().extend(fields.iter().cloned());
        }
        definitions.entry(kind).or_default().extend(fields);
    }
    ensure!(definitions.len() == CustomKind::ALL.len(), "{:?} are defined", definitions.keys());
    let (mut unknown, mut invented) = (Vec::new(), Vec::new());
    for (kind, defined) in definitions {
        let fates = fields::of(kind);
        for path in &defined {
            let is_read = fates.iter().any(|(of, fate)| {
                of == path || (is_within(path, of) && matches!(fate, Fate::Reported(_) | Fate::Refused(_)))
            });
            if !is_read {
                unknown.push(format!("{kind:?} {path}"));
            }
        }
        for of in fates.keys() {
            if !defined.iter().any(|path| is_within(path, of)) {
                invented.push(format!("{kind:?} {of}"));
            }
        }
    }
    ensure!(unknown.is_empty(), "no reader knows of {unknown:#?}");
    ensure!(invented.is_empty(), "no definition has {invented:#?}");
    Ok(())
}
