//! Messages of the ONNX format, generated from the ONNX project's `onnx.proto`.
#![allow(missing_docs, unreachable_pub, clippy::all)] // generated code

include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
