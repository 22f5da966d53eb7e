use super::*;
use expect_test::{Expect, expect};

mod collector;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-01";

fn settings(sampling: &str) -> Settings {
    Settings {
        endpoint: None,
        sampling: sampling.parse().expect("a share"),
        node: "node-a".into(),
        cluster: "Kubernetes".into(),
    }
}

/// A tracer without a collector.
pub(in crate::telemetry) fn tracer() -> Tracer {
    Tracer::start(settings("100"), &Metrics::default()).expect("a tracer")
}

/// A tracer with a collector that is never asked, since nothing runs the task.
async fn exporting(sampling: &str) -> Tracer {
    let endpoint = Some("http://127.0.0.1:9".parse().expect("an address"));
    Tracer::start(Settings { endpoint, ..settings(sampling) }, &Metrics::default()).expect("a tracer")
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().expect("a name");
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    headers
}

/// The headers of a trace, ordered; what is made at random is replaced by words of the same length of meaning.
fn shown(headers: &HeaderMap, context: &SpanContext) -> String {
    let mut lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| **name != REQUEST_ID)
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().expect("text")))
        .collect();
    lines.sort_unstable();
    let span = context.span_id().map(|id| id.to_string()).unwrap_or_default();
    let text = lines.concat();
    if context.own { text.replace(&span, "<span>") } else { text }
}

/// What becomes of `came` on its way.
fn pass(tracer: &Tracer, came: &[(&str, &str)], goes: &Expect) {
    let mut headers = headers(came);
    let context = tracer.begin(&headers, Side::Outbound, SystemTime::UNIX_EPOCH);
    context.inject(&mut headers);
    goes.assert_eq(&shown(&headers, &context));
    let once = headers.clone();
    context.inject(&mut headers);
    assert_eq!(headers, once, "another attempt says the same");
    let next = tracer.begin(&headers, Side::Inbound, SystemTime::UNIX_EPOCH);
    assert_eq!(next.trace_id(), context.trace_id(), "the next one reads the same trace");
    if context.ids.is_some() {
        assert_eq!(next.is_sampled(), context.is_sampled(), "and the same decision");
        assert_eq!(extract(&headers).parent.map(|(_, span)| span), context.span_id(), "and this span as its parent");
    }
}

