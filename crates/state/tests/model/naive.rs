//! The keyspace as plainly as it can be said: a whole map for every revision.

use super::*;

pub type State = BTreeMap<Vec<u8>, KeyValue>;

/// A change as it is on record: its revision, whether it is a tombstone, and its key.
pub type Change = (Revision, bool, Vec<u8>);

pub struct Model {
    /// The state after each revision.
    pub states: BTreeMap<i64, State>,
    /// All changes ever.
    pub changes: Vec<Change>,
    pub revision: i64,
    pub compacted: i64,
    pub leases: BTreeSet<i64>,
}

/// A write transaction of the model.
pub struct Draft<'a> {
    pub model: &'a mut Model,
    pub state: State,
    pub changes: Vec<Change>,
}

impl Model {
    pub fn new() -> Model {
        let states = BTreeMap::from([(1, State::new())]);
        Model {
            states,
            changes: Vec::new(),
            revision: 1,
            compacted: -1,
            leases: BTreeSet::new(),
        }
    }

    pub fn current(&self) -> &State {
        &self.states[&self.revision]
    }

    pub fn write<T>(&mut self, write: impl FnOnce(&mut Draft<'_>) -> T) -> T {
        let state = self.current().clone();
        let mut draft = Draft {
            model: self,
            state,
            changes: Vec::new(),
        };
        let result = write(&mut draft);
        let Draft { state, changes, .. } = draft;
        if !changes.is_empty() {
            self.revision += 1;
            self.states.insert(self.revision, state);
            self.changes.extend(changes);
        }
        result
    }

    pub fn range(&self, r: &RangeRequest) -> Result<Expected, ApplyError> {
        range(
            &self.states,
            self.current(),
            self.revision,
            self.compacted,
            r,
        )
    }

    pub fn execute(&mut self, request: &Request) -> Result<Answer, ApplyError> {
        match request {
            Request::RequestRange(range) => self.range(range).map(Answer::Range),
            Request::RequestPut(put) => {
                check_put(put, self.current(), &self.leases)?;
                Ok(self.write(|draft| draft.put(put)))
            }
            Request::RequestDeleteRange(delete) => Ok(self.write(|draft| draft.delete(delete))),
            Request::RequestTxn(txn) => {
                let path = txn.visit(|txn| choose(txn, self.current()));
                check_path(&path, self)?;
                let answer = self.write(|draft| draft.execute(&path));
                let Answer::Txn(_, succeeded, answers) = answer else {
                    panic!("a txn's answer")
                };
                Ok(Answer::Txn(self.revision, succeeded, answers))
            }
        }
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), ApplyError> {
        if revision <= self.compacted {
            return Err(ApplyError::Compacted);
        }
        if revision > self.revision {
            return Err(ApplyError::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    /// The changes of `key`, split into generations that end with a tombstone; the last one may be
    /// empty. Without those that compactions removed.
    pub fn generations(&self, key: &[u8]) -> Vec<Vec<Change>> {
        let mut generations = vec![Vec::new()];
        for change in self.changes.iter().filter(|(_, _, changed)| changed == key) {
            generations.last_mut().unwrap().push(change.clone());
            if change.1 {
                generations.push(Vec::new());
            }
        }
        generations
    }

    /// The changes that a compaction at `at` keeps of those before it.
    pub fn kept(&self, at: i64, tombstones: bool) -> BTreeSet<Revision> {
        let keys: BTreeSet<_> = self.changes.iter().map(|(_, _, key)| key.clone()).collect();
        let mut kept = BTreeSet::new();
        for key in keys {
            let generations = self.generations(&key);
            let last = generations.len() - 1;
            let (i, generation) = generations
                .iter()
                .enumerate()
                .find(|(i, g)| *i == last || g.last().unwrap().0.main >= at)
                .unwrap();
            let newest = generation
                .iter()
                .rposition(|(revision, _, _)| revision.main <= at);
            if let Some(newest) = newest {
                let ends = newest + 1 == generation.len() && i != last;
                if tombstones || !ends {
                    kept.insert(generation[newest].0);
                }
            }
        }
        kept
    }

    /// The hash of `rows` as the format's description has it.
    pub fn hash(rows: &[Row], revision: i64, compacted: i64, keep: &BTreeSet<Revision>) -> u32 {
        let mut bytes = b"key".to_vec();
        for (at, tombstone, key, value) in rows {
            let unreadable = at.main <= compacted && !keep.is_empty() && !keep.contains(at);
            if at.main > revision || unreadable || at.main == compacted && *tombstone {
                continue;
            }
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
        crc32c::crc32c(&bytes)
    }
}

/// A row of bucket `key`.
pub type Row = (Revision, bool, Vec<u8>, Vec<u8>);

pub fn rows(backend: &Backend) -> Vec<Row> {
    let rows = backend.reader();
    let rows = rows.range(Bucket::Key, b"", None).map(|row| {
        let (key, value) = row.unwrap();
        let (revision, tombstone) = Revision::from_key(&key).unwrap();
        (revision, tombstone, key.to_vec(), value.to_vec())
    });
    rows.collect()
}

#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub revision: i64,
    pub kvs: Vec<KeyValue>,
    pub more: bool,
    pub count: i64,
    pub projection: Projection,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Range(Expected),
    Put(i64, Option<KeyValue>),
    Delete(i64, i64, Vec<KeyValue>),
    Txn(i64, bool, Vec<Answer>),
}

impl Draft<'_> {
    pub fn revision(&self) -> i64 {
        self.model.revision + i64::from(!self.changes.is_empty())
    }

    pub fn change(&mut self, key: &[u8], tombstone: bool) {
        let revision = Revision {
            main: self.model.revision + 1,
            sub: self.changes.len() as i64,
        };
        self.changes.push((revision, tombstone, key.to_vec()));
    }

    pub fn put(&mut self, put: &PutRequest) -> Answer {
        let prev = self.state.get(&put.key[..]).cloned();
        let main = self.model.revision + 1;
        let old = prev.clone().unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: prev.as_ref().map_or(main, |prev| prev.create_revision),
            mod_revision: main,
            version: old.version + 1,
            value: if put.ignore_value {
                old.value
            } else {
                put.value.clone()
            },
            lease: if put.ignore_lease {
                old.lease
            } else {
                put.lease
            },
        };
        self.state.insert(put.key.to_vec(), kv);
        self.change(&put.key, false);
        Answer::Put(main, prev.filter(|_| put.prev_kv))
    }

    pub fn delete(&mut self, delete: &DeleteRangeRequest) -> Answer {
        let gone: Vec<KeyValue> = inside(&self.state, &delete.key, &delete.range_end)
            .cloned()
            .collect();
        for kv in &gone {
            self.state.remove(&kv.key[..]);
            self.change(&kv.key, true);
        }
        let deleted = gone.len() as i64;
        Answer::Delete(
            self.revision(),
            deleted,
            if delete.prev_kv { gone } else { vec![] },
        )
    }

    pub fn execute(&mut self, path: &Path<'_>) -> Answer {
        let mut nested = path.nested.iter();
        let mut answers = Vec::new();
        for op in path.ops {
            answers.push(match op.request.as_ref().unwrap() {
                Request::RequestRange(r) => {
                    let (revision, compacted) = (self.revision(), self.model.compacted);
                    let states = &self.model.states;
                    Answer::Range(range(states, &self.state, revision, compacted, r).unwrap())
                }
                Request::RequestPut(put) => self.put(put),
                Request::RequestDeleteRange(delete) => self.delete(delete),
                Request::RequestTxn(_) => self.execute(nested.next().unwrap()),
            });
        }
        Answer::Txn(0, path.succeeded, answers)
    }
}

pub fn inside<'a>(
    state: &'a State,
    key: &'a [u8],
    end: &'a [u8],
) -> impl Iterator<Item = &'a KeyValue> {
    state.values().filter(move |kv| match end {
        b"" => kv.key == key,
        b"\0" => &kv.key[..] >= key,
        end => &kv.key[..] >= key && &kv.key[..] < end,
    })
}

