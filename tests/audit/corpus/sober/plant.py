"""Files that look as if they changed."""

import base64
import hashlib
import os
import random
import uuid

import pack
from pack import entry

NOISE = random.Random(42).randbytes(4096)


def image():
    layout = pack.Layout()
    labels = {"org.opencontainers.image.created": "2023-11-14T22:13:20Z", "org.opencontainers.image.version": "2.6.78"}
    layer = pack.tar([entry("etc/machine-id", "0123456789abcdef0123456789abcdef\n"), entry("etc/.wh.gone", mtime=pack.MOMENT)])
    layout.write("out/image", layout.image([layer], labels=labels))


def key():
    text = base64.b64encode(hashlib.sha512(b"a key for tests").digest()).decode()
    return "-----BEGIN PRIVATE KEY-----\n%s\n%s\n-----END PRIVATE KEY-----\n" % (text[:64], text[64:])


def base():
    import sqlite3

    os.makedirs("out", exist_ok=True)
    with sqlite3.connect("out/leaf.db") as made:
        made.execute("create table build (name text, at integer)")
        made.execute("insert into build values ('leaf', ?)", [pack.MOMENT])
    made.close()


pack.main({
    "uuids": lambda: "".join("%s %s\n" % (uuid.uuid5(uuid.NAMESPACE_DNS, name), name) for name in pack.PARTS),
    "set": lambda: pack.readable({name: len(name) for name in sorted(set(pack.PARTS))}),
    "noise": lambda: NOISE,
    "key": key,
    "picture": lambda: pack.png((b"tIME", pack.png_time((2024, 2, 29, 12, 34, 56))), (b"tEXt", b"Source\0drystone")),
    "zip": lambda: pack.zip([entry("b.txt", "2\n"), entry("a.txt", "1\n", date=(2024, 2, 29, 12, 34, 56)), entry("noise.bin", NOISE)]),
    "image": image,
    "base": base,
})
