//! ClusterNetworkPolicies.

use super::*;

fn cluster_policies(specs: &[&str]) -> String {
    let document = |(at, spec): (usize, &&str)| {
        format!(
            "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: n{at}}}, spec: {spec}}}\n---\n"
        )
    };
    policies(&specs.iter().enumerate().map(document).collect::<String>())
}

#[test]
fn rules_accept_deny_or_pass_in_two_tiers() {
    expect![[r#"
        ClusterNetworkPolicy n0 in kube-admin at Order(10.0): has account & namespace:env=prod
          ingress[0] (monitoring) Allow from [has account & namespace=monitoring] AND protocol {6}, to port 9090 OR protocol {6}, to port 8000-8080 OR to port metrics OR protocol {17}
          ingress[1] Pass from [has account & namespace:env=prod & app=web]
          egress[0] Deny to [10.0.0.0-10.255.255.255, fd00::-fd00::ffff:ffff:ffff:ffff] OR to [has account]
        ClusterNetworkPolicy n1 in kube-baseline at Order(0.0): has account & app=web
          egress[0] Deny to [has account] AND protocol {132}
    "#]]
    .assert_eq(&cluster_policies(&[
        "{tier: Admin, priority: 10, subject: {namespaces: {matchLabels: {env: prod}}}, ingress: [
          {name: monitoring, action: Accept, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}],
           protocols: [{tcp: {destinationPort: {number: 9090}}}, {tcp: {destinationPort: {range: {start: 8000, end: 8080}}}}, {destinationNamedPort: metrics}, {udp: {}}]},
          {action: Pass, from: [{pods: {namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: web}}}}]}],
          egress: [{action: Deny, to: [{networks: [10.0.0.0/8, 'fd00::/64']}, {namespaces: {}}]}]}",
        "{tier: Baseline, priority: 0, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}, ingress: [],
          egress: [{action: Deny, to: [{namespaces: {}}], protocols: [{sctp: {}}]}]}",
    ]));
}

#[test]
fn a_rule_that_is_not_understood_accepts_nothing_or_denies_everything() {
    expect![[r#"
        ClusterNetworkPolicy n0 in kube-admin at Order(1.0): has account
          egress[0] Allow unknown
          egress[1] Deny unknown
          egress[2] Deny unknown
          egress[3] Deny unknown
          egress[4] Deny unknown
          egress[5] Allow unknown
          egress[6] Deny unknown
        ClusterNetworkPolicy n0, spec.egress[0].to[0].nodes: it is not supported; select the nodes' addresses by networks
        ClusterNetworkPolicy n0, spec.egress[1].to[1].domainNames: it is not supported; select the addresses by networks
        ClusterNetworkPolicy n0, spec.egress[2].to[0]: exactly one of its fields must be given; give one that this version of the mesh knows
        ClusterNetworkPolicy n0, spec.egress[2].to[0].peers: there is no such field; remove it, or correct its name
        ClusterNetworkPolicy n0, spec.egress[3].action: `Permit` is none of its words; use Accept, Deny, Pass
        ClusterNetworkPolicy n0, spec.egress[4].to: it names nobody; name at least one peer
        ClusterNetworkPolicy n0, spec.egress[5].protocols[0]: exactly one of its fields must be given; give one that this version of the mesh knows
        ClusterNetworkPolicy n0, spec.egress[5].protocols[0].icmp: there is no such field; remove it, or correct its name
        ClusterNetworkPolicy n0, spec.egress[6].protocols[0].tcp.destinationPort.range: it is no range of ports; give `start`, and an `end` that is not less
    "#]]
    .assert_eq(&cluster_policies(&["{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [
        {action: Accept, to: [{nodes: {}}]},
        {action: Deny, to: [{namespaces: {matchLabels: {a: b}}}, {domainNames: [example.com]}]},
        {action: Pass, to: [{peers: []}]},
        {action: Permit, to: [{namespaces: {}}]},
        {action: Deny, to: []},
        {action: Accept, to: [{namespaces: {}}], protocols: [{icmp: {}}]},
        {action: Pass, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 9, end: 8}}}}]}]}"]));
}

#[test]
fn a_policy_that_is_not_understood_as_a_whole_only_denies() {
    expect![[r#"
        ClusterNetworkPolicy n0 in kube-admin at Order(0.0): has account & namespace:a=b
          ingress[1] Deny from [has account]
          ingress[2] Deny from [has account]
        ClusterNetworkPolicy n0, spec: it is not understood as a whole, so it allows nothing; correct the fields that other issues name
        ClusterNetworkPolicy n0, spec.priority: a whole number from 0 to 1000 is expected here; correct the value
        ClusterNetworkPolicy n0, spec.tier: `Middle` is none of its words; use Admin, Baseline
    "#]]
    .assert_eq(&cluster_policies(&["{tier: Middle, priority: 1001, subject: {namespaces: {matchLabels: {a: b}}}, ingress: [
        {action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}, {action: Pass, from: [{namespaces: {}}]}]}"]));
    expect![[r#"
        ClusterNetworkPolicy n0 in kube-baseline at Order(1.0): has account
          ingress[0] Deny from [has account & namespace:a=b]
        ClusterNetworkPolicy n0, spec: it is not understood as a whole, so it holds for every pod that it could be about, and allows nothing; correct the fields that other issues name
        ClusterNetworkPolicy n0, spec.subject: exactly one of its fields must be given; give one that this version of the mesh knows
    "#]]
    .assert_eq(&cluster_policies(&["{tier: Baseline, priority: 1, subject: {}, ingress: [
        {action: Deny, from: [{namespaces: {matchLabels: {a: b}}}]}]}"]));
}
