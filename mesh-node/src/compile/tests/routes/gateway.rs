use super::*;

fn route(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}\n---\n"
    )
}

const REVIEWS: &str = "parentRefs: [{group: '', kind: Service, name: reviews, port: 9080}]";

#[test]
fn matches_are_tried_in_the_order_of_the_specification() {
    let spec = format!(
        "{{{REVIEWS}, rules: [
          {{matches: [{{path: {{value: /}}}}], backendRefs: [{{name: reviews, port: 9080}}]}},
          {{name: named, matches: [
            {{path: {{value: /a}}}},
            {{path: {{type: Exact, value: /a}}}},
            {{path: {{value: /a/b}}}},
            {{path: {{value: /a}}, headers: [{{name: x, value: '1'}}]}},
            {{path: {{value: /a}}, method: GET}},
            {{path: {{value: /a}}, queryParams: [{{name: q, value: '1'}}]}},
            {{path: {{type: RegularExpression, value: /a.*}}}}],
           backendRefs: [{{name: ratings, port: 9080, weight: 3}}, {{name: reviews, port: 9080, weight: 1}}]}}]}}"
    );
    check(
        &route("HTTPRoute", "r", "default", &spec),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          routes
            Exact("/a") => 3x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080], 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r named)
            Regex(//a.*/) => 3x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080], 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r named)
            Elements("/a/b") => 3x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080], 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r named)
            Elements("/a") method Exact("GET") => 3x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080], 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r named)
            Elements("/a") headers [HeaderMatch { name: "x", value: Exact("1") }] => 3x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080], 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r named)
            Elements("/a") query [QueryMatch { name: "q", value: Exact("1") }] => 3x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080], 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r named)
            Elements("/a") => 3x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080], 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r named)
            Elements("/") => 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r rules[0])
    "#]],
    );
}

#[test]
fn a_consumers_route_holds_for_its_own_namespace_instead_of_the_producers() {
    let producer = route(
        "HTTPRoute",
        "producer",
        "default",
        &format!("{{{REVIEWS}, rules: [{{backendRefs: [{{name: ratings, port: 9080}}]}}]}}"),
    );
    let consumer = route(
        "HTTPRoute",
        "consumer",
        "shop",
        "{parentRefs: [{group: '', kind: Service, name: reviews, namespace: default}],
          rules: [{backendRefs: [{name: pay, port: 80}]}]}",
    );
    check(
        &(producer + &consumer),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          routes
            Elements("/") => 1x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080] (HTTPRoute default/producer rules[0])
          routes for c2
            Elements("/") => 1x pay.shop.svc.cluster.local:80 [] (HTTPRoute shop/consumer rules[0])
    "#]],
    );
}

#[test]
fn backends_that_cannot_be_used_answer_for_their_share() {
    let spec = format!(
        "{{{REVIEWS}, rules: [{{backendRefs: [
          {{name: gone, port: 80}}, {{name: reviews, port: 81}}, {{name: reviews}}, {{kind: Odd, name: reviews, port: 80}},
          {{name: pay, namespace: shop, port: 80}}, {{name: reviews, port: 9080, filters: [{{type: URLRewrite, urlRewrite: {{hostname: a}}}}]}},
          {{name: reviews, port: 9080, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: a, value: b}}]}}}}]}}]}}]}}"
    );
    check(
        &route("HTTPRoute", "r", "default", &spec),
        &expect![[r#"
            10.96.0.1 reviews:9080 Http
              routes
                Elements("/") => 1x !500, 1x !500, 1x !500, 1x !500, 1x !500, 1x !500, 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] request HeaderChanges { set: [("a", "b")], add: [], remove: [] } (HTTPRoute default/r rules[0])
            HTTPRoute default/r, spec.rules[0]: reviews.default.svc.cluster.local has no port 81; requests that fall to it are answered 500; name one of its ports
            HTTPRoute default/r, spec.rules[0]: there is no Service default/gone; requests that fall to it are answered 500; create it, or correct the name
            HTTPRoute default/r, spec.rules[0].backendRefs[2].port: a Service needs a name and a port; requests that fall to it are answered 500; give both
            HTTPRoute default/r, spec.rules[0].backendRefs[3].kind: Odd of group `` is no backend that is supported; requests that fall to it are answered 500; name a Service
            HTTPRoute default/r, spec.rules[0].backendRefs[4].namespace: no ReferenceGrant allows to refer to Service shop/pay; requests that fall to it are answered 500; create a ReferenceGrant in its namespace
            HTTPRoute default/r, spec.rules[0].backendRefs[5].filters[0].urlRewrite: it is not supported; let the rule have the filter
        "#]],
    );
}

