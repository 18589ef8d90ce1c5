//! The `pnb` program: everything is in the library.

fn main() -> std::process::ExitCode {
    pnb::cli::main(std::env::args_os().collect())
}
