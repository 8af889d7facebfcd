//! Runs commands through the real launcher and asks them what they see. Each test names a law of the sandbox.

mod after;
mod ending;
mod escape;
mod evading;
mod failing;
mod landlock;
mod limits;
mod observing;
mod owners;
mod pod;
mod steps;
mod user;
mod varying;
mod view;
mod world;
