//! Everything that reads what others wrote, given what nobody would write: no panic, no hang, nothing outside its place.
//!
//! Each target starts from a corpus, mutates it, and keeps inputs that made something happen that had not happened before.
//! `DRYSTONE_FUZZ_SECONDS=N` says how long each target goes on (8 without it), `DRYSTONE_SEED=N` replays a seed: inputs depend on
//! nothing else. An input that once broke something lies in `tests/fuzz/corpus/TARGET/` and is tried first.

#[path = "../it/support/random.rs"]
mod random;

mod images;
mod mutate;
mod targets;
