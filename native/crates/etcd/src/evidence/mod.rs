//! What watches show, merged once and shared by all checkers; the rules are those of `src/pekan/checkers/evidence.py`.
//!
//! ```text
//! gRPC stream ──split──> Watch, Watch, ...   one per create request: which messages are its own, 20 bytes each
//! Watch, ...  ──merge──> Watched             revision -> encoded events, what is whole, when seen first, what each member told
//! ```
//!
//! An event is kept as the bytes of its first telling. Members tell the same bytes of an event (only headers differ), so that another
//! telling is compared and not decoded; an item of a watch remembers what came of that. Cost for a million deliveries: one look at each
//! message's head and one comparison of memory; memory: 20 bytes a message, 16 more for each event of a
//! message with several, 36 bytes a revision.

mod merge;
mod split;
#[cfg(test)]
mod tests;

use hashbrown::HashMap;
use pekan_history::{Columns, Kind, Outcome, StreamMessage};
use pekan_wire::{CompactionRequest, Event, WatchCreateRequest};

use crate::bits::Bits;
use crate::request::Declined;

/// The watch id of a progress notification that speaks for every watch of its stream, and of a refused create.
pub const ALL_WATCHES: i64 = -1;
/// Revisions that watches may span here: the tables below take 36 bytes for each. The reference judges no longer histories either.
pub const REVISIONS_MAX: i64 = 20_000_000;
/// Hasher of the tables here.
pub(crate) type Hashed<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// One message of a watch (its fragments put together), as little as judging it needs.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Index in the messages of its stream; of the last piece where it came in pieces.
    pub index: u32,
    /// Its header's revision.
    pub header: u32,
    /// Revision of its first event, 0 where it has none.
    pub first: u32,
    /// Where its only event begins in the message; else its first in [`Watch::parts`].
    pub(crate) place: u32,
    /// How many events, and in the lowest byte the flags below.
    bits: u32,
}

impl Item {
    pub(crate) const CANCELED: u32 = 1;
    pub(crate) const FOR_ALL: u32 = 2;
    /// `place` is one in [`Watch::parts`].
    pub(crate) const PARTS: u32 = 4;
    /// Every event is, byte for byte, what [`Watched`] had of its revision when it was merged.
    pub(crate) const EXACT: u32 = 8;
    /// The same, but that some have no `prev_kv` where that has one.
    pub(crate) const BARE: u32 = 16;

    /// How many events it has.
    #[inline]
    pub fn count(&self) -> u32 {
        self.bits >> 8
    }

    #[inline]
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.bits & flag != 0
    }

    /// Whether it cancels its watch.
    #[inline]
    pub fn canceled(&self) -> bool {
        self.has(Item::CANCELED)
    }

    /// Whether it speaks for every watch of its stream.
    #[inline]
    pub fn for_all(&self) -> bool {
        self.has(Item::FOR_ALL)
    }
}

/// One event of a message with several: those of one revision stand together, in key order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Index in the messages of the stream.
    message: u32,
    begin: u32,
    length: u32,
    /// Its `kv.mod_revision`.
    pub revision: u32,
}

impl Part {
    /// The encoded event.
    #[inline]
    pub fn event<'a>(&self, messages: &[StreamMessage<'a>]) -> &'a [u8] {
        let data = messages.get(self.message as usize).map_or(&[][..], |message| message.data);
        data.get(self.begin as usize..self.begin as usize + self.length as usize).unwrap_or(&[])
    }
}

/// One watch of one stream, as its client saw it; `pekan.checkers.evidence.Watch` says what each part means.
///
/// Messages are named by their index in the stream.
#[derive(Clone, Debug)]
pub struct Watch<'a> {
    /// Index in [`Columns::streams`].
    pub stream: u32,
    /// Its watch id; [`ALL_WATCHES`] where refused or unanswered.
    pub id: i64,
    /// What was asked.
    pub request: WatchCreateRequest<'a>,
    /// The message that asked.
    pub asked: u32,
    /// The created reply.
    pub created: Option<u32>,
    /// Header revision of the created reply, 0 without one.
    pub created_header: i64,
    /// Whether the create request itself was refused.
    pub refused: bool,
    /// What came after the created reply.
    pub items: Vec<Item>,
    /// The events of the items that have several, and behind those the ones of unfinished pieces.
    pub(crate) parts: Vec<Part>,
    /// Where those of unfinished pieces begin.
    pub(crate) unfinished_parts: usize,
    /// Of the items that came in pieces: (index in `items`, its pieces: a range of `fragments`).
    pub joined: Vec<(u32, std::ops::Range<u32>)>,
    /// What cancelled or refused it.
    pub canceled: Option<u32>,
    /// When the client asked for the cancellation.
    pub cancel_sent: Option<i64>,
    /// The pieces marked as such.
    pub fragments: Vec<u32>,
    /// How many pieces at the end of `fragments` have no last one.
    pub unfinished: u32,
    /// Messages for its id after the cancellation.
    pub late: Vec<u32>,
    /// Highest header revision of the stream before it was asked for.
    pub floor: i64,
}

