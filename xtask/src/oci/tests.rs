use super::*;
use std::io::Read;

/// The entries of a tar archive: path, kind, mode, owner, time, content or target.
fn entries(bytes: &[u8]) -> Vec<(String, EntryType, u32, u64, u64, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let header = entry.header();
        let (kind, mode) = (header.entry_type(), header.mode().unwrap());
        let (owner, time) = (header.uid().unwrap(), header.mtime().unwrap());
        let mut content = Vec::new();
        match entry.link_name().unwrap() {
            Some(target) => content.extend(target.to_string_lossy().as_bytes()),
            None => _ = entry.read_to_end(&mut content).unwrap(),
        }
        (path, kind, mode, owner, time, content)
    });
    entries.collect()
}

fn image() -> Image {
    Image {
        reference: "docker.io/mesh/sample:1".to_owned(),
        entrypoint: vec!["/bin/sample".to_owned()],
        layers: vec![
            Layer::new().file("/bin/sample", 0o755, "program").link("/bin/sh", "sample").directory("/tmp", 0o1777),
        ],
        ..Image::default()
    }
}

/// Writes the images to a file and reads it back.
fn written(name: &str, images: &[Image]) -> Vec<u8> {
    let path = std::env::temp_dir().join(format!("mesh-oci-{}-{name}.tar", std::process::id()));
    write(images, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    bytes
}

#[test]
fn a_layer_has_parents_first_and_belongs_to_root_of_no_time() {
    let layer = Layer::new().file("/usr/bin/a", 0o755, "A").file("/usr/b", 0o600, "B").link("c", "usr/b");
    assert_eq!(
        entries(&layer.archive().unwrap()),
        [
            ("c".to_owned(), EntryType::Symlink, 0o777, 0, 0, b"usr/b".to_vec()),
            ("usr/".to_owned(), EntryType::Directory, 0o755, 0, 0, Vec::new()),
            ("usr/b".to_owned(), EntryType::Regular, 0o600, 0, 0, b"B".to_vec()),
            ("usr/bin/".to_owned(), EntryType::Directory, 0o755, 0, 0, Vec::new()),
            ("usr/bin/a".to_owned(), EntryType::Regular, 0o755, 0, 0, b"A".to_vec()),
        ]
    );
}

#[test]
fn a_directory_that_was_asked_for_keeps_its_mode() {
    let layer = Layer::new().file("/tmp/a", 0o644, "").directory("/tmp", 0o1777);
    let modes: Vec<_> = entries(&layer.archive().unwrap()).into_iter().map(|entry| (entry.0, entry.2)).collect();
    assert_eq!(modes, [("tmp/".to_owned(), 0o1777), ("tmp/a".to_owned(), 0o644)]);
}

#[test]
fn a_file_below_a_file_is_refused() {
    let layer = Layer::new().file("/a", 0o644, "").file("/a/b", 0o644, "");
    assert_eq!(layer.archive().unwrap_err().to_string(), "/a/b cannot be in an image in which /a is no directory");
}

#[test]
fn every_digest_in_an_archive_is_that_of_its_blob() {
    let bytes = written("digests", &[image()]);
    let files: BTreeMap<_, _> = entries(&bytes).into_iter().map(|entry| (entry.0, entry.5)).collect();
    let json = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        let content = &files[&format!("blobs/sha256/{digest}")];
        assert_eq!(hexadecimal(&Sha256::digest(content)), digest);
        assert_eq!(descriptor["size"], content.len());
        content.clone()
    };
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let entry = &json("index.json")["manifests"][0];
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "docker.io/mesh/sample:1");
    let manifest: Value = serde_json::from_slice(&blob(entry)).unwrap();
    let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
    assert_eq!(config["config"]["Entrypoint"], json!(["/bin/sample"]));
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    assert_eq!(entries(&blob(&manifest["layers"][0])).len(), 4);
}

#[test]
fn the_same_files_give_the_same_bytes() {
    assert_eq!(written("first", &[image()]), written("second", &[image()]));
}

#[test]
fn images_share_their_layers() {
    let other = Image { reference: "docker.io/mesh/other:1".to_owned(), ..image() };
    let names = entries(&written("shared", &[image(), other])).into_iter().map(|entry| entry.0);
    // One manifest, configuration and layer: only the name differs, and that is in the index.
    assert_eq!(names.filter(|name| name.starts_with("blobs/sha256/")).count(), 3);
}

#[test]
fn a_reference_needs_a_tag() {
    for reference in ["docker.io/mesh/sample", "localhost:5000/sample", "sample:"] {
        let image = Image { reference: reference.to_owned(), ..image() };
        let error = image.manifest(&mut Blobs::default()).unwrap_err().to_string();
        assert_eq!(error, format!("the image reference `{reference}` has no tag: add one"));
    }
}
