//! Integration with the service manager: logging, signals, notification, and the content of the health endpoint.

pub mod endpoint;
mod exposition;
pub mod limit;
pub mod logging;
pub mod notify;
pub mod signals;
