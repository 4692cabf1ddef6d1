//! Durations and sizes as people write them: `30s`, `5m`, `1h30m`, `16MiB`.
use std::{fmt, str::FromStr, time};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of time, written as numbers with units: `ms`, `s`, `m`, `h`, `d`, such as `30s` or `1h30m`. A bare number is refused,
/// because nobody can tell its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Duration(pub time::Duration);

impl Duration {
    /// Whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// Whole milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(time::Duration::from_millis(milliseconds))
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

/// Units of time in milliseconds, largest first.
const TIME: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// Units of size in bytes.
const SIZE: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Splits `12ab` into 12 and `ab`; the unit reaches to the next digit.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(digits);
    let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    Some((number.parse().ok()?, unit.trim(), rest))
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || {
            format!("`{text}` is not a duration: write a number and a unit of ms, s, m, h or d, such as 30s or 1h30m")
        };
        let (mut rest, mut total) = (text.trim(), 0u64);
        if rest.is_empty() {
            return Err(fail());
        }
        while !rest.is_empty() {
            let (number, unit, after) = number_and_unit(rest).ok_or_else(fail)?;
            let (_, factor) = TIME.iter().find(|(name, _)| *name == unit).ok_or_else(fail)?;
            total = number.checked_mul(*factor).and_then(|part| total.checked_add(part)).ok_or_else(fail)?;
            rest = after;
        }
        Ok(Self(time::Duration::from_millis(total)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in TIME {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// A number of bytes, written with a unit: `B`, `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024) or `kB`, `MB`, `GB`, `TB` (of 1000). A bare
/// number is bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail =
            || format!("`{text}` is not a size: write a number and a unit such as B, KiB, MiB, GiB, kB, MB or GB");
        let text = text.trim();
        if let Ok(bytes) = text.parse() {
            return Ok(Self(bytes));
        }
        let (number, unit, rest) = number_and_unit(text).ok_or_else(fail)?;
        let (_, factor) = SIZE.iter().find(|(name, _)| *name == unit && rest.is_empty()).ok_or_else(fail)?;
        number.checked_mul(*factor).map(Self).ok_or_else(fail)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*factor);
        let (unit, factor) = SIZE[..5].iter().rfind(fits).unwrap_or(&SIZE[0]);
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// Accepts text in the type's own form, or a whole number where a number stands for itself.
struct Text<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err = String>> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! as_text {
    ($type:ty, $expected:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Text(std::marker::PhantomData, $expected))
            }
        }
    };
}

as_text!(Duration, "a duration such as \"30s\"");
as_text!(ByteSize, "a size such as \"16MiB\"");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_written() {
        for (text, millis) in
            [("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("250ms", 250), ("2d", 172_800_000), ("0s", 0)]
        {
            assert_eq!(text.parse(), Ok(Duration::from_millis(millis)));
            assert_eq!(Duration::from_millis(millis).to_string(), text);
        }
        for (text, bytes) in
            [("2GiB", 2u64 << 30), ("16 MiB", 16 << 20), ("5MB", 5_000_000), ("10", 10), ("1B", 1), ("0", 0)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
        for bad in ["", "30", "s", "-1s", "1.5s", "1x", "1h30", "99999999999999999999s", "18446744073709551615d"] {
            assert!(bad.parse::<Duration>().unwrap_err().contains(&format!("`{bad}`")));
        }
        for bad in ["", "GiB", "1.5GiB", "-1", "1gib", "1KiB5B", "18446744073709551615KiB"] {
            assert!(bad.parse::<ByteSize>().unwrap_err().contains(&format!("`{bad}`")));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(number in 0..u64::MAX / 2) {
            prop_assert_eq!(Duration::from_millis(number).to_string().parse(), Ok(Duration::from_millis(number)));
            prop_assert_eq!(ByteSize(number).to_string().parse(), Ok(ByteSize(number)));
        }
    }
}
