//! The `drystone` program: hands over to `cli`, or becomes the sandbox's launcher.

fn main() -> std::process::ExitCode {
    // Before anything else: the launcher must have one thread and a small heap.
    drystone::sandbox::launcher::main_if_asked();
    drystone::cli::main()
}
