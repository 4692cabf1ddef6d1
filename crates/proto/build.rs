//! Compiles `proto/quintet/v1/*.proto`, with proto3's canonical JSON, and `proto/optuna/api.proto` by protox, so that no `protoc`
//! is needed.
use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files: Vec<PathBuf> =
        fs::read_dir(root.join("quintet/v1"))?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|ext| ext == "proto"));
    files.push(root.join("optuna/api.proto"));
    files.sort();
    let descriptors = protox::compile(&files, [&root])?;
    let encoded = descriptors.encode_to_vec();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("quintet.bin"), &encoded)?;
    tonic_prost_build::configure()
        // Ordered maps: the bytes of a message, and so its hash, depend on its content alone.
        .btree_map(".")
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        // Whole studies go into these: their trials are encoded already.
        .extern_path(".optuna.GetTrialReply", "crate::optuna::GetTrialReply")
        .extern_path(".optuna.GetTrialsReply", "crate::optuna::GetTrialsReply")
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .btree_map([".quintet"])
        .preserve_proto_field_names()
        .build(&[".quintet"])?;
    Ok(())
}
