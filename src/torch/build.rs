//! Tells the linker where libtorch is, so that nobody needs `LD_LIBRARY_PATH`, and to keep its CUDA half; and
//! compiles the few lines of C++ that tch lacks.
//!
//! `LIBTORCH` and `DETECT_LINK_CUDA` come from `.cargo/config.toml`, which `make setup` writes.

use std::env;

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    shim();
    println!("cargo::rerun-if-env-changed=DETECT_LINK_CUDA");
    let Ok(libtorch) = env::var("LIBTORCH") else {
        println!(
            "cargo::warning=LIBTORCH is not set, so detect-torch will not find libtorch by itself; run `make setup`"
        );
        println!("cargo::rustc-env=DETECT_LIBTORCH_VERSION=unknown");
        return;
    };
    println!("cargo::rustc-env=DETECT_LIBTORCH_VERSION={}", version(&libtorch));
    // libtorch finds its own libraries: its files carry run paths relative to their folder.
    // -Xlinker takes any path; a comma in it would split the argument of -Wl.
    linker(&["-rpath", &format!("{libtorch}/lib")]);
    if env::var("DETECT_LINK_CUDA").is_ok_and(|value| value == "1") {
        // No symbol of libtorch_cuda is used by name: it registers its kernels when it is loaded, and rustc's
        // --as-needed would drop it.
        linker(&["--no-as-needed", "-ltorch_cuda", "--as-needed"]);
    }
}

/// Compiles what tch lacks.
fn shim() {
    const SOURCE: &str = "shim.cpp";
    println!("cargo::rerun-if-changed={SOURCE}");
    let mut build = cc::Build::new();
    if let Ok(libtorch) = env::var("LIBTORCH") {
        build.include(format!("{libtorch}/include"));
    }
    // The headers are libtorch's, and so are their warnings.
    build.cpp(true).std("c++17").warnings(false).file(SOURCE).compile("detect_shim");
}

/// The version that the headers of this libtorch give, such as 2.11.0; "unknown" where they give none.
fn version(libtorch: &str) -> String {
    let header = format!("{libtorch}/include/torch/headeronly/version.h");
    println!("cargo::rerun-if-changed={header}");
    let text = std::fs::read_to_string(header).unwrap_or_default();
    let part = |name: &str| {
        let start = format!("#define TORCH_VERSION_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).map(str::trim)
    };
    match (part("MAJOR"), part("MINOR"), part("PATCH")) {
        (Some(major), Some(minor), Some(patch)) => format!("{major}.{minor}.{patch}"),
        _ => "unknown".to_owned(),
    }
}

/// Passes `arguments` to the linker of everything in this package.
fn linker(arguments: &[&str]) {
    for argument in arguments {
        println!("cargo::rustc-link-arg=-Xlinker");
        println!("cargo::rustc-link-arg={argument}");
    }
}
