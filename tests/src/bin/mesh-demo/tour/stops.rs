//! The steps of the tour of Bookinfo.

use super::File::{Istio, Own};
use super::page::{Page, Reviews};
use super::{PATIENCE, Stop, Tour, got, is_denied, wait};
use anyhow::{Context as _, Result, ensure};
use mesh_tests::http::Seen;
use mesh_tests::{Certificate, Node};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SUBSETS: super::File = Istio("networking/destination-rule-all.yaml");
const ALL_V1: super::File = Istio("networking/virtual-service-all-v1.yaml");
const CLASS: super::File = Own("gateway-class.yaml");
const NOTHING: super::File = Own("allow-nothing.yaml");
const PAGE: super::File = Own("productpage-viewer.yaml");
const DETAILS: super::File = Own("details-viewer.yaml");
const REVIEWS: super::File = Own("reviews-viewer.yaml");

const JASON: Option<&str> = Some("jason");
const ANYBODY: Option<&str> = None;

/// Every step, in order.
pub(super) const ALL: &[Stop] = &[
    Stop { title: "no routes: reviews in three versions, in turn", files: &[], check: in_turn },
    Stop { title: "everything to version 1", files: &[SUBSETS, ALL_V1], check: all_v1 },
    Stop {
        title: "jason alone sees version 2",
        files: &[SUBSETS, ALL_V1, Istio("networking/virtual-service-reviews-test-v2.yaml")],
        check: jason_alone,
    },
    Stop {
        title: "ratings is slow for jason",
        files: &[
            SUBSETS,
            ALL_V1,
            Istio("networking/virtual-service-reviews-test-v2.yaml"),
            Istio("networking/virtual-service-ratings-test-delay.yaml"),
        ],
        check: slow,
    },
    Stop {
        title: "ratings fails for jason",
        files: &[
            SUBSETS,
            ALL_V1,
            Istio("networking/virtual-service-reviews-test-v2.yaml"),
            Istio("networking/virtual-service-ratings-test-abort.yaml"),
        ],
        check: failing,
    },
    Stop {
        title: "one in ten gets version 2",
        files: &[SUBSETS, ALL_V1, Istio("networking/virtual-service-reviews-90-10.yaml")],
        check: one_in_ten,
    },
    Stop {
        title: "half of them get version 3",
        files: &[SUBSETS, ALL_V1, Istio("networking/virtual-service-reviews-50-v3.yaml")],
        check: half_v3,
    },
    Stop {
        title: "all of them get version 3",
        files: &[SUBSETS, ALL_V1, Istio("networking/virtual-service-reviews-v3.yaml")],
        check: all_v3,
    },
    Stop {
        title: "details answers 555",
        files: &[Istio("networking/fault-injection-details-v1.yaml")],
        check: details_aborted,
    },
    Stop { title: "version 2 gets a copy of everything", files: &[SUBSETS, Own("mirror.yaml")], check: mirrored },
    Stop {
        title: "the same split by the Gateway API",
        files: &[Istio("platform/kube/bookinfo-versions.yaml"), Istio("gateway-api/route-reviews-90-10.yaml")],
        check: one_in_ten,
    },
    Stop {
        title: "the page through the edge, by Istio's Gateway",
        files: &[Istio("networking/bookinfo-gateway.yaml")],
        check: |tour| through_the_edge(tour, 8080),
    },
    Stop {
        title: "the page through the edge, by the Gateway API",
        files: &[CLASS, Istio("gateway-api/bookinfo-gateway.yaml")],
        check: |tour| through_the_edge(tour, 80),
    },
    Stop { title: "the page over TLS", files: &[CLASS, Own("gateway-tls.yaml")], check: over_tls },
    Stop { title: "nobody may do anything", files: &[NOTHING], check: nothing },
    Stop { title: "the page may be read, without its parts", files: &[NOTHING, PAGE], check: page_alone },
    Stop {
        title: "the page may read details and reviews, by its identity",
        files: &[NOTHING, PAGE, DETAILS, REVIEWS],
        check: without_ratings,
    },
    Stop {
        title: "reviews may read ratings: everything is there, and nothing else may be done",
        files: &[NOTHING, PAGE, DETAILS, REVIEWS, Own("ratings-viewer.yaml")],
        check: everything_that_is_needed,
    },
    Stop {
        title: "what is not understood is refused by its name",
        files: &[Istio("policy/productpage_envoy_ratelimit.yaml")],
        check: refused_by_name,
    },
];

