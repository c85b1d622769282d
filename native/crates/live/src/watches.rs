//! What each open watch of a stream has still to be told, in a few numbers.

use std::collections::{HashMap, VecDeque};

use pekan_wire::{WatchCreateRequest, WatchRequest, WatchResponse};

/// The watch id that speaks for every watch of a stream.
const ALL: i64 = -1;

#[derive(Debug)]
struct Watch {
    whole: bool,
    /// First revision that may still come; every event below it has been told or was not asked for.
    due: i64,
    /// The first event's revision is known exactly (a start revision was asked for, or events have come).
    exact: bool,
    bookmark: i64,
    in_pieces: bool,
}

/// One message's contents for the rest of the checker.
#[derive(Debug, Default)]
pub struct Told {
    /// The code of the promise that it seems to break, and the revision.
    pub suspicion: Option<(&'static str, i64)>,
    /// True where each of its revisions comes whole: from a watch of everything, in one piece.
    pub whole: bool,
}

/// The watches of one stream.
#[derive(Debug, Default)]
pub struct Watches {
    asked: VecDeque<Watch>,
    open: HashMap<i64, Watch>,
}

impl Watches {
    /// Lowest revision that an open watch of everything has still to tell; None where there is no such watch.
    pub fn slowest(&self) -> Option<i64> {
        self.open.values().filter(|watch| watch.whole).map(|watch| watch.due).min()
    }

    /// Takes note of what the client asks.
    pub fn sent(&mut self, request: &WatchRequest<'_>) {
        if let WatchRequest::Create(create) = request {
            self.asked.push_back(Watch {
                whole: is_whole(create),
                // Revision 1 is the empty store: it has no events.
                due: if create.start_revision == 1 { 2 } else { create.start_revision },
                exact: create.start_revision > 0,
                bookmark: 0,
                in_pieces: false,
            });
        }
    }

    /// Takes a message; `revisions`: the lowest and highest of its events.
    pub fn received(&mut self, message: &WatchResponse<'_>, revisions: Option<(i64, i64)>) -> Told {
        if message.created {
            if let Some(watch) = self.asked.pop_front()
                && !message.canceled
            {
                self.open.insert(message.watch_id, watch);
            }
            return Told::default();
        }
        if message.canceled {
            self.open.remove(&message.watch_id);
            return Told::default();
        }
        let Some((low, high)) = revisions else {
            let progress = message.header.revision;
            if message.watch_id == ALL {
                self.open.values_mut().for_each(|watch| watch.progressed(progress));
            } else if let Some(watch) = self.open.get_mut(&message.watch_id) {
                watch.progressed(progress);
            }
            return Told::default();
        };
        self.open.get_mut(&message.watch_id).map_or_else(Told::default, |watch| watch.told(low, high, message.fragment))
    }
}

impl Watch {
    fn progressed(&mut self, revision: i64) {
        self.bookmark = self.bookmark.max(revision);
    }

    fn told(&mut self, low: i64, high: i64, fragment: bool) -> Told {
        // The pieces of one message may share a revision.
        let piece = self.in_pieces;
        self.in_pieces = fragment;
        let suspicion = if low <= self.bookmark {
            Some(("WATCH-BOOKMARKABLE", low))
        } else if low < self.due && !(piece && low == self.due - 1) {
            Some(("WATCH-ORDERED", low))
        } else if self.whole && self.exact && low > self.due {
            Some(("WATCH-RELIABLE", self.due))
        } else {
            None
        };
        self.due = self.due.max(high + 1);
        self.exact = true;
        Told { suspicion, whole: self.whole && !piece && !fragment }
    }
}

fn is_whole(request: &WatchCreateRequest<'_>) -> bool {
    request.filters.is_empty() && matches!(request.key, b"" | b"\0") && request.range_end == b"\0"
}
