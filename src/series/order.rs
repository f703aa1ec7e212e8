//! The series of a table by their newest record: a doubly linked list through the table itself, so that the one that has
//! been silent for longest is at hand and moving one to the end costs a few writes.

use super::Table;

/// No neighbour.
pub(super) const NONE: u32 = u32::MAX;

/// Neighbours of a series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    pub older: u32,
    pub newer: u32,
}

/// Both ends of the list.
#[derive(Debug)]
pub(super) struct Order {
    oldest: u32,
    newest: u32,
}

impl Default for Order {
    fn default() -> Self {
        Order { oldest: NONE, newest: NONE }
    }
}

impl Order {
    pub fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }
}

impl Table {
    /// Takes a series out of the list; returns its newer neighbour, [`NONE`] at the end.
    pub(super) fn unlink(&mut self, at: u32) -> u32 {
        let Links { older, newer } = self.at(at).links;
        match older {
            NONE => self.order.oldest = newer,
            older => self.at_mut(older).links.newer = newer,
        }
        match newer {
            NONE => self.order.newest = older,
            newer => self.at_mut(newer).links.older = older,
        }
        newer
    }

    /// Puts a series at the end, as the newest.
    pub(super) fn append(&mut self, at: u32) {
        self.link(at, NONE);
    }

    /// Puts a series before `newer`; at the end when that is [`NONE`].
    pub(super) fn link(&mut self, at: u32, newer: u32) {
        let older = if newer == NONE { self.order.newest } else { self.at(newer).links.older };
        self.at_mut(at).links = Links { older, newer };
        match older {
            NONE => self.order.oldest = at,
            older => self.at_mut(older).links.newer = at,
        }
        match newer {
            NONE => self.order.newest = at,
            newer => self.at_mut(newer).links.older = at,
        }
    }
}
