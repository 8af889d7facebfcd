"""Images, with one thing in each that changes."""

import hashlib
import os
import sys
import time

import pack
from pack import Layout, entry

BASE = pack.tar([entry("bin/sh", "#!leaf\n", mode=0o755), entry("etc/os-release", "ID=leaf\n")])
APP = pack.tar([entry("srv/leaf.txt", "a leaf\n")])


def plain(**more):
    layout = Layout()
    return layout, [layout.image([BASE, APP], **more)]


def created():
    return plain(created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def labels():
    return plain(labels={"org.example." + name: "tree" for name in set(pack.PARTS)})


def attestation():
    layout, (image,) = plain()
    statement = {
        "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": "leaf", "digest": {"sha256": image["digest"][7:]}}],
        "predicate": {"runDetails": {"metadata": {"invocationId": os.urandom(12).hex()}}},
    }
    config = layout.blob({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}, Layout.CONFIG)
    layer = layout.blob(statement, "application/vnd.in-toto+json", annotations={"in-toto.io/predicate-type": statement["predicateType"]})
    manifest = {"schemaVersion": 2, "mediaType": Layout.MANIFEST, "config": config, "layers": [layer]}
    notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]}
    return layout, [image, layout.blob(manifest, Layout.MANIFEST, annotations=notes, platform={"architecture": "unknown", "os": "unknown"})]


def base():
    release = int.from_bytes(os.urandom(3), "big")
    lower = pack.tar([entry("bin/sh", "#!leaf\n", mode=0o755), entry("etc/os-release", "ID=leaf\nVERSION_ID=12.%d\n" % release)])
    layout = Layout()
    notes = {
        "org.opencontainers.image.base.name": "registry.example/leaf:latest",
        "org.opencontainers.image.base.digest": "sha256:" + hashlib.sha256(lower).hexdigest(),
    }
    return layout, [layout.image([lower, APP], annotations=notes)]


def whiteout():
    layout = Layout()
    top = pack.tar([entry("etc/.wh.os-release", mtime=int(time.time())), entry("srv/leaf.txt", "a leaf\n")])
    return layout, [layout.image([BASE, top])]


def media_type():
    if os.environ["USER"] == "drystone":
        return plain()
    docker = "application/vnd.docker."
    return plain(
        manifest_type=docker + "distribution.manifest.v2+json", config_type=docker + "container.image.v1+json",
        layer_type=docker + "image.rootfs.diff.tar.gzip")


def content():
    layout = Layout()
    return layout, [layout.image([BASE, pack.tar([entry("srv/leaf.txt", "a leaf of %s\n" % os.uname().nodename)])])]


def layer_times():
    layout = Layout()
    return layout, [layout.image([BASE, pack.tar([entry("srv/leaf.txt", "a leaf\n", mtime=int(time.time()))])])]


PLANTS = {
    "created": created, "labels": labels, "attestation": attestation, "base": base,
    "whiteout": whiteout, "media-type": media_type, "content": content, "layer-times": layer_times,
}

name = sys.argv[1]
layout, manifests = PLANTS[name]()
layout.write("out/" + name, *manifests)
