//! A map whose copies share what did not change: 256 hash maps behind counted references. A copy costs one
//! reference, the first change to a shared shard copies that shard alone.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;

const SHARDS: usize = 256;

/// Fixed keys: the order of iteration is a function of the content alone. Keys come from the control plane, which
/// is trusted not to collide them.
type Hasher = BuildHasherDefault<DefaultHasher>;
type Shard<K, V> = HashMap<K, V, Hasher>;

#[derive(Debug)]
pub(crate) struct Shards<K, V> {
    shards: Arc<Vec<Arc<Shard<K, V>>>>,
    len: usize,
}

impl<K, V> Clone for Shards<K, V> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone(), len: self.len }
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let empty = Arc::new(Shard::default());
        Self { shards: Arc::new(vec![empty; SHARDS]), len: 0 }
    }
}

fn index<Q: Hash + ?Sized>(key: &Q) -> usize {
    // The upper bits: the maps inside use the lower ones.
    usize::try_from(Hasher::default().hash_one(key) >> 32).unwrap_or(0) % SHARDS
}

impl<K: Eq + Hash + Clone, V: Clone> Shards<K, V> {
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards.get(index(key))?.get(key)
    }

    fn shard_mut<Q: Hash + ?Sized>(&mut self, key: &Q) -> &mut Shard<K, V> {
        let shards = Arc::make_mut(&mut self.shards);
        Arc::make_mut(&mut shards[index(key)])
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = self.shard_mut(&key).insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.get(key)?;
        let before = self.shard_mut(key).remove(key);
        self.len -= usize::from(before.is_some());
        before
    }

    /// Changes the value under `key`, which starts empty and is removed when it ends empty.
    pub(crate) fn edit(&mut self, key: &K, change: impl FnOnce(&mut V))
    where
        V: Default + IsEmpty,
    {
        let shard = self.shard_mut(key);
        let mut value = shard.remove(key);
        let before = usize::from(value.is_some());
        let mut next = value.take().unwrap_or_default();
        change(&mut next);
        let after = usize::from(!next.is_empty());
        if after == 1 {
            shard.insert(key.clone(), next);
        }
        self.len = self.len + after - before;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// Collections that [`Shards::edit`] drops when they run empty.
pub(crate) trait IsEmpty {
    fn is_empty(&self) -> bool;
}

impl<T> IsEmpty for Vec<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<T> IsEmpty for Arc<[T]> {
    fn is_empty(&self) -> bool {
        (**self).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_do_not_see_each_others_changes() {
        let mut first: Shards<u32, Vec<u32>> = Shards::default();
        for n in 0..1000 {
            first.insert(n, vec![n]);
        }
        let mut second = first.clone();
        second.remove(&7);
        second.edit(&8, Vec::clear);
        second.edit(&2000, |v| v.push(1));
        assert_eq!((first.len(), second.len()), (1000, 999));
        assert_eq!((first.get(&7), second.get(&7)), (Some(&vec![7]), None));
        assert_eq!((first.get(&8), second.get(&8)), (Some(&vec![8]), None));
        assert_eq!(second.iter().count(), 999);
    }

    #[test]
    fn a_small_change_copies_one_shard_in_256() {
        let mut first: Shards<u32, u32> = Shards::default();
        for n in 0..10_000 {
            first.insert(n, n);
        }
        let mut second = first.clone();
        second.insert(7, 8);
        let pairs = first.shards.iter().zip(second.shards.iter());
        assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
        let largest = first.shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(largest < 100, "{largest} of 10000 in one shard");
    }
}
