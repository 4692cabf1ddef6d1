//! What the end-to-end, conformance and fault tests share: servers in processes of their own, load, and a checker of histories.

pub mod history;
pub mod load;
pub mod sandbox;
