fn main() -> std::process::ExitCode {
    fathom::cli::main()
}
