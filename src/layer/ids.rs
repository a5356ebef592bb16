//! Uid and gid maps between what is on disk and what the mount shows.

/// One range of ids: those shown from `inside` on are kept on disk from `outside` on. Engines write
/// it the other way round, `uidmapping=0:100000:1000`: their layers hold the ids of the container,
/// and the mount shows those of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id as the mount shows it.
    pub inside: u32,
    /// First id on disk.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

/// What an id without a mapping shows as (the kernel's overflow id).
pub const OVERFLOW_ID: u32 = 65534;

/// How ids on disk are shown, and how shown ids are kept. Empty: as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    ranges: Vec<IdRange>,
    squash: Option<u32>,
}

impl IdMap {
    /// A map of `ranges`; `squash` shows every id as this one.
    pub fn new(ranges: Vec<IdRange>, squash: Option<u32>) -> IdMap {
        IdMap { ranges, squash }
    }

    /// The id to show for one on disk.
    pub fn to_view(&self, disk: u32) -> u32 {
        if let Some(id) = self.squash {
            return id;
        }
        if self.ranges.is_empty() {
            return disk;
        }
        let found = self.ranges.iter().find_map(|r| {
            let offset = disk.checked_sub(r.outside)?;
            (offset < r.count).then(|| r.inside.wrapping_add(offset))
        });
        found.unwrap_or(OVERFLOW_ID)
    }

    /// The id to keep on disk for a shown one; `None` where the map has none.
    pub fn to_disk(&self, shown: u32) -> Option<u32> {
        if self.ranges.is_empty() {
            return Some(shown);
        }
        self.ranges.iter().find_map(|r| {
            let offset = shown.checked_sub(r.inside)?;
            (offset < r.count).then(|| r.outside.wrapping_add(offset))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_map_both_ways() {
        let map = IdMap::new(vec![IdRange { inside: 0, outside: 100_000, count: 1000 }], None);
        assert_eq!(map.to_view(100_005), 5);
        assert_eq!(map.to_disk(5), Some(100_005));
        assert_eq!(map.to_view(7), OVERFLOW_ID);
        assert_eq!(map.to_disk(1000), None);
        assert_eq!(IdMap::default().to_view(7), 7);
        assert_eq!(IdMap::new(Vec::new(), Some(0)).to_view(7), 0);
    }
}
