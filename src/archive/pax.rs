//! PAX extended headers: records of `LENGTH KEY=VALUE\n`, read and written.

use crate::sys::stat::Time;

/// Splits the next record off `block`: `(key, value, rest)`, or `None` at the end.
///
/// # Errors
/// What is wrong with the record, in words.
pub(crate) fn next_record(block: &[u8]) -> Result<Option<Record<'_>>, &'static str> {
    const BROKEN: &str = "a PAX header with a broken record";
    // Some writers pad the header with NULs inside its claimed size.
    if block.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    let space = block.iter().position(|b| *b == b' ').ok_or(BROKEN)?;
    let length = parse_decimal(block.get(..space).unwrap_or_default()).ok_or(BROKEN)?;
    let length = usize::try_from(length).map_err(|_| BROKEN)?;
    let body = block.get(space + 1..length).ok_or(BROKEN)?;
    let body = body.strip_suffix(b"\n").ok_or(BROKEN)?;
    let equals = body.iter().position(|b| *b == b'=').ok_or(BROKEN)?;
    let (key, value) = body.split_at(equals);
    let value = value.get(1..).unwrap_or_default();
    Ok(Some(Record { key, value, rest: block.get(length..).unwrap_or_default() }))
}

/// One record of an extended header, and what follows it.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) rest: &'a [u8],
}

/// Appends one record; the length counts its own digits.
pub(crate) fn append_record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + decimal_digits(body);
    if decimal_digits(length) != decimal_digits(body) {
        length = body + decimal_digits(length);
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

fn decimal_digits(n: usize) -> usize {
    n.checked_ilog10().unwrap_or(0) as usize + 1
}

/// An xattr's name as a part of a key, which must not have `=`: GNU tar's escapes.
pub(crate) fn encode_key(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' => key.extend_from_slice(b"%25"),
            b'=' => key.extend_from_slice(b"%3D"),
            other => key.push(*other),
        }
    }
    key
}

/// The inverse of [`encode_key`]; any other `%` stands for itself.
pub(crate) fn decode_key(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match rest {
            [b'%', b'2', b'5', tail @ ..] => (b'%', tail),
            [b'%', b'3', b'D', tail @ ..] => (b'=', tail),
            _ => (*first, tail),
        };
        name.push(byte);
        rest = tail;
    }
    name
}

/// Digits only: no sign, no space, nothing that overflows.
pub(crate) fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A time such as `1700000000.123456789` or `-1.5`; digits past nanoseconds are cut off.
pub(crate) fn parse_time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let sec = i64::try_from(parse_decimal(parts.next()?)?).ok()?;
    let nsec = parts.next().map_or(Some(0), parse_fraction)?;
    Some(match (negative, nsec) {
        (false, _) => Time { sec, nsec },
        (true, 0) => Time { sec: -sec, nsec },
        (true, _) => Time { sec: -sec - 1, nsec: 1_000_000_000 - nsec },
    })
}

fn parse_fraction(digits: &[u8]) -> Option<u32> {
    let mut nsec = 0;
    for place in 0..9 {
        let digit = digits.get(place).copied().unwrap_or(b'0');
        nsec = nsec * 10 + char::from(digit).to_digit(10)?;
    }
    digits.iter().all(u8::is_ascii_digit).then_some(nsec)
}

/// The inverse of [`parse_time`], in as few digits as hold it.
pub(crate) fn format_time(time: Time) -> String {
    let (sign, sec, nsec) = match (time.sec < 0, time.nsec) {
        (false, nsec) => ("", time.sec.unsigned_abs(), nsec),
        (true, 0) => ("-", time.sec.unsigned_abs(), 0),
        (true, nsec) => ("-", time.sec.unsigned_abs() - 1, 1_000_000_000 - nsec),
    };
    if nsec == 0 {
        return format!("{sign}{sec}");
    }
    let text = format!("{sign}{sec}.{nsec:09}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_whatever_the_length_of_their_length() {
        for size in [0, 1, 5, 85, 86, 87, 88, 89, 90, 980, 985, 990, 991, 992, 993, 9_990, 100_000]
        {
            let value = vec![b'\n'; size];
            let mut block = Vec::new();
            append_record(&mut block, b"key", &value);
            append_record(&mut block, b"b", b"=");
            let first = next_record(&block).unwrap().unwrap();
            assert_eq!((first.key, first.value), (&b"key"[..], value.as_slice()));
            let second = next_record(first.rest).unwrap().unwrap();
            assert_eq!((second.key, second.value), (&b"b"[..], &b"="[..]));
            assert!(next_record(second.rest).unwrap().is_none());
        }
    }

    #[test]
    fn xattr_names_round_trip_through_keys() {
        for name in [&b"user.a=b"[..], b"user.100%", b"user.%3D%25", b"user.plain"] {
            assert!(!encode_key(name).contains(&b'='));
            assert_eq!(decode_key(&encode_key(name)), name);
        }
        assert_eq!(decode_key(b"user.%zz%"), b"user.%zz%");
    }

    #[test]
    fn broken_records_are_refused() {
        for block in
            [&b"x"[..], b"3 a", b"99999999999999999999 a=b\n", b"6 ab=c", b"4 a\n", b"-6 a=b\n"]
        {
            assert!(next_record(block).is_err(), "{block:?}");
        }
    }

    #[test]
    fn times_round_trip() {
        for (text, sec, nsec) in [
            ("0", 0, 0),
            ("1700000000.000000001", 1_700_000_000, 1),
            ("-1.5", -2, 500_000_000),
            ("-0.25", -1, 750_000_000),
            ("-7", -7, 0),
        ] {
            let time = parse_time(text.as_bytes()).unwrap();
            assert_eq!(time, Time { sec, nsec });
            assert_eq!(format_time(time), text);
        }
        assert!(parse_time(b"1.x").is_none() && parse_time(b"").is_none());
    }
}
