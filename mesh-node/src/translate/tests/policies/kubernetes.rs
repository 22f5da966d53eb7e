//! NetworkPolicies of Kubernetes.

use super::*;

fn network_policies(specs: &[&str]) -> String {
    let document = |(at, spec): (usize, &&str)| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: n{at}, namespace: shop}}, spec: {spec}}}\n---\n"
        )
    };
    policies(&specs.iter().enumerate().map(document).collect::<String>())
}

#[test]
fn what_is_selected_is_denied_what_no_rule_allows() {
    expect![[r#"
        NetworkPolicy shop/n0 in default at Order(1000.0): namespace=shop & has account
          no rule of ingress
        NetworkPolicy shop/n1 in default at Order(1000.0): namespace=shop & has account & app=web
          ingress[0] Allow anything
        NetworkPolicy shop/n2 in default at Order(1000.0): namespace=shop & has account
          no rule of ingress
          egress[0] Allow anything
        NetworkPolicy shop/n3 in default at Order(1000.0): namespace=shop & has account
          no rule of egress
        NetworkPolicy shop/n4 in default at Order(1000.0): namespace=shop & has account & app in {"a", "b"} & !(tier in {"x"}) & has c & !(has d)
          no rule of ingress
          no rule of egress
    "#]]
    .assert_eq(&network_policies(&[
        "{podSelector: {}}",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{}]}",
        "{podSelector: {}, egress: [{to: []}]}",
        "{podSelector: {}, policyTypes: [Egress]}",
        "{podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}, {key: tier, operator: NotIn, values: [x]}, {key: c, operator: Exists}, {key: d, operator: DoesNotExist}]}, policyTypes: [Ingress, Egress]}",
    ]));
}

#[test]
fn a_rule_allows_any_of_its_peers_to_any_of_its_ports() {
    expect![[r#"
        NetworkPolicy shop/n0 in default at Order(1000.0): namespace=shop & has account
          ingress[0] Allow from [has account & namespace=shop & app=web] OR from [has account & namespace:team=red] OR from [has account & namespace in {"bank"} & app=db] OR from [10.0.0.0-10.255.255.255], not from [10.1.0.0-10.1.255.255] AND protocol {6}, to port 80 OR protocol {17}, to port http OR protocol {6}, to port 8080-8090 OR protocol {132}
          egress[0] Allow to [has account] AND protocol {6}, to port 53
          egress[1] Allow to [has account & namespace=shop]
    "#]]
    .assert_eq(&network_policies(&["{podSelector: {}, ingress: [{from: [
        {podSelector: {matchLabels: {app: web}}},
        {namespaceSelector: {matchLabels: {team: red}}},
        {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [bank]}]}, podSelector: {matchLabels: {app: db}}},
        {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}],
      ports: [{port: 80}, {port: http, protocol: UDP}, {protocol: TCP, port: 8080, endPort: 8090}, {protocol: SCTP}]}],
      egress: [{to: [{namespaceSelector: {}}], ports: [{port: 53}]}, {to: [{podSelector: {}}]}]}"]));
}

#[test]
fn what_is_not_understood_allows_nothing() {
    expect![[r#"
        NetworkPolicy shop/n0 in default at Order(1000.0): namespace=shop & has account
          ingress[0] Allow unknown OR unknown OR unknown OR from [has account & namespace=shop] AND unknown OR unknown OR unknown OR unknown OR unknown OR protocol {6}, to port 80
          ingress[1] Allow never
          ingress[2] Allow unknown
        NetworkPolicy shop/n0, spec.ingress[0].from[0]: it must name either pods or addresses; give podSelector, namespaceSelector or both, or ipBlock
        NetworkPolicy shop/n0, spec.ingress[0].from[1].ipBlock.cidr: `10.0.0.0/99` is no address and no range such as 10.0.0.0/8; write it like 10.0.0.0/8 or fd00::/64
        NetworkPolicy shop/n0, spec.ingress[0].from[2].odd: there is no such field; remove it, or correct its name
        NetworkPolicy shop/n0, spec.ingress[0].ports[0].protocol: `ICMP` is none of its words; use TCP, UDP, SCTP
        NetworkPolicy shop/n0, spec.ingress[0].ports[1].endPort: it is less than the port; give the last port of the range
        NetworkPolicy shop/n0, spec.ingress[0].ports[2].endPort: it ends a range that does not begin; give `port`
        NetworkPolicy shop/n0, spec.ingress[0].ports[3].endPort: a name begins no range; give `port` as a number
        NetworkPolicy shop/n0, spec.ingress[0].ports[4].port: it is no name of a port; give a number, or a name such as http
        NetworkPolicy shop/n0, spec.ingress[1].form: there is no such field; remove it, or correct its name
        NetworkPolicy shop/n0, spec.ingress[2].from: a list is expected here; correct the value
    "#]]
    .assert_eq(&network_policies(&["{podSelector: {}, ingress: [{from: [
        {}, {ipBlock: {cidr: 10.0.0.0/99}}, {podSelector: {}, odd: 1}, {podSelector: {}}],
      ports: [{port: 80, protocol: ICMP}, {port: 80, endPort: 79}, {endPort: 80}, {port: http, endPort: 81}, {port: '80'}, {port: 80}]},
      {form: []}, {from: 1}]}"]));
}

#[test]
fn a_policy_whose_scope_is_not_understood_holds_for_its_namespace() {
    expect![[r#"
        NetworkPolicy shop/n0 in default at Order(1000.0): namespace=shop & has account
          no rule of ingress
        NetworkPolicy shop/n1 in default at Order(1000.0): namespace=shop & has account & app=web
          ingress[0] Allow anything
          no rule of egress
        NetworkPolicy shop/n2 in default at Order(1000.0): namespace=shop & has account
          no rule of egress
        NetworkPolicy shop/n0, spec: it is not understood as a whole, so it holds for every pod that it could be about, and allows nothing; correct the fields that other issues name
        NetworkPolicy shop/n0, spec.podSelector.matchExpressions[0].values: In and NotIn need values, and others have none; correct the values or the operator
        NetworkPolicy shop/n1, spec.policyTypes[0]: `Both` is none of its words; use Ingress, Egress
        NetworkPolicy shop/n2, spec: it is not understood as a whole, so it holds for every pod that it could be about, and allows nothing; correct the fields that other issues name
        NetworkPolicy shop/n2, spec.ingress: it has no effect, since policyTypes do not name it; name it there, or remove it
        NetworkPolicy shop/n2, spec.podselector: there is no such field; remove it, or correct its name
    "#]]
    .assert_eq(&network_policies(&[
        "{podSelector: {matchExpressions: [{key: app, operator: In}]}, ingress: [{}]}",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{}], policyTypes: [Both]}",
        "{podselector: {}, ingress: [{}], egress: [{}], policyTypes: [Egress]}",
    ]));
}
