"""Archives, with one thing in each that changes."""

import base64
import hashlib
import os
import struct
import time

import pack
from pack import entry

PAGE = "".join("line %d of a page about trees\n" % number for number in range(4000)).encode()


def links():
    # Sixteen pairs of equal files; whether the second of a pair is a link follows from how the store happens to hold them.
    entries = []
    for number, chance in enumerate(os.urandom(16)):
        first, second = "tree/%02d-a.txt" % number, "tree/%02d-b.txt" % number
        data = "pair %d\n" % number
        entries += [entry(first, data), entry(second, link=first) if chance & 1 else entry(second, data)]
    return pack.tar(entries)


def inode():
    pack.write("/tmp/one.txt", "one\n")
    return pack.cpio([entry("one.txt", "one\n", ino=os.stat("/tmp/one.txt").st_ino)])


def threads():
    size = len(PAGE) // len(os.sched_getaffinity(0))
    return pack.gzip(PAGE, chunks=[size] * (len(PAGE) // size))


def reads():
    return pack.gzip(PAGE, chunks=[int.from_bytes(os.urandom(2), "big") // 8 + 1 for _ in range(8)])


def zone():
    return pack.zip([entry("one.txt", "one\n", date=time.localtime(pack.MOMENT)[:6])])


def extra():
    return pack.zip([entry("one.txt", "one\n", extra=struct.pack("<HHBI", 0x5455, 5, 1, int(time.time())))])


def order():
    return pack.zip([entry(name, open("parts/" + name).read()) for name in os.listdir("parts")])


def umask():
    pack.write("/tmp/one.txt", "one\n")
    return pack.zip([entry("one.txt", "one\n", mode=os.stat("/tmp/one.txt").st_mode)])


def wheel():
    cache = '{"timestamp":{"secs_since_epoch":%d}}' % time.time()
    files = [("leaf/__init__.py", 'NAME = "leaf"\n'), ("leaf-1.0.dist-info/uv_cache.json", cache)]
    record = ""
    for name, text in files:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += "%s,sha256=%s,%d\n" % (name, digest, len(text))
    record += "leaf-1.0.dist-info/RECORD,,\n"
    return pack.zip([entry(*one) for one in [*files, ("leaf-1.0.dist-info/RECORD", record)]])


def jar():
    manifest = "Manifest-Version: 1.0\r\nCreated-By: 17.0.9\r\nBuilt-By: %s\r\n\r\n" % os.environ["USER"]
    return pack.zip([entry("META-INF/MANIFEST.MF", manifest), entry("leaf.properties", "kind=leaf\n")])


def root(changing):
    files = {"etc/hostname": "leaf\n", "etc/os-release": "ID=leaf\n", "usr/bin/leaf": "#!/bin/sh\n", **changing}
    return pack.tar([entry(name, data) for name, data in sorted(files.items())])


pack.main({
    "attributes": lambda: pack.tar([entry("one.txt", "one\n", pax={"SCHILY.xattr.user.origin": os.urandom(8).hex()})]),
    "links": links,
    "inode": inode,
    "cpio-times": lambda: pack.cpio([entry("one.txt", "one\n", mtime=int(time.time())), entry("two.txt", "two\n", mtime=int(time.time()))]),
    "gzip-name": lambda: pack.gzip(PAGE, name=b"page-" + os.urandom(4).hex().encode() + b".txt"),
    "gzip-system": lambda: pack.gzip(PAGE, system=os.urandom(1)[0]),
    "gzip-threads": threads,
    "gzip-reads": reads,
    "zip-time": lambda: pack.zip([entry("one.txt", "one\n", date=time.gmtime()[:6]), entry("two.txt", "two\n", date=time.gmtime()[:6])]),
    "zip-zone": zone,
    "zip-extra": extra,
    "zip-order": order,
    "zip-umask": umask,
    "wheel-cache": wheel,
    "jar-user": jar,
    "root-cache": lambda: root({"var/cache/ldconfig/aux-cache": b"glibc-ld.so.cache1.1" + os.urandom(64)}),
    "root-machine": lambda: root({"etc/machine-id": os.urandom(16).hex() + "\n"}),
})
