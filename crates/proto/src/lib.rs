//! Generated messages, clients and servers of `proto/quintet/v1`, their canonical JSON, Optuna's storage proxy, and the descriptor set for reflection.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)] // generated code

/// Version 1 of the contract.
pub mod v1 {
    tonic::include_proto!("quintet.v1");
    include!(concat!(env!("OUT_DIR"), "/quintet.v1.serde.rs"));
}

/// The gRPC storage proxy of Optuna.
pub mod optuna {
    tonic::include_proto!("optuna");
}

/// The well-known types that the messages hold.
pub use pbjson_types as types;

/// The encoded `FileDescriptorSet` of every file of the contract, for `tonic-reflection`.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("quintet");