pub fn range(
    states: &BTreeMap<i64, State>,
    current: &State,
    revision: i64,
    compacted: i64,
    r: &RangeRequest,
) -> Result<Expected, ApplyError> {
    if r.revision > revision {
        return Err(ApplyError::FutureRevision);
    }
    if r.revision > 0 && r.revision < compacted {
        return Err(ApplyError::Compacted);
    }
    let state = if r.revision > 0 && r.revision < revision {
        // A compaction may have been at a revision older than any state on record.
        &states[&r.revision]
    } else {
        current
    };
    let mut kvs: Vec<KeyValue> = inside(state, &r.key, &r.range_end).cloned().collect();
    let count = kvs.len() as i64;
    let within = |min: i64, max: i64, n: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
    kvs.retain(|kv| {
        within(r.min_mod_revision, r.max_mod_revision, kv.mod_revision)
            && within(
                r.min_create_revision,
                r.max_create_revision,
                kv.create_revision,
            )
    });
    let bounds = [
        r.min_mod_revision,
        r.max_mod_revision,
        r.min_create_revision,
        r.max_create_revision,
    ];
    if r.sort_order == 0 && r.limit > 0 && bounds == [0; 4] {
        // Without an order the limit comes before the sorting.
        kvs.truncate(r.limit as usize + 1);
    }
    kvs.sort_by(|a, b| {
        let ordering = match r.sort_target {
            0 => a.key.cmp(&b.key),
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            _ => a.value.cmp(&b.value),
        };
        if r.sort_order == 2 {
            ordering.reverse()
        } else {
            ordering
        }
    });
    let more = r.limit > 0 && kvs.len() as i64 > r.limit && !r.count_only;
    if r.limit > 0 {
        kvs.truncate(r.limit as usize);
    }
    if r.count_only {
        kvs.clear();
    }
    let projection = match r.keys_only {
        false => Projection::Full,
        true => Projection::WithoutValue,
    };
    let kvs = kvs.into_iter().map(|kv| crate::shown(kv, projection));
    Ok(Expected {
        revision,
        kvs: kvs.collect(),
        more,
        count,
        projection,
    })
}

