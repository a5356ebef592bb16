//! Maps of sparse files in tar archives: GNU's old form and the three PAX forms.
//!
//! The `tar` crate reads the old form alone and turns holes into bytes, so a small archive could
//! claim a file of exabytes of zeros; here a hole costs nothing, whatever its length.

use super::pax::parse_decimal;

/// The most that the text of one map may take.
pub(crate) const MAP_MAX: u64 = 1 << 20;

/// A run of data that the archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) length: u64,
}

/// Where the data of a sparse file goes, and how long the file is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SparseMap {
    pub(crate) extents: Vec<Extent>,
    pub(crate) size: u64,
}

impl SparseMap {
    /// Whether extents ascend without overlap inside the file and hold `stored` bytes together.
    pub(crate) fn check(&self, stored: u64) -> Result<(), &'static str> {
        let mut end = 0u64;
        let mut held = 0u64;
        for extent in &self.extents {
            if extent.offset < end {
                return Err("a sparse map that overlaps or goes backwards");
            }
            end = extent.offset.checked_add(extent.length).ok_or("a sparse map that overflows")?;
            held += extent.length;
        }
        if end > self.size {
            return Err("a sparse map that reaches past the end of its file");
        }
        if held != stored {
            return Err("a sparse map that does not match the data stored");
        }
        Ok(())
    }

    /// Adds the entries of one block of GNU's old form: 12-byte pairs; a zero field ends them.
    pub(crate) fn add_old_gnu(
        &mut self,
        entries: &[tar::GnuSparseHeader],
    ) -> Result<(), &'static str> {
        const BROKEN: &str = "a sparse header with a broken number";
        for entry in entries {
            if entry.is_empty() {
                continue;
            }
            let offset = entry.offset().map_err(|_| BROKEN)?;
            let length = entry.length().map_err(|_| BROKEN)?;
            self.extents.push(Extent { offset, length });
        }
        Ok(())
    }
}

/// What the PAX records of one entry say about sparseness.
#[derive(Debug, Default)]
pub(crate) struct PaxSparse {
    major: Option<u64>,
    size: Option<u64>,
    numbers: Vec<u64>,
    pub(crate) name: Option<Vec<u8>>,
}

impl PaxSparse {
    /// Takes one record whose key begins with `GNU.sparse.`.
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const BROKEN: &str = "a sparse record with a broken number";
        match key {
            b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"GNU.sparse.major" => self.major = Some(parse_decimal(value).ok_or(BROKEN)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.size = Some(parse_decimal(value).ok_or(BROKEN)?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.numbers.push(parse_decimal(value).ok_or(BROKEN)?);
            }
            b"GNU.sparse.map" if !value.is_empty() => {
                for number in value.split(|b| *b == b',') {
                    self.numbers.push(parse_decimal(number).ok_or(BROKEN)?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the map stands at the start of the data (form 1.0).
    pub(crate) fn map_is_in_data(&self) -> bool {
        self.major == Some(1)
    }

    /// The file's length, where the records tell one: the entry is sparse then.
    pub(crate) fn size(&self) -> Option<u64> {
        self.size
    }

    /// The map of forms 0.0 and 0.1.
    pub(crate) fn into_map(self, size: u64) -> Result<SparseMap, &'static str> {
        pairs(&self.numbers).map(|extents| SparseMap { extents, size })
    }
}

/// The numbers of form 1.0: a count, then pairs. `next_line` gives the lines of the data.
pub(crate) fn read_map_in_data<E: From<&'static str>>(
    size: u64,
    mut next_number: impl FnMut() -> Result<u64, E>,
) -> Result<SparseMap, E> {
    let count = next_number()?;
    let mut numbers = Vec::new();
    for _ in 0..count.checked_mul(2).ok_or("a sparse map that overflows")? {
        numbers.push(next_number()?);
    }
    Ok(SparseMap { extents: pairs(&numbers)?, size })
}

fn pairs(numbers: &[u64]) -> Result<Vec<Extent>, &'static str> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a sparse map with an offset but no length");
    }
    Ok(pairs.iter().map(|[offset, length]| Extent { offset: *offset, length: *length }).collect())
}
