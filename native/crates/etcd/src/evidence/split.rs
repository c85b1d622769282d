//! Streams into watches; the table of what belongs to which watch is in `src/pekan/checkers/evidence.py`.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use pekan_history::{Columns, Glance, Stream, WATCH};
use pekan_wire::scan::{event_head, next_event, watch_head};
use pekan_wire::{Event, Field, Fields, WatchRequest, WatchResponse, numbers as n};

use super::{AHEAD, ALL_WATCHES, Hashed, Item, Part, Watch, as_u32, fetch};
use crate::request::Declined;

/// Every watch of the history, stream by stream, and the revisions of all their events. Every event has been found to be well formed.
pub(super) fn watches<'a>(columns: &Columns<'a>) -> Result<(Vec<Watch<'a>>, RangeInclusive<u32>), Declined> {
    let mut watches = Vec::new();
    let (mut low, mut high) = (u32::MAX, 0);
    for (index, stream) in columns.streams.iter().enumerate() {
        if columns.names.get(usize::from(stream.method)).is_some_and(|&method| method == WATCH) {
            let mut split = Split {
                stream,
                index: as_u32(index)?,
                watches: &mut watches,
                unanswered: VecDeque::new(),
                open: Hashed::default(),
                closed: Hashed::default(),
                recent: None,
                floor: 0,
                opened: 0,
                scratch: Vec::new(),
                low,
                high,
            };
            split.run()?;
            (low, high) = (split.low, split.high);
        }
    }
    Ok((watches, low..=high))
}

/// The head of a watch message: everything but what its events say.
#[derive(Default)]
struct Head {
    header: i64,
    watch_id: i64,
    created: bool,
    canceled: bool,
    fragment: bool,
}

struct Split<'a, 'c> {
    stream: &'c Stream<'a>,
    index: u32,
    watches: &'c mut Vec<Watch<'a>>,
    unanswered: VecDeque<usize>,
    open: Hashed<i64, usize>,
    closed: Hashed<i64, usize>,
    /// The watch of the last message: mostly that of the next one too.
    recent: Option<(i64, usize)>,
    floor: i64,
    /// How many watches have been asked for.
    opened: usize,
    /// The events of the message that is looked at, and what they are sorted by.
    scratch: Vec<(Part, &'a [u8])>,
    low: u32,
    high: u32,
}

impl<'a> Split<'a, '_> {
    fn run(&mut self) -> Result<(), Declined> {
        for (at, message) in self.stream.messages.iter().enumerate() {
            if let Some(next) = self.stream.messages.get(at + AHEAD).filter(|next| next.glance.event == 0) {
                fetch(next.data);
            }
            let at = as_u32(at)?;
            if self.received_plain(at, message.glance) {
                continue;
            }
            if message.sent {
                self.sent(at, message.time, WatchRequest::decode(message.data)?);
            } else {
                self.received(at, message.data)?;
            }
        }
        Ok(())
    }

    /// Whether it is one event, and nothing else, for an open watch 0: then that is all that has to be known of it.
    #[inline]
    fn received_plain(&mut self, at: u32, glance: Glance) -> bool {
        let Glance { header, revision, event } = glance;
        let Some((0, found)) = self.recent else { return false };
        let watch = &mut self.watches[found];
        if event == 0 || revision == 0 || watch.unfinished > 0 {
            return false;
        }
        self.floor = self.floor.max(i64::from(header));
        self.low = self.low.min(revision);
        self.high = self.high.max(revision);
        watch.items.push(Item { index: at, header, first: revision, place: u32::from(event), bits: 1 << 8 });
        true
    }

