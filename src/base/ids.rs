//! Dense ids and the maps they index. The graph owns things; everything else holds ids.

use std::marker::PhantomData;

/// An index into an [`IdMap`].
pub trait Id: Copy + Eq + Ord {
    /// Makes the id of position `index`.
    fn from_index(index: usize) -> Self;
    /// The position.
    fn index(self) -> usize;
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl crate::base::compact::Compact for $name {
            fn put(&self, writer: &mut crate::base::compact::Writer) {
                self.0.put(writer);
            }
            fn take(reader: &mut crate::base::compact::Reader<'_>) -> Option<Self> {
                u32::take(reader).map(Self)
            }
        }

        impl Id for $name {
            fn from_index(index: usize) -> Self {
                Self(u32::try_from(index).expect("limits keep every table below 2^32 rows"))
            }
            fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id_type!(
    /// A task of the loaded workspace.
    TaskId
);
id_type!(
    /// A package of the loaded workspace.
    PackageId
);

/// A vector indexed by its own id type.
#[derive(Clone, Debug)]
pub struct IdMap<K, V> {
    values: Vec<V>,
    key: PhantomData<K>,
}

impl<K: Id, V> Default for IdMap<K, V> {
    fn default() -> Self {
        Self { values: Vec::new(), key: PhantomData }
    }
}

impl<K: Id, V> IdMap<K, V> {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// A map with one equal value for each of `count` ids.
    pub fn filled(count: usize, value: V) -> Self
    where
        V: Clone,
    {
        Self { values: vec![value; count], key: PhantomData }
    }

    /// Appends and returns the new id.
    pub fn push(&mut self, value: V) -> K {
        self.values.push(value);
        K::from_index(self.values.len() - 1)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values in id order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.values.iter()
    }

    /// Ids and values in id order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.values.iter().enumerate().map(|(index, value)| (K::from_index(index), value))
    }

    /// The ids in order.
    pub fn ids(&self) -> impl Iterator<Item = K> + use<K, V> {
        (0..self.values.len()).map(K::from_index)
    }
}

impl<K: Id, V> FromIterator<V> for IdMap<K, V> {
    fn from_iter<I: IntoIterator<Item = V>>(iter: I) -> Self {
        Self { values: iter.into_iter().collect(), key: PhantomData }
    }
}

impl<K: Id, V> std::ops::Index<K> for IdMap<K, V> {
    type Output = V;
    fn index(&self, id: K) -> &V {
        &self.values[id.index()]
    }
}

impl<K: Id, V> std::ops::IndexMut<K> for IdMap<K, V> {
    fn index_mut(&mut self, id: K) -> &mut V {
        &mut self.values[id.index()]
    }
}
