#!/usr/bin/env python3
"""Has other people's programs read what goes with an image: `third_parties.py DIRECTORY`, with the documents that tests/it/attest.rs writes.

SPDX by spdx-tools, CycloneDX by cyclonedx-python-lib, statements by in-toto-attestation, envelopes by securesystemslib, keys and
signatures by openssl. Every signed document is tried once more with a byte changed, which must be refused. A package that is not
installed is told as NOT TESTED. Exit 1 if anything failed.

    pip install spdx-tools==0.8.5 'cyclonedx-python-lib[validation]' 'securesystemslib[crypto]' in-toto-attestation
"""

import base64
import copy
import json
import pathlib
import shutil
import subprocess
import sys
import traceback

KEYS = ["ed25519", "ecdsa-p256"]
STATEMENTS = ["provenance", "spdx", "cyclonedx"]

failed = False


def check(name, test):
    """Runs a test; one that raises failed."""
    global failed
    try:
        test()
        print(f"ok: {name}")
    except Exception:
        failed = True
        print(f"FAILED: {name}")
        traceback.print_exc()


def expect_refusal(name, test, error=Exception):
    """Runs a test that must raise."""

    def turned():
        try:
            test()
        except error:
            return
        raise AssertionError("it was accepted")

    check(name, turned)


def not_tested(what, package):
    print(f"NOT TESTED: {what}: `{package}` is not installed")


def spdx(directory):
    try:
        from spdx_tools.spdx.parser.parse_anything import parse_file
        from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
    except ImportError:
        return not_tested("SPDX", "spdx-tools")

    def validated(path):
        messages = validate_full_spdx_document(parse_file(str(path)))
        assert not messages, [message.validation_message for message in messages]

    check("spdx-tools accepts the SPDX document", lambda: validated(directory / "bill.spdx.json"))

    def tampered(change):
        document = json.loads((directory / "bill.spdx.json").read_text())
        change(document)
        path = directory / "tampered.spdx.json"
        path.write_text(json.dumps(document))
        validated(path)

    # That it looks at what it accepts.
    expect_refusal("spdx-tools refuses another version", lambda: tampered(lambda one: one.update(spdxVersion="SPDX-9")))
    expect_refusal(
        "spdx-tools refuses a relation to nothing",
        lambda: tampered(lambda one: one["relationships"][0].update(relatedSpdxElement="SPDXRef-none")),
    )


def cyclonedx(directory):
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator

        validator = JsonStrictValidator(SchemaVersion.V1_6)
        validator.validate_str("{}")
    except Exception:  # It has an exception of its own for parts that are missing.
        return not_tested("CycloneDX", "cyclonedx-python-lib[validation]")

    def validated(text):
        error = validator.validate_str(text)
        assert error is None, error

    text = (directory / "bill.cdx.json").read_text()
    check("cyclonedx-python-lib accepts the CycloneDX document", lambda: validated(text))
    for old, new in [('"SHA-256"', '"SHA-257"'), ("bom-ref", "bom-reg"), ("urn:uuid:", "urn:uuix:")]:
        assert old in text
        expect_refusal(f"cyclonedx-python-lib refuses {new}", lambda: validated(text.replace(old, new, 1)))


def in_toto(directory):
    try:
        from google.protobuf import json_format
        from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
        from in_toto_attestation.v1 import statement_pb2
        from in_toto_attestation.v1.statement import Statement
    except ImportError:
        return not_tested("in-toto statements", "in-toto-attestation")

    def validated(text):
        Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement())).validate()

    for name in STATEMENTS:
        text = (directory / f"{name}.statement.json").read_text()
        check(f"in-toto-attestation accepts the statement of {name}", lambda: validated(text))
        expect_refusal("in-toto-attestation refuses another type", lambda: validated(text.replace("Statement/v1", "Statement/v9")))
    predicate = json.loads((directory / "provenance.statement.json").read_text())["predicate"]
    # Unknown fields are refused by the reader.
    check("the provenance has the fields of SLSA v1", lambda: json_format.ParseDict(predicate, provenance_pb2.Provenance()))
    predicate["buildDefinition"]["buildKind"] = "x"
    expect_refusal("and no others", lambda: json_format.ParseDict(predicate, provenance_pb2.Provenance()))


def flipped(text):
    """Base64 of the same bytes but for one bit in their middle."""
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(raw).decode()


def dsse(directory):
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
        from securesystemslib.dsse import Envelope
        from securesystemslib.exceptions import VerificationError
        from securesystemslib.signer import SSlibKey
    except ImportError:
        return not_tested("DSSE", "securesystemslib[crypto]")

    for word in KEYS:
        public = load_pem_public_key((directory / f"{word}.pub.pem").read_bytes())
        key = SSlibKey.from_crypto(public, keyid=(directory / f"{word}.id").read_text())
        for name in STATEMENTS:
            envelope = json.loads((directory / f"{word}.{name}.envelope.json").read_text())

            def verified(envelope):
                # It changes what it is given.
                assert len(Envelope.from_dict(copy.deepcopy(envelope)).verify([key], 1)) == 1

            check(f"securesystemslib verifies {name} with {word}", lambda: verified(envelope))
            payload = {**envelope, "payload": flipped(envelope["payload"])}
            expect_refusal("securesystemslib refuses another payload", lambda: verified(payload), VerificationError)
            retyped = {**envelope, "payloadType": "application/vnd.in-toto+jsoo"}
            expect_refusal("securesystemslib refuses another type", lambda: verified(retyped), VerificationError)
            signature = {**envelope["signatures"][0], "sig": flipped(envelope["signatures"][0]["sig"])}
            resigned = {**envelope, "signatures": [signature]}
            expect_refusal("securesystemslib refuses another signature", lambda: verified(resigned), VerificationError)


def openssl(directory):
    program = shutil.which("openssl")
    if program is None:
        return not_tested("keys and signatures", "openssl")

    def run(*arguments):
        return subprocess.run([program, *map(str, arguments)], check=True, capture_output=True).stdout

    for word in KEYS:
        public = directory / f"{word}.pub.pem"

        def same_public():
            assert run("pkey", "-in", directory / f"{word}.key.pem", "-pubout") == public.read_bytes()

        def verified(message):
            raw = ["-rawin"] if word == "ed25519" else ["-rawin", "-digest", "sha256"]
            run("pkeyutl", "-verify", "-pubin", "-inkey", public, *raw, "-in", message, "-sigfile", directory / f"{word}.signature")

        check(f"openssl reads the private key of {word}", same_public)
        check(f"openssl verifies a signature of {word}", lambda: verified(directory / "message"))
        (directory / "other").write_bytes(b"stonf\n")
        expect_refusal("openssl refuses another message", lambda: verified(directory / "other"), subprocess.CalledProcessError)


def main():
    directory = pathlib.Path(sys.argv[1])
    for test in [spdx, cyclonedx, in_toto, dsse, openssl]:
        test(directory)
    sys.exit(1 if failed else 0)


main()
