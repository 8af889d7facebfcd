//! The reference of the command line, `docs/cli.md`, made from its definitions. A test holds the file to it.

use std::fmt::Write as _;

use clap::{Arg, Command};

use crate::cli::args::command;
use crate::cli::exit::ExitKind;

/// The reference as Markdown.
pub fn reference_markdown() -> String {
    let mut all = command();
    all.build();
    let mut text = String::from("# The command line\n\nGenerated from the definitions in `src/cli`.\n\n");
    text.push_str(&about(&all));
    text.push_str("\n## Options of every command\n\n");
    options(&mut text, all.get_arguments().filter(|arg| arg.is_global_set()));
    for subcommand in all.get_subcommands() {
        section(&mut text, subcommand, 2);
    }
    text.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for kind in ExitKind::ALL {
        writeln!(text, "| {} | {} |", kind.code(), kind.meaning()).expect("writing to a string cannot fail");
    }
    text
}

fn section(text: &mut String, command: &Command, depth: usize) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    text.push_str(&format!("\n{} {name}\n\n{}\n```text\n{usage}\n```\n", "#".repeat(depth), about(command)));
    let own = || command.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help");
    if own().next().is_some() {
        text.push('\n');
        options(text, own());
    }
    for subcommand in command.get_subcommands() {
        section(text, subcommand, depth + 1);
    }
}

fn about(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    about.map(|about| format!("{}\n", sentence(&about.to_string()))).unwrap_or_default()
}

fn options<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments {
        let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!("- `{}`: {}\n", spelling(argument), sentence(&help)));
        if argument.get_action().takes_values() {
            for value in argument.get_possible_values() {
                let help = value.get_help().map(|help| format!(": {}", sentence(&help.to_string())));
                text.push_str(&format!("  - `{}`{}\n", value.get_name(), help.unwrap_or_default()));
            }
        }
    }
}

/// `-j, --jobs <N>`, `[TARGET]...`.
fn spelling(argument: &Arg) -> String {
    let names: Vec<String> = argument
        .get_short()
        .map(|short| format!("-{short}"))
        .into_iter()
        .chain(argument.get_long().map(|long| format!("--{long}")))
        .collect();
    if names.is_empty() {
        return argument.to_string();
    }
    let value = match argument.get_value_names() {
        Some([value, ..]) if argument.get_action().takes_values() => {
            if argument.is_require_equals_set() {
                format!("[={value}]")
            } else {
                format!(" <{value}>")
            }
        }
        _ => String::new(),
    };
    format!("{}{value}", names.join(", "))
}

/// Text that ends with a full stop: clap takes the last one off.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with('.') || text.is_empty() { text.to_owned() } else { format!("{text}.") }
}