fn in_turn(tour: &Tour) -> Result<()> {
    let pages = tour.pages(ANYBODY, 60)?;
    for reviews in [Reviews::Plain, Reviews::Black, Reviews::Red] {
        let count = counted(&pages, reviews);
        // Of 60 with a third each, fewer than 5 come once in 100,000 times.
        ensure!(count >= 5, "{count} of {} pages show {reviews:?}", pages.len());
    }
    told("60 pages", &pages);
    Ok(())
}

fn all_v1(tour: &Tour) -> Result<()> {
    tour.settled(ANYBODY, "nobody sees stars", |page| page.shows(Reviews::Plain))?;
    every(tour, ANYBODY, 40, Reviews::Plain)
}

fn jason_alone(tour: &Tour) -> Result<()> {
    tour.settled(JASON, "jason sees black stars", |page| page.shows(Reviews::Black))?;
    every(tour, JASON, 20, Reviews::Black)?;
    every(tour, ANYBODY, 20, Reviews::Plain)?;
    every(tour, Some("mary"), 5, Reviews::Plain)
}

/// The delay of seven seconds is longer than the page waits for reviews: what the task of Istio finds.
fn slow(tour: &Tour) -> Result<()> {
    let late = |page: &Page| page.status == 200 && matches!(page.reviews, Reviews::Missing | Reviews::WithoutRatings);
    wait::until_true("jason's page lacks ratings", PATIENCE, || Ok(late(&tour.page(JASON)?)))?;
    let page = tour.page(JASON)?;
    ensure!(late(&page) && page.took >= Duration::from_millis(2500), "{page:?}");
    println!("      jason waited {:.1} s, then saw {:?}", page.took.as_secs_f64(), page.reviews);
    every(tour, ANYBODY, 10, Reviews::Plain)?;

    println!("      change fixedDelay to 2s");
    tour.change("VirtualService", "ratings", |route| {
        route["spec"]["http"][0]["fault"]["delay"]["fixedDelay"] = json!("2s");
    })?;
    let patient = |page: &Page| page.shows(Reviews::Black);
    wait::until_true("jason's page has stars again", PATIENCE, || Ok(patient(&tour.page(JASON)?)))?;
    let page = tour.page(JASON)?;
    ensure!(patient(&page) && page.took >= Duration::from_secs(2), "{page:?}");
    println!("      jason waited {:.1} s, then saw {:?}", page.took.as_secs_f64(), page.reviews);
    Ok(())
}

fn failing(tour: &Tour) -> Result<()> {
    tour.settled(JASON, "jason sees no ratings", |page| page.shows(Reviews::WithoutRatings))?;
    every(tour, JASON, 10, Reviews::WithoutRatings)?;
    every(tour, ANYBODY, 20, Reviews::Plain)
}

fn one_in_ten(tour: &Tour) -> Result<()> {
    let ours = |page: &Page| page.shows(Reviews::Plain) || page.shows(Reviews::Black);
    // Without routes each third page has red stars, with version 1 alone none has any.
    tour.settled(ANYBODY, "versions 1 and 2 alone", ours)?;
    wait::until_true("the first black stars", PATIENCE, || Ok(tour.page(ANYBODY)?.shows(Reviews::Black)))?;
    let pages = tour.pages(ANYBODY, 200)?;
    ensure!(pages.iter().all(ours), "{pages:?}");
    // Four and a half standard deviations around 20 of 200.
    let black = counted(&pages, Reviews::Black);
    ensure!((1..=40).contains(&black), "{black} of 200 pages show version 2");
    told("200 pages", &pages);
    Ok(())
}

fn half_v3(tour: &Tour) -> Result<()> {
    let ours = |page: &Page| page.shows(Reviews::Plain) || page.shows(Reviews::Red);
    tour.settled(ANYBODY, "versions 1 and 3 alone", ours)?;
    wait::until_true("the first red stars", PATIENCE, || Ok(tour.page(ANYBODY)?.shows(Reviews::Red)))?;
    let pages = tour.pages(ANYBODY, 100)?;
    let red = counted(&pages, Reviews::Red);
    ensure!(pages.iter().all(ours) && (25..=75).contains(&red), "{red} of 100 pages show version 3: {pages:?}");
    told("100 pages", &pages);
    Ok(())
}

