//! Windows of the time of day.
//!
//! It owns how a clock on the wall of a zone meets them. It must not know what time it is.
//!
//! The wall's clock decides: where a day has an hour twice, both are in a window that holds it; where it
//! has none, nothing is.

use alloc::string::String;
use core::fmt;

use jiff::civil::Weekday;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;
/// Minutes of a week.
pub(super) const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;

/// The days of a week, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Days(u8);

impl Days {
    pub(super) const ALL: Self = Self(0b111_1111);

    /// `mon`, or `mon-fri`; `fri-mon` goes over the week's end.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(text)?, day(text)?),
        };
        let mut days = 0;
        let mut next = first;
        loop {
            days |= 1 << next;
            if next == last {
                return Some(Self(days));
            }
            next = (next + 1) % DAYS.len();
        }
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn contains(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

/// A time of day, `09:00`, in minutes. `24:00` is the day's end.
pub(super) fn parse_minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
}

/// A zone by its name in the IANA database, which comes with the gateway.
pub(super) fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}

/// The zones that there are.
pub(super) fn zones() -> alloc::vec::Vec<String> {
    use alloc::string::ToString as _;
    let database = TimeZoneDatabase::bundled();
    database.available().map(|name| name.to_string()).collect()
}

/// Days with a beginning and an end, in a zone.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub(super) days: Days,
    /// In minutes.
    pub(super) from: u16,
    /// In minutes; not after `from` for a window that goes on into the next day.
    pub(super) to: u16,
    pub(super) zone: TimeZone,
}

impl Window {
    pub(super) fn contains(&self, now_unix_ns: u64) -> bool {
        // Times that jiff does not have are centuries away, and in no window.
        let Ok(now) = Timestamp::from_nanosecond(i128::from(now_unix_ns)) else {
            return false;
        };
        let wall = self.zone.to_datetime(now);
        let midnight = wall.date().to_datetime(jiff::civil::Time::midnight());
        let passed: SignedDuration = wall.duration_since(midnight);
        let minute = u16::try_from(passed.as_mins()).unwrap_or(u16::MAX);
        self.has(wall.date().weekday(), minute)
    }

    /// Whether it holds a minute of the week on its zone's clocks, from Monday's first on.
    pub(super) fn has_minute(&self, minute: u16) -> bool {
        let day = i8::try_from(minute / DAY_MINUTES).map(Weekday::from_monday_zero_offset);
        matches!(day, Ok(Ok(day)) if self.has(day, minute % DAY_MINUTES))
    }

