//! What the store promises as a whole, tried from outside its parts.

mod ahead;
mod archive;
mod caches;
mod concurrent;
mod content;
mod damage;
mod gc;
mod kept;
mod ledger;
mod log;
mod memory;
mod model;
mod packs;
mod path_sets;
mod reader;
mod stage;
mod trial;
mod verify;
