//! Distinguishes a client that librdkafka refuses because of its properties from one for which the system has too few
//! resources. librdkafka describes both only in text.

use std::fs::File;
use std::io;

use rdkafka::error::KafkaError;

use crate::stream::client::{Fault, Remedy};

/// Number of file descriptors that a new client needs at least.
const DESCRIPTORS: usize = 16;

/// Returns the fault for a client that could not be created: `Retry` if the system has too few resources now.
pub(crate) fn refused(error: &KafkaError) -> Fault {
    match probe() {
        Ok(()) => Fault::new(Remedy::Stop, format_args!("kafka.properties: {error}")),
        Err(cause) => Fault::new(
            Remedy::Retry,
            format_args!(
                "this process has too few file descriptors or threads for a client of Kafka: {cause}. Raise LimitNOFILE and \
                 TasksMax of its unit"
            ),
        ),
    }
}

/// Tests whether the system provides the descriptors and a thread.
fn probe() -> io::Result<()> {
    (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<_>>>()?;
    // The thread ends at once.
    std::thread::Builder::new().spawn(|| ()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_that_is_refused_stops_the_role_while_the_system_has_resources() {
        let fault = refused(&KafkaError::ClientCreation("No such configuration property".into()));
        assert_eq!(fault.remedy, Remedy::Stop);
        assert_eq!(fault.message, "kafka.properties: Client creation error: No such configuration property");
    }
}
