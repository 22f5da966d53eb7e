use super::fixture::{object, world};
use super::{Attachment, Change, Kind, SourceId, World};
use crate::model::{Issue, Name, ObjectRef};

fn attachment(container_id: &str) -> Attachment {
    Attachment {
        container_id: container_id.to_owned(),
        ifname: "eth0".to_owned(),
        netns: "/run/netns/a".to_owned(),
        pod_namespace: "default".to_owned(),
        pod_name: "a".to_owned(),
        pod_uid: None,
        addresses: Vec::new(),
    }
}

#[test]
fn only_what_is_new_changes_the_world() {
    let pod = || Change::Upsert(Box::new(object("{kind: Pod, metadata: {name: a, labels: null}}")));
    let labelled = || Change::Upsert(Box::new(object("{kind: Pod, metadata: {name: a, labels: {app: a}}}")));
    let issue = Issue::new(&ObjectRef::new("File", Name::new("", "a.yaml")), "", "is broken", "mend it");
    let fault = |issues| Change::Faults { origin: "a.yaml".to_owned(), issues };
    let detach = || Change::Detach { container_id: "1".to_owned(), ifname: "eth0".to_owned() };
    let name = Name::new("default", "a");
    let mut world = World::default();
    for (change, is_new) in [
        (pod(), true),
        (pod(), false),
        (labelled(), true),
        (Change::Delete(Kind::Service, name.clone()), false),
        (Change::Delete(Kind::Pod, name.clone()), true),
        (Change::Delete(Kind::Pod, name), false),
        (pod(), true),
        (Change::Only(Kind::Pod, [Name::new("default", "a"), Name::new("default", "b")].into()), false),
        (Change::Only(Kind::Service, [].into()), false),
        (Change::Only(Kind::Pod, [Name::new("other", "a")].into()), true),
        (Change::Only(Kind::Pod, [].into()), false),
        (Change::Attach(attachment("1")), true),
        (Change::Attach(attachment("1")), false),
        (detach(), true),
        (detach(), false),
        (fault(vec![issue.clone()]), true),
        (fault(vec![issue]), false),
        (fault(Vec::new()), true),
        (fault(Vec::new()), false),
        (Change::Synced(SourceId::Objects), true),
        (Change::Synced(SourceId::Objects), false),
    ] {
        let text = format!("{change:?}");
        assert_eq!(world.apply(change), is_new, "{text}");
    }
}

#[test]
fn it_is_in_sync_once_every_source_is() {
    let mut world = World::default();
    assert!(!world.in_sync());
    world.apply(Change::Synced(SourceId::Attachments));
    assert!(!world.in_sync());
    world.apply(Change::Synced(SourceId::Objects));
    assert!(world.in_sync());
}

#[test]
fn what_is_recalled_is_whole_and_not_in_sync() {
    let mut world = World::default();
    world.apply(Change::Synced(SourceId::Attachments));
    assert!(!world.is_whole());
    assert!(world.apply(Change::Recalled(SourceId::Objects)));
    assert!(world.is_whole() && !world.in_sync());
    assert!(world.apply(Change::Synced(SourceId::Objects)));
    assert!(world.is_whole() && world.in_sync());
    assert!(!world.apply(Change::Recalled(SourceId::Objects)), "what is in sync is not older than what is recalled");
    assert!(world.in_sync());
}

#[test]
fn null_and_absence_are_the_same() {
    let bare = world("{kind: Pod, metadata: {name: a}}");
    let nulls = world(
        "{kind: Pod, metadata: {name: a, namespace: null, uid: null, labels: null, annotations: null, \
         creationTimestamp: null, ownerReferences: null}, spec: null, status: {podIPs: null, phase: null}}",
    );
    assert_eq!(bare, nulls);
}
