use super::*;

pub(super) fn istio(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}\n---\n"
    )
}

const SUBSETS: &str =
    "{host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}";

#[test]
fn rules_are_tried_in_their_order_and_send_to_subsets() {
    let route = istio(
        "VirtualService",
        "reviews",
        "default",
        "{hosts: [reviews], http: [
          {match: [{headers: {end-user: {exact: jason}}}], route: [{destination: {host: reviews, subset: v2}}]},
          {match: [{uri: {prefix: /}}], route: [{destination: {host: reviews, subset: v1}, weight: 75}, {destination: {host: ratings, port: {number: 9080}}, weight: 25}, {destination: {host: reviews, subset: v9}, weight: 1}]},
          {route: [{destination: {host: gone}}]}]}",
    );
    check(
        &(route + &istio("DestinationRule", "reviews", "default", SUBSETS)),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          routes
            Any headers [HeaderMatch { name: "end-user", value: Exact("jason") }] => 1x reviews.default.svc.cluster.local:9080/v2 [10.0.1.2:9080] (VirtualService default/reviews http[0])
            Prefix("/") => 75x reviews.default.svc.cluster.local:9080/v1 [10.0.1.1:9080], 25x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080], 1x !503 (VirtualService default/reviews http[1])
            Any => 1x !503 (VirtualService default/reviews http[2])
        VirtualService default/reviews, spec.http[1]: no DestinationRule for reviews.default.svc.cluster.local has a subset v9; requests that fall to it are answered 503; create one
        VirtualService default/reviews, spec.http[2]: there is no Service default/gone; requests that fall to it are answered 503; create it, or correct the name
    "#]],
    );
}

#[test]
fn the_oldest_object_routes_a_host_and_a_namespaces_own_comes_first() {
    let rule = |to: &str| format!("http: [{{route: [{{destination: {{host: {to}}}}}]}}]");
    let first = istio("VirtualService", "a", "default", &format!("{{hosts: [reviews], {}}}", rule("ratings")));
    let second = istio("VirtualService", "b", "default", &format!("{{hosts: [reviews], {}}}", rule("reviews")));
    let own = istio(
        "VirtualService",
        "own",
        "shop",
        &format!("{{hosts: [reviews.default.svc.cluster.local], exportTo: [.], {}}}", rule("pay")),
    );
    let wildcard =
        istio("VirtualService", "wild", "shop", &format!("{{hosts: ['*.svc.cluster.local'], {}}}", rule("pay")));
    check(
        &(first + &second + &own + &wildcard),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          routes
            Any => 1x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080] (VirtualService default/a http[0])
          routes for c2
            Any => 1x pay.shop.svc.cluster.local:80 [] (VirtualService shop/own http[0])
        10.96.0.2 ratings:9080 Http
          routes
            Any => 1x pay.shop.svc.cluster.local:80 [] (VirtualService shop/wild http[0])
        10.96.0.3 pay:80 Http
          routes
            Any => 1x pay.shop.svc.cluster.local:80 [] (VirtualService shop/wild http[0])
        VirtualService default/b, spec.hosts: VirtualService default/a routes reviews.default.svc.cluster.local port 9080, where this one has no effect; put the rules into one object
    "#]],
    );
}

#[test]
fn matches_on_clients_and_ports_are_decided_beforehand() {
    let route = istio(
        "VirtualService",
        "ratings",
        "default",
        "{hosts: [ratings], gateways: [mesh, edge], http: [
          {match: [{sourceNamespace: shop, port: 9080}, {gateways: [edge]}], route: [{destination: {host: reviews}}]},
          {match: [{sourceLabels: {app: client}}], route: [{destination: {host: ratings, port: {number: 9080}}}]},
          {match: [{port: 1}], route: [{destination: {host: ratings}}]}]}",
    );
    check(
        &route,
        &expect![[r#"
            10.96.0.2 ratings:9080 Http
              routes

              routes for c1
                Any => 1x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080] (VirtualService default/ratings http[1])
              routes for c2
                Any => 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (VirtualService default/ratings http[0])
            VirtualService default/ratings, spec.gateways: there is no Gateway default/edge; the route does not hold for it; create it, or correct the name
        "#]],
    );
}

