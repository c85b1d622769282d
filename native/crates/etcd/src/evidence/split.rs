//! Streams into watches; the table of what belongs to which watch is in `src/pekan/checkers/evidence.py`.

use std::collections::VecDeque;

use pekan_history::{Columns, Stream};
use pekan_wire::{Event, Fields, Header, Malformed, WatchRequest, WatchResponse, numbers as n, utf8};

use super::{ALL_WATCHES, Hashed, Item, Raw, Watch, as_u32};
use crate::request::Declined;

/// The gRPC method of watch streams.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// Every watch of the history, stream by stream.
pub(super) fn watches<'a>(columns: &Columns<'a>) -> Result<Vec<Watch<'a>>, Declined> {
    let mut watches = Vec::new();
    for (index, stream) in columns.streams.iter().enumerate() {
        if columns.names.get(usize::from(stream.method)).is_some_and(|&method| method == WATCH) {
            Split {
                stream,
                index: as_u32(index)?,
                watches: &mut watches,
                unanswered: VecDeque::new(),
                open: Hashed::default(),
                closed: Hashed::default(),
                recent: None,
                floor: 0,
            }
            .run()?;
        }
    }
    Ok(watches)
}

/// The head of a watch message: everything but what its events say.
#[derive(Default)]
struct Head {
    header: i64,
    watch_id: i64,
    created: bool,
    canceled: bool,
    fragment: bool,
    events: usize,
    /// Revision of the first event.
    first: i64,
    /// Where the only event begins in the message, where it is the last field.
    offset: u8,
}

impl Head {
    /// One pass over the fields; what it accepts is what `WatchResponse::decode` and its events accept, the events' contents apart.
    #[inline]
    fn decode(data: &[u8]) -> Result<Head, Malformed> {
        use n::watch_response as f;
        let mut head = Head::default();
        let mut header = None;
        let mut fields = Fields::new(data);
        while let Some((number, field)) = fields.step()? {
            match number {
                f::EVENTS => {
                    let event = field.bytes()?;
                    head.events += 1;
                    if head.events == 1 {
                        head.first = Raw::new(event)?.revision;
                        if fields.position() == data.len() {
                            head.offset = u8::try_from(data.len() - event.len()).unwrap_or(0);
                        }
                    }
                }
                f::HEADER => header.replace(field.bytes()?).map_or(Ok(()), |_| Err(Malformed { at: 0, expected: "one header" }))?,
                f::WATCH_ID => head.watch_id = field.int()?,
                f::CREATED => head.created = field.truth()?,
                f::CANCELED => head.canceled = field.truth()?,
                f::COMPACT_REVISION => {
                    field.int()?;
                }
                f::CANCEL_REASON => {
                    utf8(field.bytes()?)?;
                }
                f::FRAGMENT => head.fragment = field.truth()?,
                _ => {}
            }
        }
        head.header = Header::decode(header.unwrap_or_default())?.revision;
        Ok(head)
    }
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
}

impl<'a> Split<'a, '_> {
    fn run(mut self) -> Result<(), Declined> {
        for (at, message) in self.stream.messages.iter().enumerate() {
            let at = as_u32(at)?;
            if message.sent {
                self.sent(at, message.time, WatchRequest::decode(message.data)?);
            } else {
                self.received(at, message.data)?;
            }
        }
        Ok(())
    }

    fn sent(&mut self, at: u32, time: i64, request: WatchRequest<'a>) {
        match request {
            WatchRequest::Create(request) => {
                self.unanswered.push_back(self.watches.len());
                self.watches.push(Watch {
                    stream: self.index,
                    id: ALL_WATCHES,
                    request,
                    asked: at,
                    created: None,
                    created_header: 0,
                    refused: false,
                    items: Vec::new(),
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
        let head = Head::decode(data)?;
        self.floor = self.floor.max(head.header);
        if head.created {
            well_formed(data)?;
            self.created(at, &head);
            return Ok(());
        }
        let found = match self.recent {
            Some((id, watch)) if id == head.watch_id => Some(watch),
            _ => self.open.get(&head.watch_id).copied(),
        };
        let Some(found) = found else {
            well_formed(data)?;
            return self.unaddressed(at, &head);
        };
        self.recent = Some((head.watch_id, found));
        let watch = &mut self.watches[found];
        if head.fragment {
            watch.fragments.push(at);
            watch.unfinished += 1;
            return Ok(());
        }
        let mut item = item(at, &head)?;
        if watch.unfinished > 0 {
            // Pieces and their last one: a single message, with the time and the header of the last.
            let end = as_u32(watch.fragments.len())?;
            let first = end - watch.unfinished;
            watch.unfinished = 0;
            let mut events = head.events;
            item.first = 0;
            for &piece in &watch.fragments[first as usize..] {
                let piece = Head::decode(self.stream.messages[piece as usize].data)?;
                events += piece.events;
                if item.first == 0 && piece.events > 0 {
                    item.first = revision(piece.first)?;
                }
            }
            if item.first == 0 && head.events > 0 {
                item.first = revision(head.first)?;
            }
            item.count = count(events);
            item.offset = 0;
            item.flags |= Item::JOINED;
            watch.joined.push((as_u32(watch.items.len())?, first..end));
        }
        watch.items.push(item);
        if head.canceled {
            watch.canceled = Some(at);
            self.open.remove(&head.watch_id);
            self.recent = None;
            self.closed.insert(head.watch_id, found);
        }
        Ok(())
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
        if head.watch_id == ALL_WATCHES && head.events == 0 && !head.canceled {
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

fn item(at: u32, head: &Head) -> Result<Item, Declined> {
    let mut flags = 0;
    if head.canceled {
        flags |= Item::CANCELED;
    }
    if head.watch_id == ALL_WATCHES {
        flags |= Item::FOR_ALL;
    }
    let first = if head.events > 0 { revision(head.first)? } else { 0 };
    let header = u32::try_from(head.header).map_err(|_| Declined::because("a header's revision is none"))?;
    Ok(Item { index: at, header, first, count: count(head.events), offset: if head.events == 1 { head.offset } else { 0 }, flags })
}

fn revision(revision: i64) -> Result<u32, Declined> {
    match u32::try_from(revision) {
        Ok(revision) if revision > 0 => Ok(revision),
        _ => Err(Declined::because("an event's revision is none")),
    }
}

fn count(events: usize) -> u16 {
    u16::try_from(events).unwrap_or(Item::MANY)
}

/// That a message nobody looks at again is well formed all the same: whether a record is evidence does not depend on who reads it.
fn well_formed(data: &[u8]) -> Result<(), Declined> {
    for event in WatchResponse::decode(data)?.events() {
        Event::decode(event?)?;
    }
    Ok(())
}
