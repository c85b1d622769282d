//! Watches into what is known of each revision.

use std::ops::Range;

use pekan_history::Columns;
use pekan_wire::Event;

use super::{
    Compaction, Difference, Hashed, Item, Member, REVISIONS_MAX, Raw, Span, Told, Watch, Watched, as_u32, by_revision, decoded, same_change,
};
use crate::bits::Bits;
use crate::request::Declined;

/// `watches`' events merged; the items of whole watches remember how their events compare with what was known.
pub(super) fn merged<'a>(
    columns: &Columns<'a>,
    watches: &mut [Watch<'a>],
    compactions: &[Compaction],
    real_time: bool,
) -> Result<Watched<'a>, Declined> {
    let mut compacted: Hashed<i64, i64> = Hashed::default();
    for compaction in compactions {
        // Without one clock, any compaction may have been before any message.
        let when = if real_time { compaction.call } else { i64::MIN };
        compacted.entry(compaction.revision).and_modify(|first| *first = when.min(*first)).or_insert(when);
    }
    let mut merge = Merge { columns, compacted, result: tables(columns, watches)?, groups: Vec::new() };
    merge.run(watches)?;
    Ok(merge.result)
}

/// Empty tables that span every revision of which anything was delivered.
fn tables<'a>(columns: &Columns<'a>, watches: &[Watch<'a>]) -> Result<Watched<'a>, Declined> {
    let (mut low, mut high) = (i64::MAX, 0);
    let mut scratch = Vec::new();
    for watch in watches {
        for (at, item) in watch.items.iter().enumerate() {
            if item.count == 1 {
                low = low.min(i64::from(item.first));
                high = high.max(i64::from(item.first));
            } else if item.count > 1 {
                watch.events_of(columns, at, &mut scratch)?;
                for event in &scratch {
                    low = low.min(event.revision);
                    high = high.max(event.revision);
                }
            }
        }
        for &piece in &watch.fragments[watch.fragments.len() - watch.unfinished as usize..] {
            scratch.clear();
            super::raw_events(&columns.streams[watch.stream as usize].messages[piece as usize], &mut scratch)?;
            for event in &scratch {
                low = low.min(event.revision);
                high = high.max(event.revision);
            }
        }
    }
    if high == 0 {
        return Ok(Watched::default());
    }
    if low < 1 || high - low >= REVISIONS_MAX || high > i64::from(u32::MAX) {
        return Err(Declined::because("watches span more revisions than the core counts"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most REVISIONS_MAX
    let size = (high - low + 1) as usize;
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
    groups: Vec<(i64, Range<usize>)>,
}

impl<'a> Merge<'a, '_> {
    fn run(&mut self, watches: &mut [Watch<'a>]) -> Result<(), Declined> {
        let mut scratch = Vec::new();
        for watch in watches.iter_mut().filter(|watch| watch.whole()) {
            self.whole(watch, &mut scratch)?;
        }
        for watch in &*watches {
            let messages = &self.columns.streams[watch.stream as usize].messages;
            for &piece in &watch.fragments[watch.fragments.len() - watch.unfinished as usize..] {
                let piece = &messages[piece as usize];
                scratch.clear();
                super::raw_events(piece, &mut scratch)?;
                self.partly(watch.stream, piece.time, &scratch)?;
            }
        }
        for watch in watches.iter().filter(|watch| !watch.whole()) {
            let messages = &self.columns.streams[watch.stream as usize].messages;
            for at in 0..watch.items.len() {
                if watch.items[at].count > 0 {
                    watch.events_of(self.columns, at, &mut scratch)?;
                    self.partly(watch.stream, messages[watch.items[at].index as usize].time, &scratch)?;
                }
            }
        }
        if let Some(first) = self.result.differing.iter().next() {
            let revision = self.result.low + first as i64;
            self.result.difference = Some(self.difference(watches, revision)?);
        }
        Ok(())
    }

    fn whole(&mut self, watch: &mut Watch<'a>, scratch: &mut Vec<Raw<'a>>) -> Result<(), Declined> {
        let columns = self.columns;
        let stream = &columns.streams[watch.stream as usize];
        let messages = &stream.messages;
        let member = self.member(stream.member);
        let in_pieces = in_pieces(columns, watch, scratch)?;
        let doubtful = !in_pieces.is_empty() || !self.compacted.is_empty();
        for at in 0..watch.items.len() {
            let item = watch.items[at];
            if item.count == 0 {
                continue;
            }
            let time = messages[item.index as usize].time;
            if let Some(event) = watch.only_event(messages, item) {
                let revision = i64::from(item.first);
                if !(doubtful && self.doubtful(revision, time, &in_pieces)) {
                    watch.items[at].flags |= self.tell_one(member, watch.stream, time, revision, event)?;
                    continue;
                }
            }
            watch.events_of(columns, at, scratch)?;
            let mut groups = std::mem::take(&mut self.groups);
            by_revision(scratch, &mut groups);
            let mut told = Item::EXACT;
            for (revision, range) in &groups {
                let group = &scratch[range.clone()];
                if doubtful && self.doubtful(*revision, time, &in_pieces) {
                    self.partly(watch.stream, time, group)?;
                    told = 0;
                } else {
                    let this = self.tell(member, watch.stream, time, *revision, group)?;
                    told = if told == 0 || this == 0 { 0 } else { told.max(this) };
                }
            }
            self.groups = groups;
            watch.items[at].flags |= told;
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
    fn tell_one(&mut self, member: usize, stream: u32, time: i64, revision: i64, event: &'a [u8]) -> Result<u8, Declined> {
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
        self.tell(member, stream, time, revision, &[Raw::new(event)?])
    }

    /// A whole telling of `revision`: `group`, in key order.
    fn tell(&mut self, member: usize, stream: u32, time: i64, revision: i64, group: &[Raw<'a>]) -> Result<u8, Declined> {
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
        let mut compared = compare(self.result.span(span), group)?;
        match compared {
            Compared::Exact | Compared::Bare => {}
            Compared::Same => self.add_prev(index, group)?,
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
            let group: Vec<&[u8]> = group.iter().map(|event| event.data).collect();
            if !same_change(result.span(told), &group) {
                result.differing.insert(index);
            }
        }
        Ok(match compared {
            Compared::Exact => Item::EXACT,
            Compared::Bare => Item::BARE,
            Compared::Same | Compared::Otherwise => 0,
        })
    }

    /// Events of a message that may not hold all of a revision: added key by key, they never replace what is known.
    fn partly(&mut self, stream: u32, time: i64, events: &[Raw<'a>]) -> Result<(), Declined> {
        for raw in events {
            let Some(index) = self.result.index(raw.revision) else { return Err(outside()) };
            let span = self.result.spans[index];
            if span.count == 0 {
                self.result.spans[index] = self.add(std::slice::from_ref(raw))?;
                (self.result.seen[index], self.result.seen_stream[index]) = (time, stream);
                continue;
            }
            if time < self.result.seen[index] {
                (self.result.seen[index], self.result.seen_stream[index]) = (time, stream);
            }
            let first = self.result.span(span);
            if first.contains(&raw.data) {
                continue;
            }
            let event = Event::decode(raw.data)?;
            let known: Vec<Event<'a>> = first.iter().map(|event| decoded(event)).collect();
            if known.contains(&event) {
                continue;
            }
            if let Some(at) = known.iter().position(|known| known.kv.key == event.kv.key && known.kind == event.kind) {
                if known[at].prev_kv.is_none() && known[at].kv == event.kv {
                    self.result.events[span.first as usize + at] = raw.data;
                    self.result.changed.insert(index);
                }
            } else if !self.result.whole.contains(index) {
                // In key order, behind what has the same key.
                let at = known.iter().take_while(|known| known.kv.key <= event.kv.key).count();
                let mut all = first.to_vec();
                all.insert(at, raw.data);
                self.result.spans[index] = self.add_encoded(&all)?;
            }
        }
        Ok(())
    }

    /// Keeps `group`, which nobody told in this form before.
    fn add(&mut self, group: &[Raw<'a>]) -> Result<Span, Declined> {
        let span = Span { first: as_u32(self.result.events.len())?, count: as_u32(group.len())? };
        for raw in group {
            Event::decode(raw.data)?;
            self.result.events.push(raw.data);
        }
        Ok(span)
    }

    fn add_encoded(&mut self, events: &[&'a [u8]]) -> Result<Span, Declined> {
        let span = Span { first: as_u32(self.result.events.len())?, count: as_u32(events.len())? };
        self.result.events.extend_from_slice(events);
        Ok(span)
    }

    /// Takes over from `group`, which tells the same change, each prev_kv that is lacking.
    fn add_prev(&mut self, index: usize, group: &[Raw<'a>]) -> Result<(), Declined> {
        let span = self.result.spans[index];
        for (at, raw) in group.iter().enumerate() {
            let known = &mut self.result.events[span.first as usize + at];
            if decoded(known).prev_kv.is_none() && Event::decode(raw.data)?.prev_kv.is_some() {
                *known = raw.data;
                self.result.changed.insert(index);
            }
        }
        Ok(())
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
        let (mut found, mut scratch, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for (number, watch) in watches.iter().enumerate().filter(|(_, watch)| watch.whole()) {
            if in_pieces(self.columns, watch, &mut scratch)?.binary_search(&revision).is_ok() {
                continue;
            }
            let messages = &self.columns.streams[watch.stream as usize].messages;
            for (at, item) in watch.items.iter().enumerate() {
                if item.count == 0 || (item.count == 1 && i64::from(item.first) != revision) {
                    continue;
                }
                let time = messages[item.index as usize].time;
                if self.compacted.get(&revision).is_some_and(|&when| when <= time) {
                    continue;
                }
                watch.events_of(self.columns, at, &mut scratch)?;
                by_revision(&mut scratch, &mut groups);
                for (of, range) in &groups {
                    if *of == revision {
                        let events = scratch[range.clone()].iter().map(|event| event.data).collect();
                        found.push(Told { watch: as_u32(number)?, time, events });
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

fn compare(known: &[&[u8]], group: &[Raw<'_>]) -> Result<Compared, Declined> {
    let mut compared = Compared::Exact;
    if known.len() != group.len() {
        for raw in group {
            Event::decode(raw.data)?;
        }
        return Ok(Compared::Otherwise);
    }
    for (known, raw) in known.iter().zip(group) {
        if *known == raw.data {
            continue;
        }
        let (a, b) = (decoded(known), Event::decode(raw.data)?);
        if a.kind != b.kind || a.kv != b.kv {
            compared = Compared::Otherwise;
        } else if compared != Compared::Otherwise {
            if b.prev_kv.is_some() {
                compared = if a.prev_kv == b.prev_kv { compared } else { Compared::Same };
            } else if compared == Compared::Exact {
                compared = Compared::Bare;
            }
        }
    }
    Ok(compared)
}

/// Revisions of which this watch delivered pieces in consecutive messages (itself a finding): no piece is whole. Ascending.
fn in_pieces<'a>(columns: &Columns<'a>, watch: &Watch<'a>, scratch: &mut Vec<Raw<'a>>) -> Result<Vec<i64>, Declined> {
    let mut found = Vec::new();
    let mut last = 0;
    for (at, item) in watch.items.iter().enumerate() {
        if item.count == 0 {
            continue;
        }
        let first = i64::from(item.first);
        if first == last {
            found.push(last);
        }
        last = first;
        if item.count > 1 {
            watch.events_of(columns, at, scratch)?;
            last = scratch.last().map_or(first, |event| event.revision);
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn outside() -> Declined {
    Declined::because("an event outside of the revisions that were counted")
}
