//! Generated messages, clients and servers of `proto/quintet/v1`, their canonical JSON, Optuna's storage proxy, and the descriptor set for reflection.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)] // generated code

use std::sync::LazyLock;

use prost::Message as _;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};

/// Version 1 of the contract.
pub mod v1 {
    tonic::include_proto!("quintet.v1");
    include!(concat!(env!("OUT_DIR"), "/quintet.v1.serde.rs"));
}

/// The gRPC storage proxy of Optuna.
pub mod optuna {
    tonic::include_proto!("optuna");

    /// One trial, given as the bytes of a [`Trial`]: on the wire a message and its bytes are the same.
    #[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
    pub struct GetTrialReply {
        /// The encoded message.
        #[prost(bytes = "bytes", optional, tag = "1")]
        pub trial: Option<::prost::bytes::Bytes>,
    }

    /// Trials, each given as the bytes of a [`Trial`].
    #[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
    pub struct GetTrialsReply {
        /// The encoded messages.
        #[prost(bytes = "bytes", repeated, tag = "1")]
        pub trials: Vec<::prost::bytes::Bytes>,
    }
}

/// The well-known types that the messages hold.
pub use pbjson_types as types;

/// The encoded `FileDescriptorSet` of every file of the contract, for `tonic-reflection`.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("quintet");

/// A field of `Hyperparameters`, as a sweep or a configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hyperparameter {
    /// Name of the field.
    pub name: String,
    /// What it takes.
    pub form: Form,
}

/// What a hyperparameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A number.
    Real,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
    /// One of several words.
    Word,
    /// Numbers by name; no single value, so no sweep tunes it.
    Map,
}

/// The fields of `Hyperparameters` in the order of the contract.
pub fn hyperparameters() -> &'static [Hyperparameter] {
    static FIELDS: LazyLock<Vec<Hyperparameter>> = LazyLock::new(|| {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
        let messages = files.file.into_iter().flat_map(|file| file.message_type);
        let message = messages.into_iter().find(|message| message.name() == "Hyperparameters").unwrap_or_default();
        message
            .field
            .iter()
            .map(|field| {
                let form = match field.r#type() {
                    Type::Double | Type::Float => Form::Real,
                    Type::Bool => Form::Boolean,
                    Type::String => Form::Word,
                    Type::Message => Form::Map,
                    _ => Form::Integer,
                };
                Hyperparameter { name: field.name().to_owned(), form }
            })
            .collect()
    });
    &FIELDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyperparameters_are_listed_in_their_form() {
        let form = |name: &str| hyperparameters().iter().find(|field| field.name == name).map(|field| field.form);
        assert_eq!(hyperparameters().first().map(|field| field.name.as_str()), Some("learning_rate"));
        assert_eq!((form("learning_rate"), form("seed")), (Some(Form::Real), Some(Form::Integer)));
        assert_eq!((form("group_by_length"), form("optim")), (Some(Form::Boolean), Some(Form::Word)));
        assert_eq!((form("class_weights"), form("nothing")), (Some(Form::Map), None));
    }
}
