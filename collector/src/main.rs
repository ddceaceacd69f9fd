//! The `inquest` command.

fn main() -> std::process::ExitCode {
    inquest::cli::main()
}
