//! Calls and returns in order of time, as a linked list from which nodes can be taken out and put back in the opposite order.

use crate::question::{NEVER, Question};

/// Before the first node and behind the last.
pub const HEAD: u32 = 0;
/// No operation.
pub const NOBODY: u32 = u32::MAX;
/// No return.
pub const LAST: u32 = u32::MAX;

/// A call or a return of an operation that returned. What the scan over enabled operations reads lies together.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub next: u32,
    pub previous: u32,
    pub operation: u32,
    /// The class; for a return the class with [`Node::RETURN`] set.
    pub class: u32,
}

impl Node {
    const RETURN: u32 = 1 << 31;

    /// Whether it is a return.
    #[inline]
    pub fn is_return(&self) -> bool {
        self.class & Self::RETURN != 0
    }
}

/// The list of what returned, and what never did in order of call.
#[derive(Debug)]
pub struct Lists {
    /// By place in time; the calls of optional operations have a place and are not linked.
    pub nodes: Vec<Node>,
    /// Of each operation; 0 for those that are left out.
    pub call_node: Vec<u32>,
    /// Of each operation; [`LAST`] where there is none.
    pub return_node: Vec<u32>,
    /// What never returned and may matter, in order of call.
    pub optional: Vec<u32>,
    /// Place in `optional` of an operation, [`NOBODY`] where it has none.
    pub rank: Vec<u32>,
    /// Of each optional operation, by rank: the rank of the one of its class called before it.
    pub twin: Vec<u32>,
    /// How many operations must be put in order.
    pub mandatory: u32,
}

impl Lists {
    pub fn new(q: &Question) -> Self {
        let count = q.call.len();
        let mut calls: Vec<u32> =
            (0..count as u32).filter(|&o| q.ret[o as usize] != NEVER || !q.readonly[q.of[o as usize] as usize]).collect();
        let mut returns: Vec<u32> = (0..count as u32).filter(|&o| q.ret[o as usize] != NEVER).collect();
        // Histories come in order of call, nearly: a stable sort takes them in one pass.
        calls.sort_by_key(|&o| (q.call[o as usize], o));
        returns.sort_by_key(|&o| (q.ret[o as usize], o));
        let mut lists = Self {
            nodes: Vec::with_capacity(calls.len() + returns.len() + 1),
            call_node: vec![0; count],
            return_node: vec![LAST; count],
            optional: Vec::new(),
            rank: Vec::new(),
            twin: Vec::new(),
            mandatory: returns.len() as u32,
        };
        lists.nodes.push(Node { next: HEAD, previous: HEAD, operation: NOBODY, class: Node::RETURN });
        let (mut last, mut returned) = (HEAD, 0);
        for &o in &calls {
            // A call comes before a return of the same time: intervals are closed.
            while returned < returns.len() && q.ret[returns[returned] as usize] < q.call[o as usize] {
                last = lists.push(q, returns[returned], true, last);
                returned += 1;
            }
            if q.ret[o as usize] == NEVER {
                lists.optional.push(o);
                lists.call_node[o as usize] = lists.nodes.len() as u32;
                lists.nodes.push(Node { next: HEAD, previous: HEAD, operation: o, class: q.of[o as usize] });
            } else {
                last = lists.push(q, o, false, last);
            }
        }
        for &o in &returns[returned..] {
            last = lists.push(q, o, true, last);
        }
        lists.nodes[last as usize].next = HEAD;
        lists.nodes[HEAD as usize].previous = last;
        lists.find_twins(q);
        lists
    }

    fn push(&mut self, q: &Question, o: u32, is_return: bool, last: u32) -> u32 {
        let node = self.nodes.len() as u32;
        let class = q.of[o as usize] | if is_return { Node::RETURN } else { 0 };
        if is_return {
            self.return_node[o as usize] = node
        } else {
            self.call_node[o as usize] = node
        }
        self.nodes.push(Node { next: HEAD, previous: last, operation: o, class });
        self.nodes[last as usize].next = node;
        node
    }

    fn find_twins(&mut self, q: &Question) {
        if self.optional.is_empty() {
            return;
        }
        self.rank = vec![NOBODY; q.call.len()];
        let mut latest = vec![NOBODY; q.readonly.len()];
        for (rank, &o) in self.optional.iter().enumerate() {
            self.rank[o as usize] = rank as u32;
            self.twin.push(std::mem::replace(&mut latest[q.of[o as usize] as usize], rank as u32));
        }
    }

    /// Out of the list.
    #[inline]
    pub fn take(&mut self, node: u32) {
        let Node { next, previous, .. } = self.nodes[node as usize];
        self.nodes[previous as usize].next = next;
        self.nodes[next as usize].previous = previous;
    }

    /// The node taken last, where it was.
    #[inline]
    pub fn put_back(&mut self, node: u32) {
        let Node { next, previous, .. } = self.nodes[node as usize];
        self.nodes[previous as usize].next = node;
        self.nodes[next as usize].previous = node;
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + self.call_node.len() * 16
    }
}
