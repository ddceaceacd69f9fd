/*!
Many small entries to a row of SQLite.

A row costs SQLite thousands of instructions, whatever is in it, and what a
checkpoint changes lies close together: the streams of a node, jobs and members
that follow each other. So entries with neighbouring keys share a row, a
*block*. It holds every entry from its own first key on to that of the next
block, the very first block everything before the second. A block that grows
too long is split. It stays far shorter than a page of SQLite, so a change of
one entry writes no more pages to disk than a row of its own would.

An entry is the number of bytes that its key shares with the key before it, the
rest of the key and the value, both with their lengths. It is *marked* when the
first byte of its value is odd; blocks that have such entries are found without
reading the others.
*/

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use rusqlite::types::Type;
use rusqlite::{Connection, params};

use super::varint::{take_varint, varint};

pub(super) const TABLES: &str = "
CREATE TABLE block (
    kind INTEGER, first BLOB, marked INTEGER NOT NULL, entries BLOB NOT NULL,
    PRIMARY KEY (kind, first)) WITHOUT ROWID;
CREATE INDEX block_marked ON block (kind, first) WHERE marked;
INSERT INTO block VALUES (0, x'', 0, x''), (1, x'', 0, x''), (2, x'', 0, x'');
";

/// Bytes of a block. Few enough that one entry is changed at little cost, many
/// enough that what SQLite takes for a row is shared by a dozen.
const LENGTH: usize = 300;

/// Blocks kept in memory. They are read again when there would be more.
const LOADED: usize = 4096;

/// What the entries of a block are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Stream = 0,
    Job = 1,
    Member = 2,
}

/// Key and new value of an entry; without a value it goes.
pub(super) type Change<'a> = (Cow<'a, [u8]>, Option<Vec<u8>>);

/// All blocks of one kind.
#[derive(Debug)]
pub(super) struct Blocks {
    kind: Kind,
    /// Those that were read since the last change, by their first keys.
    loaded: BTreeMap<Box<[u8]>, Block>,
}

#[derive(Debug)]
struct Block {
    /// Where the next one begins.
    end: Option<Box<[u8]>>,
    entries: Box<[u8]>,
}

impl Blocks {
    pub(super) fn new(kind: Kind) -> Blocks {
        Blocks { kind, loaded: BTreeMap::new() }
    }

    /// Forgets what was read: it may be of a transaction that never was.
    pub(super) fn forget(&mut self) {
        self.loaded.clear();
    }

    /// The value of an entry.
    pub(super) fn get(&mut self, db: &Connection, key: &[u8]) -> rusqlite::Result<Option<&[u8]>> {
        self.load(db, key)?;
        Ok(self.loaded(key).and_then(|(_, block)| find(&block.entries, key)))
    }

    /// Calls `each` with all entries from `from` on to before `to`, in the order of their keys.
    pub(super) fn range(
        &self,
        db: &Connection,
        (from, to): (&[u8], &[u8]),
        mut each: impl FnMut(&[u8], &[u8]) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let sql = "SELECT entries FROM block WHERE kind = ?1 AND first < ?3 AND first >= \
                   (SELECT max(first) FROM block WHERE kind = ?1 AND first <= ?2) ORDER BY first";
        let mut blocks = db.prepare_cached(sql)?;
        let mut rows = blocks.query(params![self.kind as u8, from, to])?;
        while let Some(r) = rows.next()? {
            walk(r.get_ref(0)?.as_blob()?, |key, value| match from <= key && key < to {
                true => each(key, value),
                false => Ok(()),
            })?;
        }
        Ok(())
    }

    /// Calls `each` with all marked entries, in the order of their keys.
    pub(super) fn marked(
        &self,
        db: &Connection,
        mut each: impl FnMut(&[u8], &[u8]) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let sql = "SELECT entries FROM block WHERE kind = ?1 AND marked ORDER BY first";
        let mut blocks = db.prepare_cached(sql)?;
        let mut rows = blocks.query([self.kind as u8])?;
        while let Some(r) = rows.next()? {
            walk(r.get_ref(0)?.as_blob()?, |key, value| match is_marked(value) {
                true => each(key, value),
                false => Ok(()),
            })?;
        }
        Ok(())
    }

    /// Makes changes; of two of the same entry the last counts.
    pub(super) fn put(&mut self, db: &Connection, mut changes: Vec<Change<'_>>) -> rusqlite::Result<()> {
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        changes.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        let mut put = db.prepare_cached("INSERT OR REPLACE INTO block VALUES (?1, ?2, ?3, ?4)")?;
        let mut drop = db.prepare_cached("DELETE FROM block WHERE kind = ?1 AND first = ?2")?;
        let mut rest = &changes[..];
        while let Some((key, _)) = rest.first() {
            self.load(db, key)?;
            let Some((first, block)) = self.loaded(key) else { return Err(damaged()) };
            let inside = |key: &[u8]| block.end.as_ref().is_none_or(|end| *key < **end);
            let (here, behind) = rest.split_at(rest.partition_point(|(key, _)| inside(key)));
            rest = behind;
            for piece in block.with(first, here)? {
                if piece.entries.is_empty() && !piece.first.is_empty() {
                    drop.execute(params![self.kind as u8, piece.first])?;
                } else {
                    put.execute(params![self.kind as u8, piece.first, piece.marked, piece.entries])?;
                }
            }
        }
        self.loaded.clear();
        Ok(())
    }