    fn has(&self, today: Weekday, minute: u16) -> bool {
        if self.from < self.to {
            return self.days.contains(today) && (self.from..self.to).contains(&minute);
        }
        // The part before midnight is of today's window, the part after it of yesterday's.
        (self.days.contains(today) && minute >= self.from)
            || (self.days.contains(today.previous()) && minute < self.to)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |minute: u16| (minute / 60, minute % 60);
        if self.days != Days::ALL {
            let named = DAYS.iter().enumerate();
            let named = named.filter(|(day, _)| self.days.0 & (1 << day) != 0);
            for (index, (_, name)) in named.enumerate() {
                let gap = if index > 0 { "," } else { "" };
                write!(f, "{gap}{name}")?;
            }
            f.write_str(" ")?;
        }
        let ((from, from_minute), (to, to_minute)) = (clock(self.from), clock(self.to));
        let zone = self.zone.iana_name().unwrap_or("UTC");
        write!(
            f,
            "{from:02}:{from_minute:02}-{to:02}:{to_minute:02} {zone}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &str, from: &str, to: &str, zone_name: &str) -> Window {
        let mut all = Days(0);
        for part in days.split(',') {
            all = all.and(Days::parse(part).unwrap());
        }
        Window {
            days: all,
            from: parse_minute(from).unwrap(),
            to: parse_minute(to).unwrap(),
            zone: zone(zone_name).unwrap(),
        }
    }

    fn at(time: &str) -> u64 {
        let time: Timestamp = time.parse().unwrap();
        u64::try_from(time.as_nanosecond()).unwrap()
    }

    #[test]
    fn words_are_read() {
        for (text, days) in [
            ("mon", Some(0b000_0001)),
            ("MON-fri", Some(0b001_1111)),
            ("fri-mon", Some(0b111_0001)),
            ("sun-sun", Some(0b100_0000)),
            ("sun-sat", Some(0b111_1111)),
            ("monday", None),
            ("mon-", None),
            ("", None),
        ] {
            assert_eq!(Days::parse(text).map(|days| days.0), days, "{text}");
        }
        for (text, minute) in [
            ("00:00", Some(0)),
            ("09:30", Some(570)),
            ("24:00", Some(1440)),
            ("24:01", None),
            ("9:30", None),
            ("09:60", None),
            ("+9:30", None),
            ("0930", None),
        ] {
            assert_eq!(parse_minute(text), minute, "{text}");
        }
        assert!(zone("UTC").is_some() && zone("Europe/Berlin").is_some());
        assert!(zone("Europe/Berlim").is_none());
        assert!(zones().iter().any(|zone| zone == "America/New_York"));
    }

    #[test]
    fn the_clock_on_the_wall_decides() {
        // 2026-03-29 is a Sunday: in Berlin there is no hour from 2 to 3. 2026-10-25 has it twice.
        for (window, time, expected) in [
            (
                window("mon-fri", "09:00", "17:00", "UTC"),
                "2026-11-20T09:00:00Z",
                true,
            ),
            (
                window("mon-fri", "09:00", "17:00", "UTC"),
                "2026-11-20T16:59:59.999Z",
                true,
            ),
            (
                window("mon-fri", "09:00", "17:00", "UTC"),
                "2026-11-20T17:00:00Z",
                false,
            ),
            (
                window("mon-fri", "09:00", "17:00", "UTC"),
                "2026-11-21T12:00:00Z",
                false,
            ),
            // The same moment is another day elsewhere.
            (
                window("fri", "00:00", "24:00", "Pacific/Auckland"),
                "2026-11-19T11:30:00Z",
                true,
            ),
            (
                window("thu", "00:00", "24:00", "Pacific/Auckland"),
                "2026-11-19T11:30:00Z",
                false,
            ),
            // Past midnight: the window belongs to the day that it began on.
            (
                window("fri", "22:00", "06:00", "UTC"),
                "2026-11-20T23:00:00Z",
                true,
            ),
            (
                window("fri", "22:00", "06:00", "UTC"),
                "2026-11-21T05:59:59Z",
                true,
            ),
            (
                window("fri", "22:00", "06:00", "UTC"),
                "2026-11-21T06:00:00Z",
                false,
            ),
            (
                window("fri", "22:00", "06:00", "UTC"),
                "2026-11-20T05:00:00Z",
                false,
            ),
            (
                window("sun", "22:00", "06:00", "UTC"),
                "2026-11-23T01:00:00Z",
                true,
            ),
            // From a time to the same time is a whole day from then on.
            (
                window("fri", "08:00", "08:00", "UTC"),
                "2026-11-20T07:59:00Z",
                false,
            ),
            (
                window("fri", "08:00", "08:00", "UTC"),
                "2026-11-21T07:59:00Z",
                true,
            ),
            // The hour that is not there.
            (
                window("sun", "02:00", "03:00", "Europe/Berlin"),
                "2026-03-29T00:59:59Z",
                false,
            ),
            (
                window("sun", "02:00", "03:00", "Europe/Berlin"),
                "2026-03-29T01:00:00Z",
                false,
            ),
            (
                window("sun", "03:00", "04:00", "Europe/Berlin"),
                "2026-03-29T01:00:00Z",
                true,
            ),
            // The hour that is there twice.
            (
                window("sun", "02:00", "03:00", "Europe/Berlin"),
                "2026-10-25T00:30:00Z",
                true,
            ),
            (
                window("sun", "02:00", "03:00", "Europe/Berlin"),
                "2026-10-25T01:30:00Z",
                true,
            ),
            (
                window("sun", "02:00", "03:00", "Europe/Berlin"),
                "2026-10-25T02:00:00Z",
                false,
            ),
            // Summer and winter are apart by an hour.
            (
                window("mon-sun", "09:00", "10:00", "Europe/Berlin"),
                "2026-07-01T07:30:00Z",
                true,
            ),
            (
                window("mon-sun", "09:00", "10:00", "Europe/Berlin"),
                "2026-12-01T07:30:00Z",
                false,
            ),
            (
                window("mon-sun", "09:00", "10:00", "Europe/Berlin"),
                "2026-12-01T08:30:00Z",
                true,
            ),
        ] {
            assert_eq!(window.contains(at(time)), expected, "{window} at {time}");
        }
    }
}
