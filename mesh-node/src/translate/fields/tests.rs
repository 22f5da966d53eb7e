use super::*;
use expect_test::expect_file;

#[test]
fn the_table_is_what_the_readers_do() {
    expect_file!["../../../../manifests/FIELDS.md"].assert_eq(&table());
}

#[test]
fn every_kind_has_fields() {
    for kind in CustomKind::ALL {
        let fields = of(kind);
        assert!(!fields.is_empty(), "{kind:?}");
        assert!(fields.keys().all(|path| path.starts_with("spec.")), "{fields:?}");
    }
}
