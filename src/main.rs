//! The `drystone` program: hands over to `cli`.

fn main() -> std::process::ExitCode {
    drystone::cli::main()
}
