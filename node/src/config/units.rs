//! Durations and sizes in a configuration: a number and its unit, never a bare number.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use thiserror::Error;

const DURATION_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Text that is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not {wanted}")]
pub(crate) struct InvalidQuantity {
    text: String,
    wanted: &'static str,
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $units:ident, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(u64);

        impl FromStr for $name {
            type Err = InvalidQuantity;

            fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
                parse(text, $units).map(Self).ok_or_else(|| InvalidQuantity {
                    text: text.to_owned(),
                    wanted: $wanted,
                })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text($wanted)).and_then(|text| {
                    text.parse().map_err(D::Error::custom)
                })
            }
        }
    };
}

quantity!(
    /// A duration: `75ms`, `2s`, `5m`, `24h`, `7d`.
    Span,
    DURATION_UNITS,
    "a duration with its unit, such as \"75ms\", \"2s\", \"5m\", \"24h\" or \"7d\""
);
quantity!(
    /// A size in bytes: `512B`, `16MiB`, `4GiB`.
    Size,
    SIZE_UNITS,
    "a size with its unit, such as \"512B\", \"16MiB\" or \"4GiB\""
);

impl Span {
    pub(crate) const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl Size {
    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }
}

/// An interval: a duration, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interval {
    /// Never.
    Off,
    /// With this duration.
    Every(Span),
}

const INTERVAL: &str = "\"off\" or a duration with its unit, such as \"24h\" or \"7d\"";

impl FromStr for Interval {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse()
            .map(Self::Every)
            .map_err(|error: InvalidQuantity| InvalidQuantity {
                wanted: INTERVAL,
                ..error
            })
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_str(Text(INTERVAL))?;
        text.parse().map_err(D::Error::custom)
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

struct Text(&'static str);

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_their_unit() {
        let span = |text: &str| text.parse::<Span>().map(Span::duration);
        assert_eq!(span("75ms"), Ok(Duration::from_millis(75)));
        assert_eq!(span("2 s"), Ok(Duration::from_secs(2)));
        assert_eq!(span("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(span("7d"), Ok(Duration::from_hours(7 * 24)));
        assert_eq!("off".parse(), Ok(Interval::Off));
        let week = "7d".parse::<Span>().map(Interval::Every);
        assert_eq!("7d".parse(), week);
        let error = "never"
            .parse::<Interval>()
            .map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("\"off\"")));
        let size = |text: &str| text.parse::<Size>().map(Size::bytes);
        assert_eq!(size("16MiB"), Ok(16 * 1024 * 1024));
        assert_eq!(size("0B"), Ok(0));
        for text in [
            "",
            "75",
            "ms",
            "-1ms",
            "1.5s",
            "75msec",
            "1 MB",
            "9999999999999999h",
        ] {
            assert!(span(text).is_err(), "{text:?}");
        }
        for text in ["16", "16MB", "16mib", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }
}
