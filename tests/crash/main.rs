//! The promises that nothing is damaged and nothing stored is lost, by tests that try to break them through the binary.

#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "what these tests do not need, those of `it` do")]
mod support;

mod crowd;
mod damage;
mod detour;
mod errors;
mod exchange;
mod full;
mod kill;
mod trial;
mod world;

/// Whether the program was built so that faults can be planned; says loudly if not.
fn has_faults() -> bool {
    if !cfg!(debug_assertions) {
        eprintln!("!!! NOT TESTED: faults of the disk, which only a build with debug assertions can be asked for");
    }
    cfg!(debug_assertions)
}
