"""Writes archives and other files that hold nothing but what the caller says: times, owners and modes are constant unless given."""

import hashlib
import io
import json
import os
import struct
import sys
import zlib

MOMENT = 1700000000  # 2023-11-14T22:13:20Z
PARTS = ["alder", "birch", "cedar", "elm", "hazel", "larch", "maple", "rowan"]


def write(path, data):
    """Writes bytes or text to `path`, with the directories above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)


def main(plants):
    """Runs the plant that the first argument names. A plant returns the bytes of the file that the second argument names, or writes itself."""
    made = plants[sys.argv[1]]()
    if made is not None:
        write(sys.argv[2], made)


def readable(value):
    """JSON as a person writes it, keys in the order they have."""
    return json.dumps(value, indent=2) + "\n"


def entry(name, data=b"", **more):
    """An entry of an archive: `mtime`, `mode`, `uid`, `gid`, `link` (a hard link's target), `pax` (records), `ino` of cpio, `extra` of zip."""
    return {"name": name, "data": data.encode() if isinstance(data, str) else data, **more}


def tar(entries):
    """A tar archive; pax where an entry has records of its own, else ustar."""
    import tarfile

    buffer = io.BytesIO()
    form = tarfile.PAX_FORMAT if any("pax" in one for one in entries) else tarfile.USTAR_FORMAT
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for one in entries:
            info = tarfile.TarInfo(one["name"])
            info.mtime, info.mode = one.get("mtime", 0), one.get("mode", 0o644)
            info.uid, info.gid = one.get("uid", 0), one.get("gid", 0)
            info.pax_headers = one.get("pax", {})
            if "link" in one:
                info.type, info.linkname = tarfile.LNKTYPE, one["link"]
                archive.addfile(info)
            else:
                info.size = len(one["data"])
                archive.addfile(info, io.BytesIO(one["data"]))
    return buffer.getvalue()


def zip(entries):
    """A zip archive; `date` of an entry has six numbers. Deflated."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in entries:
            info = zipfile.ZipInfo(one["name"], one.get("date", (1980, 1, 1, 0, 0, 0)))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system, info.external_attr = 3, one.get("mode", 0o644) << 16
            info.extra = one.get("extra", b"")
            archive.writestr(info, one["data"])
    return buffer.getvalue()


def ar(entries):
    """An ar archive in the common format."""
    out = b"!<arch>\n"
    for one in entries:
        head = "%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (
            one["name"] + "/", one.get("mtime", 0), one.get("uid", 0), one.get("gid", 0), one.get("mode", 0o100644), len(one["data"]))
        out += head.encode() + one["data"] + b"\n" * (len(one["data"]) % 2)
    return out


def cpio(entries):
    """A cpio archive in the `newc` format; inode numbers count from 1 unless given."""
    out = b""
    for number, one in enumerate([*entries, entry("TRAILER!!!", mode=0)]):
        name = one["name"].encode() + b"\0"
        fields = (one.get("ino", number + 1) & 0xFFFFFFFF, one.get("mode", 0o100644), 0, 0, 1, one.get("mtime", 0), len(one["data"]), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += head + b"\0" * (-len(head) % 4) + one["data"] + b"\0" * (-len(one["data"]) % 4)
    return out


def gzip(data, mtime=0, name=b"", system=255, chunks=None):
    """A gzip file; `chunks` are the sizes in which the compressor gets its input, flushed after each."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    body, at = b"", 0
    for size in chunks or []:
        body += deflate.compress(data[at:at + size]) + deflate.flush(zlib.Z_SYNC_FLUSH)
        at += size
    body += deflate.compress(data[at:]) + deflate.flush()
    head = struct.pack("<4BIBB", 0x1F, 0x8B, 8, 8 if name else 0, mtime, 0, system) + (name + b"\0" if name else b"")
    return head + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def png(*chunks):
    """A PNG of one grey pixel with these `(type, data)` chunks before the picture."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*one) for one in chunks) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


def png_time(moment):
    """The data of a tIME chunk; `moment` is a `time.struct_time`."""
    return struct.pack(">HBBBBB", *moment[:6])


class Layout:
    """An OCI layout in memory: digests follow from what is put in."""

    INDEX = "application/vnd.oci.image.index.v1+json"
    MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    CONFIG = "application/vnd.oci.image.config.v1+json"
    LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

    def __init__(self):
        self.blobs = {}

    def blob(self, data, media_type, **more):
        """Puts a blob and returns its descriptor. What is no bytes becomes JSON."""
        if not isinstance(data, bytes):
            data = json.dumps(data, separators=(",", ":")).encode()
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data), **more}

    def image(self, layers, created="2023-11-14T22:13:20Z", labels=None, annotations=None, config_type=CONFIG, layer_type=LAYER, manifest_type=MANIFEST):
        """Puts an image of these layers, each the bytes of a tar archive, and returns the descriptor of its manifest."""
        config = {
            "created": created, "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"], "Labels": labels or {}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2, "mediaType": manifest_type, "config": self.blob(config, config_type),
            "layers": [self.blob(gzip(layer), layer_type) for layer in layers],
        }
        if annotations:
            manifest["annotations"] = annotations
        return self.blob(manifest, manifest_type, platform={"architecture": "amd64", "os": "linux"})

    def files(self, *manifests):
        """The files of the layout with these manifests in its index, by path."""
        index = {"schemaVersion": 2, "mediaType": self.INDEX, "manifests": list(manifests)}
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index, separators=(",", ":")).encode()}
        files.update({"blobs/sha256/" + digest: data for digest, data in sorted(self.blobs.items())})
        return files

    def write(self, directory, *manifests):
        """Writes the layout into a directory."""
        for path, data in self.files(*manifests).items():
            write(os.path.join(directory, path), data)
