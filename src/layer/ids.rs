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
        // A layer on an idmapped mount gives ids that are mapped already: podman 4.3 makes such
        // mounts of its layers and asks for the maps as well.
        found.unwrap_or_else(|| if self.to_disk(disk).is_some() { disk } else { OVERFLOW_ID })
    }

    /// The id to keep on disk for one that a layer gave: that of the container, also where the
    /// layer is on an idmapped mount.
    pub fn kept(&self, given: u32) -> u32 {
        if self.is_on_disk(given) {
            return given;
        }
        self.to_disk(given).unwrap_or(given)
    }

    /// The id to keep for an owner that is given to a file: a shown one, or as engines give it
    /// from outside of the container, one of the container's own (podman gives the root of a
    /// container that runs to 0:0 when it compares it). `None` for neither.
    pub fn owner(&self, given: u32) -> Option<u32> {
        self.to_disk(given).or_else(|| self.is_on_disk(given).then_some(given))
    }

    /// The id to keep for what user or group `caller` makes. Root of the machine, to whom the map
    /// gives no id, makes it as the container's root, and gives it to whom it is for; others who
    /// have no id are nobody.
    pub fn maker(&self, caller: u32) -> u32 {
        let own = self.to_disk(caller);
        own.or((caller == 0 && self.is_on_disk(0)).then_some(0)).unwrap_or(OVERFLOW_ID)
    }

    fn is_on_disk(&self, id: u32) -> bool {
        self.ranges.iter().any(|r| id.checked_sub(r.outside).is_some_and(|n| n < r.count))
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
        assert_eq!(map.to_view(2000), OVERFLOW_ID);
        assert_eq!(map.to_disk(1000), None);
        assert_eq!((map.to_view(7), map.kept(7)), (7, 100_007), "mapped already");
        assert_eq!((map.kept(100_007), map.kept(2000)), (100_007, 2000));
        assert_eq!(
            (map.owner(5), map.owner(100_005), map.owner(2000)),
            (Some(100_005), Some(100_005), None)
        );
        assert_eq!(
            (map.maker(5), map.maker(2000), map.maker(100_005)),
            (100_005, OVERFLOW_ID, OVERFLOW_ID)
        );
        let engine = IdMap::new(vec![IdRange { inside: 100_000, outside: 0, count: 1000 }], None);
        assert_eq!((engine.maker(100_005), engine.maker(0), engine.maker(5)), (5, 0, OVERFLOW_ID));
        assert_eq!(
            (engine.owner(100_005), engine.owner(0), engine.owner(5)),
            (Some(5), Some(0), Some(5))
        );
        assert_eq!((IdMap::default().owner(7), IdMap::default().maker(7)), (Some(7), 7));
        assert_eq!(IdMap::default().to_view(7), 7);
        assert_eq!(IdMap::new(Vec::new(), Some(0)).to_view(7), 0);
    }
}