impl<'a> Watch<'a> {
    /// Whether it asked for every event of the keyspace.
    pub fn whole(&self) -> bool {
        is_whole(&self.request)
    }

    /// The pieces of the item at `at` but its last, none where it came as one message.
    pub fn pieces(&self, at: usize) -> &[u32] {
        match self.joined.binary_search_by_key(&at, |(item, _)| *item as usize) {
            Ok(found) => &self.fragments[self.joined[found].1.start as usize..self.joined[found].1.end as usize],
            Err(_) => &[],
        }
    }

    /// The parts of an item that has some.
    #[inline]
    pub(crate) fn parts_of(&self, item: Item) -> &[Part] {
        if item.has(Item::PARTS) { &self.parts[item.place as usize..(item.place + item.count()) as usize] } else { &[] }
    }

    /// The encoding of an item's only event, where it came in one message.
    #[inline]
    pub(crate) fn only_event(&self, messages: &[StreamMessage<'a>], item: Item) -> &'a [u8] {
        messages[item.index as usize].data.get(item.place as usize..).unwrap_or(&[])
    }

    /// Revision of the last event of an item that has one.
    #[inline]
    pub(crate) fn last_revision(&self, item: Item) -> i64 {
        i64::from(self.parts_of(item).last().map_or(item.first, |part| part.revision))
    }
}

/// The next revision of `parts`: its events, and what follows.
#[inline]
pub(crate) fn next_revision(parts: &[Part]) -> Option<(&[Part], &[Part])> {
    let revision = parts.first()?.revision;
    let count = parts.iter().take_while(|part| part.revision == revision).count();
    Some(parts.split_at(count))
}

/// [first, end) of the keys that a request matches; None means no upper bound. See `pekan.checkers.evidence.bounds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bounds<'a> {
    low: &'a [u8],
    high: High<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum High<'a> {
    /// The smallest key above `low`: `low` itself and nothing else matches.
    Single,
    Below(&'a [u8]),
    Open,
}

impl<'a> Bounds<'a> {
    /// The keys that `key` and `range_end` name in a create request.
    pub fn new(key: &'a [u8], range_end: &'a [u8]) -> Bounds<'a> {
        let low = if key.is_empty() { b"\0" } else { key };
        let high = match range_end {
            b"" => High::Single,
            b"\0" => High::Open,
            end => High::Below(end),
        };
        Bounds { low, high }
    }

    /// Whether `key` lies inside.
    #[inline]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.high {
            High::Single => key == self.low,
            High::Open => key >= self.low,
            High::Below(high) => key >= self.low && key < high,
        }
    }

    /// Whether all of `other` lies inside, by the bounds alone.
    pub fn covers(&self, other: &Bounds<'_>) -> bool {
        if self.low > other.low {
            return false;
        }
        match (&self.high, &other.high) {
            (High::Open, _) => true,
            (_, High::Open) => false,
            (High::Single, High::Single) => self.low == other.low,
            // [a, a+"\0") holds the key a alone; an upper bound at most that holds no more.
            (High::Single, High::Below(end)) => below_successor(end, self.low),
            (High::Below(end), High::Single) => other.low < *end,
            (High::Below(end), High::Below(theirs)) => theirs <= end,
        }
    }

    /// The smallest key that can match.
    pub fn low(&self) -> &'a [u8] {
        self.low
    }
}

/// `end <= key + "\0"`
fn below_successor(end: &[u8], key: &[u8]) -> bool {
    end <= key || (end.len() == key.len() + 1 && end.starts_with(key) && end[key.len()] == 0)
}

