//! A table of what comes and goes by the thousand, in little more than what the values take.

/// Values by the number of their place, which is free for another one once they are taken out: whoever holds a number takes
/// its value out once.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

/// Empty tables up to this size are kept.
const FEW: usize = 64;

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Puts a value into a free place.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop()
            && let Some(place) = self.places.get_mut(at(number))
        {
            *place = Some(value);
            return number;
        }
        self.places.push(Some(value));
        u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
    }

    /// Takes a value out. An empty table does not stay as large as it was.
    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.places.get_mut(at(number))?.take()?;
        self.free.push(number);
        if self.free.len() == self.places.len() {
            if self.places.capacity() > FEW {
                *self = Self::default();
            } else {
                self.places.clear();
                self.free.clear();
            }
        }
        Some(value)
    }

    /// The values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    /// The values, when the table is not used any more.
    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.places.into_iter().flatten()
    }
}

fn at(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_an_empty_table_is_small() {
        let mut slots = Slots::default();
        let numbers: Vec<u32> = (0..1000).map(|n| slots.insert(Box::new(n))).collect();
        assert_eq!(slots.remove(numbers[7]).as_deref(), Some(&7));
        assert_eq!(slots.remove(numbers[7]), None);
        assert_eq!(slots.insert(Box::new(5000)), numbers[7]);
        assert_eq!(slots.iter().count(), 1000);
        for number in numbers {
            assert!(slots.remove(number).is_some());
        }
        assert!(slots.places.capacity() <= FEW && slots.free.capacity() <= FEW);
        assert_eq!(slots.insert(Box::new(1)), 0);
        assert_eq!(slots.into_values().collect::<Vec<_>>(), [Box::new(1)]);
    }
}
