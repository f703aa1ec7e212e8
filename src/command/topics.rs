//! `anomaly topics`: creates and lists the topics.

use super::output;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::stream;

/// Creates missing topics and prints all.
///
/// # Errors
/// 69 if the cluster is unavailable or refuses.
pub fn run(settings: &Settings) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::internal(format_args!("cannot start: {e}")))?;
    for topic in runtime.block_on(stream::topics::create(&settings.kafka, &settings.topics))? {
        let what = if topic.is_new { "created" } else { "exists" };
        output::line(format_args!("{what:<8} {} ({} partitions)", topic.name, topic.partitions))?;
        for differs in topic.differs {
            output::line(format_args!("         {differs}"))?;
        }
    }
    Ok(())
}