#[tokio::test]
async fn a_trace_goes_on_in_both_forms_with_a_span_of_the_mesh() {
    let tracer = exporting("0").await;
    pass(
        &tracer,
        &[("traceparent", W3C), ("tracestate", "vendor=1,other=2")],
        &expect![[r#"
            traceparent: 00-0af7651916cd43dd8448eb211c80319c-<span>-01
            tracestate: vendor=1,other=2
            x-b3-parentspanid: 00f067aa0bb902b7
            x-b3-sampled: 1
            x-b3-spanid: <span>
            x-b3-traceid: 0af7651916cd43dd8448eb211c80319c
        "#]],
    );
    // A state without its parent is of no trace. An id of 64 bits stays one in B3.
    pass(
        &tracer,
        &[
            ("x-b3-traceid", "8448EB211C80319C"),
            ("x-b3-spanid", "00f067aa0bb902b7"),
            ("x-b3-parentspanid", "1111111111111111"),
            ("x-b3-sampled", "1"),
            ("tracestate", "vendor=1"),
        ],
        &expect![[r#"
            traceparent: 00-00000000000000008448eb211c80319c-<span>-01
            x-b3-parentspanid: 00f067aa0bb902b7
            x-b3-sampled: 1
            x-b3-spanid: <span>
            x-b3-traceid: 8448eb211c80319c
        "#]],
    );
    // The single form is kept up to date where it is in use, and debugging goes on.
    pass(
        &tracer,
        &[("b3", "0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-d-1111111111111111")],
        &expect![[r#"
            b3: 0af7651916cd43dd8448eb211c80319c-<span>-d-00f067aa0bb902b7
            traceparent: 00-0af7651916cd43dd8448eb211c80319c-<span>-01
            x-b3-flags: 1
            x-b3-parentspanid: 00f067aa0bb902b7
            x-b3-spanid: <span>
            x-b3-traceid: 0af7651916cd43dd8448eb211c80319c
        "#]],
    );
    // Where both are there, W3C's names the parent, and whoever asks for the trace gets it.
    pass(
        &tracer,
        &[
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-02"),
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", "2222222222222222"),
            ("x-b3-sampled", "1"),
        ],
        &expect![[r#"
            traceparent: 00-0af7651916cd43dd8448eb211c80319c-<span>-03
            x-b3-parentspanid: 00f067aa0bb902b7
            x-b3-sampled: 1
            x-b3-spanid: <span>
            x-b3-traceid: 0af7651916cd43dd8448eb211c80319c
        "#]],
    );
}

#[tokio::test]
async fn who_decides_whether_a_trace_is_sampled() {
    let (never, always) = (exporting("0").await, exporting("100").await);
    let not = W3C.replace("-01", "-00");
    let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", "00f067aa0bb902b7")];
    let with = |sampled| [ids.as_slice(), &[("x-b3-sampled", sampled)]].concat();
    let foreign = "00-11111111111111111111111111111111-00f067aa0bb902b7-00";
    // What came, and what becomes of it when nothing and when everything is sampled here.
    let cases = [
        ("nothing said", vec![], false, true),
        ("W3C says yes", vec![("traceparent", W3C)], true, true),
        ("W3C says no", vec![("traceparent", &not)], false, false),
        ("B3 says yes", with("1"), true, true),
        ("B3 says no", with("0"), false, false),
        ("B3 of old says yes", with("true"), true, true),
        ("B3 leaves it open", ids.to_vec(), false, true),
        ("B3 debugs", [ids.as_slice(), &[("x-b3-flags", "1")]].concat(), true, true),
        ("B3 says no, without a trace", vec![("b3", "0")], false, false),
        ("B3 says yes, without a trace", vec![("x-b3-sampled", "1")], true, true),
        ("B3 of another trace says yes", [with("1").as_slice(), &[("traceparent", foreign)]].concat(), false, false),
        ("B3 says what it is not", with("perhaps"), false, true),
    ];
    for (case, came, by_never, by_always) in cases {
        let came = headers(&came);
        for (tracer, sampled) in [(&never, by_never), (&always, by_always)] {
            let context = tracer.begin(&came, Side::Outbound, SystemTime::UNIX_EPOCH);
            assert_eq!(context.is_sampled(), sampled, "{case}");
            assert!(context.trace_id().is_some(), "{case}: also what is not sampled is of a trace");
        }
    }
    let one_percent = exporting("1").await;
    let sampled = (0..20_000)
        .filter(|_| one_percent.begin(&HeaderMap::new(), Side::Outbound, SystemTime::UNIX_EPOCH).is_sampled())
        .count();
    assert!((100..400).contains(&sampled), "200 of 20,000 are expected, not {sampled}");
}

#[test]
fn without_a_collector_a_trace_passes_with_the_ids_it_came_with() {
    let tracer = tracer();
    pass(&tracer, &[], &expect![""]);
    pass(
        &tracer,
        &[("traceparent", W3C), ("tracestate", "vendor=1")],
        &expect![[r#"
            traceparent: 00-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-01
            tracestate: vendor=1
            x-b3-sampled: 1
            x-b3-spanid: 00f067aa0bb902b7
            x-b3-traceid: 0af7651916cd43dd8448eb211c80319c
        "#]],
    );
    pass(
        &tracer,
        &[
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", "00f067aa0bb902b7"),
            ("x-b3-parentspanid", "1111111111111111"),
            ("x-b3-sampled", "0"),
        ],
        &expect![[r#"
            traceparent: 00-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-00
            x-b3-parentspanid: 1111111111111111
            x-b3-sampled: 0
            x-b3-spanid: 00f067aa0bb902b7
            x-b3-traceid: 0af7651916cd43dd8448eb211c80319c
        "#]],
    );
    // Only B3 can leave the decision open, so nothing else is said.
    let open = [("x-b3-traceid", TRACE), ("x-b3-spanid", "00f067aa0bb902b7")];
    let mut passed = headers(&open);
    let context = tracer.begin(&passed, Side::Outbound, SystemTime::UNIX_EPOCH);
    context.inject(&mut passed);
    assert_eq!(context.trace_id().map(|id| id.to_string()).as_deref(), Some(TRACE), "the log may name it");
    passed.remove(&REQUEST_ID);
    assert_eq!(passed, headers(&open));
    // An application's own span, told in one form, is not overwritten with what it copied in the other.
    let both = [("traceparent", W3C), ("b3", "0af7651916cd43dd8448eb211c80319c-2222222222222222-1")];
    let mut passed = headers(&both);
    tracer.begin(&passed, Side::Outbound, SystemTime::UNIX_EPOCH).inject(&mut passed);
    passed.remove(&REQUEST_ID);
    assert_eq!(passed, headers(&both));
}

#[test]
fn what_is_not_as_specified_is_taken_as_not_there() {
    let long = format!("{W3C}-{}", "a".repeat(60_000));
    let zeros = "0".repeat(32);
    let w3c = [
        "",
        "00",
        "00-00000000000000000000000000000000-00f067aa0bb902b7-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-00f067aa0bb902b7-01",
        "00-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-0",
        "00-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-0g",
        "00-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-01-",
        "00-0af7651916cd43dd8448eb211c80319c 00f067aa0bb902b7-01",
        "ff-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-01",
        "01-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-01x",
        "+0-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-01",
        "é0-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-01",
        &long,
    ];
    for hostile in w3c {
        assert_eq!(extract(&headers(&[("traceparent", hostile)])).parent, None, "{hostile:.60}");
    }
    let twice = headers(&[("traceparent", W3C), ("traceparent", W3C)]);
    assert_eq!(extract(&twice).parent, None, "of two parents none is right");
    let later = "42-0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-01-what.may-come";
    assert!(extract(&headers(&[("traceparent", later)])).parent.is_some(), "later versions may add fields");

    let long = format!("{TRACE}-00f067aa0bb902b7-1-1111111111111111-{}", "1".repeat(60_000));
    let b3 = [
        "",
        "-",
        "2",
        TRACE,
        "0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-2",
        "0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-1-",
        "0af7651916cd43dd8448eb211c80319c-00f067aa0bb902b7-1-1111111111111111-1",
        "0af7651916cd43dd8448eb211c80319c-0000000000000000-1",
        "0000000000000000-00f067aa0bb902b7-1",
        "0af7651916cd43dd8448eb211c80319-00f067aa0bb902b7-1",
        &long,
    ];
    for hostile in b3 {
        let extracted = extract(&headers(&[("b3", hostile)]));
        assert_eq!((extracted.parent, extracted.sampled), (None, None), "{hostile:.60}");
    }
    for (trace, span) in
        [(TRACE, ""), ("", "00f067aa0bb902b7"), (&zeros, "00f067aa0bb902b7"), (TRACE, "00f067aa0bb902bZ")]
    {
        let extracted = extract(&headers(&[("x-b3-traceid", trace), ("x-b3-spanid", span)]));
        assert_eq!(extracted.parent, None, "{trace} {span}");
    }
    let broken = [("b3", "?"), ("x-b3-traceid", TRACE), ("x-b3-spanid", "00f067aa0bb902b7")];
    assert!(extract(&headers(&broken)).parent.is_some(), "a broken form does not hide one that is right");
}

#[tokio::test]
async fn a_broken_trace_is_replaced_in_every_form() {
    let tracer = exporting("0").await;
    let mut passed = headers(&[
        ("traceparent", "00-zz"),
        ("tracestate", "vendor=1"),
        ("b3", "zz"),
        ("x-b3-traceid", "zz"),
        ("x-b3-parentspanid", "1111111111111111"),
        ("x-b3-flags", "7"),
    ]);
    let context = tracer.begin(&passed, Side::Inbound, SystemTime::UNIX_EPOCH);
    context.inject(&mut passed);
    let trace = context.trace_id().expect("a new trace").to_string();
    expect![[r#"
        b3: <trace>-<span>-0
        traceparent: 00-<trace>-<span>-02
        x-b3-sampled: 0
        x-b3-spanid: <span>
        x-b3-traceid: <trace>
    "#]]
    .assert_eq(&shown(&passed, &context).replace(&trace, "<trace>"));
}

#[test]
fn a_request_has_an_id_and_keeps_the_one_it_has() {
    let tracer = tracer();
    let id = |came: &[(&str, &str)]| {
        let mut headers = headers(came);
        let context = tracer.begin(&headers, Side::Outbound, SystemTime::UNIX_EPOCH);
        context.inject(&mut headers);
        assert_eq!(headers.get_all(&REQUEST_ID).iter().collect::<Vec<_>>(), [context.request_id()]);
        context.request_id().to_str().expect("text").to_owned()
    };
    assert_eq!(id(&[("x-request-id", "abc")]), "abc");
    let (one, another) = (id(&[]), id(&[("x-request-id", "")]));
    assert_ne!(one, another);
    for made in [one, another] {
        let parts: Vec<usize> = made.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{made}");
        assert!(made.bytes().all(|byte| byte == b'-' || matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{made}");
        assert_eq!(&made[14..15], "4", "the version of {made}");
        assert!(matches!(&made[19..20], "8" | "9" | "a" | "b"), "the variant of {made}");
    }
}

#[test]
fn settings_are_checked() {
    let traces = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.traces.to_string());
    for (given, posted) in [
        ("http://192.0.2.1:4318", "http://192.0.2.1:4318/v1/traces"),
        ("https://collector.example/otlp/", "https://collector.example/otlp/v1/traces"),
        ("http://[2001:db8::1]:4318/", "http://[2001:db8::1]:4318/v1/traces"),
    ] {
        assert_eq!(traces(given).expect(given), posted);
    }
    for wrong in ["", "collector:4318", "grpc://collector:4317", "http://", "http://a b", "/v1/traces", "http://c/?a=b"]
    {
        let error = traces(wrong).expect_err(wrong);
        assert!(error.to_string().contains(&format!("`{wrong}`")), "{error}");
    }
    for right in ["0", "0.01", "100"] {
        assert!(right.parse::<Percent>().is_ok(), "{right}");
    }
    for wrong in ["", "-1", "100.1", "NaN", "inf", "1%"] {
        assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
    }
}
