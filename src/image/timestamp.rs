//! Points in time, as configs and records write them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ParseError;

/// A point in time; its text form is RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// This moment, in UTC.
    pub fn now() -> Timestamp {
        Timestamp(OffsetDateTime::now_utc())
    }

    /// The moment `seconds` after 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// [`ParseError`] where no RFC 3339 text can say it.
    pub fn from_unix(seconds: i64) -> Result<Timestamp, ParseError> {
        match OffsetDateTime::from_unix_timestamp(seconds) {
            Ok(at) if (0..=9999).contains(&at.year()) => Ok(Timestamp(at)),
            _ => Err(ParseError::new(format!("{seconds} is not a time between years 0 and 9999"))),
        }
    }

    /// Reads an RFC 3339 text.
    ///
    /// # Errors
    /// [`ParseError`] for anything else.
    pub fn parse(text: &str) -> Result<Timestamp, ParseError> {
        match OffsetDateTime::parse(text, &Rfc3339) {
            Ok(at) => Ok(Timestamp(at)),
            Err(_) => Err(ParseError::new("not a time in the form of RFC 3339")),
        }
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn unix(&self) -> i64 {
        self.0.unix_timestamp()
    }
}

impl From<Timestamp> for std::time::SystemTime {
    fn from(at: Timestamp) -> std::time::SystemTime {
        at.0.into()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only years outside 0 to 9999 cannot be written, and no RFC 3339 text has one.
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse(&text).map_err(serde::de::Error::custom)
    }
}
