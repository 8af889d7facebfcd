"""Archives in archives, with one thing in each that changes."""

import os
import time
import uuid

import pack
from pack import entry

NOTE = entry("note.txt", "nothing changes here\n")


def deb(data, name):
    control = pack.gzip(pack.tar([entry("./control", "Package: leaf\nVersion: 1.0\nArchitecture: all\n")]))
    return pack.ar([entry("debian-binary", "2.0\n"), entry("control.tar.gz", control), entry(name, data)])


def deb_times():
    now = int(time.time())
    return deb(pack.gzip(pack.tar([entry("./usr/share/leaf.txt", "a leaf\n", mtime=now)])), "data.tar.gz")


def deb_kernel():
    import lzma

    return deb(lzma.compress(pack.tar([entry("./usr/share/kernel.txt", "made for %s\n" % os.uname().release)])), "data.tar.xz")


def jar():
    inner = pack.zip([entry("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nBuilt-By: %s\r\n\r\n" % os.environ["USER"]), NOTE])
    return pack.zip([entry("lib/leaf.jar", inner), NOTE])


def bytecode():
    import py_compile

    os.environ.pop("SOURCE_DATE_EPOCH", None)
    with open("leaf.py") as file:
        pack.write("/tmp/leaf.py", file.read())
    py_compile.compile("/tmp/leaf.py", "/tmp/leaf.pyc")
    with open("/tmp/leaf.pyc", "rb") as file:
        wheel = pack.zip([entry("leaf/__pycache__/leaf.cpython-3.pyc", file.read()), NOTE])
    return pack.tar([NOTE, entry("wheels/leaf-1.0-py3-none-any.whl", wheel)])


def json():
    inner = pack.readable({"name": "leaf", "builtAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    return pack.zip([entry("data.tar.gz", pack.gzip(pack.tar([entry("etc/build.json", inner), NOTE]))), NOTE])


def picture():
    inner = pack.zip([entry("img/leaf.png", pack.png((b"tIME", pack.png_time(time.gmtime())))), NOTE])
    return pack.gzip(pack.tar([entry("pictures.zip", inner)]))


def library():
    inner = pack.ar([entry("leaf.o", "an object\n", mtime=int(time.time())), NOTE])
    return pack.tar([entry("libs.zip", pack.zip([entry("libleaf.a", inner)]))])


def order():
    inner = pack.tar([entry("parts/" + name, open("parts/" + name).read()) for name in os.listdir("parts")])
    return pack.zip([NOTE, entry("parts.tar.gz", pack.gzip(inner))])


def initrd():
    inner = pack.cpio([entry("etc/hostname", os.uname().nodename + "\n"), NOTE])
    return pack.tar([entry("boot/initrd.gz", pack.gzip(inner))])


def image():
    layout = pack.Layout()
    layer = pack.tar([entry("etc/leaf.conf", "cache = %s/.cache/leaf\n" % os.environ["HOME"])])
    manifest = layout.image([layer])
    return pack.tar([entry(path, data) for path, data in sorted(layout.files(manifest).items())])


def book():
    inner = pack.zip([entry("content.opf", '<?xml version="1.0"?>\n<package><identifier>%s</identifier></package>\n' % uuid.uuid4()), NOTE])
    return pack.zip([entry("leaves.epub", inner), NOTE])


def zone():
    text = "published %s\n" % time.strftime("%Y-%m-%d %H:%M", time.localtime(pack.MOMENT))
    return pack.tar([NOTE, entry("pages.tar.gz", pack.gzip(pack.tar([entry("index.txt", text)])))])


pack.main({
    "tar-in-zip": lambda: pack.zip([entry("inner.tar", pack.tar([entry("etc/built", "built on %s\n" % os.uname().nodename), NOTE]))]),
    "gzip-in-tar-in-ar": lambda: pack.ar([entry("inner.tar", pack.tar([entry("man/leaf.1.gz", pack.gzip(b"a page\n", mtime=int(time.time())))]))]),
    "zip-in-tar-gz": lambda: pack.gzip(pack.tar([entry("inner.zip", pack.zip([entry("leaf.pc", "prefix=%s\n" % os.getcwd()), NOTE]))])),
    "deb": deb_times,
    "deb-kernel": deb_kernel,
    "jar-in-zip": jar,
    "json-in-tar-gz-in-zip": json,
    "bytecode-in-wheel-in-tar": bytecode,
    "png-in-zip-in-tar-gz": picture,
    "ar-in-zip-in-tar": library,
    "order-in-zip": order,
    "cpio-in-gzip-in-tar": initrd,
    "image-in-tar": image,
    "uuid-in-xml-in-zip-in-zip": book,
    "zone-in-tar-in-gzip-in-tar": zone,
})
