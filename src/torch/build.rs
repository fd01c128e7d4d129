//! Tells the linker where libtorch is, so that nobody needs `LD_LIBRARY_PATH`, and to keep its CUDA half.
//!
//! `LIBTORCH` and `DETECT_LINK_CUDA` come from `.cargo/config.toml`, which `make setup` writes.

use std::env;

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-env-changed=DETECT_LINK_CUDA");
    let Ok(libtorch) = env::var("LIBTORCH") else {
        println!(
            "cargo::warning=LIBTORCH is not set, so detect-torch will not find libtorch by itself; run `make setup`"
        );
        return;
    };
    // libtorch finds its own libraries: its files carry run paths relative to their folder.
    // -Xlinker takes any path; a comma in it would split the argument of -Wl.
    linker(&["-rpath", &format!("{libtorch}/lib")]);
    if env::var("DETECT_LINK_CUDA").is_ok_and(|value| value == "1") {
        // No symbol of libtorch_cuda is used by name: it registers its kernels when it is loaded, and rustc's
        // --as-needed would drop it.
        linker(&["--no-as-needed", "-ltorch_cuda", "--as-needed"]);
    }
}

/// Passes `arguments` to the linker of everything in this package.
fn linker(arguments: &[&str]) {
    for argument in arguments {
        println!("cargo::rustc-link-arg=-Xlinker");
        println!("cargo::rustc-link-arg={argument}");
    }
}