    /// The block that has this key in its range, if it is in memory.
    fn loaded(&self, key: &[u8]) -> Option<(&[u8], &Block)> {
        let before = (Bound::Unbounded, Bound::Included(key));
        let (first, block) = self.loaded.range::<[u8], _>(before).next_back()?;
        block.end.as_ref().is_none_or(|end| *key < **end).then_some((first, block))
    }

    /// Brings that block into memory.
    fn load(&mut self, db: &Connection, key: &[u8]) -> rusqlite::Result<()> {
        if self.loaded(key).is_some() {
            return Ok(());
        }
        if self.loaded.len() >= LOADED {
            self.loaded.clear();
        }
        let sql = "SELECT first, entries, \
                   (SELECT first FROM block WHERE kind = ?1 AND first > ?2 ORDER BY first LIMIT 1) \
                   FROM block WHERE kind = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1";
        let (first, block) = db.prepare_cached(sql)?.query_row(params![self.kind as u8, key], |r| {
            let entries = r.get_ref(1)?.as_blob()?;
            walk(entries, |_, _| Ok(()))?;
            let end = r.get_ref(2)?.as_blob_or_null()?.map(Box::from);
            Ok((Box::from(r.get_ref(0)?.as_blob()?), Block { end, entries: entries.into() }))
        })?;
        self.loaded.insert(first, block);
        Ok(())
    }
}

impl Block {
    /// The block, which begins at `first`, with changes that are all in its range.
    fn with(&self, first: &[u8], changes: &[Change<'_>]) -> rusqlite::Result<Vec<Piece>> {
        let new = changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len) + 4);
        let total = self.entries.len() + new.sum::<usize>();
        let mut pieces = Pieces::new(first, total / total.div_ceil(LENGTH).max(1));
        let mut changes = changes.iter().peekable();
        walk(&self.entries, |key, value| {
            while let Some((key, value)) = changes.next_if(|(k, _)| **k < *key) {
                pieces.push(key, value.as_deref());
            }
            match changes.next_if(|(k, _)| **k == *key) {
                Some((key, value)) => pieces.push(key, value.as_deref()),
                None => pieces.push(key, Some(value)),
            }
            Ok(())
        })?;
        for (key, value) in changes {
            pieces.push(key, value.as_deref());
        }
        Ok(pieces.all)
    }
}

/// A block as it is written.
#[derive(Debug, Default)]
struct Piece {
    first: Vec<u8>,
    marked: bool,
    entries: Vec<u8>,
}

/// Writes entries in the order of their keys, and splits them into blocks.
struct Pieces {
    all: Vec<Piece>,
    /// So long each of them should become, so that they become alike.
    goal: usize,
    /// The last key.
    key: Vec<u8>,
}

impl Pieces {
    fn new(first: &[u8], goal: usize) -> Pieces {
        Pieces { all: vec![Piece { first: first.to_vec(), ..Piece::default() }], goal, key: Vec::new() }
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some(value) = value else { return };
        let long = |piece: &Piece| {
            let length = piece.entries.len();
            // A very long value gets a block of its own.
            length > 0 && (length >= self.goal || length + value.len() > LENGTH)
        };
        if self.all.last().is_none_or(long) {
            self.all.push(Piece { first: key.to_vec(), ..Piece::default() });
            self.key.clear();
        }
        let Some(piece) = self.all.last_mut() else { return };
        let shared = alike(&self.key, key);
        let rest = &key[shared..];
        varint(&mut piece.entries, shared as u64);
        varint(&mut piece.entries, rest.len() as u64);
        piece.entries.extend_from_slice(rest);
        varint(&mut piece.entries, value.len() as u64);
        piece.entries.extend_from_slice(value);
        piece.marked |= is_marked(value);
        self.key.truncate(shared);
        self.key.extend_from_slice(rest);
    }
}

fn is_marked(value: &[u8]) -> bool {
    value.first().is_some_and(|first| first & 1 == 1)
}

/// So many bytes two keys begin with are the same.
fn alike(a: &[u8], b: &[u8]) -> usize {
    let eights = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let at = 8 * eights.take_while(|(a, b)| a == b).count();
    at + a[at..].iter().zip(&b[at..]).take_while(|(a, b)| a == b).count()
}