/// True where `request` asks for every event of the keyspace.
pub fn is_whole(request: &WatchCreateRequest<'_>) -> bool {
    request.filters.is_empty() && matches!(request.key, b"\0" | b"") && request.range_end == b"\0"
}

/// One compaction that a client asked for.
#[derive(Clone, Copy, Debug)]
pub struct Compaction {
    /// Up to which revision.
    pub revision: i64,
    /// When it was called.
    pub call: i64,
    /// What became of it.
    pub outcome: Outcome,
    /// Index in [`Columns::ops`].
    pub op: u32,
}

/// Every compaction that a client asked for, in order of call.
pub fn compactions(columns: &Columns<'_>) -> Result<Vec<Compaction>, Declined> {
    let mut found = Vec::new();
    for (index, op) in columns.ops.iter().enumerate() {
        if op.kind == Kind::Compaction {
            let revision = CompactionRequest::decode(op.request)?.revision;
            found.push(Compaction { revision, call: op.call, outcome: op.outcome, op: as_u32(index)? });
        }
    }
    Ok(found)
}

/// How many messages ahead [`fetch`] looks: far enough for memory to answer, near enough for the cache to keep it.
pub(crate) const AHEAD: usize = 12;

/// Asks for bytes that will be looked at soon. The messages of one stream lie scattered over the record, between all others, and nothing
/// else tells the processor where the next one is: waiting for memory would be most of what reading them costs.
#[inline(always)]
pub(crate) fn fetch(data: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in data.chunks(64).take(4) {
        // SAFETY: a hint about an address of a live slice; it changes nothing and raises nothing.
        #[allow(unsafe_code)]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}

pub(crate) fn as_u32(number: usize) -> Result<u32, Declined> {
    u32::try_from(number).map_err(|_| Declined::because("more messages or events than the core counts"))
}

/// Where the events of one revision lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    first: u32,
    count: u32,
}

/// When and where a revision was delivered first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Time of the message (ns).
    pub time: i64,
    /// Index in [`Columns::streams`].
    pub stream: u32,
}

/// What one watch delivered of one revision.
#[derive(Clone, Debug)]
pub struct Told<'a> {
    /// Index in [`Evidence::watches`].
    pub watch: u32,
    /// Time of the message (ns).
    pub time: i64,
    /// Encoded, in key order.
    pub events: Vec<&'a [u8]>,
}

/// The first revision of which two watches of the whole keyspace told different stories.
#[derive(Clone, Debug)]
pub struct Difference<'a> {
    /// The revision.
    pub revision: i64,
    /// The earliest telling of the story that was told first.
    pub first: Told<'a>,
    /// The earliest telling of the next.
    pub second: Told<'a>,
    /// The members on each side (indexes in [`Columns::names`]), first told first.
    pub groups: Vec<Vec<u16>>,
}

/// What the watches of one member told of whole revisions: the member's first telling of each.
#[derive(Clone, Debug, Default)]
struct Member {
    name: u16,
    told: Bits,
    /// Where that is not the change that [`Watched`] has of the revision.
    otherwise: Hashed<i64, Span>,
}

/// Events seen by any watch of the history, by revision; `pekan.checkers.evidence.Watched` says what each part means.
#[derive(Clone, Debug, Default)]
pub struct Watched<'a> {
    /// Revision of index 0 of the tables.
    low: i64,
    spans: Vec<Span>,
    events: Vec<&'a [u8]>,
    seen: Vec<i64>,
    seen_stream: Vec<u32>,
    whole: Bits,
    /// Revisions whose events became others after their first telling (a `prev_kv` added, say): what items remember no longer holds.
    changed: Bits,
    differing: Bits,
    highest: i64,
    members: Vec<Member>,
    difference: Option<Difference<'a>>,
}

impl<'a> Watched<'a> {
    #[inline]
    fn index(&self, revision: i64) -> Option<usize> {
        let index = usize::try_from(revision.checked_sub(self.low)?).ok()?;
        (index < self.spans.len()).then_some(index)
    }

    #[inline]
    fn span(&self, span: Span) -> &[&'a [u8]] {
        &self.events[span.first as usize..(span.first + span.count) as usize]
    }

    /// The lowest and the highest revision that may have events; empty (2, 1) where no watch delivered any.
    pub fn bounds(&self) -> (i64, i64) {
        if self.spans.is_empty() { (2, 1) } else { (self.low, self.highest) }
    }

