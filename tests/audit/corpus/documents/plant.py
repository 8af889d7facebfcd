"""Documents, with one thing in each that changes."""

import getpass
import os
import pickle
import time
import uuid

import pack


def now(form):
    return time.strftime(form, time.gmtime())


def pdf(date=b"D:20231114221320Z", name=b"00112233445566778899aabbccddeeff"):
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 72 72] >>",
        b"<< /Title (Leaves) /CreationDate (" + date + b") >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    ident = b"<" + name + b">"
    end = b"trailer\n<< /Size 5 /Root 1 0 R /Info 4 0 R /ID [%s %s] >>\nstartxref\n%d\n%%%%EOF\n" % (ident, ident, len(out))
    return out + b"xref\n0 5\n" + table + end


def sqlite():
    import sqlite3

    os.makedirs("out", exist_ok=True)
    with sqlite3.connect("out/time.db") as base:
        base.execute("create table build (name text, at integer)")
        base.execute("insert into build values ('leaf', ?)", [int(time.time())])
    base.close()


def sbom(serial="urn:uuid:9b4a5c8e-52f1-5d0c-8a57-0d3c1f6f7a11", at="2023-11-14T22:13:20Z"):
    return pack.readable({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": serial, "version": 1, "metadata": {"timestamp": at},
        "components": [{"type": "library", "name": "leaf", "version": "1.0.0", "purl": "pkg:generic/leaf@1.0.0"}],
    })


def labels():
    return pack.readable({name: {"kind": "tree", "letters": len(name)} for name in set(pack.PARTS)})


pack.main({
    "png-time": lambda: pack.png((b"tIME", pack.png_time(time.gmtime()))),
    "png-host": lambda: pack.png((b"tEXt", b"Source\0" + os.uname().nodename.encode())),
    "json-time": lambda: pack.readable({"name": "leaf", "built": {"at": int(time.time() * 1000)}, "parts": pack.PARTS}),
    "json-order": labels,
    "json-cpus": lambda: pack.readable({"name": "leaf", "workers": len(os.sched_getaffinity(0))}),
    "json-directory": lambda: pack.readable({"name": "leaf", "sourceRoot": os.getcwd(), "sources": ["leaf.js"]}),
    "pdf-date": lambda: pdf(date=now("D:%Y%m%d%H%M%SZ").encode()),
    "pdf-id": lambda: pdf(name=os.urandom(16).hex().encode()),
    "sqlite-time": sqlite,
    "pickle-set": lambda: pickle.dumps(set(pack.PARTS), protocol=4),
    "xml-user": lambda: '<?xml version="1.0"?>\n<build kind="leaf" by="%s"><part name="birch"/></build>\n' % getpass.getuser(),
    "properties": lambda: "#Made by leaf\n#%s\nversion=1.0.0\n" % now("%a %b %d %H:%M:%S UTC %Y"),
    "sbom-serial": lambda: sbom(serial="urn:uuid:%s" % uuid.uuid4()),
    "sbom-time": lambda: sbom(at=now("%Y-%m-%dT%H:%M:%SZ")),
})