/// The entries of a block, their keys as they are stored.
struct Entries<'a>(&'a [u8]);

struct Entry<'a> {
    /// Bytes of the key that it shares with the one before.
    shared: usize,
    rest: &'a [u8],
    value: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let mut bytes = self.0;
        let shared = take_varint(&mut bytes)?;
        let mut take = || {
            let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
            let (taken, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            Some(taken)
        };
        let entry = Entry { shared: usize::try_from(shared).ok()?, rest: take()?, value: take()? };
        self.0 = bytes;
        Some(entry)
    }
}

/// The value of `key` in a block, found without putting the keys together.
fn find<'a>(entries: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    // So many bytes the key has in common with that of the entry before, which is less.
    let mut known = 0;
    for entry in Entries(entries) {
        if entry.shared > known {
            continue; // It differs from the key where the one before does.
        }
        if entry.shared < known {
            return None; // It is already greater where the one before was alike.
        }
        let ours = &key[known..];
        let more = alike(entry.rest, ours);
        match (entry.rest.get(more), ours.get(more)) {
            (None, None) => return Some(entry.value),
            (theirs, ours) if theirs > ours => return None,
            _ => known += more,
        }
    }
    None
}

/// Calls `each` with key and value of every entry.
fn walk(entries: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    let mut key = Vec::new();
    let mut entries = Entries(entries);
    for entry in entries.by_ref() {
        if entry.shared > key.len() {
            return Err(damaged());
        }
        key.truncate(entry.shared);
        key.extend_from_slice(entry.rest);
        each(&key, entry.value)?;
    }
    if entries.0.is_empty() { Ok(()) } else { Err(damaged()) }
}

/// What is said of bytes that no ledger has written.
pub(super) fn damaged() -> rusqlite::Error {
    let said = "damaged; move the store away and let it be made again from the journals";
    rusqlite::Error::FromSqlConversionFailure(1, Type::Blob, said.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Keys that have much in common, nothing, or no sense.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            8 => "n[0-9]{1,2}-[0-9a-f]{8}-[0-9]{1,3}".prop_map(String::into_bytes),
            1 => vec(prop_oneof![Just(0), Just(b'n'), any::<u8>()], 0..4),
            1 => (0usize..3000).prop_map(|n| vec![b'n'; n]),
        ]
    }

    fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop_oneof![1 => Just(None), 8 => vec(0u8..4, 0..6).prop_map(Some), 1 => vec(0u8..4, 0..3000).prop_map(Some)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn blocks_are_a_sorted_map(
            batches in vec(vec((key(), value()), 0..120), 1..6), others in vec(key(), 40), all in any::<bool>(),
        ) {
            let db = Connection::open_in_memory().unwrap();
            db.execute_batch(TABLES).unwrap();
            let (mut blocks, mut model) = (Blocks::new(Kind::Job), BTreeMap::new());
            for batch in batches {
                for key in &others {
                    prop_assert_eq!(blocks.get(&db, key).unwrap(), model.get(key).map(Vec::as_slice));
                }
                for (key, value) in &batch {
                    match value {
                        Some(value) => model.insert(key.clone(), value.clone()),
                        None => model.remove(key),
                    };
                }
                blocks.put(&db, batch.iter().map(|(k, v)| (k.into(), v.clone())).collect()).unwrap();
                for (key, _) in &batch {
                    prop_assert_eq!(blocks.get(&db, key).unwrap(), model.get(key).map(Vec::as_slice));
                }
            }
            let (from, to) = if all { (&[][..], &[255; 9][..]) } else { (&others[0][..], &others[1][..]) };
            let mut found = Vec::new();
            blocks.range(&db, (from, to), |k, v| { found.push((k.to_vec(), v.to_vec())); Ok(()) }).unwrap();
            let inside = model.iter().filter(|(k, _)| from <= &k[..] && &k[..] < to);
            prop_assert_eq!(found, inside.map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>());
            let mut found = Vec::new();
            blocks.marked(&db, |k, v| { found.push((k.to_vec(), v.to_vec())); Ok(()) }).unwrap();
            let marked = model.iter().filter(|(_, v)| is_marked(v));
            prop_assert_eq!(found, marked.map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>());

            // One key and value may be long; that many entries never are, and none is empty for nothing.
            let sql = "SELECT first, entries FROM block WHERE kind = 1";
            let mut rows = db.prepare(sql).unwrap();
            let rows = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
            for row in rows {
                let (first, entries): (Vec<u8>, Vec<u8>) = row.unwrap();
                prop_assert!(entries.len() <= LENGTH + 3100 || Entries(&entries).count() == 1);
                prop_assert!(first.is_empty() || !entries.is_empty());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(entries in vec(any::<u8>(), 0..60), key in vec(any::<u8>(), 0..9)) {
            let _ = (walk(&entries, |_, _| Ok(())).is_ok(), find(&entries, &key));
        }
    }
}
