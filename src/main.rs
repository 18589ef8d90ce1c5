//! The `pnb` program: the command line ([`cli`]) on top of the library.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main(std::env::args_os().collect())
}
