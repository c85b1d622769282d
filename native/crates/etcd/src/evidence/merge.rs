//! Watches into what is known of each revision.

use std::ops::RangeInclusive;

use pekan_history::Columns;
use pekan_wire::Event;

use super::{
    AHEAD, Compaction, Difference, Hashed, Item, Member, Part, REVISIONS_MAX, Span, Told, Watch, Watched, as_u32, decoded, fetch,
    next_revision, same_change,
};
use crate::bits::Bits;
use crate::request::Declined;

/// `watches`' events merged; the items of whole watches remember how their events compare with what was known.
pub(super) fn merged<'a>(
    columns: &Columns<'a>,
    watches: &mut [Watch<'a>],
    revisions: RangeInclusive<u32>,
    compactions: &[Compaction],
    real_time: bool,
) -> Result<Watched<'a>, Declined> {
    let mut compacted: Hashed<i64, i64> = Hashed::default();
    for compaction in compactions {
        // Without one clock, any compaction may have been before any message.
        let when = if real_time { compaction.call } else { i64::MIN };
        compacted.entry(compaction.revision).and_modify(|first| *first = when.min(*first)).or_insert(when);
    }
    let mut merge = Merge { columns, compacted, result: tables(revisions)?, group: Vec::new() };
    merge.run(watches)?;
    Ok(merge.result)
}

/// Empty tables for these revisions.
fn tables<'a>(revisions: RangeInclusive<u32>) -> Result<Watched<'a>, Declined> {
    if revisions.is_empty() {
        return Ok(Watched::default());
    }
    let (low, high) = (i64::from(*revisions.start()), i64::from(*revisions.end()));
    if high - low >= REVISIONS_MAX {
        return Err(Declined::because("watches span more revisions than the core counts"));
    }
    let size = (revisions.end() - revisions.start()) as usize + 1;
    Ok(Watched {
        low,
        spans: vec![Span::default(); size],
        events: Vec::with_capacity(size),
        seen: vec![0; size],
        seen_stream: vec![0; size],
        whole: Bits::with_room(size),
        changed: Bits::with_room(size),
        differing: Bits::with_room(size),
        highest: high,
        members: Vec::new(),
        difference: None,
    })
}

struct Merge<'a, 'c> {
    columns: &'c Columns<'a>,
    /// Revision -> when the first compaction there was invoked.
    compacted: Hashed<i64, i64>,
    result: Watched<'a>,
    /// The events of the revision that is looked at.
    group: Vec<&'a [u8]>,
}

