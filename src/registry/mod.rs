//! Layer 4: registries that speak the OCI distribution protocol. Knows no task and no manifest of a workspace.
