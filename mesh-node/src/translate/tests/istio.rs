//! Tests of Istio's translator, as data.

use super::*;
use crate::model::Scope;

/// One line per policy, then the issues.
fn check(yaml: &str, expected: &Expect) {
    let (model, issues) = model(yaml);
    let mut text = String::new();
    for policy in model.peer_authentications.values() {
        let scope = match &policy.scope {
            Scope::Mesh => "mesh".to_owned(),
            Scope::Namespace => "namespace".to_owned(),
            Scope::Workloads(labels) => format!("{labels:?}"),
        };
        writeln!(text, "{} {scope}: {:?} {:?}", policy.name, policy.mode, policy.ports).expect("writing to a string");
    }
    expected.assert_eq(&(text + &lines(&issues)));
}

#[test]
fn scopes_and_modes() {
    check(
        "
{kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}
---
{kind: PeerAuthentication, metadata: {name: empty, namespace: a}}
---
{kind: PeerAuthentication, metadata: {name: empty, namespace: b}, spec: {selector: {}, mtls: {mode: DISABLE}}}
---
{kind: PeerAuthentication, metadata: {name: empty, namespace: c}, spec: {selector: {matchLabels: {}}, mtls: {mode: UNSET}}}
---
{kind: PeerAuthentication, metadata: {name: nulls, namespace: d}, spec: {selector: null, mtls: null, portLevelMtls: null}}
---
kind: PeerAuthentication
metadata: {name: full, namespace: a}
spec:
  selector: {matchLabels: {app: a, version: 'true'}}
  mtls: {mode: PERMISSIVE}
  portLevelMtls:
    8080: {mode: STRICT}
    9090: {mode: UNSET}
    '9091': {}
",
        &expect![[r#"
            a/empty namespace: None {}
            a/full {"app": "a", "version": "true"}: Some(Permissive) {8080: Some(Strict), 9090: None, 9091: None}
            b/empty namespace: Some(Disable) {}
            c/empty namespace: None {}
            d/nulls namespace: None {}
            istio-system/default mesh: Some(Strict) {}
        "#]],
    );
}

#[test]
fn what_is_not_understood_closes() {
    check(
        "
{kind: PeerAuthentication, metadata: {name: a}, spec: {mtls: {mode: strict}}}
---
{kind: PeerAuthentication, metadata: {name: b}, spec: {mtls: STRICT}}
---
{kind: PeerAuthentication, metadata: {name: c}, spec: {mtls: {mode: DISABLE, extra: 1}}}
---
{kind: PeerAuthentication, metadata: {name: d}, spec: {selector: {matchExpressions: [], matchLabels: {app: d}}, mtls: {mode: DISABLE}}}
---
{kind: PeerAuthentication, metadata: {name: e}, spec: {selector: {matchLabels: {app: e}}, portLevelMtls: {http: {mode: DISABLE}}}}
---
{kind: PeerAuthentication, metadata: {name: f}, spec: {selector: {matchLabels: {app: f}}, portLevelMtls: {80: {mode: 7}, 81: {mode: DISABLE}}}}
---
{kind: PeerAuthentication, metadata: {name: g}, spec: {tls: {}, mtls: {mode: DISABLE}}}
---
{kind: PeerAuthentication, metadata: {name: h, namespace: istio-system}, spec: {selector: 5}}
",
        &expect![[r#"
            default/a namespace: Some(Strict) {}
            default/b namespace: Some(Strict) {}
            default/c namespace: Some(Strict) {}
            default/d {"app": "d"}: Some(Strict) {}
            default/e {"app": "e"}: Some(Strict) {}
            default/f {"app": "f"}: None {80: Some(Strict), 81: Some(Disable)}
            default/g namespace: Some(Strict) {}
            istio-system/h mesh: Some(Strict) {}
            PeerAuthentication default/a, spec.mtls.mode: "strict" is no mode; it is not understood, so mutual TLS is required where the field applies; use STRICT, PERMISSIVE, DISABLE or UNSET
            PeerAuthentication default/b, spec: PeerAuthentication default/a is older and decides for the same scope; this one has no effect; keep one of them
            PeerAuthentication default/b, spec.mtls: a map of fields is expected here; it is not understood, so mutual TLS is required of every workload in its scope; correct it
            PeerAuthentication default/c, spec: PeerAuthentication default/a is older and decides for the same scope; this one has no effect; keep one of them
            PeerAuthentication default/c, spec.mtls.extra: there is no such field; it is not understood, so mutual TLS is required of every workload in its scope; remove it or correct its name
            PeerAuthentication default/d, spec.selector.matchExpressions: there is no such field; it is not understood, so mutual TLS is required of every workload in its scope; give `matchLabels`, a map of texts
            PeerAuthentication default/e, spec.portLevelMtls.http: the key is no port; it is not understood, so mutual TLS is required of every workload in its scope; use the workload's port, 1 to 65535
            PeerAuthentication default/f, spec.portLevelMtls.80.mode: 7 is no mode; it is not understood, so mutual TLS is required where the field applies; use STRICT, PERMISSIVE, DISABLE or UNSET
            PeerAuthentication default/g, spec: PeerAuthentication default/a is older and decides for the same scope; this one has no effect; keep one of them
            PeerAuthentication default/g, spec.tls: there is no such field; it is not understood, so mutual TLS is required of every workload in its scope; remove it or correct its name
            PeerAuthentication istio-system/h, spec.selector: a map of fields is expected here; it is not understood, so mutual TLS is required of every workload in its scope; correct it
        "#]],
    );
}

#[test]
fn what_has_no_effect_is_reported() {
    check(
        "
{kind: PeerAuthentication, metadata: {name: a, namespace: istio-system}, spec: {selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}}}
---
{kind: PeerAuthentication, metadata: {name: b}, spec: {portLevelMtls: {80: {mode: STRICT}}}}
---
{kind: PeerAuthentication, metadata: {name: c}}
---
{kind: PeerAuthentication, metadata: {name: d, creationTimestamp: '2026-01-02T00:00:00Z'}, spec: {selector: {matchLabels: {app: x}}}}
---
{kind: PeerAuthentication, metadata: {name: e, creationTimestamp: '2026-01-01T00:00:00Z'}, spec: {selector: {matchLabels: {tier: web}}}}
---
{kind: PeerAuthentication, metadata: {name: f}, spec: {selector: {matchLabels: {app: nobody}}}}
---
{kind: Pod, metadata: {name: p, labels: {app: x, tier: web}}}
---
{kind: Pod, metadata: {name: q, labels: {app: x, tier: web}}}
",
        &expect![[r#"
            default/b namespace: None {}
            default/c namespace: None {}
            default/d {"app": "x"}: None {}
            default/e {"tier": "web"}: None {}
            default/f {"app": "nobody"}: None {}
            PeerAuthentication default/b, spec.portLevelMtls: ports have modes of their own only where a selector is; they are ignored; add a selector, or remove the ports
            PeerAuthentication default/c, spec: PeerAuthentication default/b is older and decides for the same scope; this one has no effect; keep one of them
            PeerAuthentication default/d, spec: PeerAuthentication default/e is older and decides for Pod default/p, where this one has no effect; keep one of them
            PeerAuthentication istio-system/a, spec.selector: policies of the root namespace select no workloads; the object has no effect; move it to the namespace of the workloads, or drop the selector
        "#]],
    );
}
