//! Policies as users write them, and what becomes of connections and requests.

use super::*;
use crate::model::{Identity, Issue, TrustDomain};
use crate::policy::flow::TCP;
use crate::policy::{Flow, Party, Proof, Request, Sni, Spoken, Told, judge};
use crate::snapshot::PodPolicies;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::IpAddr;

/// The pod that is asked; who asks from 10.0.0.1 is a pod of namespace shop.
const PODS: &str = "
{kind: Namespace, metadata: {name: default, labels: {istio.io/dataplane-mode: ambient, team: red}}}
---
{kind: Namespace, metadata: {name: shop, labels: {team: blue}}}
---
kind: Pod
metadata: {name: web, labels: {app: web, tier: front}}
spec: {nodeName: one, serviceAccountName: web, containers: [{ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 10.0.0.2}
---
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client, pod-template-hash: x}}
spec: {nodeName: two, serviceAccountName: client}
status: {podIP: 10.0.0.1}
---
{kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]}}
---
{kind: Service, metadata: {name: other}, spec: {clusterIP: 10.96.0.2, selector: {app: other}, ports: [{port: 80}]}}
---
";

fn snapshot(policies: &str) -> NodeSnapshot {
    let mut world = world(&format!("{PODS}{policies}"));
    attach(&mut world, "web", "c-web", None, &[]);
    compiled(&world)
}

/// An AuthorizationPolicy of namespace default with this spec.
fn policy(spec: &str) -> String {
    named("p", "default", spec)
}

fn named(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, \
         metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}\n---\n"
    )
}

fn policies(snapshot: &NodeSnapshot) -> &PodPolicies {
    snapshot.policies.get("c-web").expect("the pod has policies")
}

/// What comes of a question: who asks (`-` for plain text from outside, or `namespace/account`), the port, and for HTTP the method and
/// the path, then headers as in `x-team=red`, of which `host` is the authority.
fn ask(snapshot: &NodeSnapshot, question: &str) -> (bool, String, Vec<String>) {
    let mut words = question.split(' ');
    let mut next = || words.next();
    let (who, port) = (next().expect("who asks"), next().expect("the port").parse().expect("a port"));
    let (method, path) = (next(), next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    let mut host = "web";
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        if name == "host" {
            host = value;
        } else {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
    }
    let (request, sni) = match method {
        Some("TLS") => (None, Sni::of(path)),
        Some("UNREAD") => (None, Sni::Unread),
        method => (method.map(|method| Request::new(method, host, path, &headers)), Sni::Absent),
    };
    let source: IpAddr = if who == "-" { [192, 0, 2, 1].into() } else { [10, 0, 0, 1].into() };
    let local: IpAddr = [10, 0, 0, 2].into();
    let domain: TrustDomain = "cluster.local".into();
    let identity = who.split_once('/').map(|(namespace, account)| Identity::new(&domain, namespace, account));
    let identity = identity.map(|identity| identity.expect("an identity"));
    let principal = identity.as_ref().map(Identity::principal).unwrap_or_default();
    let subject = |address| snapshot.directory.workloads.get(address).map(|entry| &entry.subject);
    let flow = Flow {
        source: Party { address: source, port: None, subject: subject(&source) },
        destination: Party { address: local, port: Some(port), subject: subject(&local) },
        with_node: false,
        protocol: TCP,
        proof: identity.as_ref().map(|identity| Proof { identity, principal: &principal }),
        sni: &sni,
        spoken: request.as_ref().map_or(Spoken::Opaque, Spoken::Http),
    };
    let mut told = Vec::new();
    let verdict = judge(&policies(snapshot).inbound, &flow, |one| {
        told.push(match one {
            Told::Rule(origin) => format!("told by {origin}"),
            Told::Trial(verdict) => format!("would be {} by {}", verdict.is_allowed, verdict.by),
        });
    });
    (verdict.is_allowed, verdict.by.to_string(), told)
}

/// Asserts who is allowed under policies without anything wrong in them.
fn check(policies: &str, questions: &[(&str, bool)]) {
    let snapshot = snapshot(policies);
    assert_eq!(snapshot.issues.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0], "{policies}");
    for (question, allowed) in questions {
        let (is_allowed, by, _) = ask(&snapshot, question);
        assert_eq!(is_allowed, *allowed, "{question}: {by}\n{policies}");
    }
}

