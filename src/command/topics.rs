//! `anomaly topics`: creates and lists the topics.

use super::output;
use crate::config::Settings;
use crate::error::Result;
use crate::stream;

/// Creates missing topics and prints all.
///
/// # Errors
/// 69 if the cluster is unavailable or refuses.
pub fn run(settings: &Settings) -> Result<()> {
    for topic in stream::topics::create(&settings.kafka, &settings.topics)? {
        let what = if topic.is_new { "created" } else { "exists" };
        output::line(format_args!("{what:<8} {} ({} partitions)", topic.name, topic.partitions))?;
        for differs in topic.differs {
            output::line(format_args!("         {differs}"))?;
        }
    }
    Ok(())
}
