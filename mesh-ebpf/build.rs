//! Rebuilds the programs when the BPF linker changes.

fn main() {
    match which::which("bpf-linker") {
        Ok(path) => println!("cargo:rerun-if-changed={}", path.display()),
        Err(_) => println!("cargo:warning=bpf-linker is not in PATH; run `cargo xtask setup`"),
    }
}