fn all_v3(tour: &Tour) -> Result<()> {
    tour.settled(ANYBODY, "everybody sees red stars", |page| page.shows(Reviews::Red))?;
    every(tour, ANYBODY, 20, Reviews::Red)
}

fn details_aborted(tour: &Tour) -> Result<()> {
    tour.settled(ANYBODY, "no page has details", |page| page.status == 200 && !page.details)?;
    let answer = got(tour, "visitor", "details", ("GET", "/details/0"))?;
    ensure!(answer.status == 555, "details answered {answer:?}");
    println!("      details answers 555, and pages come without the facts about the book");
    Ok(())
}

fn mirrored(tour: &Tour) -> Result<()> {
    let copies = || -> Result<f64> {
        let labels = [("reporter", "destination"), ("destination_workload", "reviews-v2")];
        tour.stage.mesh.daemon(Node::B)?.metric("istio_requests_total", &labels)
    };
    tour.settled(ANYBODY, "nobody sees stars", |page| page.shows(Reviews::Plain))?;
    // A copy may still be under way when its page is there.
    let (mut before, mut since) = (copies()?, Instant::now());
    wait::until_true("earlier copies have arrived", PATIENCE, || {
        let now = copies()?;
        if now > before {
            (before, since) = (now, Instant::now());
        }
        Ok(since.elapsed() >= Duration::from_secs(1))
    })?;
    every(tour, ANYBODY, 30, Reviews::Plain)?;
    wait::until_true("version 2 saw a copy of each", PATIENCE, || Ok(copies()? >= before + 30.0))?;
    println!("      version 2 was asked as often, and nobody saw its answers");
    Ok(())
}

/// What curl on one node gets at the other's address.
fn enter(at: Node, url: &str, arguments: &[&str], tour: &Tour) -> Result<Seen> {
    tour.stage.mesh.node(at.other()).ns().ask(url, arguments)
}

/// Waits until a page with its details is there.
fn entered(at: Node, url: &str, arguments: &[&str], tour: &Tour) -> Result<()> {
    wait::until_true(&format!("{url} is served on node {}", at.name()), PATIENCE, || {
        let page = enter(at, url, arguments, tour).map(|seen| Page::read(&seen, Duration::ZERO));
        Ok(page.is_ok_and(|page| page.status == 200 && page.details))
    })
}

fn through_the_edge(tour: &Tour, port: u16) -> Result<()> {
    for node in Node::BOTH {
        let root = format!("http://{}:{port}", node.addresses()[0]);
        entered(node, &format!("{root}/productpage"), &[], tour)?;
        let other = enter(node, &format!("{root}/nothing"), &[], tour)?;
        ensure!(other.status == 404, "{root}/nothing: {other:?}");
        println!("      {root}/productpage is served on node {}, any other path is 404", node.name());
    }
    Ok(())
}

fn over_tls(tour: &Tour) -> Result<()> {
    let dir = tour.stage.mesh.node(Node::A).dir();
    let Certificate { certificate: chain, key } =
        Certificate::alone(dir, "bookinfo", "subjectAltName=DNS:bookinfo.example")?;
    let read = |path| std::fs::read_to_string(path).context("what openssl made");
    tour.stage.mesh.kube().apply(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "bookinfo-tls", "namespace": tour.place.name()},
        "stringData": {"tls.crt": read(&chain)?, "tls.key": read(&key)?},
    }))?;
    println!("      create secret tls bookinfo-tls");
    let address = Node::A.addresses()[0];
    let resolve = format!("bookinfo.example:443:{address}");
    let trusted = chain.to_string_lossy();
    let arguments = ["--resolve", &resolve, "--cacert", &trusted];
    let url = "https://bookinfo.example/productpage";
    entered(Node::A, url, &arguments, tour)?;
    println!("      {url} is served, with the certificate of the Secret");
    tour.stage.mesh.kube().delete("Secret", tour.place.name(), "bookinfo-tls")
}

fn nothing(tour: &Tour) -> Result<()> {
    let page = || got(tour, "visitor", "productpage", ("GET", "/productpage"));
    wait::until_true("the page is denied", PATIENCE, || Ok(is_denied(&page()?)))?;
    println!("      the page answers 403: RBAC: access denied");
    Ok(())
}

