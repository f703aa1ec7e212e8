//! Pages and strips that say that something is not there.

use serde::Serialize;

use super::format::{age, moment};
use super::strip::{Strip, Tone};
use crate::event::Instant;
use crate::page::shelf::Why;

/// One sentence and its remedy; empty below a strip that says all.
#[derive(Default, Serialize)]
pub struct Notice {
    /// The sentence.
    pub heading: String,
    /// More of it.
    pub text: String,
}

/// Why, in one sentence.
pub fn sentence(why: &Why) -> String {
    match why {
        Why::Away { since } => format!("PostgreSQL is away since {since}"),
        Why::Slow => "PostgreSQL does not answer in time".to_owned(),
        Why::Refused(remedy) => remedy.clone(),
    }
}

/// The strip of a page without new data.
pub fn outage(why: &Why, taken: Option<Instant>, now: Instant) -> Strip {
    let (lead, command) = match why {
        Why::Away { since } => {
            (format!("PostgreSQL is away since {}.", moment(*since, now)), "systemctl status postgresql")
        }
        Why::Slow => ("PostgreSQL does not answer in time.".to_owned(), "systemctl status postgresql"),
        Why::Refused(_) => ("PostgreSQL refuses to answer.".to_owned(), "anomaly check --role dashboard --connect"),
    };
    let strong = match taken {
        Some(taken) => format!("The last data is from {}.", moment(taken, now)),
        None => "There is no earlier data to show.".to_owned(),
    };
    let mut detail = match why {
        Why::Refused(remedy) => format!("{remedy}."),
        Why::Slow => "A narrower filter or a shorter span may be answered.".to_owned(),
        Why::Away { .. } => "What the detector finds meanwhile waits in Kafka and will appear here.".to_owned(),
    };
    detail += " This page looks again by itself.";
    if let Some(taken) = taken {
        detail += &format!(" What is below was true {}.", age(taken, now));
    }
    Strip { tone: Tone::Stopped, lead, strong, detail, command: Some(command), ..Strip::default() }
}