pub struct Path<'a> {
    pub succeeded: bool,
    pub ops: &'a [RequestOp],
    pub nested: Vec<Path<'a>>,
}

pub fn choose<'a>(txn: &'a TxnRequest, state: &State) -> Path<'a> {
    let succeeded = txn.compare.iter().all(|compare| holds(compare, state));
    let ops = if succeeded {
        &txn.success
    } else {
        &txn.failure
    };
    let nested = ops
        .iter()
        .filter_map(|op| match op.request.as_ref().unwrap() {
            Request::RequestTxn(txn) => Some(txn.visit(|txn| choose(txn, state))),
            _ => None,
        });
    Path {
        succeeded,
        ops,
        nested: nested.collect(),
    }
}

pub fn check_path(path: &Path<'_>, model: &Model) -> Result<(), ApplyError> {
    let mut nested = path.nested.iter();
    for op in path.ops {
        match op.request.as_ref().unwrap() {
            Request::RequestRange(r) if r.revision > model.revision => {
                return Err(ApplyError::FutureRevision);
            }
            Request::RequestRange(r) if r.revision != 0 && r.revision < model.compacted => {
                return Err(ApplyError::Compacted);
            }
            Request::RequestPut(put) => check_put(put, model.current(), &model.leases)?,
            Request::RequestTxn(_) => check_path(nested.next().unwrap(), model)?,
            _ => {}
        }
    }
    Ok(())
}

pub fn check_put(
    put: &PutRequest,
    state: &State,
    leases: &BTreeSet<i64>,
) -> Result<(), ApplyError> {
    if put.lease != 0 && !leases.contains(&put.lease) {
        return Err(ApplyError::LeaseNotFound);
    }
    if (put.ignore_value || put.ignore_lease) && !state.contains_key(&put.key[..]) {
        return Err(ApplyError::KeyNotFound);
    }
    Ok(())
}

pub fn holds(compare: &Compare, state: &State) -> bool {
    let kvs: Vec<&KeyValue> = inside(state, &compare.key, &compare.range_end).collect();
    let absent = KeyValue::default();
    if kvs.is_empty() {
        return compare.target != 3 && holds_for(compare, &absent);
    }
    kvs.iter().all(|kv| holds_for(compare, kv))
}

pub fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let ordering = match compare.target_union.as_ref().unwrap() {
        TargetUnion::Version(n) => kv.version.cmp(n),
        TargetUnion::CreateRevision(n) => kv.create_revision.cmp(n),
        TargetUnion::ModRevision(n) => kv.mod_revision.cmp(n),
        TargetUnion::Value(value) => kv.value.cmp(value),
        TargetUnion::Lease(n) => kv.lease.cmp(n),
    };
    match compare.result {
        0 => ordering == Ordering::Equal,
        1 => ordering == Ordering::Greater,
        2 => ordering == Ordering::Less,
        _ => ordering != Ordering::Equal,
    }
}
