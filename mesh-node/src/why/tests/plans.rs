//! Manifests of which nothing runs yet.

use super::*;
use crate::api::apps::Plan;
use crate::source::file;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: shop, name: a}
spec:
  replicas: 2
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {serviceAccountName: a, containers: [{name: main, image: none}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: shop, name: b}
spec:
  selector: {matchLabels: {app: b}}
  template:
    metadata: {labels: {app: b}}
    spec: {containers: [{name: main, image: none, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: b}
spec: {selector: {app: b}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: readers}
spec:
  selector: {matchLabels: {app: b}}
  rules:
    - from: [{source: {principals: [cluster.local/ns/shop/sa/a]}}]
      to: [{operation: {methods: [GET]}}]
";

/// The world that a tree of such manifests holds, what is planned, and what is wrong.
fn read(yaml: &str) -> (World, Vec<Plan>) {
    let tree = file::read_stream(yaml.as_bytes()).expect("memory can be read");
    let mut world = World::default();
    for change in tree.changes {
        world.apply(change);
    }
    (world, tree.plans)
}

fn planned(yaml: &str, question: &Question) -> Result<Answer, WhyError> {
    let (world, plans) = read(yaml);
    ask_about_plans((world, &plans), Default::default(), Default::default(), question)
}

fn get(source: &str, destination: &str, port: u16) -> Question {
    Question { port: Some(port), ..question(source, destination, Some(("GET", "/"))) }
}

#[test]
fn pods_services_and_endpoints_are_made_of_what_is_written() {
    let remark = making::REMARK;
    let answer = planned(SHOP, &get("deploy/shop/a", "svc/shop/b", 80)).expect("a clear question");
    assert_eq!(
        render(&answer),
        format!(
            "a pod of Deployment shop/a at 198.18.0.4 -> service shop/b:80\n  {remark}\n  \
             to a pod of Deployment shop/b at 198.18.0.2:8080\n    \
             leaving   allowed by no policy\n    \
             protected by mutual TLS, as spiffe://cluster.local/ns/shop/sa/a; no PeerAuthentication says anything, which is PERMISSIVE\n    \
             arriving  allowed by AuthorizationPolicy shop/readers, rules[0]\nALLOWED\n"
        )
    );
    for (source, destination, port, is_allowed) in [
        ("deploy/shop/a", "deploy/shop/b", 8080, true),
        // One replica asks another.
        ("deploy/shop/b", "svc/shop/b", 80, false),
        ("deploy/shop/b", "deploy/shop/b", 8080, false),
        ("outside", "deployment/shop/b", 8080, false),
    ] {
        let answer = planned(SHOP, &get(source, destination, port)).expect("a clear question");
        assert_eq!(answer.is_allowed(), is_allowed, "{source} {destination}: {answer:?}");
    }
}

#[test]
fn every_kind_that_makes_pods_is_asked_about_as_one_of_them() {
    let template = "{metadata: {labels: {app: x}}, spec: {serviceAccountName: x, containers: []}}";
    for (api, kind, word) in [
        ("apps/v1", "Deployment", "deploy"),
        ("apps/v1", "StatefulSet", "sts"),
        ("apps/v1", "DaemonSet", "ds"),
        ("apps/v1", "ReplicaSet", "rs"),
        ("batch/v1", "Job", "job"),
        ("batch/v1", "CronJob", "cj"),
    ] {
        let spec = match kind {
            "CronJob" => format!("{{jobTemplate: {{spec: {{template: {template}}}}}}}"),
            _ => format!("{{template: {template}}}"),
        };
        let object = format!("{{apiVersion: {api}, kind: {kind}, metadata: {{name: x}}, spec: {spec}}}");
        // Those without a namespace are in the one that kubectl takes.
        for yaml in [object.clone(), format!("{{apiVersion: v1, kind: List, items: [{object}]}}")] {
            let answer = planned(&yaml, &get(&format!("{word}/x"), "192.0.2.1", 80)).expect("a clear question");
            assert_eq!(answer.source, format!("a pod of {kind} default/x at 198.18.0.2"));
        }
    }
}

#[test]
fn what_runs_is_asked_about_itself() {
    let running = "
apiVersion: v1
kind: Pod
metadata:
  {namespace: shop, name: a-5b5d4-x, labels: {app: a, pod-template-hash: 5b5d4}, ownerReferences: [{kind: ReplicaSet, name: a-5b5d4, controller: true}]}
spec: {serviceAccountName: a}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {namespace: shop, name: a-5b5d4, ownerReferences: [{kind: Deployment, name: a, controller: true}]}
spec: {template: {spec: {}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {namespace: shop, name: b-77, ownerReferences: [{kind: Deployment, name: b, controller: true}]}
spec: {template: {metadata: {labels: {app: b}}, spec: {}}}
";
    let world = format!("{SHOP}---{running}");
    for word in ["deploy/shop/a", "rs/shop/a-5b5d4"] {
        let answer = planned(&world, &get(word, "svc/shop/b", 80)).expect("a clear question");
        assert_eq!(answer.source, "shop/a-5b5d4-x at 10.0.0.1");
        // What another made has no pods besides those of that one.
        assert_eq!(answer.ways[0].to, ["a pod of Deployment shop/b at 198.18.0.1:8080"]);
    }
    // A daemon knows the pods alone.
    let (world, _) = read(&world);
    let ask = |source| ask(world.clone(), Default::default(), Default::default(), &get(source, "192.0.2.1", 80));
    assert_eq!(ask("deploy/shop/a").expect("it runs").source, "shop/a-5b5d4-x at 10.0.0.1");
    let error = ask("deploy/shop/b").expect_err("it does not run").to_string();
    assert!(error.starts_with("no pod with an address is of deployment/shop/b. A daemon knows pods"), "{error}");
}

#[test]
fn a_job_whose_pods_have_ended_is_asked_about_a_new_one() {
    let job = "
apiVersion: batch/v1
kind: Job
metadata: {namespace: shop, name: once}
spec: {template: {spec: {serviceAccountName: once}}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: once-x, ownerReferences: [{kind: Job, name: once, controller: true}]}
status: {phase: Succeeded, podIP: 10.0.0.9}
";
    let answer = planned(&format!("{SHOP}---{job}"), &get("job/shop/once", "deploy/shop/b", 8080)).expect("clear");
    assert!(answer.source.starts_with("a pod of Job shop/once at 198.18.0."), "{}", answer.source);
}

#[test]
fn what_a_service_has_is_left_to_it() {
    let slice = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: b-1, labels: {kubernetes.io/service-name: b}}
addressType: IPv4
ports: [{name: http, port: 9000}]
endpoints: [{addresses: [192.0.2.9], conditions: {ready: true}}]
";
    let world = format!("{SHOP}---{slice}");
    let answer = planned(&world, &get("deploy/shop/a", "svc/shop/b", 80)).expect("a clear question");
    assert_eq!(answer.ways[0].to, ["192.0.2.9:9000"]);
    let nowhere = SHOP.replace("targetPort: http", "targetPort: web");
    let answer = planned(&nowhere, &get("deploy/shop/a", "svc/shop/b", 80)).expect("a clear question");
    assert_eq!(answer.route.answered.as_deref(), Some("no endpoint is ready"));
}

#[test]
fn what_enters_by_a_gateway_comes_to_what_would_run() {
    let front = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: mesh}
spec: {controllerName: mesh.internal/controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: shop, name: front}
spec: {gatewayClassName: mesh, listeners: [{name: web, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {namespace: shop, name: b}
spec: {parentRefs: [{name: front}], hostnames: [b.example], rules: [{backendRefs: [{name: b, port: 80}]}]}
";
    let answer = planned(&format!("{SHOP}---{front}"), &get("outside", "gateway/shop/front", 80)).expect("clear");
    assert_eq!(answer.ways[0].to, ["a pod of Deployment shop/b at 198.18.0.2:8080"]);
    assert_eq!(answer.route.notes, [making::REMARK]);
    let last = answer.ways[0].steps.last().expect("verdicts");
    assert_eq!(last.by, "no rule of the tier allow: AuthorizationPolicy shop/readers");
}

#[test]
fn a_plan_that_is_not_understood_is_told_and_the_others_hold() {
    let broken = "{apiVersion: apps/v1, kind: Deployment, metadata: {namespace: shop, name: c}, spec: {template: {spec: {containers: 7}}}}";
    let world = format!("{SHOP}---\n{broken}\n");
    let (known, plans) = read(&world);
    let faults: Vec<_> = known.faults().map(ToString::to_string).collect();
    assert!(
        matches!(&*faults, [fault] if fault.starts_with("Deployment shop/c: ") && fault.contains("no pod is made of it")),
        "{faults:?}"
    );
    assert_eq!(plans.len(), 3);
    assert!(planned(&world, &get("deploy/shop/a", "svc/shop/b", 80)).expect("clear").is_allowed());
}
