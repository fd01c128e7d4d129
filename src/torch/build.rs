//! Puts the folder of libtorch into the run path, so that nobody needs `LD_LIBRARY_PATH`.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=DETECT_LIBTORCH_RPATH");
    // DETECT_LIBTORCH_RPATH names further folders (the CUDA libraries of a PyTorch install), separated by colons.
    let extra = env::var("DETECT_LIBTORCH_RPATH").unwrap_or_default();
    let own = env::var("LIBTORCH").map(|root| format!("{root}/lib")).unwrap_or_default();
    for folder in own.split(':').chain(extra.split(':')).filter(|folder| Path::new(folder).is_dir())
    {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