#[test]
fn the_gateway_api_comes_before_istio() {
    let istio = istio(
        "VirtualService",
        "reviews",
        "default",
        "{hosts: [reviews], http: [{route: [{destination: {host: ratings}}]}]}",
    );
    let gateway = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r},
      spec: {parentRefs: [{group: '', kind: Service, name: reviews}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}}";
    check(
        &(istio + gateway),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          routes
            Elements("/") => 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r rules[0])
        VirtualService default/reviews, spec.hosts: HTTPRoute default/r routes reviews.default.svc.cluster.local port 9080, where this one has no effect; put the rules into one object
    "#]],
    );
}

#[test]
fn what_is_not_understood_answers_500() {
    let rules = istio(
        "VirtualService",
        "reviews",
        "default",
        "{hosts: [reviews], http: [
          {match: [{uri: {prefix: /a}, odd: 1}], route: [{destination: {host: reviews}}]},
          {match: [{uri: {regex: '('}, method: {exact: GET}}], route: [{destination: {host: reviews}}]},
          {match: [{uri: {prefix: /c}}], delegate: {name: other}},
          {match: [{uri: {prefix: /d}}], route: [{destination: {host: reviews}}], timeout: never},
          {match: [{uri: {prefix: /e}}], redirect: {uri: /f, redirectCode: 308}},
          {match: [{uri: {prefix: /f}}], directResponse: {status: 503}},
          {route: [{destination: {host: reviews}}], retries: {attempts: 2, retryOn: 'gateway-error,418,unavailable'}, tcp: 1}]}",
    );
    let object = istio(
        "VirtualService",
        "ratings",
        "default",
        "{hosts: [ratings], odd: {}, tcp: [{}], http: [{route: [{destination: {host: ratings}}]}]}",
    );
    check(
        &(rules + &object),
        &expect![[r#"
            10.96.0.1 reviews:9080 Http
              routes
                Prefix("/a") => answers 500 (VirtualService default/reviews http[0])
                Any method Exact("GET") => answers 500 (VirtualService default/reviews http[1])
                Prefix("/c") => answers 500 (VirtualService default/reviews http[2])
                Prefix("/d") => answers 500 (VirtualService default/reviews http[3])
                Prefix("/e") => Redirect { scheme: None, host: None, port: Request, path: Some(Full("/f")), status: 308 } (VirtualService default/reviews http[4])
                Prefix("/f") => answers 503 (VirtualService default/reviews http[5])
                Any => answers 500 (VirtualService default/reviews http[6])
            10.96.0.2 ratings:3306 Opaque
              streams
                ConnectionMatch { sni: None, destinations: None } =>  (VirtualService default/ratings tcp[0])
                others go on
            10.96.0.2 ratings:9080 Undeclared
              routes
                Any => answers 500 (VirtualService default/ratings http[0])
              streams
                ConnectionMatch { sni: None, destinations: None } =>  (VirtualService default/ratings tcp[0])
                others go on
            VirtualService default/ratings, spec.odd: there is no such field; remove it, or correct its name
            VirtualService default/ratings, spec.tcp[0].route: nothing says where connections go; give a destination
            VirtualService default/reviews, spec.http[0].match[0].odd: there is no such field; remove it, or correct its name
            VirtualService default/reviews, spec.http[1].match[0].uri.regex: `(` is no regular expression that can be used: error: unclosed group; correct the pattern
            VirtualService default/reviews, spec.http[2]: nothing says where requests go; give `route`, `redirect` or `directResponse`
            VirtualService default/reviews, spec.http[2].delegate: it is not supported; put the rules of the delegate into this object
            VirtualService default/reviews, spec.http[3].timeout: `never` is no time; give a time such as 7s, 250ms or 1h30m
            VirtualService default/reviews, spec.http[6].tcp: there is no such field; remove it, or correct its name
        "#]],
    );
}

#[test]
fn routes_without_a_host_that_is_known_are_reported() {
    let route = |name: &str, host: &str| {
        istio(
            "VirtualService",
            name,
            "default",
            &format!("{{hosts: [{host}], http: [{{route: [{{destination: {{host: reviews}}}}]}}]}}"),
        )
    };
    let routes =
        route("a", "gone") + &route("b", "a.example.com") + &route("c", "'a b'") + &route("d", "'*.example.com'");
    check(
        &routes,
        &expect![[r#"
        VirtualService default/a, spec.hosts: there is no Service default/gone; the route does not hold for it; name a service that has a virtual address
        VirtualService default/b, spec.hosts: nobody knows the host a.example.com; the route does not hold for it; describe it by a ServiceEntry
        VirtualService default/c, spec.hosts: it names no host, so it routes nothing; name a host
        VirtualService default/c, spec.hosts[0]: `a b` is no host name; give the name of a host
    "#]],
    );
}