/// Asserts the same under policies in which something is wrong.
fn check_unclear(policies: &str, questions: &[(&str, bool)], issues: &Expect) {
    let snapshot = snapshot(policies);
    for (question, allowed) in questions {
        let (is_allowed, by, _) = ask(&snapshot, question);
        assert_eq!(is_allowed, *allowed, "{question}: {by}\n{policies}");
    }
    let text = |issue: &Arc<Issue>| format!("{issue}\n");
    issues.assert_eq(&snapshot.issues.iter().map(text).collect::<String>());
}

#[test]
fn without_policies_all_is_allowed_and_an_empty_one_allows_nothing() {
    check("", &[("- 8080", true), ("shop/client 8080 GET /", true)]);
    for spec in ["{}", "{action: ALLOW}", "{rules: []}"] {
        check(&policy(spec), &[("- 8080", false), ("shop/client 8080 GET /", false)]);
    }
    check(&policy("{rules: [{}]}"), &[("- 8080", true), ("shop/client 8080 GET /", true)]);
    check(&policy("{action: DENY}"), &[("- 8080", true)]);
    check(&policy("{action: DENY, rules: [{}]}"), &[("- 8080", false)]);
}

#[test]
fn deny_comes_before_allow_and_an_origin_is_told() {
    let both = policy("{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]}")
        + &named("no", "default", "{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}");
    let snapshot = snapshot(&both);
    for (question, allowed, by) in [
        ("shop/client 8080 GET /", true, "AuthorizationPolicy default/p, rules[0]"),
        ("shop/client 8080 GET /admin", false, "AuthorizationPolicy default/no, rules[0]"),
        ("shop/client 8080", false, "AuthorizationPolicy default/no, rules[0]"),
        ("shop/other 8080 GET /", false, "no rule of the tier allow: AuthorizationPolicy default/p"),
        ("- 8080 GET /", false, "no rule of the tier allow: AuthorizationPolicy default/p"),
    ] {
        assert_eq!(ask(&snapshot, question), (allowed, by.to_owned(), Vec::new()), "{question}");
    }
}

#[test]
fn sources_are_told_by_what_they_prove_and_where_they_are() {
    let from = |source: &str| policy(&format!("{{rules: [{{from: [{{source: {source}}}]}}]}}"));
    for (source, client, other, plain) in [
        ("{principals: ['*']}", true, true, false),
        ("{notPrincipals: ['*']}", false, false, true),
        ("{principals: ['cluster.local/ns/shop/*']}", true, false, false),
        ("{principals: ['*/sa/client']}", true, false, false),
        ("{notPrincipals: ['*/sa/client']}", false, true, true),
        ("{trustDomains: [cluster.local]}", true, true, false),
        ("{trustDomains: [cluster]}", false, false, false),
        ("{trustDomains: ['cluster*']}", true, true, false),
        ("{trustDomains: ['*.local']}", true, true, false),
        ("{trustDomains: ['*.loca']}", false, false, false),
        ("{notTrustDomains: [other]}", true, true, true),
        ("{namespaces: [shop]}", true, false, false),
        ("{namespaces: ['sh*']}", true, false, false),
        ("{notNamespaces: [shop]}", false, true, true),
        ("{serviceAccounts: [shop/client]}", true, false, false),
        ("{serviceAccounts: [other]}", false, true, false),
        ("{notServiceAccounts: [shop/client]}", false, true, true),
        ("{ipBlocks: [10.0.0.0/24]}", true, true, false),
        ("{ipBlocks: [192.0.2.1]}", false, false, true),
        ("{notIpBlocks: [10.0.0.0/24]}", false, false, true),
        ("{namespaces: [shop], notPrincipals: ['*/sa/client']}", false, false, false),
        ("{namespaces: [shop, default]}", true, true, false),
    ] {
        check(&from(source), &[("shop/client 8080", client), ("default/other 8080", other), ("- 8080", plain)]);
    }
    let several = policy("{rules: [{from: [{source: {namespaces: [shop]}}, {source: {ipBlocks: [192.0.2.1]}}]}]}");
    check(&several, &[("shop/client 8080", true), ("- 8080", true), ("default/other 8080", false)]);
    let forwarded = from("{remoteIpBlocks: [198.51.100.0/24]}");
    check(
        &forwarded,
        &[
            ("shop/client 8080 GET / x-forwarded-for=198.51.100.7", true),
            ("shop/client 8080 GET /", false),
            ("shop/client 8080", false),
        ],
    );
    let others = from("{notRemoteIpBlocks: [198.51.100.0/24]}");
    check(&others, &[("- 8080 GET / x-forwarded-for=198.51.100.7", false), ("- 8080 GET /", true)]);
}