#[test]
fn a_consumers_route_may_send_requests_to_the_service_that_they_were_for() {
    let parent = "{group: '', kind: Service, name: pay, namespace: shop}";
    let rules = "rules: [{backendRefs: [{name: pay, namespace: shop, port: 80}]}]";
    let issues = |parents: &str| {
        let world = cluster(&route("HTTPRoute", "r", "default", &format!("{{parentRefs: [{parents}], {rules}}}")));
        compiled(&world)
            .issues
            .iter()
            .map(|issue| issue.to_string())
            .filter(|text| text.contains("ReferenceGrant"))
            .count()
    };
    assert_eq!(issues(parent), 0);
    // Clients of a gateway did not ask for the service, and other services' clients asked for others.
    assert_eq!(issues(&format!("{parent}, {{name: gateway}}")), 1);
    assert_eq!(issues("{group: '', kind: Service, name: reviews}"), 1);
}

#[test]
fn a_grant_lets_a_route_send_into_another_namespace() {
    let spec = format!("{{{REVIEWS}, rules: [{{backendRefs: [{{name: pay, namespace: shop, port: 80}}]}}]}}");
    let grant = "
{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: g, namespace: shop},
 spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}], to: [{group: '', kind: Service, name: pay}]}}";
    check(
        &(route("HTTPRoute", "r", "default", &spec) + grant),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          routes
            Elements("/") => 1x pay.shop.svc.cluster.local:80 [] (HTTPRoute default/r rules[0])
    "#]],
    );
}

#[test]
fn a_rule_that_is_not_understood_answers_500_and_leaves_the_others() {
    let spec = format!(
        "{{{REVIEWS}, rules: [
          {{matches: [{{path: {{value: /a}}}}], odd: 1, backendRefs: [{{name: reviews, port: 9080}}]}},
          {{matches: [{{path: {{type: RegularExpression, value: '('}}}}], backendRefs: [{{name: reviews, port: 9080}}]}},
          {{matches: [{{path: {{value: /b}}}}], filters: [{{type: ExtensionRef, extensionRef: {{group: g, kind: k, name: n}}}}], backendRefs: [{{name: reviews, port: 9080}}]}},
          {{matches: [{{path: {{value: /c}}}}], filters: [{{type: New}}], backendRefs: [{{name: reviews, port: 9080}}]}},
          {{matches: [{{path: {{value: /d}}}}]}},
          {{matches: [{{path: {{value: /e}}}}], backendRefs: [{{name: reviews, port: 9080}}]}}]}}"
    );
    check(
        &route("HTTPRoute", "r", "default", &spec),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          routes
            Elements("/a") => answers 500 (HTTPRoute default/r rules[0])
            Elements("/b") => answers 500 (HTTPRoute default/r rules[2])
            Elements("/c") => answers 500 (HTTPRoute default/r rules[3])
            Elements("/d") =>  (HTTPRoute default/r rules[4])
            Elements("/e") => 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r rules[5])
            Any => answers 500 (HTTPRoute default/r rules[1])
        HTTPRoute default/r, spec.rules[0].odd: there is no such field; remove it, or correct its name
        HTTPRoute default/r, spec.rules[1].matches[0].path.value: `(` is no regular expression that can be used: error: unclosed group; correct the pattern
        HTTPRoute default/r, spec.rules[2].filters[0].extensionRef: it is not supported; no extension is known; remove it
        HTTPRoute default/r, spec.rules[3].filters[0].type: `New` is no filter that is known; remove it
        HTTPRoute default/r, spec.rules[4].backendRefs: there are none; requests are answered 500; name a backend, or redirect
    "#]],
    );
}

