//! The fields of a tar header.

use tar::{EntryType, Header};

use super::tar_stream::Failure;
use crate::sys::stat::encode_dev;

type Result<T> = std::result::Result<T, Failure>;

/// A numeric field: octal digits amid blanks (none at all is 0), or GNU's big-endian binary.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        let text = field.split(|b| *b == 0).next()?.trim_ascii();
        if text.is_empty() {
            return Some(0);
        }
        let digits = text.iter().all(|b| matches!(b, b'0'..=b'7'));
        let value = digits.then(|| u64::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok());
        return i64::try_from(value??).ok();
    }
    // Bit 6 is the sign, the top bit only marks the form.
    let mut value = i128::from(first & 0x3f) - i128::from(first & 0x40);
    for byte in rest {
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    i64::try_from(value).ok()
}

/// A field that holds a 32-bit number; `what` names it in the error.
pub(super) fn small(field: &[u8], what: &str) -> Result<u32> {
    let value = number(field).and_then(|n| u32::try_from(n).ok());
    value.ok_or_else(|| Failure::Bad(format!("a header with a broken {what}")))
}

/// An owner or group: from a PAX record where there is one, else from its field.
pub(super) fn owner(extended: Option<u64>, field: &[u8]) -> Result<u32> {
    match extended {
        // The id that means "leave it" is no owner.
        Some(id) => u32::try_from(id).ok().filter(|id| *id != u32::MAX),
        None => number(field).and_then(|n| u32::try_from(n).ok()).filter(|id| *id != u32::MAX),
    }
    .ok_or_else(|| Failure::from("an owner or group that is no 32-bit number"))
}

/// A device's number as [`encode_dev`] forms it; 0 for everything else.
pub(super) fn device_number(header: &Header) -> Result<u32> {
    if !matches!(header.entry_type(), EntryType::Char | EntryType::Block) {
        return Ok(0);
    }
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        (None, None) => return Err("a device without a device number".into()),
    };
    let (major, minor) = (small(major, "device number")?, small(minor, "device number")?);
    if major > 0xfff || minor > 0xf_ffff {
        return Err("a device number that Linux does not have".into());
    }
    Ok(encode_dev(major, minor))
}

/// The sum of all bytes with the checksum itself taken as blanks; some old writers summed
/// signed bytes.
pub(super) fn checksum_matches(header: &Header) -> bool {
    let Some(claimed) = number(&header.as_old().cksum) else { return false };
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (place, byte) in header.as_bytes().iter().enumerate() {
        let byte = if (148..156).contains(&place) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    claimed == unsigned || claimed == signed
}

/// The reason why an entry of this type is not taken.
pub(super) fn unknown_kind(path: &[u8], kind: EntryType) -> String {
    let path = String::from_utf8_lossy(path);
    let byte = char::from(kind.as_byte());
    format!("{path:?} is an entry of unknown type {byte:?}")
}