#[test]
fn operations_are_told_by_what_is_asked() {
    let to = |operation: &str| policy(&format!("{{rules: [{{to: [{{operation: {operation}}}]}}]}}"));
    for (operation, met, unmet) in [
        ("{methods: [GET]}", "- 8080 GET /", "- 8080 POST /"),
        ("{methods: ['P*']}", "- 8080 PUT /", "- 8080 GET /"),
        ("{notMethods: [GET]}", "- 8080 POST /", "- 8080 GET /"),
        ("{ports: ['8080']}", "- 8080 GET /", "- 8081 GET /"),
        ("{notPorts: ['8080']}", "- 8081", "- 8080"),
        ("{hosts: [Web.example]}", "- 8080 GET / host=WEB.example", "- 8080 GET / host=web.example:80"),
        ("{hosts: ['*.example']}", "- 8080 GET / host=a.example", "- 8080 GET / host=example"),
        ("{hosts: ['web*']}", "- 8080 GET / host=web:80", "- 8080 GET / host=other"),
        ("{hosts: ['web:80']}", "- 8080 GET / host=Web:80", "- 8080 GET / host=web"),
        ("{hosts: ['web:*']}", "- 8080 GET / host=web:8080", "- 8080 GET / host=web"),
        ("{notHosts: [evil]}", "- 8080 GET / host=web", "- 8080 GET / host=evil:80"),
        ("{paths: [/a]}", "- 8080 GET /a", "- 8080 GET /a/"),
        ("{paths: ['/a*']}", "- 8080 GET /ab", "- 8080 GET /b"),
        ("{paths: ['*/info']}", "- 8080 GET /x/info", "- 8080 GET /info/x"),
        ("{paths: ['*']}", "- 8080 GET /", "- 8080"),
        ("{notPaths: ['/admin*']}", "- 8080 GET /a", "- 8080 GET /x/../admin"),
        ("{paths: ['/a*']}", "- 8080 GET /a/b", "- 8080 GET /a/../b"),
        ("{paths: ['/a/{*}']}", "- 8080 GET /a/b", "- 8080 GET /a/b/c"),
        ("{paths: ['/a/{*}']}", "- 8080 GET /a/b.c-d", "- 8080 GET /a/"),
        ("{paths: ['/a/{*}/c/{**}']}", "- 8080 GET /a/b/c/d/e", "- 8080 GET /a/b/d"),
        ("{paths: ['/a/{**}']}", "- 8080 GET /a/", "- 8080 GET /b/"),
        ("{paths: ['/a.b/{*}']}", "- 8080 GET /a.b/c", "- 8080 GET /axb/c"),
        ("{methods: [GET], paths: [/a]}", "- 8080 GET /a", "- 8080 POST /a"),
    ] {
        check(&to(operation), &[(met, true), (unmet, false)]);
    }
}