    fn sent(&mut self, at: u32, time: i64, request: WatchRequest<'a>) {
        match request {
            WatchRequest::Create(request) => {
                self.unanswered.push_back(self.watches.len());
                self.opened += 1;
                self.watches.push(Watch {
                    stream: self.index,
                    id: ALL_WATCHES,
                    request,
                    asked: at,
                    created: None,
                    created_header: 0,
                    refused: false,
                    // Where it is the only one of its stream, all that follows is its own.
                    items: if self.opened == 1 { Vec::with_capacity(self.stream.messages.len() - at as usize) } else { Vec::new() },
                    parts: Vec::new(),
                    unfinished_parts: 0,
                    joined: Vec::new(),
                    canceled: None,
                    cancel_sent: None,
                    fragments: Vec::new(),
                    unfinished: 0,
                    late: Vec::new(),
                    floor: self.floor,
                });
            }
            WatchRequest::Cancel(id) => {
                if let Some(&watch) = self.open.get(&id) {
                    self.watches[watch].cancel_sent = Some(time);
                }
            }
            WatchRequest::Progress => {}
        }
    }

    fn received(&mut self, at: u32, data: &'a [u8]) -> Result<(), Declined> {
        let head = match self.glance(at, data)? {
            Some(head) => head,
            None => self.look(at, data)?,
        };
        self.floor = self.floor.max(head.header);
        if head.created {
            self.created(at, &head);
            return Ok(());
        }
        let found = match self.recent {
            Some((id, watch)) if id == head.watch_id => watch,
            _ => match self.open.get(&head.watch_id) {
                Some(&watch) => watch,
                None => return self.unaddressed(at, &head),
            },
        };
        self.recent = Some((head.watch_id, found));
        self.range();
        let watch = &mut self.watches[found];
        if head.fragment {
            watch.fragments.push(at);
            watch.unfinished += 1;
            watch.parts.extend(self.scratch.iter().map(|(part, _)| *part));
            return Ok(());
        }
        let mut item = item(at, &head)?;
        let in_pieces = watch.unfinished > 0;
        if let [(part, _)] = self.scratch[..]
            && !in_pieces
            && part.begin as usize + part.length as usize == data.len()
        {
            (item.first, item.place) = (part.revision, part.begin);
            item.bits |= 1 << 8;
        } else if in_pieces || !self.scratch.is_empty() {
            let begin = watch.unfinished_parts;
            if in_pieces {
                // Pieces and their last one: a single message, with the time and the header of the last.
                let end = as_u32(watch.fragments.len())?;
                watch.joined.push((as_u32(watch.items.len())?, end - watch.unfinished..end));
                watch.unfinished = 0;
                watch.parts.extend(self.scratch.iter().map(|(part, _)| *part));
                in_key_order(&mut watch.parts[begin..], &self.stream.messages)?;
            } else {
                sort(&mut self.scratch);
                watch.parts.extend(self.scratch.iter().map(|(part, _)| *part));
            }
            let parts = &watch.parts[begin..];
            if let Some(first) = parts.first() {
                let count = u32::try_from(parts.len()).ok().filter(|count| *count < 1 << 24);
                let count = count.ok_or_else(|| Declined::because("more events in a message than the core counts"))?;
                (item.first, item.place) = (first.revision, as_u32(begin)?);
                item.bits |= count << 8 | Item::PARTS;
            }
        }
        watch.unfinished_parts = watch.parts.len();
        watch.items.push(item);
        if head.canceled {
            watch.canceled = Some(at);
            self.open.remove(&head.watch_id);
            self.recent = None;
            self.closed.insert(head.watch_id, found);
        }
        Ok(())
    }

    /// A message that does nothing but deliver or announce progress, in the form in which etcd writes it; its events into the scratch.
    #[inline]
    fn glance(&mut self, at: u32, data: &'a [u8]) -> Result<Option<Head>, Declined> {
        self.scratch.clear();
        let Some(head) = watch_head(data) else { return Ok(None) };
        let mut left = head.events;
        while let Some((event, rest)) = next_event(left) {
            let Some(seen) = event_head(event) else { return Ok(None) };
            self.scratch.push((part(at, data.len() - rest.len() - event.len(), event.len(), seen.revision)?, seen.key));
            left = rest;
        }
        let plain = left.is_empty();
        Ok(plain.then_some(Head { header: head.header, watch_id: head.watch_id, fragment: head.fragment, ..Head::default() }))
    }

