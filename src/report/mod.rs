//! Layer 5: what people and machines read. The only module that writes to the terminal; never calls the engine.

pub mod audit;
pub mod chrome;
pub mod clock;
pub mod console;
pub mod fan;
pub mod ink;
pub mod jsonl;
pub mod junit;
pub mod lines;
pub mod live;
pub mod out;
pub mod plain;
pub mod render;
pub mod story;
pub mod wire;

#[cfg(test)]
pub(crate) mod sample;
