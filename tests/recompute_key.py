#!/usr/bin/env python3
"""Recomputes an action digest from schema/KEY.md alone. Usage: recompute_key.py EXPLAINED.json ROOT INPUT...

Reads what the machine knows (tool and system identity, environment, argv) from `drystone explain --format json`, lists and
digests the input files below ROOT itself, and prints the digest. BLAKE3 is written out below, from its specification.
"""

import json
import os
import struct
import sys

# --- BLAKE3 (specification, sections 2.1 to 2.6) -------------------------------------------------------------------------

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
CHUNK_START, CHUNK_END, PARENT, ROOT, DERIVE_CONTEXT, DERIVE_MATERIAL = 1, 2, 4, 8, 32, 64
MASK = 0xFFFFFFFF


def compress(chaining, block, counter, length, flags):
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = chaining[:8] + IV[:4] + [counter & MASK, counter >> 32, length, flags]

    def mix(a, b, c, d, x, y):
        for word, first, second in ((x, 16, 12), (y, 8, 7)):
            v[a] = (v[a] + v[b] + word) & MASK
            v[d] ^= v[a]
            v[d] = (v[d] >> first | v[d] << (32 - first)) & MASK
            v[c] = (v[c] + v[d]) & MASK
            v[b] ^= v[c]
            v[b] = (v[b] >> second | v[b] << (32 - second)) & MASK

    for _ in range(7):
        for i, (a, b, c, d) in enumerate([(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]):
            mix(a, b, c, d, m[2 * i], m[2 * i + 1])
        for i, (a, b, c, d) in enumerate([(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]):
            mix(a, b, c, d, m[8 + 2 * i], m[9 + 2 * i])
        m = [m[i] for i in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def words_to_bytes(words):
    return struct.pack("<8I", *words)


def chunk_output(key, chunk, counter, flags, root):
    """Chaining value of one chunk of at most 1024 bytes."""
    blocks = [chunk[i : i + 64] for i in range(0, len(chunk), 64)] or [b""]
    value = key
    for i, block in enumerate(blocks):
        marks = flags | (CHUNK_START if i == 0 else 0)
        if i == len(blocks) - 1:
            marks |= CHUNK_END | (ROOT if root else 0)
        value = compress(value, block, counter, len(block), marks)
    return value


def subtree(key, data, counter, flags, root):
    if len(data) <= 1024:
        return chunk_output(key, data, counter, flags, root)
    chunks = (len(data) + 1023) // 1024
    left = 1 << ((chunks - 1).bit_length() - 1)
    one = subtree(key, data[: left * 1024], counter, flags, False)
    two = subtree(key, data[left * 1024 :], counter + left, flags, False)
    block = words_to_bytes(one) + words_to_bytes(two)
    return compress(key, block, 0, 64, flags | PARENT | (ROOT if root else 0))


def blake3(data):
    return words_to_bytes(subtree(IV, data, 0, 0, True))


def derive_key(context, data):
    key = subtree(IV, context.encode(), 0, DERIVE_CONTEXT, True)
    return words_to_bytes(subtree(key, data, 0, DERIVE_MATERIAL, True))


# --- Trees (schema/KEY.md, "Trees") --------------------------------------------------------------------------------------


def u64(value):
    return struct.pack("<Q", value)


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return u64(len(data)) + data


def tree_digest(entries):
    """Entries: name (bytes) to ("file", path) | ("link", target) | ("dir", entries)."""
    out = u64(len(entries))
    for name in sorted(entries):
        kind, value = entries[name]
        out += text(name)
        if kind == "file":
            data = open(value, "rb").read()
            executable = os.stat(value).st_mode & 0o100
            out += (b"\1" if executable else b"\0") + blake3(data) + u64(len(data))
        elif kind == "link":
            out += b"\2" + text(value)
        else:
            out += b"\3" + tree_digest(value)
    return derive_key("drystone 2026-11 tree v1", out)


def listing(path):
    path = os.fsencode(path)
    if os.path.islink(path):
        return ("link", os.readlink(path))
    if os.path.isdir(path):
        return ("dir", {name: listing(os.path.join(path, name)) for name in os.listdir(path)})
    return ("file", path)


# --- The action (schema/KEY.md, "Actions") -------------------------------------------------------------------------------

TAGS = {
    "kind": 1, "command": 2, "env": 3, "secret-env": 4, "directory": 5, "input": 6, "tool": 7, "system": 8,
    "platform": 9, "isolation": 10, "network": 11, "outputs": 12, "caches": 13, "salt": 14, "service": 17, "root": 18,
    "traced": 19, "undeclared": 21, "processes": 22, "unstable": 24,
}
OPAQUE = {"tool", "service", "root", "traced", "unstable"}
# Not in the stream where there is none.
OPTIONAL = {"service", "root", "traced", "undeclared", "processes", "unstable"}


def value_bytes(field, value):
    return text(bytes.fromhex(value)) if field in OPAQUE else text(value)


def field_bytes(field, content):
    tag = struct.pack("<H", TAGS[field])
    if content is None:
        return tag + b"\0"
    if isinstance(content, str):
        return tag + b"\1" + value_bytes(field, content)
    if isinstance(content, list):
        return tag + b"\2" + u64(len(content)) + b"".join(text(item) for item in content)
    pairs = sorted((name.encode(), value) for name, value in content.items())
    return tag + b"\3" + u64(len(pairs)) + b"".join(text(name) + value_bytes(field, value) for name, value in pairs)


def main():
    fingerprint = json.load(open(sys.argv[1], encoding="utf-8"))["fingerprint"]
    root, inputs = sys.argv[2], sys.argv[3:]
    entries = {os.fsencode(name): listing(os.path.join(root, name)) for name in inputs}
    stream = b""
    for field in sorted(TAGS, key=TAGS.get):
        if field in OPTIONAL and field not in fingerprint:
            continue
        if field == "input":
            stream += struct.pack("<H", TAGS[field]) + b"\1" + text(tree_digest(entries))
        elif field not in OPTIONAL or field in fingerprint:
            stream += field_bytes(field, fingerprint[field])
    print(derive_key("drystone 2026-11 action v1", stream).hex())


main()
