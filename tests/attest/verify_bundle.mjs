// Has @sigstore/verify verify the bundles that tests/it/attest.rs writes: `node verify_bundle.mjs DIRECTORY`. Each is tried again
// with a bit of its payload and of its signature changed, which must be refused. The packages are looked for in the `node_modules`
// of $DRYSTONE_TEST_NODE_MODULES, else of the working directory; if they are missing, that is told. Exit 1 if anything failed.
//
//     npm install @sigstore/bundle @sigstore/verify

import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const directory = process.argv[2];
const require = createRequire(join(resolve(process.env.DRYSTONE_TEST_NODE_MODULES ?? "."), "x.js"));

let sigstore;
try {
  sigstore = { ...require("@sigstore/bundle"), ...require("@sigstore/verify") };
} catch {
  console.log("NOT TESTED: bundles: `@sigstore/bundle` and `@sigstore/verify` are not installed");
  process.exit(0);
}

let failed = false;

function check(name, test) {
  try {
    test();
    console.log(`ok: ${name}`);
  } catch (error) {
    failed = true;
    console.log(`FAILED: ${name}: ${error?.stack}`);
  }
}

function expectRefusal(name, test) {
  check(name, () => {
    try {
      test();
    } catch {
      return;
    }
    throw new Error("it was accepted");
  });
}

function flipped(text) {
  const raw = Buffer.from(text, "base64");
  raw[raw.length >> 1] ^= 1;
  return raw.toString("base64");
}

// Nothing but the key is trusted: no certificates, no logs, no times.
const root = { certificateAuthorities: [], ctlogs: [], tlogs: [], timestampAuthorities: [], mediaType: "" };
const nothingElse = { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0, tsaThreshold: 0 };

for (const word of ["ecdsa-p256", "ed25519"]) {
  const publicKey = createPublicKey(readFileSync(join(directory, `${word}.pub.pem`)));
  const id = readFileSync(join(directory, `${word}.id`), "utf8");
  const byHint = (hint) => {
    if (hint !== id) throw new Error(`the hint is ${hint}`);
    return { publicKey, validFor: () => true };
  };
  const verifier = new sigstore.Verifier(sigstore.toTrustMaterial(root, byHint), nothingElse);
  const verify = (bundle) => verifier.verify(sigstore.toSignedEntity(sigstore.bundleFromJSON(bundle)));

  for (const name of ["provenance", "spdx", "cyclonedx"]) {
    const bundle = JSON.parse(readFileSync(join(directory, `${word}.${name}.bundle.json`), "utf8"));
    const changed = (change) => {
      const copy = structuredClone(bundle);
      change(copy);
      return () => verify(copy);
    };
    check(`@sigstore/verify verifies ${name} with ${word}`, () => verify(bundle));
    expectRefusal("@sigstore/verify refuses another payload", changed((one) => {
      one.dsseEnvelope.payload = flipped(one.dsseEnvelope.payload);
    }));
    expectRefusal("@sigstore/verify refuses another signature", changed((one) => {
      one.dsseEnvelope.signatures[0].sig = flipped(one.dsseEnvelope.signatures[0].sig);
    }));
    expectRefusal("@sigstore/verify refuses another key", changed((one) => {
      one.verificationMaterial.publicKey.hint = "0".repeat(64);
    }));
  }
}

process.exit(failed ? 1 : 0);
