//! Over the messages of one watch that certainly break no rule.

use pekan_history::StreamMessage;
use pekan_wire::{Event, PUT, WatchResponse};

use super::keys::Due;
use super::truth::{Truth, filtered};
use crate::evidence::{Bounds, Item, Watch, decoded, next_revision};
use crate::request::Declined;

/// Where a walk stands: the fields of `_Walk` (`src/pekan/checkers/watch/walk.py`) that messages without fault change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Index in the watch's items of the next message.
    pub next: usize,
    /// Place in what is due; None before that is known.
    pub due: Option<usize>,
    /// Highest revision delivered.
    pub last: i64,
    /// First revision delivered.
    pub first: i64,
    /// Index of the last item with events.
    pub last_item: Option<usize>,
    /// Highest progress revision, and the item that announced it.
    pub promised: i64,
    /// See there.
    pub promise: Option<usize>,
    /// Events looked at.
    pub events: u64,
    /// Progress looked at.
    pub progress: u64,
}

impl At {
    /// The beginning of a walk over `watch`.
    pub fn start(watch: &Watch<'_>, due: &Due) -> At {
        let start = watch.request.start_revision;
        let due = (start > 0).then(|| due.below(start));
        At { next: 0, due, last: 0, first: 0, last_item: None, promised: 0, promise: None, events: 0, progress: 0 }
    }
}

/// What the core found about all watches.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Watches that were created.
    pub opened: usize,
    /// Events of the watches that are right.
    pub events: u64,
    /// Progress notifications of the watches that are right.
    pub progress: u64,
    /// Indexes of the watches that Python has to look at.
    pub open: Vec<u32>,
}

/// What is reused from message to message.
#[derive(Default)]
struct Scratch<'a> {
    group: Vec<Event<'a>>,
    made: Vec<Event<'a>>,
}