#[test]
fn rules_that_deny_take_the_worst_reading_and_all_that_is_no_http() {
    let deny = |operation: &str| policy(&format!("{{action: DENY, rules: [{{to: [{{operation: {operation}}}]}}]}}"));
    for (operation, allowed, denied) in [
        ("{paths: ['/admin*']}", "- 8080 GET /a", "- 8080 GET /x/..%2fadmin"),
        ("{paths: ['/admin/{**}']}", "- 8080 GET /admin", "- 8080 GET //admin/x"),
        ("{notPaths: ['/public/*']}", "- 8080 GET /public/a", "- 8080 GET /public/../a"),
        ("{hosts: [web]}", "- 8080 GET / host=other", "- 8080 GET / host=Web:8080"),
        ("{methods: [POST], ports: ['8080']}", "- 8081", "- 8080"),
        ("{notMethods: [GET]}", "- 8080 GET /", "- 8080"),
    ] {
        check(&deny(operation), &[(allowed, true), (denied, false)]);
    }
}

#[test]
fn conditions_are_all_to_be_met() {
    let when = |conditions: &str| policy(&format!("{{rules: [{{when: {conditions}}}]}}"));
    for (conditions, met, unmet) in [
        ("[{key: source.ip, values: [10.0.0.0/8]}]", "shop/client 8080", "- 8080"),
        ("[{key: source.ip, notValues: [10.0.0.0/8]}]", "- 8080", "shop/client 8080"),
        ("[{key: source.namespace, values: [shop]}]", "shop/client 8080", "default/x 8080"),
        ("[{key: source.principal, values: ['*/sa/client']}]", "shop/client 8080", "shop/x 8080"),
        ("[{key: source.serviceAccount, values: [shop/client]}]", "shop/client 8080", "default/client 8080"),
        ("[{key: destination.ip, values: [10.0.0.2]}]", "- 8080", "- 8080x"),
        ("[{key: destination.port, values: ['8080']}]", "- 8080", "- 80"),
        ("[{key: remote.ip, values: [198.51.100.1]}]", "- 8080 GET / x-forwarded-for=198.51.100.1", "- 8080 GET /"),
        ("[{key: 'request.headers[X-Team]', values: [red]}]", "- 8080 GET / x-team=red", "- 8080 GET / x-team=re"),
        ("[{key: 'request.headers[X-Team]', values: ['*']}]", "- 8080 GET / x-team=any", "- 8080 GET /"),
        ("[{key: 'request.headers[X-Team]', notValues: [red]}]", "- 8080 GET /", "- 8080 GET / x-team=red"),
        (
            "[{key: source.namespace, values: [shop]}, {key: destination.port, values: ['8080'], notValues: ['81']}]",
            "shop/client 8080",
            "shop/client 81",
        ),
    ] {
        let questions = [(met, true), (unmet, false)];
        let questions: Vec<_> = questions.into_iter().filter(|(question, _)| !question.ends_with('x')).collect();
        check(&when(conditions), &questions);
    }
}

#[test]
fn a_policy_is_about_whom_it_selects() {
    let nobody = "rules: []";
    for (name, namespace, selector, reached) in [
        ("all", "default", "", true),
        ("other namespace", "shop", "", false),
        ("root", "istio-system", "", true),
        ("selected", "default", "selector: {matchLabels: {app: web}},", true),
        ("empty", "default", "selector: {matchLabels: {}},", true),
        ("not selected", "default", "selector: {matchLabels: {app: other}},", false),
        ("selected from the root", "istio-system", "selector: {matchLabels: {app: web}},", true),
        ("not selected from the root", "istio-system", "selector: {matchLabels: {app: x}},", false),
        ("its service", "default", "targetRefs: [{kind: Service, group: '', name: web}],", true),
        ("its service alone", "default", "targetRef: {kind: Service, name: web},", true),
        ("another service", "default", "targetRefs: [{kind: Service, name: other}],", false),
    ] {
        let policy = named(&name.replace(' ', "-"), namespace, &format!("{{{selector} {nobody}}}"));
        check(&policy, &[("shop/client 8080", !reached)]);
    }
}

