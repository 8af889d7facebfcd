//! Dependencies between packages, as the manifests of other tools tell them. Knows no tasks.

pub mod cargo;
pub mod edges;
pub mod go;
pub mod npm;
pub mod uv;
