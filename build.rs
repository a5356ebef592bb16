//! What the linker is told.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |key: &str| std::env::var(format!("CARGO_CFG_{key}")).unwrap_or_default();
    // The unwinder from the archive: libgcc_s.so, which has it, too, would be one more library to
    // load at each start, and its constructor asks the processor what it is. On a virtual machine
    // each such question goes to the hypervisor: 0.1 ms in all. A sanitizer brings its own.
    if target("TARGET_ENV") == "gnu" && target("SANITIZE").is_empty() {
        println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
    }
}