#[test]
fn what_is_not_understood_is_denied_and_named() {
    let all = &[("shop/client 8080 GET /", false), ("- 8080", false)][..];
    check_unclear(
        &policy("{rules: [{from: [{source: {requestPrincipals: ['*']}}]}, {odd: 1}]}"),
        all,
        &expect![[r#"
            AuthorizationPolicy default/p, spec.rules[0].from[0].source.requestPrincipals: it is not supported; tokens are not read; use `principals`, which certificates prove
            AuthorizationPolicy default/p, spec.rules[1].odd: there is no such field; remove it, or correct its name
        "#]],
    );
    // A rule of several that is not understood does not close the others.
    check_unclear(
        &policy(
            "{rules: [{when: [{key: 'request.auth.claims[iss]', values: [x]}]}, {to: [{operation: {ports: ['8080']}}]}]}",
        ),
        &[("- 8080", true), ("- 8081", false)],
        &expect![[r#"
            AuthorizationPolicy default/p, spec.rules[0].when[0].key: `request.auth.claims[iss]` is not supported; use source.ip, remote.ip, source.namespace, source.principal, source.serviceAccount, destination.ip, destination.port, connection.sni, request.headers[NAME]
        "#]],
    );
    // In rules that deny it is as if it were met.
    check_unclear(
        &policy(
            "{action: DENY, rules: [{from: [{source: {namespaces: [7], ipBlocks: [10.0.0.0/8]}}], to: [{operation: {paths: ['/a/{x}/{*}']}}]}]}",
        ),
        &[("shop/client 8080 GET /", false), ("- 8080 GET /", true)],
        &expect![[r#"
            AuthorizationPolicy default/p, spec.rules[0].from[0].source.namespaces[0]: a text is expected here; correct the value
            AuthorizationPolicy default/p, spec.rules[0].to[0].operation.paths[0]: `{x}` in `/a/{x}/{*}` is no element of a template; use `{*}` for one element of a path and `{**}`, once and last, for any number, each alone between slashes
        "#]],
    );
    // `CUSTOM` denies what would be asked.
    check_unclear(
        &policy("{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {ports: ['8080']}}]}]}"),
        &[("- 8080", false), ("- 8081", true)],
        &expect![[r#"
            AuthorizationPolicy default/p, spec.action: `CUSTOM` is not supported; use ALLOW, DENY, AUDIT
            AuthorizationPolicy default/p, spec.provider: it is not supported; decide by ALLOW and DENY
        "#]],
    );
    check_unclear(
        &policy("{action: ALOW, rules: [{}]}"),
        all,
        &expect![[r#"
        AuthorizationPolicy default/p, spec.action: `ALOW` is none of its words; use ALLOW, DENY, AUDIT
    "#]],
    );
    check_unclear(
        &policy("{rules: [{}], odd: 1}"),
        all,
        &expect![[r#"
        AuthorizationPolicy default/p, spec.odd: there is no such field; remove it, or correct its name
    "#]],
    );
    check_unclear(
        &policy("{selector: {matchLabels: {app: other}, odd: 1}, rules: [{}]}"),
        all,
        &expect![[r#"
            AuthorizationPolicy default/p, spec: whom it is about is not understood, so it is about everyone in its namespace; correct its selector or its targets
            AuthorizationPolicy default/p, spec.selector.odd: there is no such field; remove it, or correct its name
        "#]],
    );
}

#[test]
fn what_stands_nobody_knows_where_allows_nothing() {
    let calico = |kind: &str, name: &str, spec: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: {name}, namespace: default}}, \
             spec: {spec}}}\n---\n"
        )
    };
    let open = calico("NetworkPolicy", "open", "{ingress: [{action: Allow}]}");
    check(&open, &[("- 8080", true)]);
    check_unclear(
        &(open.clone()
            + &calico("NetworkPolicy", "p", "{tier: 7, selector: \"app == 'web'\", ingress: [{action: Allow}]}")),
        &[("- 8080", false)],
        &expect![[r#"
            NetworkPolicy.projectcalico.org default/p, spec: it is not understood as a whole, so it allows nothing; correct the fields that other issues name
            NetworkPolicy.projectcalico.org default/p, spec.tier: a text is expected here; correct the value
        "#]],
    );
    let tier = |order: &str| {
        let tier = format!("{{order: {order}, defaultAction: Pass}}");
        let policy = "{tier: security, ingress: [{action: Deny, source: {nets: [192.0.2.0/24]}}, {action: Pass}]}";
        open.clone() + &calico("Tier", "security", &tier) + &calico("NetworkPolicy", "p", policy)
    };
    check(&tier("1"), &[("- 8080", false), ("shop/client 8080", true)]);
    check_unclear(
        &tier("first"),
        &[("- 8080", false), ("shop/client 8080", false)],
        &expect![[r#"
        Tier default/security, spec: it is not understood when it is asked, so what its policies are about is denied; correct its order
        Tier default/security, spec.order: a number is expected here; correct the value
    "#]],
    );
}

#[test]
fn a_tier_is_whole_whatever_tiers_of_another_chain_are_called() {
    // Both chains have a tier of this name and order.
    let calico = "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: allow}, spec: {order: 2}}\n---\n";
    let of_calico = |name: &str, action: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {{name: {name}}}, \
             spec: {{tier: allow, ingress: [{{action: {action}}}]}}}}\n---\n"
        )
    };
    let all = calico.to_owned()
        + &of_calico("a", "Log")
        + &named("b", "default", "{rules: [{}]}")
        + &of_calico("c", "Allow")
        + &named("d", "default", "{rules: []}");
    let snapshot = snapshot(&all);
    let chains = &policies(&snapshot).inbound.enforced;
    let sizes = |tiers: &[crate::policy::chain::Tier]| tiers.iter().map(|tier| tier.policies.len()).collect::<Vec<_>>();
    assert_eq!((sizes(&chains.network), sizes(&chains.mesh)), (vec![2], vec![2]));
}

#[test]
fn tokens_are_not_read_so_whoever_is_to_show_one_is_denied() {
    let object = |spec: &str| {
        format!(
            "{{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {{name: jwt}}, spec: {spec}}}\n---\n"
        )
    };
    check_unclear(
        &object("{selector: {matchLabels: {app: web}}, jwtRules: [{issuer: x}]}"),
        &[("shop/client 8080 GET /", false), ("- 8080", false)],
        &expect![[r#"
            RequestAuthentication default/jwt, spec.jwtRules: it is not supported; remove the object, and decide by the identities that certificates prove
        "#]],
    );
    check(&object("{selector: {matchLabels: {app: web}}}"), &[("- 8080", true)]);
}

#[test]
fn a_policy_about_a_service_holds_though_another_spoke_of_it_before() {
    let mention = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: m}, \
                   spec: {egress: [{action: Allow, destination: {services: {name: web}}}], ingress: [{action: Allow}]}}";
    let mut known = world(&format!("{PODS}{mention}"));
    attach(&mut known, "web", "c-web", None, &[]);
    let mut compiler = Compiler::of(&known, translate::Settings::default(), settings());
    assert!(ask(&compiler.snapshot(), "- 8080").0);
    let about =
        crate::world::fixture::object(policy("{targetRef: {kind: Service, name: web}}").trim_end_matches("---\n"));
    let touched = known.learn(Change::Upsert(Box::new(about)));
    compiler.learn(&known, touched);
    assert!(!ask(&compiler.snapshot(), "- 8080").0);
}

#[test]
fn a_service_that_is_not_there_is_named() {
    check_unclear(
        &policy("{targetRefs: [{kind: Service, name: gone}, {kind: Service, name: web}]}"),
        &[("- 8080", false)],
        &expect![[r#"
            AuthorizationPolicy default/p, spec.targetRefs: there is no Service default/gone; the policy holds for nobody there; create the service, or correct its name
        "#]],
    );
}

#[test]
fn a_policy_about_a_gateway_holds_for_no_pod() {
    let gateway = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: front}, \
                   spec: {gatewayClassName: x, listeners: [{name: l, port: 80, protocol: HTTP}]}}\n---\n";
    let target = "{group: gateway.networking.k8s.io, kind: Gateway, name: front}";
    let spec = format!("{{targetRefs: [{target}], rules: []}}");
    assert!(ask(&snapshot(&(gateway.to_owned() + &policy(&spec))), "- 8080").0);
    check_unclear(
        &policy("{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gone}]}"),
        &[("- 8080", true)],
        &expect![[r#"
            AuthorizationPolicy default/p, spec.targetRefs: there is no Gateway default/gone; the policy holds for nothing there; create the gateway, or correct its name
        "#]],
    );
    // What is about something else may be about anything.
    check_unclear(
        &policy("{targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}]}"),
        &[("- 8080", false)],
        &expect![[r#"
            AuthorizationPolicy default/p, spec: whom it is about is not understood, so it is about everyone in its namespace; correct its selector or its targets
            AuthorizationPolicy default/p, spec.targetRefs[0].kind: `GatewayClass` is not supported; use Service, Gateway
        "#]],
    );
    check_unclear(
        &policy("{targetRef: {name: other}}"),
        &[("- 8080", false)],
        &expect![[r#"
            AuthorizationPolicy default/p, spec: whom it is about is not understood, so it is about everyone in its namespace; correct its selector or its targets
            AuthorizationPolicy default/p, spec.targetRef.kind: it is missing; give Service or Gateway
        "#]],
    );
}

#[test]
fn an_audit_tells_and_a_trial_says_what_would_be() {
    let audit = named("audit", "default", "{action: AUDIT, rules: [{to: [{operation: {methods: [GET]}}]}]}");
    let tried = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, \
                 metadata: {name: try, annotations: {istio.io/dry-run: 'true'}}, \
                 spec: {action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]}}\n---\n";
    let snapshot = snapshot(&(audit + tried));
    assert_eq!(*snapshot.issues, []);
    for (question, told) in [
        ("- 8080 GET /", &["told by AuthorizationPolicy default/audit, rules[0]"][..]),
        ("- 8080", &["would be false by AuthorizationPolicy default/try, rules[0]"]),
        (
            "- 8080 GET /a",
            &[
                "told by AuthorizationPolicy default/audit, rules[0]",
                "would be false by AuthorizationPolicy default/try, rules[0]",
            ],
        ),
        ("- 8080 PUT /", &[]),
    ] {
        let (allowed, _, said) = ask(&snapshot, question);
        assert!(allowed && said == told, "{question}: {said:?}");
    }
}

#[test]
fn ports_on_which_requests_are_to_be_read_are_known() {
    let reads = |spec: &str, port| policies(&snapshot(&policy(spec))).inbound.reads_http(port);
    for (spec, port, is_read) in [
        ("{rules: [{to: [{operation: {ports: ['8080']}}]}]}", 8080, false),
        ("{rules: [{to: [{operation: {paths: [/a]}}]}]}", 7, true),
        ("{rules: [{to: [{operation: {ports: ['8080'], methods: [GET]}}]}]}", 8080, true),
        ("{rules: [{to: [{operation: {ports: ['8080'], methods: [GET]}}]}]}", 8081, false),
        ("{rules: [{to: [{operation: {notPorts: ['8080'], methods: [GET]}}]}]}", 8081, true),
        ("{action: DENY, rules: [{when: [{key: 'request.headers[x]', values: [blue]}]}]}", 8080, true),
    ] {
        assert_eq!(reads(spec, port), is_read, "{spec} {port}");
    }
}

#[test]
fn server_names_are_compared_as_hosts_are() {
    for (values, names, others) in [
        ("values: [Shop.Example]", &["shop.example", "SHOP.example"][..], &["a.shop.example", "shop.example2"][..]),
        ("values: ['*.example', a.test]", &["shop.example", "a.test"], &["example", "b.test"]),
        ("values: ['shop.*']", &["shop.example"], &["a.shop.example"]),
        ("values: ['*']", &["a"], &[]),
        ("notValues: [shop.example]", &["a.example"], &["shop.example"]),
        ("values: ['*.example'], notValues: [shop.example]", &["a.example"], &["shop.example", "a.test"]),
    ] {
        let of = |action: &str| {
            policy(&format!("{{action: {action}, rules: [{{when: [{{key: connection.sni, {values}}}]}}]}}"))
        };
        for (names, is_met) in [(names, true), (others, false)] {
            for name in names {
                let question = format!("- 8080 TLS {name}");
                check(&of("ALLOW"), &[(&question, is_met)]);
                check(&of("DENY"), &[(&question, !is_met)]);
            }
        }
        // Without a name only the contrary of one is met; of what nobody could read the worst is held.
        let is_met = values.starts_with("notValues");
        check(&of("ALLOW"), &[("- 8080", is_met), ("- 8080 GET /", is_met), ("- 8080 UNREAD", false)]);
        check(&of("DENY"), &[("- 8080", !is_met), ("- 8080 GET /", !is_met), ("- 8080 UNREAD", false)]);
    }
}

#[test]
fn ports_on_which_server_names_are_to_be_read_are_known() {
    let reads = |spec: &str, port| policies(&snapshot(&policy(spec))).inbound.reads_sni(port);
    for (spec, port, is_read) in [
        ("{rules: [{to: [{operation: {paths: [/a]}}]}]}", 7, false),
        ("{rules: [{when: [{key: connection.sni, values: [a]}]}]}", 7, true),
        (
            "{rules: [{to: [{operation: {ports: ['8443']}}], when: [{key: connection.sni, notValues: [a]}]}]}",
            8443,
            true,
        ),
        ("{rules: [{to: [{operation: {ports: ['8443']}}], when: [{key: connection.sni, notValues: [a]}]}]}", 80, false),
    ] {
        assert_eq!(reads(spec, port), is_read, "{spec} {port}");
    }
}

#[test]
fn pods_of_which_the_same_holds_share_their_chains() {
    let mut known = world(&format!("{PODS}{}", policy("{rules: []}")));
    let pod = |name: &str, address: &str| {
        format!(
            "{{kind: Pod, metadata: {{name: {name}, labels: {{app: web, pod-template-hash: {name}}}}}, \
             spec: {{nodeName: one}}, status: {{podIP: {address}}}}}"
        )
    };
    for (name, address) in [("a", "10.0.0.11"), ("b", "10.0.0.12")] {
        known.apply(Change::Upsert(Box::new(crate::world::fixture::object(&pod(name, address)))));
        attach(&mut known, name, &format!("c-{name}"), None, &[]);
    }
    let snapshot = compiled(&known);
    let of = |key: &str| Arc::clone(&snapshot.policies.get(key).expect("a pod's").inbound);
    assert!(Arc::ptr_eq(&of("c-a"), &of("c-b")));
    let subject = |address: [u8; 4]| {
        let entry = snapshot.directory.workloads.get(&IpAddr::from(address)).expect("a workload");
        Arc::clone(&entry.subject)
    };
    assert!(Arc::ptr_eq(&subject([10, 0, 0, 11]), &subject([10, 0, 0, 12])), "labels of single pods do not count");
}

#[test]
fn policies_of_one_order_are_asked_by_name_as_calico_compares_names() {
    let policy = |name: &str, action: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {{name: {name}, namespace: default}}, \
             spec: {{order: 1, ingress: [{{action: {action}}}]}}}}\n---\n"
        )
    };
    for (first, second) in [("a", "b"), ("a-b", "a"), ("a.b", "a"), ("a", "a0")] {
        for (allowed, denied) in [(first, second), (second, first)] {
            let policies = policy(allowed, "Allow") + &policy(denied, "Deny");
            check(&policies, &[("shop/client 80", allowed == first)]);
        }
    }
}