impl<'a> Merge<'a, '_> {
    fn run(&mut self, watches: &mut [Watch<'a>]) -> Result<(), Declined> {
        for watch in watches.iter_mut().filter(|watch| watch.whole()) {
            self.whole(watch)?;
        }
        for watch in &*watches {
            self.partly_all(watch, &watch.parts[watch.unfinished_parts..])?;
        }
        for watch in watches.iter().filter(|watch| !watch.whole()) {
            let messages = &self.columns.streams[watch.stream as usize].messages;
            for item in &watch.items {
                if item.has(Item::PARTS) {
                    let time = messages[item.index as usize].time;
                    for part in watch.parts_of(*item) {
                        self.partly(watch.stream, time, i64::from(part.revision), part.event(messages))?;
                    }
                } else if item.count() > 0 {
                    let (time, event) = (messages[item.index as usize].time, watch.only_event(messages, *item));
                    self.partly(watch.stream, time, i64::from(item.first), event)?;
                }
            }
        }
        if let Some(first) = self.result.differing.iter().next() {
            let revision = self.result.low + first as i64;
            self.result.difference = Some(self.difference(watches, revision)?);
        }
        Ok(())
    }

    /// Pieces of messages that were never completed, each at its own time.
    fn partly_all(&mut self, watch: &Watch<'a>, parts: &[Part]) -> Result<(), Declined> {
        let messages = &self.columns.streams[watch.stream as usize].messages;
        for part in parts {
            self.partly(watch.stream, messages[part.message as usize].time, i64::from(part.revision), part.event(messages))?;
        }
        Ok(())
    }

    fn whole(&mut self, watch: &mut Watch<'a>) -> Result<(), Declined> {
        let stream = &self.columns.streams[watch.stream as usize];
        let messages = &stream.messages[..];
        let member = self.member(stream.member);
        let in_pieces = in_pieces(watch);
        let doubtful = !in_pieces.is_empty() || !self.compacted.is_empty();
        for at in 0..watch.items.len() {
            if let Some(next) = watch.items.get(at + AHEAD) {
                fetch(watch.only_event(messages, *next));
                if let [known, ..] = self.result.encoded(i64::from(next.first)) {
                    fetch(known);
                }
            }
            let item = watch.items[at];
            if item.count() == 0 {
                continue;
            }
            let time = messages[item.index as usize].time;
            if !item.has(Item::PARTS) {
                let (revision, event) = (i64::from(item.first), watch.only_event(messages, item));
                if doubtful && self.doubtful(revision, time, &in_pieces) {
                    self.partly(watch.stream, time, revision, event)?;
                } else {
                    watch.items[at].bits |= self.tell_one(member, watch.stream, time, revision, event)?;
                }
                continue;
            }
            let mut told = Item::EXACT;
            let mut left = watch.parts_of(item);
            while let Some((group, rest)) = next_revision(left) {
                left = rest;
                let revision = i64::from(group[0].revision);
                let this = if doubtful && self.doubtful(revision, time, &in_pieces) {
                    for part in group {
                        self.partly(watch.stream, time, revision, part.event(messages))?;
                    }
                    0
                } else if let [part] = group {
                    self.tell_one(member, watch.stream, time, revision, part.event(messages))?
                } else {
                    let mut events = std::mem::take(&mut self.group);
                    events.clear();
                    events.extend(group.iter().map(|part| part.event(messages)));
                    let this = self.tell(member, watch.stream, time, revision, &events)?;
                    self.group = events;
                    this
                };
                told = if told == 0 || this == 0 { 0 } else { told.max(this) };
            }
            watch.items[at].bits |= told;
        }
        Ok(())
    }

    #[inline]
    fn doubtful(&self, revision: i64, time: i64, in_pieces: &[i64]) -> bool {
        self.compacted.get(&revision).is_some_and(|&when| when <= time) || in_pieces.binary_search(&revision).is_ok()
    }

    fn member(&mut self, name: u16) -> usize {
        let members = &mut self.result.members;
        members.iter().position(|member| member.name == name).unwrap_or_else(|| {
            members.push(Member { name, told: Bits::with_room(self.result.spans.len()), ..Member::default() });
            members.len() - 1
        })
    }

    /// A whole telling of a revision with one event. Returns how it compares with what was known: a flag of [`Item`], or 0.
    #[inline]
    fn tell_one(&mut self, member: usize, stream: u32, time: i64, revision: i64, event: &'a [u8]) -> Result<u32, Declined> {
        if let Some(index) = self.result.index(revision) {
            let result = &mut self.result;
            let span = result.spans[index];
            if span.count == 1 && result.events[span.first as usize] == event && result.whole.contains(index) {
                if time < result.seen[index] {
                    (result.seen[index], result.seen_stream[index]) = (time, stream);
                }
                let mine = &mut result.members[member];
                if mine.told.insert(index) || mine.otherwise.is_empty() || !mine.otherwise.contains_key(&revision) {
                    return Ok(Item::EXACT);
                }
            }
        }
        self.tell(member, stream, time, revision, &[event])
    }

    /// A whole telling of `revision`: `group`, in key order.
    fn tell(&mut self, member: usize, stream: u32, time: i64, revision: i64, group: &[&'a [u8]]) -> Result<u32, Declined> {
        let Some(index) = self.result.index(revision) else { return Err(outside()) };
        let span = self.result.spans[index];
        if span.count == 0 {
            let span = self.add(group)?;
            let result = &mut self.result;
            result.spans[index] = span;
            (result.seen[index], result.seen_stream[index]) = (time, stream);
            result.whole.insert(index);
            result.members[member].told.insert(index);
            return Ok(Item::EXACT);
        }
        if time < self.result.seen[index] {
            (self.result.seen[index], self.result.seen_stream[index]) = (time, stream);
        }
        let mut compared = compare(self.result.span(span), group);
        match compared {
            Compared::Exact | Compared::Bare => {}
            Compared::Same => self.add_prev(index, group),
            Compared::Otherwise if self.result.whole.contains(index) => {
                self.result.differing.insert(index);
            }
            Compared::Otherwise => {
                // So far seen in part only, by a watch that says nothing about what else there is.
                self.result.spans[index] = self.add(group)?;
                self.result.changed.insert(index);
                compared = Compared::Same;
            }
        }
        let result = &mut self.result;
        result.whole.insert(index);
        if result.members[member].told.insert(index) {
            if compared == Compared::Otherwise {
                let own = self.add(group)?;
                self.result.members[member].otherwise.insert(revision, own);
            }
        } else {
            let told = result.members[member].otherwise.get(&revision).copied().unwrap_or(result.spans[index]);
            if !same_change(result.span(told), group) {
                result.differing.insert(index);
            }
        }
        Ok(match compared {
            Compared::Exact => Item::EXACT,
            Compared::Bare => Item::BARE,
            Compared::Same | Compared::Otherwise => 0,
        })
    }

    /// An event of a message that may not hold all of a revision: they are added key by key, and never replace what is known.
    fn partly(&mut self, stream: u32, time: i64, revision: i64, encoded: &'a [u8]) -> Result<(), Declined> {
        let Some(index) = self.result.index(revision) else { return Err(outside()) };
        let span = self.result.spans[index];
        if span.count == 0 {
            self.result.spans[index] = self.add(&[encoded])?;
            (self.result.seen[index], self.result.seen_stream[index]) = (time, stream);
            return Ok(());
        }
        if time < self.result.seen[index] {
            (self.result.seen[index], self.result.seen_stream[index]) = (time, stream);
        }
        let first = self.result.span(span);
        if first.contains(&encoded) {
            return Ok(());
        }
        let event = decoded(encoded);
        let known: Vec<Event<'a>> = first.iter().map(|event| decoded(event)).collect();
        if known.contains(&event) {
            return Ok(());
        }
        if let Some(at) = known.iter().position(|known| known.kv.key == event.kv.key && known.kind == event.kind) {
            if known[at].prev_kv.is_none() && known[at].kv == event.kv {
                self.result.events[span.first as usize + at] = encoded;
                self.result.changed.insert(index);
            }
        } else if !self.result.whole.contains(index) {
            // In key order, behind what has the same key.
            let at = known.iter().take_while(|known| known.kv.key <= event.kv.key).count();
            let mut all = first.to_vec();
            all.insert(at, encoded);
            self.result.spans[index] = self.add(&all)?;
        }
        Ok(())
    }

    /// Keeps `group`, which nobody told in this form before.
    fn add(&mut self, group: &[&'a [u8]]) -> Result<Span, Declined> {
        let span = Span { first: as_u32(self.result.events.len())?, count: as_u32(group.len())? };
        self.result.events.extend_from_slice(group);
        Ok(span)
    }

    /// Takes over from `group`, which tells the same change, each prev_kv that is lacking.
    fn add_prev(&mut self, index: usize, group: &[&'a [u8]]) {
        let span = self.result.spans[index];
        for (at, event) in group.iter().enumerate() {
            let known = &mut self.result.events[span.first as usize + at];
            if decoded(known).prev_kv.is_none() && decoded(event).prev_kv.is_some() {
                *known = event;
                self.result.changed.insert(index);
            }
        }
    }

    /// Who told what of `revision`, by one more look at the watches.
    fn difference(&self, watches: &[Watch<'a>], revision: i64) -> Result<Difference<'a>, Declined> {
        let mut sides: Vec<Vec<Told<'a>>> = Vec::new();
        for told in self.tellings(watches, revision)? {
            match sides.iter_mut().find(|side| same_change(&side[0].events, &told.events)) {
                Some(side) => side.push(told),
                None => sides.push(vec![told]),
            }
        }
        sides.sort_by_key(|side| side.iter().map(|told| told.time).min());
        let groups = sides
            .iter()
            .map(|side| {
                let mut members = Vec::new();
                for told in side {
                    let member = self.columns.streams[watches[told.watch as usize].stream as usize].member;
                    if !members.contains(&member) {
                        members.push(member);
                    }
                }
                members
            })
            .collect();
        let mut earliest = sides.into_iter().filter_map(|side| side.into_iter().min_by_key(|told| told.time));
        match (earliest.next(), earliest.next()) {
            (Some(first), Some(second)) => Ok(Difference { revision, first, second, groups }),
            _ => Err(Declined::because("a difference with one side")),
        }
    }

    fn tellings(&self, watches: &[Watch<'a>], revision: i64) -> Result<Vec<Told<'a>>, Declined> {
        let mut found = Vec::new();
        for (number, watch) in watches.iter().enumerate().filter(|(_, watch)| watch.whole()) {
            if in_pieces(watch).binary_search(&revision).is_ok() {
                continue;
            }
            let messages = &self.columns.streams[watch.stream as usize].messages[..];
            for item in watch.items.iter().filter(|item| item.count() > 0) {
                let time = messages[item.index as usize].time;
                if self.compacted.get(&revision).is_some_and(|&when| when <= time) {
                    continue;
                }
                let watch_number = as_u32(number)?;
                if !item.has(Item::PARTS) {
                    if i64::from(item.first) == revision {
                        found.push(Told { watch: watch_number, time, events: vec![watch.only_event(messages, *item)] });
                    }
                    continue;
                }
                let mut left = watch.parts_of(*item);
                while let Some((group, rest)) = next_revision(left) {
                    left = rest;
                    if i64::from(group[0].revision) == revision {
                        let events = group.iter().map(|part| part.event(messages)).collect();
                        found.push(Told { watch: watch_number, time, events });
                    }
                }
            }
        }
        Ok(found)
    }
}

/// How a telling compares with what is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compared {
    /// Byte for byte the same.
    Exact,
    /// The same but for each `prev_kv` that it lacks.
    Bare,
    /// The same change; `prev_kv` is told otherwise, or told now.
    Same,
    /// Another change.
    Otherwise,
}

fn compare(known: &[&[u8]], group: &[&[u8]]) -> Compared {
    if known.len() != group.len() {
        return Compared::Otherwise;
    }
    let mut compared = Compared::Exact;
    for (known, event) in known.iter().zip(group) {
        if known == event {
            continue;
        }
        let (a, b) = (decoded(known), decoded(event));
        if a.kind != b.kind || a.kv != b.kv {
            return Compared::Otherwise;
        }
        if b.prev_kv.is_some() {
            compared = if a.prev_kv == b.prev_kv { compared } else { Compared::Same };
        } else if compared == Compared::Exact {
            compared = Compared::Bare;
        }
    }
    compared
}

/// Revisions of which this watch delivered pieces in consecutive messages (itself a finding): no piece is whole. Ascending.
fn in_pieces(watch: &Watch<'_>) -> Vec<i64> {
    let mut found = Vec::new();
    let mut last = 0;
    for item in watch.items.iter().filter(|item| item.count() > 0) {
        if i64::from(item.first) == last {
            found.push(last);
        }
        last = watch.last_revision(*item);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn outside() -> Declined {
    Declined::because("an event outside of the revisions that were counted")
}
