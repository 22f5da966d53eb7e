//! Calico's policies, tiers and sets.

use super::*;

fn document(kind: &str, metadata: &str, spec: &str) -> String {
    format!("{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {metadata}, spec: {spec}}}\n---\n")
}

fn rules(rules: &[&str]) -> String {
    let spec = format!("{{ingress: [{}]}}", rules.join(", "));
    policies(&document("NetworkPolicy", "{name: n, namespace: shop}", &spec))
}

#[test]
fn a_policy_is_about_what_its_selectors_select_together() {
    let of = |kind: &str, name: &str, spec: &str| {
        let namespace = if kind.contains("Global") { "" } else { ", namespace: shop" };
        document(kind, &format!("{{name: {name}{namespace}}}"), spec)
    };
    expect![[r#"
        GlobalNetworkPolicy c in security at Order(-1.5): everything
          no rule of ingress
        GlobalNetworkPolicy d in default at Order(inf): app=web & has namespace & account=sa
          egress[0] Deny anything
        NetworkPolicy.projectcalico.org shop/a in default at Order(inf): namespace=shop
          no rule of ingress
        NetworkPolicy.projectcalico.org shop/b in default at Order(10.0): namespace=shop & (app=web | has db) & account:rank=high
          ingress[0] Allow anything
          egress[0] Log anything
        StagedGlobalNetworkPolicy g in security at Order(inf) on trial for GlobalNetworkPolicy g: everything
        StagedKubernetesNetworkPolicy shop/k in default at Order(1000.0) on trial for NetworkPolicy shop/k: namespace=shop & has account
          no rule of ingress
        StagedNetworkPolicy shop/s in default at Order(inf) on trial for NetworkPolicy.projectcalico.org shop/s: namespace=shop
          egress[0] Pass anything
        GlobalNetworkPolicy e, spec.doNotTrack: it has no effect: it is about what hosts send and receive themselves, which felix alone sees; remove it, or do not rely on it
        GlobalNetworkPolicy f, spec.applyOnForward: it has no effect: what a host forwards is for felix alone; to pods the policy applies as any other; remove it, or do not rely on it
        GlobalNetworkPolicy f, spec.preDNAT: it has no effect: it is about what hosts send and receive themselves, which felix alone sees; remove it, or do not rely on it
        NetworkPolicy.projectcalico.org shop/a, spec.egress: it has no effect, since types do not name it; name it there, or remove it
    "#]]
    .assert_eq(&policies(&[
        of("NetworkPolicy", "a", "{types: [Ingress], egress: [{action: Allow}]}"),
        of("NetworkPolicy", "b", "{order: 10, selector: \"app == 'web' || has(db)\", serviceAccountSelector: \"rank == 'high'\", ingress: [{action: Allow}], egress: [{action: Log}], performanceHints: [AssumeNeededOnEveryNode]}"),
        of("GlobalNetworkPolicy", "c", "{tier: security, order: -1.5, selector: all(), doNotTrack: false}"),
        of("GlobalNetworkPolicy", "d", "{selector: \"app == 'web'\", namespaceSelector: all(), serviceAccountSelector: \"projectcalico.org/name == 'sa'\", egress: [{action: Deny}]}"),
        of("GlobalNetworkPolicy", "e", "{doNotTrack: true, ingress: [{action: Allow}]}"),
        of("GlobalNetworkPolicy", "f", "{preDNAT: true, applyOnForward: true, ingress: [{action: Allow}]}"),
        of("StagedNetworkPolicy", "s", "{egress: [{action: Pass}]}"),
        of("StagedGlobalNetworkPolicy", "g", "{stagedAction: Delete, tier: security, ingress: [{action: Allow}]}"),
        of("StagedKubernetesNetworkPolicy", "k", "{stagedAction: Set, podSelector: {}}"),
        of("StagedNetworkPolicy", "l", "{stagedAction: Learn, ingress: [{action: Allow}]}"),
    ].concat()));
}

#[test]
fn peers_of_a_namespaced_policy_are_of_its_namespace_as_soon_as_they_are_selected() {
    let entities = [
        "{}",
        "{selector: \"app == 'web'\"}",
        "{selector: all()}",
        "{notSelector: \"app == 'web'\"}",
        "{serviceAccounts: {names: [a, b]}}",
        "{serviceAccounts: {selector: \"rank == 'high'\", names: [a]}, selector: has(app)}",
        "{namespaceSelector: \"team == 'red'\"}",
        "{namespaceSelector: all(), notSelector: has(app)}",
        "{namespaceSelector: global(), selector: \"role == 'db'\"}",
        "{nets: [10.0.0.0/8], selector: ''}",
        "{services: {name: web}}",
        "{services: {name: web, namespace: bank}}",
    ];
    let spec = |entities: &[&str]| {
        let rules: Vec<_> = entities.iter().map(|entity| format!("{{action: Allow, source: {entity}}}")).collect();
        format!("{{ingress: [{}]}}", rules.join(", "))
    };
    let yaml = document("NetworkPolicy", "{name: n, namespace: shop}", &spec(&entities))
        + &document("GlobalNetworkPolicy", "{name: g}", &spec(&entities[..10]));
    expect![[r#"
        GlobalNetworkPolicy g in default at Order(inf): everything
          ingress[0] Allow anything
          ingress[1] Allow from [app=web]
          ingress[2] Allow from [everything]
          ingress[3] Allow not from [app=web]
          ingress[4] Allow from [account in {"a", "b"}]
          ingress[5] Allow from [has app & account:rank=high & account in {"a"}]
          ingress[6] Allow from [namespace:team=red]
          ingress[7] Allow from [has namespace & !(has app)]
          ingress[8] Allow from [role=db & !(has namespace)]
          ingress[9] Allow from [10.0.0.0-10.255.255.255]
        NetworkPolicy.projectcalico.org shop/n in default at Order(inf): namespace=shop
          ingress[0] Allow anything
          ingress[1] Allow from [app=web & namespace=shop]
          ingress[2] Allow from [namespace=shop]
          ingress[3] Allow from [namespace=shop & !(app=web)]
          ingress[4] Allow from [account in {"a", "b"} & namespace=shop]
          ingress[5] Allow from [has app & account:rank=high & account in {"a"} & namespace=shop]
          ingress[6] Allow from [namespace:team=red]
          ingress[7] Allow from [has namespace & !(has app)]
          ingress[8] Allow from [role=db & !(has namespace)]
          ingress[9] Allow from [10.0.0.0-10.255.255.255]
          ingress[10] Allow from service shop/web
          ingress[11] Allow from service bank/web
    "#]]
    .assert_eq(&policies(&yaml));
}

#[test]
fn every_field_of_a_rule_is_a_test() {
    expect![[r#"
        NetworkPolicy.projectcalico.org shop/n in default at Order(inf): namespace=shop
          ingress[0] Allow protocol {6}, to port 80,8080-8090,http, not to port 8085
          ingress[1] Allow protocol {6}, to [app=web & namespace=shop] AND to port 80 OR to port http, to [app=web & namespace=shop & has account] AND not to port 90 AND not to port admin OR not to [app=web & namespace=shop & has account]
          ingress[2] Deny protocol {17}
          ingress[3] Allow protocol {6}, from port 1024-65535, not from port 2000
          ingress[4] Deny not protocol {6}
          ingress[5] Allow protocol {1}, protocol {1, 58}
          ingress[6] Allow protocol {58}, protocol {1, 58}
          ingress[7] Allow to [0.0.0.0-255.255.255.255]
          ingress[8] Allow not to [0.0.0.0-255.255.255.255]
          ingress[9] Allow not from [10.0.0.0-10.255.255.255], from [0.0.0.0-255.255.255.255]
          ingress[10] Allow not from [fd00::-fd00::ffff:ffff:ffff:ffff], not from [0.0.0.0-255.255.255.255]
          ingress[11] Allow not from [10.0.0.0-10.255.255.255, fd00::-fd00::ffff:ffff:ffff:ffff]
          ingress[12] Allow to [10.0.0.1-10.0.0.1]
          ingress[13] Allow Method(Texts { exact: ["GET", "HEAD"], others: [] }), Path(Texts { exact: ["/ok", "/ok/"], others: [Elements("/api")] }), PathIsPlain
          ingress[14] Allow Http
          ingress[15] Allow Http
    "#]]
    .assert_eq(&rules(&[
        "{action: Allow, protocol: TCP, destination: {ports: [80, '8080:8090', http], notPorts: [8085]}}",
        "{action: Allow, protocol: TCP, destination: {selector: app == 'web', ports: [80, http], notPorts: [90, admin]}}",
        "{action: Deny, protocol: 17}",
        "{action: Allow, protocol: tcp, source: {ports: ['1024:65535'], notPorts: ['2000'], nets: []}}",
        "{action: Deny, notProtocol: TCP}",
        "{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}, metadata: {annotations: {a: b}}}",
        "{action: Allow, protocol: ICMPv6, notICMP: {type: 8}}",
        "{action: Allow, ipVersion: 4}",
        "{action: Allow, ipVersion: 6}",
        "{action: Allow, source: {notNets: [10.0.0.0/8]}}",
        "{action: Allow, source: {notNets: ['fd00::/64']}}",
        "{action: Allow, source: {notNets: ['fd00::/64', 10.0.0.0/8]}}",
        "{action: Allow, destination: {nets: [10.0.0.1]}}",
        "{action: Allow, http: {methods: [GET, HEAD], paths: [{exact: /ok}, {prefix: /api/}]}}",
        "{action: Allow, http: {methods: ['*']}}",
        "{action: Allow, http: {}}",
    ]));
}

#[test]
fn a_test_that_is_not_understood_is_met_where_a_rule_denies() {
    expect![[r#"
        NetworkPolicy.projectcalico.org shop/n in default at Order(inf): namespace=shop
          ingress[0] Allow unknown, to [10.0.0.1-10.0.0.1]
          ingress[1] Deny unknown, to [10.0.0.1-10.0.0.1]
          ingress[2] Deny from [namespace=shop], unknown
          ingress[3] Deny unknown
          ingress[4] Deny unknown
          ingress[5] Deny unknown
          ingress[6] Allow unknown
          ingress[7] Deny unknown
          ingress[8] Allow unknown
          ingress[9] Allow unknown
          ingress[10] Allow protocol {6}, unknown
          ingress[11] Allow unknown
          ingress[12] Deny unknown
          ingress[13] Allow protocol {6}, unknown
          ingress[14] Allow unknown
          ingress[15] Log unknown
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[0].source.nets[0]: `10.0.0.0/99` is no address and no range such as 10.0.0.0/8; write it like 10.0.0.0/8 or fd00::/64
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[10].source.ports[0]: a name is that of a destination's port; give the source's port by number
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[11].http.paths[0]: it must have either `exact` or `prefix`; give one of them
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[11].http.paths[1].exact: `a` does not begin with a slash; write a path such as /a/b, without a query
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[12].http: requests are looked at in rules that allow only; allow the others, and deny the rest
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[13].icmp: it is for ICMP only; give `protocol: ICMP` or ICMPv6
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[14].ipVersion: it is no version of IP; give 4 or 6
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[15].protocol: it is no protocol; give TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite, or a number from 1 to 255
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[1].source.selector: at character 5, there is `=` where ==, !=, in, not in, contains, starts with or ends with is expected; write ==, !=, in, not in, contains, starts with or ends with
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[2].source.notSelector: at character 1, global() stands where it means nothing; use it in the namespaceSelector of a rule only
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[3].source.namespaceSelector: at character 5, it ends where ) is expected; write )
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[4].odd: there is no such field; remove it, or correct its name
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[5].action: `Permit` is none of its words; use Allow, Deny, Pass, Log
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[6].source.domains: there is no such field; remove it, or correct its name
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[7].source.nets: a list is expected here; correct the value
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[8].destination.ports: ports by number need a protocol that has ports; give `protocol: TCP`
        NetworkPolicy.projectcalico.org shop/n, spec.ingress[9].destination.ports[0]: `90:80` is no port; give a number, a range such as 8080:8090, or a name
    "#]]
    .assert_eq(&rules(&[
        "{action: Allow, source: {nets: [10.0.0.0/99]}, destination: {nets: [10.0.0.1]}}",
        "{action: Deny, source: {selector: app = 'x'}, destination: {nets: [10.0.0.1]}}",
        "{action: Deny, source: {notSelector: global()}}",
        "{action: Pass, source: {namespaceSelector: all(}}",
        "{action: Pass, odd: 1}",
        "{action: Permit}",
        "{action: Allow, source: {domains: [a]}}",
        "{action: Deny, source: {nets: 10.0.0.1}}",
        "{action: Allow, destination: {ports: [80]}}",
        "{action: Allow, destination: {ports: ['90:80']}}",
        "{action: Allow, protocol: TCP, source: {ports: [http]}}",
        "{action: Allow, http: {paths: [{}, {exact: a}]}}",
        "{action: Deny, http: {methods: [GET]}}",
        "{action: Allow, protocol: TCP, icmp: {type: 8}}",
        "{action: Allow, ipVersion: 5}",
        "{action: Log, protocol: QUIC}",
    ]));
}

#[test]
fn a_scope_is_not_narrowed_by_what_is_not_understood() {
    let yaml = document(
        "NetworkPolicy",
        "{name: n, namespace: shop}",
        "{selector: app, serviceAccountSelector: has(a), ingress: [{action: Allow}, {action: Pass}, {action: Deny, source: {nets: [10.0.0.1]}}]}",
    ) + &document(
        "GlobalNetworkPolicy",
        "{name: g}",
        "{namespaceSelector: global(), selector: has(a), types: [Odd], order: first, egress: 1}",
    );
    expect![[r#"
        GlobalNetworkPolicy g in default at Order(-inf): has a
          no rule of ingress
          egress Deny unknown
        NetworkPolicy.projectcalico.org shop/n in default at Order(inf): namespace=shop & has account:a
          ingress[1] Deny anything
          ingress[2] Deny from [10.0.0.1-10.0.0.1]
        GlobalNetworkPolicy g, spec: it is not understood as a whole, so it holds for every pod that it could be about, and allows nothing; correct the fields that other issues name
        GlobalNetworkPolicy g, spec.egress: a list is expected here; correct the value
        GlobalNetworkPolicy g, spec.namespaceSelector: at character 1, global() stands where it means nothing; use it in the namespaceSelector of a rule only
        GlobalNetworkPolicy g, spec.order: a number is expected here; correct the value
        GlobalNetworkPolicy g, spec.types[0]: `Odd` is none of its words; use Ingress, Egress
        NetworkPolicy.projectcalico.org shop/n, spec: it is not understood as a whole, so it holds for every pod that it could be about, and allows nothing; correct the fields that other issues name
        NetworkPolicy.projectcalico.org shop/n, spec.selector: at character 4, it ends where ==, !=, in, not in, contains, starts with or ends with is expected; write ==, !=, in, not in, contains, starts with or ends with
    "#]]
    .assert_eq(&policies(&yaml));
}

#[test]
fn tiers_and_sets_are_read() {
    let (model, issues) = model(
        &(document("Tier", "{name: security}", "{order: 5.5, defaultAction: Pass}")
            + &document("Tier", "{name: last}", "{}")
            + &document("Tier", "{name: lost}", "{order: first, defaultAction: Pass}")
            + &document("Tier", "{name: odd}", "{order: 1, defaultAction: Allow}")
            + &document(
                "NetworkSet",
                "{name: a, namespace: shop, labels: {role: db}}",
                "{nets: [10.0.0.0/8, odd, 'fd00::1']}",
            )
            + &document("GlobalNetworkSet", "{name: b, labels: {role: web}}", "{nets: [192.0.2.1]}")),
    );
    let tiers = model.tiers.iter().map(|(key, tier)| format!("{} {:?} {:?}\n", key.name, tier.order, tier.end));
    let sets = model
        .address_sets
        .iter()
        .map(|(object, set)| format!("{object} {:?} {:?} {:?}\n", set.namespace, set.labels, set.addresses));
    expect![[r#"
        last Some(Order(inf)) Deny
        lost None Pass
        odd Some(Order(1.0)) Deny
        security Some(Order(5.5)) Pass
        GlobalNetworkSet b None {"role": "web"} ["192.0.2.1-192.0.2.1"]
        NetworkSet shop/a Some("shop") {"role": "db"} ["10.0.0.0-10.255.255.255", "fd00::1-fd00::1"]
        NetworkSet shop/a, spec.nets[1]: `odd` is no address and no range such as 10.0.0.0/8; write it like 10.0.0.0/8 or fd00::/64
        Tier lost, spec: it is not understood when it is asked, so what its policies are about is denied; correct its order
        Tier lost, spec.order: a number is expected here; correct the value
        Tier odd, spec.defaultAction: `Allow` is none of its words; use Deny, Pass
    "#]]
    .assert_eq(&(tiers.chain(sets).collect::<String>() + &lines(&issues)));
}

/// An object as Calico stores it.
fn stored(kind: &str, metadata: &str, spec: &str) -> String {
    document(kind, metadata, spec).replace("projectcalico.org/v3", "crd.projectcalico.org/v1")
}

#[test]
fn an_object_that_is_stored_twice_counts_once() {
    let metadata = "{name: default.a, namespace: shop}";
    let same = stored("NetworkPolicy", metadata, "{order: 1}")
        + &document("NetworkPolicy", "{name: a, namespace: shop}", "{order: 1}");
    expect![[r#"
        NetworkPolicy.projectcalico.org shop/a in default at Order(1.0): namespace=shop
          no rule of ingress
    "#]]
    .assert_eq(&policies(&same));
    let other = stored("NetworkPolicy", metadata, "{order: 1}")
        + &document("NetworkPolicy", "{name: a, namespace: shop}", "{order: 2}");
    expect![[r#"
        NetworkPolicy.projectcalico.org shop/a in default at Order(1.0): namespace=shop
          no rule of ingress
        NetworkPolicy.projectcalico.org shop/a: shop/a of projectcalico.org/v3 says something else than shop/default.a, which counts; delete one of them
    "#]]
    .assert_eq(&policies(&other));
}

#[test]
fn a_set_has_the_labels_that_its_user_gave_it() {
    let yaml =
        stored(
            "NetworkSet",
            "{name: a, namespace: shop, annotations: {projectcalico.org/metadata: '{\"labels\":{\"role\":\"db\"}}'}}",
            "{nets: [10.0.0.1]}",
        ) + &stored("NetworkSet", "{name: b, namespace: shop, annotations: {projectcalico.org/metadata: '{'}}", "{}");
    let (model, issues) = model(&yaml);
    let labels = model.address_sets.values().map(|set| format!("{:?}\n", set.labels)).collect::<String>();
    expect![[r#"
        {"role": "db"}
        {}
        NetworkSet shop/b, metadata.annotations.projectcalico.org/metadata: it is not understood: EOF while parsing an object at line 1 column 1; store the object by calicoctl
    "#]]
    .assert_eq(&(labels + &lines(&issues)));
}
