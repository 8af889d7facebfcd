//! What the store promises as a whole, tried from outside its parts.

mod content;
mod damage;
mod trial;
