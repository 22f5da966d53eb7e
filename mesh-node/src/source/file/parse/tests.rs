use super::{parse, parse_documents};
use expect_test::{Expect, expect};
use std::time::{Duration, Instant};

/// One line per object, then the issues.
fn check(text: &str, expected: &Expect) {
    let shown = match parse("dir/a.yaml", text.as_bytes(), false) {
        Ok(parsed) => {
            let objects = parsed.objects.iter().map(|o| format!("{} {}\n", o.kind().name(), o.metadata().full_name()));
            let issues = parsed.issues.iter().map(|issue| format!("{issue}\n"));
            objects.chain(issues).collect()
        }
        Err(issue) => format!("{issue}\n"),
    };
    expected.assert_eq(&shown);
}

#[test]
fn a_file_holds_many_documents() {
    check(
        "%YAML 1.2
---
# only a comment
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, namespace: ignored}
--- # the pod
apiVersion: v1
kind: Pod
metadata:
  name: a
  annotations:
    text: |
      -- no marker
       --- neither
spec:
  containers:
  - name: c
    image: nginx
    ports: [{containerPort: 80}]
    resources: {limits: {cpu: 100m}}
...
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ignored}
spec: {replicas: 3}
---
",
        &expect![[r#"
            Namespace shop
            Pod default/a
        "#]],
    );
    check("", &expect![[""]]);
    check(
        "\u{feff}---\r\napiVersion: v1\r\nkind: Service\r\nmetadata:\r\n  name: s\r\n",
        &expect![[r#"
        Service default/s
    "#]],
    );
}

#[test]
fn lists_and_json_are_read() {
    check(
        r#"{"apiVersion": "v1", "kind": "List", "items": [
	{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}},
	{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}},
	{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": null}
]}"#,
        &expect![[r#"
            Service shop/s
            EndpointSlice default/e
        "#]],
    );
    check(
        "{apiVersion: v1, kind: PodList, items: [{metadata: {name: a}}, {metadata: {name: b}}]}",
        &expect![[r#"
        Pod default/a
        Pod default/b
    "#]],
    );
    check(
        "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 99999}]}}]}",
        &expect![[r#"
            File dir/a.yaml, line 1: items[0]: invalid value: integer `99999`, expected u16; what was read before stays in force; correct the file
        "#]],
    );
}

#[test]
fn what_a_mesh_should_enforce_but_cannot_is_refused_aloud() {
    check(
        "
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: deny, namespace: shop}}
---
{apiVersion: security.istio.io/v2, kind: AuthorizationPolicy, metadata: {name: newer, namespace: shop}}
---
{apiVersion: networking.k8s.io/v1beta1, kind: NetworkPolicy, metadata: {name: np}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: ignored}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: hep}}
---
{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: anp}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}}
---
{apiVersion: security.istio.io/v9, kind: PeerAuthentication, metadata: {name: p}}
---
{apiVersion: example.org/v1, kind: Service, metadata: {name: ignored}}
",
        &expect![[r#"
            AuthorizationPolicy shop/deny
            HTTPRoute default/r
            AdminNetworkPolicy anp, kind: AdminNetworkPolicy of policy.networking.k8s.io/v1alpha1 is not supported; nothing of it is enforced, traffic is treated as if it were absent; remove it, or do not rely on it
            AuthorizationPolicy shop/newer, kind: AuthorizationPolicy of security.istio.io/v2 is not supported; nothing of it is enforced, traffic is treated as if it were absent; remove it, or do not rely on it
            HostEndpoint hep, kind: HostEndpoint of projectcalico.org/v3 is not supported; nothing of it is enforced, traffic is treated as if it were absent; remove it, or do not rely on it
            NetworkPolicy np, kind: NetworkPolicy of networking.k8s.io/v1beta1 is not supported; nothing of it is enforced, traffic is treated as if it were absent; remove it, or do not rely on it
            PeerAuthentication p, kind: PeerAuthentication of security.istio.io/v9 is not supported; nothing of it is enforced, traffic is treated as if it were absent; remove it, or do not rely on it
        "#]],
    );
}

#[test]
fn the_line_at_fault_is_named() {
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\n  bad: indent\n",
        &expect![[r#"
        File dir/a.yaml, line 7: mapping values are not allowed in this context; what was read before stays in force; correct the file
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: http\n",
        &expect![[r#"
        File dir/a.yaml, line 6: invalid u16; what was read before stays in force; correct the file
    "#]],
    );
    check(
        "# x\n\nkind: Pod\nmetadata: {name: a}\n",
        &expect![[r#"
            File dir/a.yaml, line 3: an object needs `apiVersion` and `kind`; what was read before stays in force; correct the file
        "#]],
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: ../a}\n",
        &expect![[r#"
        File dir/a.yaml, line 1: metadata.name: `../a` is no valid name of a Pod; what was read before stays in force; correct the file
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: a.b}\n",
        &expect![[r#"
        File dir/a.yaml, line 1: metadata.namespace: `a.b` is no valid name; what was read before stays in force; correct the file
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, creationTimestamp: yesterday}\n",
        &expect![[r#"
        File dir/a.yaml, line 3: `yesterday` is no time of the form 2026-01-31T12:00:00Z; what was read before stays in force; correct the file
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nmetadata: {name: b}\n",
        &expect![[r#"
            File dir/a.yaml, line 4: duplicate mapping key `metadata` is not allowed here; what was read before stays in force; correct the file
        "#]],
    );
    check(
        "just a text",
        &expect![[r#"
        File dir/a.yaml, line 1: expected mapping start; what was read before stays in force; correct the file
    "#]],
    );
    check(
        "apiVersion: v1\nkind: [",
        &expect![[r#"
        File dir/a.yaml, line 2: expected string scalar; what was read before stays in force; correct the file
    "#]],
    );
    expect!["File a.yaml, line 2: the text is not UTF-8; what was read before stays in force; save the file as UTF-8"]
        .assert_eq(&parse("a.yaml", b"a: 1\nb: \xff", false).expect_err("not UTF-8").to_string());
}

#[test]
fn bombs_are_defused() {
    let levels = (1..20).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", ")));
    let aliases: String = std::iter::once("a0: &a0 [lol]\n".to_owned()).chain(levels).collect();
    let deep = "[".repeat(100_000);
    let deep_block: String = (0..3_000).map(|n| " ".repeat(n) + "a:\n").collect();
    let deep_json = "{\"a\":".repeat(100_000);
    let merges = format!("x: &x {{a: 1}}\n{}", "y: {<<: *x}\n".repeat(5_000));
    for text in [aliases, deep, deep_block, deep_json, merges] {
        let start = Instant::now();
        let (objects, issues) = parse_documents(text.as_bytes());
        assert!(objects.is_empty() && issues.len() == 1, "{:.60}", text);
        assert!(issues[0].problem.len() < 500, "{}", issues[0]);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?} for {text:.60}", start.elapsed());
    }
}

#[test]
fn no_bytes_cause_a_panic() {
    let seeds: [&[u8]; 4] = [
        b"apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {a: b}}\nstatus: {podIPs: [{ip: 10.0.0.1}]}\n",
        b"{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}]}",
        b"---\nkind: &k PeerAuthentication\napiVersion: security.istio.io/v1\nspec: {mtls: *k, <<: {a: 1}}\n...\n--- |\n x\n",
        b"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nendpoints:\n- addresses: [\"fd00::1\"]\n",
    ];
    const MARKS: &[u8] = b"{}[]:,-&*!|>'\"%@`#\n\t ~?";
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..4_000 {
        let mut bytes = seeds[rng.usize(..seeds.len())].to_vec();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..bytes.len());
            match rng.u8(..4) {
                0 => bytes[at] = rng.u8(..),
                1 => bytes[at] = MARKS[rng.usize(..MARKS.len())],
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let other = seeds[rng.usize(..seeds.len())];
                    let from = rng.usize(..other.len());
                    bytes.splice(at..at, other[from..].iter().take(20).copied());
                }
            }
        }
        let _any_outcome = parse_documents(&bytes);
    }
}
