//! A binary index: a trie of keys of 7-bit ASCII, each with values in the order of a number.
//!
//! ```text
//! file   be32 b007f457 · be32 00020001 · be32 root
//! node   prefix, NUL                                     if it has a prefix (8)
//!        first · last · be32 child for each of them      if it has children (2)
//!        be32 count · (be32 number · value, NUL)…        if it has values (4)
//! ```
//!
//! A reference to a node is its offset, with flags for its parts in the upper four bits; 0 means no node. A key consists of the
//! prefixes of the nodes on the way to its node, and between them the characters of the slots. Nodes are written before their
//! children. Source: `tools/depmod.c` of kmod 34.

use super::module::refuse;
use crate::image::ImageError;
use std::collections::BTreeMap;

const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
/// Offset of the root.
const FIRST: u32 = 12;
const PREFIX: u32 = 0x8000_0000;
const VALUES: u32 = 0x4000_0000;
const CHILDREN: u32 = 0x2000_0000;
/// Offsets are less than this: the bits above are flags.
const MAX_SIZE: u64 = 0x1000_0000;
/// Longest key; readers of indexes have buffers of 4096 bytes.
const MAX_KEY: usize = 4095;

/// The keys of an index and their values.
#[derive(Debug, Default)]
pub(super) struct Keys<'a>(BTreeMap<String, Vec<(u32, &'a str)>>);

impl<'a> Keys<'a> {
    /// Adds a value. Of values with the same number, the last added comes first.
    pub(super) fn add(&mut self, key: String, number: u32, value: &'a str) {
        let values = self.0.entry(key).or_default();
        let at = values.partition_point(|(n, _)| *n < number);
        values.insert(at, (number, value));
    }

    /// The bytes of the file `name`.
    pub(super) fn write(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        for key in self.0.keys() {
            if key.len() > MAX_KEY || !key.bytes().all(|b| (1..0x80).contains(&b)) {
                let start: String = key.chars().take(80).collect();
                return Err(refuse(
                    name,
                    format!("it cannot hold the key {start:?}, which is longer than {MAX_KEY} bytes or not ASCII"),
                ));
            }
        }
        let all: Vec<Key<'_>> = self.0.iter().map(|(k, v)| (k.as_bytes(), &v[..])).collect();
        let root = TrieNode::new(&all, 0, 0);
        if u64::from(FIRST) + root.total > MAX_SIZE {
            return Err(refuse(
                name,
                format!("it would have {} bytes, more than {MAX_SIZE}", root.total),
            ));
        }
        let mut out = Vec::with_capacity(root.total as usize + FIRST as usize);
        for word in [MAGIC, VERSION, FIRST | root.flags()] {
            out.extend(word.to_be_bytes());
        }
        root.write(&mut out);
        Ok(out)
    }
}

type Key<'a> = (&'a [u8], &'a [(u32, &'a str)]);

/// A node; sizes in bytes.
struct TrieNode<'a> {
    prefix: &'a [u8],
    values: &'a [(u32, &'a str)],
    children: Vec<(u8, TrieNode<'a>)>,
    own: u64,
    total: u64,
}

impl<'a> TrieNode<'a> {
    /// The node of the sorted `keys`, which agree up to `end`; its prefix is the range from `at` to `end`.
    fn new(keys: &[Key<'a>], at: usize, end: usize) -> Self {
        let mut node = TrieNode {
            prefix: keys.first().map_or(&[], |(key, _)| &key[at..end]),
            values: &[],
            children: Vec::new(),
            own: 0,
            total: 0,
        };
        let mut rest = keys;
        if let Some(((key, values), others)) = keys.split_first()
            && key.len() == end
        {
            (node.values, rest) = (values, others);
        }
        for same in rest.chunk_by(|(a, _), (b, _)| a[end] == b[end]) {
            let (first, last) = (same[0].0, same[same.len() - 1].0);
            let common = first.iter().zip(last).take_while(|(a, b)| a == b).count();
            node.children.push((first[end], TrieNode::new(same, end + 1, common)));
        }
        node.measure();
        node
    }

    fn measure(&mut self) {
        if !self.prefix.is_empty() {
            self.own += self.prefix.len() as u64 + 1;
        }
        if let Some((first, last)) = self.range() {
            self.own += 2 + 4 * (u64::from(last - first) + 1);
        }
        if !self.values.is_empty() {
            self.own += 4 + self.values.iter().map(|(_, v)| 4 + v.len() as u64 + 1).sum::<u64>();
        }
        self.total = self.own + self.children.iter().map(|(_, c)| c.total).sum::<u64>();
    }

    fn range(&self) -> Option<(u8, u8)> {
        Some((self.children.first()?.0, self.children.last()?.0))
    }

    fn flags(&self) -> u32 {
        let has = |what: bool, flag| if what { flag } else { 0 };
        has(!self.prefix.is_empty(), PREFIX)
            | has(!self.values.is_empty(), VALUES)
            | has(!self.children.is_empty(), CHILDREN)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut next = out.len() as u64 + self.own;
        if !self.prefix.is_empty() {
            out.extend(self.prefix);
            out.push(0);
        }
        if let Some((first, last)) = self.range() {
            out.extend([first, last]);
            let mut children = self.children.iter().peekable();
            for slot in first..=last {
                let child = children.next_if(|(c, _)| *c == slot);
                // The whole file is below `MAX_SIZE`.
                let named = child.map_or(0, |(_, node)| next as u32 | node.flags());
                out.extend(named.to_be_bytes());
                next += child.map_or(0, |(_, node)| node.total);
            }
        }
        if !self.values.is_empty() {
            out.extend((self.values.len() as u32).to_be_bytes());
            for (number, value) in self.values {
                out.extend(number.to_be_bytes());
                out.extend(value.as_bytes());
                out.push(0);
            }
        }
        for (_, child) in &self.children {
            child.write(out);
        }
    }
}