impl<'a> Truth<'_, 'a> {
    /// Judges every watch.
    pub fn judge(&self) -> Result<Judged, Declined> {
        let mut judged = Judged::default();
        for (index, watch) in self.evidence.watches.iter().enumerate() {
            if watch.created.is_none() || watch.refused {
                continue;
            }
            judged.opened += 1;
            let due = self.due_of(watch);
            let end = if self.created_right(watch)? { Some(self.skip(watch, &due, At::start(watch, &due))?) } else { None };
            match end {
                Some(end) if end.next == watch.items.len() && self.ends_right(watch, &due, &end)? => {
                    judged.events += end.events;
                    judged.progress += end.progress;
                }
                _ => judged.open.push(crate::evidence::as_u32(index)?),
            }
        }
        Ok(judged)
    }

    /// What `watch` has to see.
    pub fn due_of(&self, watch: &Watch<'a>) -> Due {
        // A negative start means nothing that is documented.
        if watch.request.start_revision >= 0 { self.due(&watch.request) } else { Due::List([].into()) }
    }

    fn created_right(&self, watch: &Watch<'a>) -> Result<bool, Declined> {
        let Some(created) = watch.created else { return Ok(false) };
        let time = self.columns.streams[watch.stream as usize].messages[created as usize].time;
        self.header_right(watch.created_header, time)
    }

    /// Passes over the messages from `from` on that break no rule; `next` of the result is the first that may.
    pub fn skip(&self, watch: &Watch<'a>, due: &Due, from: At) -> Result<At, Declined> {
        let messages = &self.columns.streams[watch.stream as usize].messages[..];
        let walk = Walk {
            truth: self,
            watch,
            messages,
            due,
            bounds: Bounds::new(watch.request.key, watch.request.range_end),
            narrow: !watch.whole(),
            floor: if watch.request.start_revision > 0 { watch.request.start_revision } else { watch.floor },
        };
        let (mut at, mut scratch) = (from, Scratch::default());
        while at.next < watch.items.len() {
            // The state changes with the whole message or not at all.
            let mut then = at;
            if !walk.message(&mut then, &mut scratch)? {
                break;
            }
            at = then;
            at.next += 1;
        }
        Ok(at)
    }

    /// Whether a message at `time` may carry a header of `revision`.
    #[inline]
    fn header_right(&self, revision: i64, time: i64) -> Result<bool, Declined> {
        if self.invoked_after(revision, time) {
            return Ok(false);
        }
        if revision > self.newest && revision < self.limit {
            return Ok(self.reachable(time, None)?.is_none_or(|reachable| revision <= reachable));
        }
        Ok(true)
    }

    /// Whether nothing is missing at the end of a walk that stopped nowhere.
    fn ends_right(&self, watch: &Watch<'a>, due: &Due, end: &At) -> Result<bool, Declined> {
        if end.promise.is_some() {
            let at = end.due.unwrap_or_else(|| begin(watch, due, 0));
            let upto = match due {
                // A header that names a revision says that it exists, and so that it has an event.
                Due::Range(range) if end.promised < self.limit => {
                    Due::Range(2..range.end.max(end.promised + 1).max(2)).below(end.promised + 1)
                }
                due => due.below(end.promised + 1),
            };
            if upto > at {
                return Ok(false);
            }
        }
        Ok(self.all_seen(watch, end)? && self.fragments_right(watch)? && self.late_right(watch)?)
    }

    /// Whether progress beyond what is known leaves room for requests that the watch would not have seen.
    fn all_seen(&self, watch: &Watch<'a>, end: &At) -> Result<bool, Declined> {
        let Some(promise) = end.promise else { return Ok(true) };
        if watch.whole() || !self.ordered() || watch.request.start_revision > self.newest {
            return Ok(true);
        }
        if end.promised <= end.last || end.promised >= self.limit {
            return Ok(true);
        }
        let time = self.columns.streams[watch.stream as usize].messages[watch.items[promise].index as usize].time;
        if end.promised <= self.newest {
            // What leads to the newest that is known has been asked for by somebody; only how much by then may bound it.
            return Ok(self.asked_by(time).is_none_or(|asked| end.promised <= asked));
        }
        let reachable = self.reachable(time, Some(&watch.request))?;
        Ok(reachable.is_none_or(|reachable| end.promised <= reachable.max(end.last)))
    }

    fn fragments_right(&self, watch: &Watch<'a>) -> Result<bool, Declined> {
        if watch.fragments.is_empty() {
            return Ok(true);
        }
        if !watch.request.fragment {
            return Ok(false);
        }
        let messages = &self.columns.streams[watch.stream as usize].messages[..];
        let finished: Vec<&Item> = watch.items.iter().filter(|item| !item.for_all()).collect();
        for &piece in &watch.fragments {
            let piece = &messages[piece as usize];
            let at = finished.partition_point(|item| messages[item.index as usize].time < piece.time);
            let Some(last) = finished.get(at) else { continue };
            let header = WatchResponse::decode(piece.data)?.header.revision;
            if last.canceled() || last.count() == 0 || i64::from(last.header) != header {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn late_right(&self, watch: &Watch<'a>) -> Result<bool, Declined> {
        let messages = &self.columns.streams[watch.stream as usize].messages[..];
        for &late in &watch.late {
            if !WatchResponse::decode(messages[late as usize].data)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct Walk<'w, 'e, 'a> {
    truth: &'w Truth<'e, 'a>,
    watch: &'w Watch<'a>,
    messages: &'w [StreamMessage<'a>],
    due: &'w Due,
    bounds: Bounds<'a>,
    narrow: bool,
    floor: i64,
}

impl<'a> Walk<'_, '_, 'a> {
    /// Whether the next message breaks no rule; `at` is then behind what it says.
    #[inline]
    fn message(&self, at: &mut At, scratch: &mut Scratch<'a>) -> Result<bool, Declined> {
        let item = self.watch.items[at.next];
        let time = self.messages[item.index as usize].time;
        if item.count() == 0 {
            return self.without_events(at, item, time);
        }
        if self.truth.timed && !self.truth.header_right(i64::from(item.header), time)? {
            return Ok(false);
        }
        at.last_item = Some(at.next);
        at.events += u64::from(item.count());
        let told = self.told(item);
        if !item.has(Item::PARTS) {
            let revision = i64::from(item.first);
            if !self.advance(at, revision) {
                return Ok(false);
            }
            if told && self.as_told(revision) {
                return Ok(true);
            }
            scratch.group.clear();
            scratch.group.push(decoded(self.watch.only_event(self.messages, item)));
            return Ok(self.group_right(revision, time, scratch));
        }
        let mut left = self.watch.parts_of(item);
        while let Some((group, rest)) = next_revision(left) {
            left = rest;
            let revision = i64::from(group[0].revision);
            if !self.advance(at, revision) {
                return Ok(false);
            }
            if told && self.as_told(revision) {
                continue;
            }
            scratch.group.clear();
            scratch.group.extend(group.iter().map(|part| decoded(part.event(self.messages))));
            if !self.group_right(revision, time, scratch) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the events of `item` were, when they were merged, what was known of their revisions; `prev_kv` apart where nobody asked.
    #[inline]
    fn told(&self, item: Item) -> bool {
        !self.narrow && (item.has(Item::EXACT) || (item.has(Item::BARE) && !self.watch.request.prev_kv))
    }

    /// Whether what was known of `revision` then is what is proven of it.
    #[inline]
    fn as_told(&self, revision: i64) -> bool {
        revision < self.truth.limit && self.truth.as_told(revision)
    }

    /// Moves over what is due to behind `revision`; false where something is missing before it, or it should not come at all.
    #[inline]
    fn advance(&self, at: &mut At, revision: i64) -> bool {
        let due = at.due.unwrap_or_else(|| begin(self.watch, self.due, revision));
        if revision <= at.last || revision <= at.promised || revision < self.floor {
            return false;
        }
        let due = match self.due.get(due) {
            Some(next) if next < revision => return false,
            Some(next) if next == revision => due + 1,
            _ => due,
        };
        at.due = Some(due);
        at.last = revision;
        if at.first == 0 {
            at.first = revision;
        }
        true
    }

    /// Whether `group`, in key order, is what a watch may tell of `revision`.
    fn group_right(&self, revision: i64, time: i64, scratch: &mut Scratch<'a>) -> bool {
        let (group, made) = (&scratch.group[..], &mut scratch.made);
        let request = &self.watch.request;
        if self.narrow && !group.iter().all(|event| self.bounds.contains(event.kv.key) && !filtered(request, event)) {
            return false;
        }
        if group.windows(2).any(|pair| pair[0].kv.key == pair[1].kv.key && pair[0].kind == pair[1].kind) {
            return false;
        }
        if !self.truth.proves(revision) {
            return self.unproven_right(revision, group);
        }
        self.truth.made(revision, made);
        if self.narrow {
            made.retain(|event| self.bounds.contains(event.kv.key) && !filtered(request, event));
        }
        let content = group.len() == made.len() && group.iter().zip(&*made).all(|(event, made)| self.event_right(time, event, made));
        content && (self.truth.ordered() || self.unproven_right(revision, group))
    }

    fn event_right(&self, time: i64, event: &Event<'a>, made: &Event<'a>) -> bool {
        if event.kind != made.kind || event.kv != made.kv {
            return false;
        }
        if !self.truth.ordered() || event.prev_kv == made.prev_kv {
            return true;
        }
        let revision = event.kv.mod_revision;
        let creates = event.kind == PUT && event.kv.version == 1;
        match made.prev_kv {
            // What one transaction put and deleted: rare, and Python's to judge.
            Some(prev) if prev.mod_revision == revision => false,
            // What stood there before was never seen (the store did not begin empty).
            None if !creates => true,
            _ if event.prev_kv.is_some() => false,
            _ => {
                let asked_to_end = self.watch.cancel_sent.is_some_and(|sent| time >= sent);
                creates || !self.watch.request.prev_kv || asked_to_end || self.truth.may_be_compacted(revision, time)
            }
        }
    }

    /// Nothing is proven of `revision`: an event must make sense in itself, and watches must agree on it.
    fn unproven_right(&self, revision: i64, group: &[Event<'a>]) -> bool {
        if group.iter().any(nonsense) {
            return false;
        }
        let watched = &self.truth.evidence.watched;
        if watched.differs(revision) {
            return true;
        }
        let told = if revision < self.truth.limit {
            watched.encoded(revision)
        } else {
            let member = self.truth.columns.streams[self.watch.stream as usize].member;
            watched.told_by(member, revision).unwrap_or(&[])
        };
        told.iter().all(|other| {
            let other = decoded(other);
            !group.iter().any(|event| other.kv.key == event.kv.key && other.kind == event.kind && other.kv != event.kv)
        })
    }

    fn without_events(&self, at: &mut At, item: Item, time: i64) -> Result<bool, Declined> {
        if item.canceled() {
            return self.canceled_right(at, item, time);
        }
        let revision = i64::from(item.header);
        if !self.truth.header_right(revision, time)? || revision < at.promised {
            return Ok(false);
        }
        let start = self.watch.request.start_revision;
        if !item.for_all() && start > 0 && revision < start - 1 {
            return Ok(false);
        }
        at.progress += 1;
        if revision > at.promised {
            (at.promised, at.promise) = (revision, Some(at.next));
        }
        Ok(true)
    }

    fn canceled_right(&self, at: &At, item: Item, time: i64) -> Result<bool, Declined> {
        let (watch, truth) = (self.watch, self.truth);
        let compact_revision = WatchResponse::decode(self.messages[item.index as usize].data)?.compact_revision;
        let start = watch.request.start_revision;
        if compact_revision == 0 || start < 0 {
            let user = truth.columns.streams[watch.stream as usize].user;
            let named = truth.columns.names.get(usize::from(user)).is_some_and(|user| !user.is_empty());
            return Ok(watch.cancel_sent.is_some() || compact_revision != 0 || named);
        }
        let due = self.floor.max(at.last + 1);
        Ok(truth.compacted_at(compact_revision, time) && truth.may_be_compacted(due + 1, time))
    }
}

/// Where `due` begins for a watch from now, whose first delivery is `first` (0: none). See `_Walk._begin`.
fn begin(watch: &Watch<'_>, due: &Due, first: i64) -> usize {
    let after_created = watch.created_header + 1;
    let floor = if watch.request.start_revision > 0 { watch.request.start_revision } else { watch.floor };
    due.below(if first != 0 && floor <= first && first < after_created { first } else { after_created })
}

/// Whether `event` cannot be, whatever happened.
fn nonsense(event: &Event<'_>) -> bool {
    let kv = &event.kv;
    if event.kind == pekan_wire::DELETE {
        if kv.create_revision != 0 || kv.version != 0 || !kv.value.is_empty() || kv.lease != 0 {
            return true;
        }
    } else if kv.version < 1 || kv.create_revision > kv.mod_revision || (kv.version == 1) != (kv.create_revision == kv.mod_revision) {
        return true;
    }
    event.prev_kv.is_some_and(|prev| prev.key != kv.key || prev.mod_revision >= kv.mod_revision || (event.kind == PUT && kv.version == 1))
}
