//! What is told, as text and as JSON.

use serde_json::json;

use super::{Plan, compared, plan};
use crate::image::fixture::{INDEX, LayoutWriter, Packing, sha256};
use crate::image::inspect::{Files, InspectOptions, inspect};

#[test]
fn json_has_a_fixed_shape() {
    let (one, mut other) = (plan(), plan());
    other.layers[1][1].content = b"b\0c\n".to_vec();
    other.config["config"]["User"] = json!("8");
    let found = compared(&one, &other);
    insta::assert_snapshot!(found.json().replace(&sha256(b"b\0b\n"), "@A").replace(&sha256(b"b\0c\n"), "@B"), @r#"
    {
      "format": 1,
      "verdict": "different",
      "counts": {
        "content": 1,
        "image-config": 1
      },
      "told": [
        {
          "event": "ConfigBlobMismatch",
          "class": "image-config",
          "place": {
            "platform": "linux/amd64",
            "field": "config.User"
          },
          "sentence": "the configuration says otherwise how the image is run",
          "a": "\"7\"",
          "b": "\"8\""
        },
        {
          "event": "TarEntryMismatch",
          "class": "content",
          "place": {
            "platform": "linux/amd64",
            "layerA": 2,
            "layerB": 2,
            "path": "app/b",
            "field": "content"
          },
          "sentence": "the content differs",
          "a": "4 bytes, @A",
          "b": "4 bytes, @B",
          "excerpt": {
            "kind": "binary",
            "offset": 2,
            "a": "62 0a",
            "b": "63 0a"
          }
        }
      ],
      "untold": 0
    }
    "#);
    insta::assert_snapshot!(found.lines().join("\n"), @r#"
    The images differ.

    linux/amd64, documents
      config.User: the configuration says otherwise how the image is run [image-config]
        - "7"
        + "8"

    linux/amd64, layer 2
      app/b: the content differs [content]
        byte 2:
        -62 0a
        +63 0a

    Differences: 1 content, 1 image-config.
    "#);
}

fn small() -> Plan {
    let mut plan = plan();
    plan.layers.truncate(1);
    plan.layers[0].truncate(4);
    plan.config["history"] = json!([{ "created_by": "base" }, { "created_by": "env", "empty_layer": true }]);
    plan.config["config"]["ExposedPorts"] = json!({ "80/tcp": {} });
    // What is compressed has other bytes with another version of the compressor.
    (plan.pack, plan.pack_type) = (<[u8]>::to_vec, ".tar");
    plan
}

#[test]
fn an_image_is_described_as_text() {
    let options = InspectOptions { files: Files::Listed, ..InspectOptions::default() };
    let inspected = inspect(&small().write(), &options).expect("it can be read");
    insta::assert_snapshot!(inspected.lines().join("\n"), @r#"
    manifest sha256:8ffd55190d133bf87dad863f06de23a6c0bc73627eb5b9f411ba3f77884db55f

    platform    linux/amd64
    names       app:1
    manifest    sha256:8ffd55190d133bf87dad863f06de23a6c0bc73627eb5b9f411ba3f77884db55f
    config      sha256:f98be8016214fb06a44f737fb05dd97f36441f2a1fba7dda0b448cb82b10df87
    size        4963 bytes
    created     1970-01-01T00:00:00Z
    user        7
    entrypoint  ["/bin/sh"]
    env         A=1
    port        80/tcp
    label       a=b
    annotation  org.opencontainers.image.title=t
    base        digest=sha256:0
    layer 1     sha256:34241959ebbbfe30c3a272753a1b4919392ff6e8469bab72a91d6f64ef10a959
                sha256:34241959ebbbfe30c3a272753a1b4919392ff6e8469bab72a91d6f64ef10a959, 4096 bytes, application/vnd.oci.image.layer.v1.tar
                made by base
                0644 0:0          0 directory bin
                0755 0:0          6 file      bin/sh
                0644 0:0         24 file      etc/motd
                0644 0:0          0 link      lib -> /usr/lib
    "#);
}

#[test]
fn an_image_is_described_as_json() {
    let options = InspectOptions { files: Files::Listed, ..InspectOptions::default() };
    let inspected = inspect(&small().write(), &options).expect("it can be read");
    insta::assert_snapshot!(inspected.json(), @r#"
    {
      "format": 1,
      "digest": "sha256:8ffd55190d133bf87dad863f06de23a6c0bc73627eb5b9f411ba3f77884db55f",
      "digestOf": "manifest",
      "images": [
        {
          "platform": "linux/amd64",
          "names": [
            "app:1"
          ],
          "manifest": "sha256:8ffd55190d133bf87dad863f06de23a6c0bc73627eb5b9f411ba3f77884db55f",
          "config": "sha256:f98be8016214fb06a44f737fb05dd97f36441f2a1fba7dda0b448cb82b10df87",
          "size": 4963,
          "created": "1970-01-01T00:00:00Z",
          "user": "7",
          "entrypoint": [
            "/bin/sh"
          ],
          "cmd": [],
          "env": [
            "A=1"
          ],
          "ports": [
            "80/tcp"
          ],
          "labels": {
            "a": "b"
          },
          "annotations": {
            "org.opencontainers.image.title": "t"
          },
          "base": {
            "digest": "sha256:0"
          },
          "layers": [
            {
              "number": 1,
              "diffId": "sha256:34241959ebbbfe30c3a272753a1b4919392ff6e8469bab72a91d6f64ef10a959",
              "digest": "sha256:34241959ebbbfe30c3a272753a1b4919392ff6e8469bab72a91d6f64ef10a959",
              "size": 4096,
              "mediaType": "application/vnd.oci.image.layer.v1.tar",
              "createdBy": "base",
              "entries": [
                {
                  "path": "bin",
                  "kind": "directory",
                  "mode": "0644",
                  "uid": 0,
                  "gid": 0,
                  "size": 0
                },
                {
                  "path": "bin/sh",
                  "kind": "file",
                  "mode": "0755",
                  "uid": 0,
                  "gid": 0,
                  "size": 6
                },
                {
                  "path": "etc/motd",
                  "kind": "file",
                  "mode": "0644",
                  "uid": 0,
                  "gid": 0,
                  "size": 24
                },
                {
                  "path": "lib",
                  "kind": "link",
                  "mode": "0644",
                  "uid": 0,
                  "gid": 0,
                  "size": 0,
                  "target": "/usr/lib"
                }
              ]
            }
          ]
        }
      ],
      "attestations": [],
      "artifacts": []
    }
    "#);
    let left_out = inspect(&small().write(), &InspectOptions::default()).expect("it can be read");
    assert_eq!(left_out.images[0].layers[0].entries, None);
}

#[test]
fn the_digest_is_that_by_which_registries_know_the_image() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let writer = LayoutWriter::new(dir.path());
    let images =
        ["linux/amd64", "linux/arm64"].map(|platform| writer.image(platform, &[vec![0; 1024]], Packing::Plain));
    let inspected = || {
        let blobs = crate::image::Blobs::Dir(dir.path().to_owned());
        inspect(&blobs, &InspectOptions::default()).expect("it can be read")
    };
    writer.index(&images);
    let of_two = inspected();
    assert_eq!((of_two.digest.as_deref(), of_two.digest_of, of_two.images.len()), (None, None, 2));
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": images });
    let index = writer.document(INDEX, &index);
    writer.index(std::slice::from_ref(&index));
    let found = inspected();
    assert_eq!(found.digest.as_deref(), index["digest"].as_str());
    assert_eq!(found.lines()[0], format!("image index {}", index["digest"].as_str().expect("a digest")));
}
