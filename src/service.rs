//! How a role lives under a service manager: logging, signals, notification, and what `/metrics` and its neighbours say.

pub mod endpoint;
mod exposition;
pub mod limit;
pub mod logging;
pub mod notify;
pub mod signals;
