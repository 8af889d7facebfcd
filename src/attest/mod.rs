//! Layer 4: what goes with an image: bills of materials, provenance, signatures. Reaches no network.
