//! Lets the program find libtorch whoever starts it: by a run path, not by an environment variable.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_LIB");
    // An installation has the libraries in `lib` beside `bin`; it comes first, so that a copied program does not depend
    // on the place where it was built.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    // The variables that tch's own build script reads; Cargo's `[env]` table sets LIBTORCH where the user has not.
    if let Some(libtorch) = env::var_os("LIBTORCH_LIB").or_else(|| env::var_os("LIBTORCH")) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", PathBuf::from(libtorch).join("lib").display());
    }
}