#[test]
fn grpc_routes_come_before_http_routes() {
    let grpc = route(
        "GRPCRoute",
        "g",
        "default",
        &format!(
            "{{{REVIEWS}, rules: [{{matches: [{{method: {{service: s.S, method: M}}}}, {{method: {{service: s.S}}}}, {{method: {{method: M}}}}],
              backendRefs: [{{name: ratings, port: 9080}}]}}]}}"
        ),
    );
    let http = route(
        "HTTPRoute",
        "h",
        "default",
        &format!("{{{REVIEWS}, rules: [{{backendRefs: [{{name: reviews, port: 9080}}]}}]}}"),
    );
    check(
        &(http + &grpc),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          routes
            Exact("/s.S/M") method Exact("POST") => 1x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080] (GRPCRoute default/g rules[0])
            Elements("/s.S") method Exact("POST") => 1x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080] (GRPCRoute default/g rules[0])
            Regex(//[^/]+/M/) method Exact("POST") => 1x ratings.default.svc.cluster.local:9080 [10.0.1.3:9080] (GRPCRoute default/g rules[0])
        HTTPRoute default/h, spec.parentRefs: GRPCRoute default/g routes reviews.default.svc.cluster.local port 9080, where this one has no effect; put the rules into one object
    "#]],
    );
}

#[test]
fn parents_are_ports_by_number_or_name_and_have_a_virtual_address() {
    let spec = "{parentRefs: [
      {group: '', kind: Service, name: ratings, sectionName: web}, {group: '', kind: Service, name: ratings, port: 3306},
      {group: '', kind: Service, name: gone}, {group: '', kind: Odd, name: reviews}, {name: edge, sectionName: http}],
      hostnames: [a.example.com], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}";
    check(
        &route("HTTPRoute", "r", "default", spec),
        &expect![[r#"
            10.96.0.2 ratings:9080 Http
              routes
                Elements("/") => 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r rules[0])
            HTTPRoute default/r, spec.parentRefs: port 3306 of ratings.default.svc.cluster.local does not speak HTTP by its own word, so that requests are not seen; the route is not enforced; let the port's name or appProtocol say `http`
            HTTPRoute default/r, spec.parentRefs: there is no Gateway default/edge; the route does not hold for it; create it, or correct the name
            HTTPRoute default/r, spec.parentRefs: there is no Service default/gone; the route does not hold for it; name a service that has a virtual address
            HTTPRoute default/r, spec.parentRefs[3]: a route does not attach to Odd of the core group; name a Service (group "") or a Gateway (group gateway.networking.k8s.io)
        "#]],
    );
}

#[test]
fn filters_redirect_rewrite_mirror_and_limit() {
    let spec = format!(
        "{{{REVIEWS}, rules: [
          {{matches: [{{path: {{value: /a}}}}], filters: [{{type: RequestRedirect, requestRedirect: {{scheme: https, statusCode: 301, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /b}}}}}}]}},
          {{matches: [{{path: {{type: Exact, value: /b}}}}], filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /b}}}}}}], backendRefs: [{{name: reviews, port: 9080}}]}},
          {{matches: [{{path: {{value: /c}}}}], filters: [
             {{type: RequestMirror, requestMirror: {{backendRef: {{name: ratings, port: 9080}}, fraction: {{numerator: 1, denominator: 4}}}}}},
             {{type: RequestMirror, requestMirror: {{backendRef: {{name: pay, namespace: shop, port: 80}}, percent: 10}}}}],
           timeouts: {{request: 1s, backendRequest: 2s}}, backendRefs: [{{name: reviews, port: 9080}}]}},
          {{matches: [{{path: {{value: /d}}}}], timeouts: {{request: 2s, backendRequest: 500ms}}, retry: {{codes: [503], attempts: 2, backoff: 10ms}}, backendRefs: [{{name: reviews, port: 9080}}]}}]}}"
    );
    check(
        &route("HTTPRoute", "r", "default", &spec),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          routes
            Exact("/b") => answers 500 (HTTPRoute default/r rules[1])
            Elements("/a") => Redirect { scheme: Some("https"), host: None, port: Derived, path: Some(Prefix("/b")), status: 301 } (HTTPRoute default/r rules[0])
            Elements("/c") => answers 500 (HTTPRoute default/r rules[2])
            Elements("/d") => 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (HTTPRoute default/r rules[3])
        HTTPRoute default/r, spec.rules[1]: a prefix is replaced where no prefix is matched; match the path by PathPrefix
        HTTPRoute default/r, spec.rules[2].filters[1].requestMirror.backendRef.namespace: no ReferenceGrant allows to refer to Service shop/pay; requests that fall to it are answered 500; create a ReferenceGrant in its namespace
        HTTPRoute default/r, spec.rules[2].timeouts: an attempt may take longer than the request; give `request` at least as much time
    "#]],
    );
}