    /// The encoded events known of `revision` in key order; empty where none are. Each is well formed.
    #[inline]
    pub fn encoded(&self, revision: i64) -> &[&'a [u8]] {
        self.index(revision).map_or(&[], |index| self.span(self.spans[index]))
    }

    /// The events known of `revision` in key order, decoded as they are asked for.
    #[inline]
    pub fn events(&self, revision: i64) -> impl Iterator<Item = Event<'a>> + '_ {
        self.encoded(revision).iter().map(|event| decoded(event))
    }

    /// Whether anything is known of `revision`.
    #[inline]
    pub fn knows(&self, revision: i64) -> bool {
        self.index(revision).is_some_and(|index| self.spans[index].count > 0)
    }

    /// Whether the complete write set of `revision` is known.
    #[inline]
    pub fn is_whole(&self, revision: i64) -> bool {
        self.index(revision).is_some_and(|index| self.whole.contains(index))
    }

    /// Whether whole deliveries of `revision` differ in more than `prev_kv`.
    #[inline]
    pub fn differs(&self, revision: i64) -> bool {
        self.index(revision).is_some_and(|index| self.differing.contains(index))
    }

    /// The revisions that differ, ascending.
    pub fn differing(&self) -> impl Iterator<Item = i64> + '_ {
        self.differing.iter().map(|index| self.low + index as i64)
    }

    /// The revisions that are whole, ascending.
    pub fn whole(&self) -> impl Iterator<Item = i64> + '_ {
        self.whole.iter().map(|index| self.low + index as i64)
    }

    /// Whether the events of `revision` are those that were there when it was first known.
    #[inline]
    pub(crate) fn never_changed(&self, revision: i64) -> bool {
        self.index(revision).is_some_and(|index| !self.changed.contains(index))
    }

    /// When and where `revision` was delivered first.
    #[inline]
    pub fn seen(&self, revision: i64) -> Option<Seen> {
        let index = self.index(revision)?;
        (self.spans[index].count > 0).then(|| Seen { time: self.seen[index], stream: self.seen_stream[index] })
    }

    /// The members that told whole revisions: indexes in [`Columns::names`].
    pub fn members(&self) -> impl Iterator<Item = u16> + '_ {
        self.members.iter().map(|member| member.name)
    }

    /// What `member` told of `revision` first, to a watch of the whole keyspace: the same change as it did, if not always its `prev_kv`.
    pub fn told_by(&self, member: u16, revision: i64) -> Option<&[&'a [u8]]> {
        let index = self.index(revision)?;
        let member = self.members.iter().find(|each| each.name == member)?;
        if !member.told.contains(index) {
            return None;
        }
        Some(self.span(member.otherwise.get(&revision).copied().unwrap_or(self.spans[index])))
    }

    /// The lowest revision that differs, and who told what.
    pub fn difference(&self) -> Option<&Difference<'a>> {
        self.difference.as_ref()
    }
}

/// An event of [`Watched`], decoded. It has been decoded before, or equals one that has: a malformed one never gets there.
#[inline]
pub fn decoded(event: &[u8]) -> Event<'_> {
    Event::decode(event).unwrap_or_default()
}

/// True where both tell the same writes; `prev_kv` may differ.
pub fn same_change(one: &[&[u8]], other: &[&[u8]]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(a, b)| {
            a == b || {
                let (a, b) = (decoded(a), decoded(b));
                a.kind == b.kind && a.kv == b.kv
            }
        })
}

/// Everything that watches show.
#[derive(Clone, Debug, Default)]
pub struct Evidence<'a> {
    /// Stream by stream, each stream's in the order asked.
    pub watches: Vec<Watch<'a>>,
    /// Their events, merged.
    pub watched: Watched<'a>,
    /// Every compaction that a client asked for, in order of call.
    pub compactions: Vec<Compaction>,
}

impl<'a> Evidence<'a> {
    /// The evidence of a history. `real_time`: all its times are of one clock.
    pub fn of(columns: &Columns<'a>, real_time: bool) -> Result<Evidence<'a>, Declined> {
        let compactions = compactions(columns)?;
        let (mut watches, revisions) = split::watches(columns)?;
        let watched = merge::merged(columns, &mut watches, revisions, &compactions, real_time)?;
        Ok(Evidence { watches, watched, compactions })
    }
}
