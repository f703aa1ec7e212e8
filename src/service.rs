//! Integration with the service manager: logging, signals, notification, and the content of the health endpoint.

pub(crate) mod endpoint;
mod exposition;
pub(crate) mod limit;
pub(crate) mod logging;
pub(crate) mod memory;
pub(crate) mod notify;
pub(crate) mod signals;
