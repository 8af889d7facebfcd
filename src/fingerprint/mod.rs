//! Layer 3: what a key is made of, and what it says when it changes. Knows nothing of scheduling.

pub mod action;
pub mod databases;
pub mod elf;
pub mod explain;
pub mod packages;
pub mod roots;
pub mod sink;
pub mod system;
pub mod tools;
pub mod traced;
