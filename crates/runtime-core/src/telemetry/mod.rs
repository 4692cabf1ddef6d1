//! Logs, traces and metrics of a process.

mod propagate;

pub use propagate::{
    TRACEPARENT, TraceInterceptor, current_traceparent, inject, set_parent, set_parent_from_environment,
    set_remote_parent,
};