    /// Any message, in the general way.
    fn look(&mut self, at: u32, data: &'a [u8]) -> Result<Head, Declined> {
        self.scratch.clear();
        let message = WatchResponse::decode(data)?;
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            if let (n::watch_response::EVENTS, Field::Bytes(event)) = (number, field) {
                let whole = Event::decode(event)?;
                let part = part(at, fields.position() - event.len(), event.len(), whole.kv.mod_revision);
                // Of a created reply nobody reads events.
                if !message.created {
                    self.scratch.push((part?, whole.kv.key));
                }
            }
        }
        let WatchResponse { header, watch_id, created, canceled, fragment, .. } = message;
        Ok(Head { header: header.revision, watch_id, created, canceled, fragment })
    }

    /// Takes note of the revisions in the scratch.
    #[inline]
    fn range(&mut self) {
        for (part, _) in &self.scratch {
            self.low = self.low.min(part.revision);
            self.high = self.high.max(part.revision);
        }
    }

    fn created(&mut self, at: u32, head: &Head) {
        // Without a request: a recording that begins inside a stream; nothing is known of what was asked.
        let Some(index) = self.unanswered.pop_front() else { return };
        let watch = &mut self.watches[index];
        watch.created = Some(at);
        watch.created_header = head.header;
        if head.canceled {
            watch.refused = true;
            watch.canceled = Some(at);
        } else {
            watch.id = head.watch_id;
            self.open.insert(head.watch_id, index);
            self.closed.remove(&head.watch_id);
            self.recent = None;
        }
    }

    /// A message for a watch id that no open watch has.
    fn unaddressed(&mut self, at: u32, head: &Head) -> Result<(), Declined> {
        if head.watch_id == ALL_WATCHES && self.scratch.is_empty() && !head.canceled {
            let item = item(at, head)?;
            for &watch in self.open.values() {
                self.watches[watch].items.push(item);
            }
        } else if let Some(&watch) = self.closed.get(&head.watch_id) {
            self.watches[watch].late.push(at);
        }
        Ok(())
    }
}

/// An item without events so far.
fn item(at: u32, head: &Head) -> Result<Item, Declined> {
    let mut bits = 0;
    if head.canceled {
        bits |= Item::CANCELED;
    }
    if head.watch_id == ALL_WATCHES {
        bits |= Item::FOR_ALL;
    }
    let header = u32::try_from(head.header).map_err(|_| Declined::because("a header's revision is none"))?;
    Ok(Item { index: at, header, first: 0, place: 0, bits })
}

#[inline]
fn part(message: u32, begin: usize, length: usize, revision: i64) -> Result<Part, Declined> {
    let revision = u32::try_from(revision).ok().filter(|revision| *revision > 0);
    let revision = revision.ok_or_else(|| Declined::because("an event's revision is none"))?;
    Ok(Part { message, begin: as_u32(begin)?, length: as_u32(length)?, revision })
}

/// Lets the events of each revision stand in key order, and those of a key in the order of the transaction.
fn sort(events: &mut [(Part, &[u8])]) {
    for group in events.chunk_by_mut(|a, b| a.0.revision == b.0.revision) {
        if group.len() > 1 {
            group.sort_by_key(|(_, key)| *key);
        }
    }
}

/// The same of events whose keys have to be looked up.
fn in_key_order(parts: &mut [Part], messages: &[pekan_history::StreamMessage<'_>]) -> Result<(), Declined> {
    let mut keyed = Vec::with_capacity(parts.len());
    for part in &*parts {
        keyed.push((*part, Event::decode(part.event(messages))?.kv.key));
    }
    sort(&mut keyed);
    for (part, (sorted, _)) in parts.iter_mut().zip(keyed) {
        *part = sorted;
    }
    Ok(())
}
