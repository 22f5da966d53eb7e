use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

fn standing() -> Standing {
    Standing::new(Purpose::Node, &BTreeSet::new(), &Metrics::default())
}

fn later(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

fn texts(standing: &Standing, now: Instant) -> Vec<String> {
    standing.issues(None, now).iter().map(ToString::to_string).collect()
}

#[test]
fn a_list_that_comes_no_further_is_stalled() {
    let standing = standing();
    assert!(!standing.is_stalled(PATIENCE, later(9)), "nothing is begun");
    standing.lists(&Kind::Namespace.into());
    assert!(!standing.is_stalled(PATIENCE, later(4)));
    assert!(standing.is_stalled(PATIENCE, later(6)), "begun, and no answer");
    standing.listed(&Kind::Namespace.into());
    assert!(!standing.is_stalled(PATIENCE, later(6)), "it is complete");
    standing.failed(&Kind::Pod.into(), Trouble::Silent("refused".into()));
    assert!(!standing.is_stalled(PATIENCE, later(4)));
    standing.lists(&Kind::Pod.into());
    assert!(standing.is_stalled(PATIENCE, later(6)), "it fails again and again");
}

#[test]
fn everything_is_told_once_each_kind_is() {
    let standing = standing();
    for Resource { kind, .. } in Purpose::Node.resources() {
        assert!(!standing.all_listed());
        standing.listed(&(*kind).into());
    }
    assert!(standing.all_listed());
    standing.restart();
    assert!(!standing.all_listed());
}

#[test]
fn an_outage_is_one_issue_that_stays_the_same() {
    let standing = standing();
    for kind in [Kind::Namespace, Kind::Pod, Kind::Service] {
        standing.failed(&kind.into(), Trouble::Silent("connection refused".into()));
    }
    assert_eq!(texts(&standing, later(1)), Vec::<String>::new(), "a restart of the API server is no outage");
    let issues = texts(&standing, later(6));
    assert_eq!(issues.len(), 1, "{issues:?}");
    assert!(issues[0].contains("connection refused"), "{issues:?}");
    standing.failed(&Kind::Namespace.into(), Trouble::Silent("connection reset".into()));
    assert_eq!(texts(&standing, later(6)), issues);
    for kind in [Kind::Namespace, Kind::Pod, Kind::Service] {
        standing.heard(&kind.into());
    }
    assert_eq!(texts(&standing, later(6)), Vec::<String>::new());
}

#[test]
fn a_missing_permission_names_resource_verbs_and_cure() {
    let standing = standing();
    standing.failed(&Kind::EndpointSlice.into(), Trouble::Forbidden("User \"mesh\" cannot list".into()));
    assert_eq!(
        texts(&standing, Instant::now()),
        ["Kubernetes API endpointslices.discovery.k8s.io: endpointslices.discovery.k8s.io may not be listed and \
          watched: User \"mesh\" cannot list; what was known of it before stays in force; let the daemon's ClusterRole \
          give the verbs `list` and `watch` on `endpointslices.discovery.k8s.io`"]
    );
}

#[test]
fn a_secret_is_waited_for_by_its_name_and_names_its_own_cure() {
    let (one, two) = (Name::new("shop", "one"), Name::new("shop", "two"));
    let standing = Standing::new(Purpose::Node, &[one.clone(), two.clone()].into(), &Metrics::default());
    let secret = |name: &Name| Subject { kind: Kind::Secret, only: Some(name.clone()) };
    Purpose::Node.resources().iter().for_each(|resource| standing.listed(&resource.kind.into()));
    standing.listed(&secret(&one));
    assert!(!standing.all_listed());
    standing.listed(&secret(&two));
    assert!(standing.all_listed());
    standing.failed(&secret(&two), Trouble::Forbidden("no".into()));
    assert_eq!(
        texts(&standing, Instant::now()),
        [
            "Secret shop/two: it may not be listed and watched: no; what was known of it before stays in force; let a Role \
          in its namespace give the daemon `list` and `watch` on `secrets` of this name"
        ]
    );
}

#[test]
fn an_unreadable_object_is_an_issue_until_it_is_read_or_gone() {
    let standing = standing();
    let (a, b) = (Name::new("shop", "a"), Name::new("shop", "b"));
    for name in [&a, &b] {
        standing.unreadable(&Kind::Pod.into(), name, "no map".into());
    }
    let issues = texts(&standing, Instant::now());
    assert_eq!(issues.len(), 2);
    assert!(issues[0].starts_with("Pod shop/a: it cannot be read: no map;"), "{issues:?}");
    standing.readable(&Kind::Pod.into(), &a);
    assert_eq!(texts(&standing, Instant::now()).len(), 1);
    standing.exist_only(&Kind::Pod.into(), &[a].into());
    assert_eq!(texts(&standing, Instant::now()), Vec::<String>::new());
}