fn page_alone(tour: &Tour) -> Result<()> {
    let alone = |page: &Page| page.status == 200 && !page.details && page.reviews == Reviews::Missing;
    tour.settled(ANYBODY, "the page comes alone", alone)?;
    let posted = got(tour, "visitor", "productpage", ("POST", "/productpage"))?;
    ensure!(is_denied(&posted), "POST is answered {posted:?}");
    println!("      the page comes without details and reviews; POST is denied");
    Ok(())
}

fn without_ratings(tour: &Tour) -> Result<()> {
    let whole = |page: &Page| page.status == 200 && page.details && page.reviews != Reviews::Missing;
    tour.settled(ANYBODY, "details and reviews are there", whole)?;
    let pages = tour.pages(ANYBODY, 30)?;
    let starless = |page: &Page| matches!(page.reviews, Reviews::Plain | Reviews::WithoutRatings);
    ensure!(pages.iter().all(|page| whole(page) && starless(page)), "{pages:?}");
    println!("      details and reviews are there; no version of reviews gets ratings");
    let visitor = got(tour, "visitor", "details", ("GET", "/details/0"))?;
    ensure!(is_denied(&visitor), "the visitor, who is not the page, got {visitor:?}");
    println!("      the visitor, who has another identity than the page, is denied details");
    Ok(())
}

fn everything_that_is_needed(tour: &Tour) -> Result<()> {
    let whole = |page: &Page| page.status == 200 && page.details;
    let rated = |page: &Page| matches!(page.reviews, Reviews::Plain | Reviews::Black | Reviews::Red);
    tour.settled(ANYBODY, "ratings are there", |page| whole(page) && rated(page))?;
    let pages = tour.pages(ANYBODY, 30)?;
    ensure!(pages.iter().all(|page| whole(page) && rated(page)), "{pages:?}");
    told("30 pages", &pages);
    for (service, path) in [("details", "/details/0"), ("reviews", "/reviews/0"), ("ratings", "/ratings/0")] {
        let visitor = got(tour, "visitor", service, ("GET", path))?;
        ensure!(is_denied(&visitor), "the visitor got {visitor:?} of {service}");
    }
    println!("      the visitor is denied details, reviews and ratings");
    Ok(())
}

fn refused_by_name(tour: &Tour) -> Result<()> {
    let mut told = None;
    wait::until_true("an issue names the EnvoyFilter", PATIENCE, || {
        let snapshot = tour.stage.mesh.daemon(Node::A)?.debug("snapshot")?;
        let issues = snapshot["issues"].as_array().into_iter().flatten();
        told = issues.map(Value::to_string).find(|issue| issue.contains("EnvoyFilter"));
        Ok(told.is_some())
    })?;
    println!("      {}", told.unwrap_or_default());
    let page = tour.page(ANYBODY)?;
    ensure!(page.status == 200 && page.details, "{page:?}");
    Ok(())
}

/// Each of that many pages shows this.
fn every(tour: &Tour, user: Option<&str>, count: u32, reviews: Reviews) -> Result<()> {
    let pages = tour.pages(user, count)?;
    let other = pages.iter().find(|page| !page.shows(reviews));
    ensure!(other.is_none(), "{} saw {other:?}", user.unwrap_or("a visitor"));
    println!("      {count} of {count} pages for {}: {}", user.unwrap_or("anybody"), shown(reviews));
    Ok(())
}

fn counted(pages: &[Page], reviews: Reviews) -> usize {
    pages.iter().filter(|page| page.shows(reviews)).count()
}

fn told(what: &str, pages: &[Page]) {
    let kinds = [Reviews::Plain, Reviews::Black, Reviews::Red].map(|kind| (counted(pages, kind), shown(kind)));
    let seen: Vec<_> =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(n, kind)| format!("{n} with {kind}")).collect();
    println!("      {what}: {}", seen.join(", "));
}

const fn shown(reviews: Reviews) -> &'static str {
    match reviews {
        Reviews::Plain => "no stars (version 1)",
        Reviews::Black => "black stars (version 2)",
        Reviews::Red => "red stars (version 3)",
        Reviews::WithoutRatings => "no ratings",
        Reviews::Missing => "no reviews",
    }
}
