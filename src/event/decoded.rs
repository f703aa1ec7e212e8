//! The events of one record. Most records have one event, which needs no allocation.

use super::{Event, Rejection};

/// Maximum number of values of one record.
pub const MAX_EVENTS: usize = 1_000;

/// Content of a valid record.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// The record is ignored: its value is null, it matches a pattern, or its array or object has no value.
    Ignored,
    /// One event, at index 0.
    One(Event<'a>),
    /// Several events, or one whose index is not 0.
    Several(Box<RecordEvents<'a>>),
}

/// The events of a record with several values.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordEvents<'a> {
    /// At least one event, each with the index of its value, ascending.
    pub events: Vec<(i32, Event<'a>)>,
    /// The first problem, if another value of the record is invalid; see [`OnPartial::JudgeValid`](super::OnPartial).
    pub partial: Option<Rejection>,
    /// Whether each value has a time of its own instead of that of the record.
    pub has_own_times: bool,
}

impl<'a> Decoded<'a> {
    /// Returns the events with their indexes, in order.
    pub fn events(&self) -> impl Iterator<Item = (i32, &Event<'a>)> + Clone {
        let (one, several) = match self {
            Decoded::Ignored => (None, &[][..]),
            Decoded::One(event) => (Some((0, event)), &[][..]),
            Decoded::Several(all) => (None, &all.events[..]),
        };
        one.into_iter().chain(several.iter().map(|(index, event)| (*index, event)))
    }

    /// Returns the event with the lowest index.
    pub fn first(&self) -> Option<&Event<'a>> {
        self.events().next().map(|(_, event)| event)
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        match self {
            Decoded::Ignored => 0,
            Decoded::One(_) => 1,
            Decoded::Several(all) => all.events.len(),
        }
    }

    /// Returns whether the record is ignored.
    pub fn is_empty(&self) -> bool {
        *self == Decoded::Ignored
    }

    /// Returns the problem of a record that is judged without some of its values.
    pub fn partial(&self) -> Option<&Rejection> {
        match self {
            Decoded::Several(all) => all.partial.as_ref(),
            Decoded::Ignored | Decoded::One(_) => None,
        }
    }

    /// Returns whether values of the record can be compared by their times.
    pub fn has_own_times(&self) -> bool {
        matches!(self, Decoded::Several(all) if all.has_own_times)
    }

    /// Converts to the first event, for a record that has one value.
    pub fn into_first(self) -> Option<Event<'a>> {
        match self {
            Decoded::Ignored => None,
            Decoded::One(event) => Some(event),
            Decoded::Several(all) => all.events.into_iter().next().map(|(_, event)| event),
        }
    }

    /// Creates the result of a record from its valid events.
    pub fn of(mut events: Vec<(i32, Event<'a>)>, partial: Option<Rejection>, has_own_times: bool) -> Self {
        match events.len() {
            0 => Decoded::Ignored,
            1 if events[0].0 == 0 && partial.is_none() => {
                events.pop().map_or(Decoded::Ignored, |(_, e)| Decoded::One(e))
            }
            _ => Decoded::Several(Box::new(RecordEvents { events, partial, has_own_times })),
        }
    }
}
