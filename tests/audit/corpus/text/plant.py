"""Texts, with one thing in each that changes."""

import base64
import os

import pack


def environ():
    known = {"PATH", "HOME", "TMPDIR", "LANG", "TZ", "USER", "LOGNAME", "SOURCE_DATE_EPOCH"}
    return "".join(name + "\n" for name in os.environ if name in known)


def trees():
    return "".join(word + "\n" for word in {"beech", "oak", *pack.PARTS})


def status():
    packages = ["adduser", "base-files", "libc6", "zlib1g"]
    made = ["Package: %s\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.36.%d-2\n" % (name, int.from_bytes(os.urandom(2), "big")) for name in packages]
    return "\n".join(made)


def armoured(title, size):
    text = base64.b64encode(os.urandom(size)).decode()
    lines = [text[at:at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN %s-----" % title, *lines, "-----END %s-----" % title, ""])


pack.main({
    "environ": environ,
    "set": trees,
    "object": lambda: "default: %r\n" % object(),
    "status": status,
    "key": lambda: armoured("PRIVATE KEY", 48),
    "signature": lambda: armoured("PGP SIGNATURE", 96),
    "flaky": lambda: "passed in round %d\n" % (2 if os.urandom(1)[0] % 4 == 0 else 1),
})
