//! Behaviour through the binary, each test in a hermetic temporary workspace.

mod bad_input;
mod checklist;
mod commands;
mod examples;
mod explain;
mod images;
mod key_script;
mod keys;
mod leaks;
mod levels;
mod oracle;
mod outputs;
mod ownership;
mod run;
mod service_keys;
mod services;
mod services_end;
mod split;
mod stores;
mod support;
mod toolchains;
mod tools;
mod traced;
mod traced_detours;
mod undeclared;
mod views;
