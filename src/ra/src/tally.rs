//! Counts what strangers provoke, by cause and source, within fixed bounds.
//!
//! A refusal before the proof of a challenge costs a stranger nothing, so it must not cost us a
//! record each. Only totals are written to the audit log.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use chancery_protocol::audit::{Event, Kind, Outcome, field};
use chancery_protocol::refusal::Refusal;

/// Most pairs of cause and source that are told apart; more are counted under their cause alone.
const MAX_ENTRIES: usize = 1_000;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// What came is no pkiMessage, so that nobody could be answered.
    Malformed,
    /// A request was refused before any proof.
    Refused(Refusal),
    /// A parser child died without an answer.
    ParserDied,
    /// A parser child answered with nodes that did not prove.
    ParserLied,
}

impl Cause {
    /// The event that reports it, without source and number.
    pub(crate) fn event(self) -> Event {
        let refused = Event::new(Kind::RefusalsCounted, Outcome::Failure);
        match self {
            Self::Malformed => refused.with(field::REASON, "malformed"),
            Self::Refused(refusal) => refused.with(field::REASON, refusal),
            Self::ParserDied => Event::new(Kind::ParserDied, Outcome::Failure),
            Self::ParserLied => Event::new(Kind::ParserLied, Outcome::Failure),
        }
    }
}

/// The address of a device, without its port, in front's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// This address.
    Address(IpAddr),
    /// Front's text is no address.
    Unknown,
    /// One of those beyond the bound.
    Others,
}

impl Source {
    /// Reads `address:port` or an address alone.
    pub(crate) fn read(peer: &str) -> Self {
        peer.parse::<SocketAddr>()
            .map(|socket| socket.ip())
            .or_else(|_| peer.parse())
            .map_or(Self::Unknown, |address| {
                Self::Address(address.to_canonical())
            })
    }
}

impl core::fmt::Display for Source {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unknown => f.write_str("unknown"),
            Self::Others => f.write_str("others"),
        }
    }
}

/// Totals since a moment.
#[derive(Debug)]
pub(crate) struct Tally {
    since: u64,
    counts: BTreeMap<(Cause, Source), u64>,
}

impl Tally {
    /// Empty, from `now` (Unix seconds) on.
    pub(crate) fn new(now: u64) -> Self {
        Self {
            since: now,
            counts: BTreeMap::new(),
        }
    }

    /// Counts one.
    pub(crate) fn count(&mut self, cause: Cause, source: Source) {
        let known = self.counts.contains_key(&(cause, source));
        let source = if known || self.counts.len() < MAX_ENTRIES {
            source
        } else {
            Source::Others
        };
        let total = self.counts.entry((cause, source)).or_default();
        *total = total.saturating_add(1);
    }

    /// One event a total, and an empty tally from `now` on.
    pub(crate) fn take(&mut self, now: u64) -> Vec<Event> {
        let Self { since, counts } = core::mem::replace(self, Self::new(now));
        let period = format!("from {since} to {now}, Unix seconds");
        counts
            .into_iter()
            .map(|((cause, source), count)| {
                cause
                    .event()
                    .with(field::PEER, source)
                    .with(field::COUNT, count)
                    .with(field::DETAIL, &period)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Cause = Cause::Refused(Refusal::Signature);

    #[test]
    fn ports_do_not_tell_sources_apart() {
        let mut tally = Tally::new(60);
        for peer in [
            "192.0.2.1:1",
            "192.0.2.1:2",
            "192.0.2.1",
            "[::ffff:192.0.2.1]:3",
        ] {
            tally.count(BAD, Source::read(peer));
        }
        tally.count(BAD, Source::read("[2001:db8::1]:4"));
        tally.count(
            Cause::Refused(Refusal::Algorithm),
            Source::read("192.0.2.1:5"),
        );
        tally.count(BAD, Source::read("a\nb"));
        tally.count(Cause::Malformed, Source::read("192.0.2.1:6"));
        let events = tally.take(120);
        let mut totals: Vec<_> = events
            .iter()
            .map(|e| [field::REASON, field::PEER, field::COUNT].map(|name| e.value(name).unwrap()))
            .collect();
        totals.sort_unstable();
        assert_eq!(
            totals,
            [
                ["algorithm", "192.0.2.1", "1"],
                ["malformed", "192.0.2.1", "1"],
                ["signature", "192.0.2.1", "4"],
                ["signature", "2001:db8::1", "1"],
                ["signature", "unknown", "1"],
            ]
        );
        assert_eq!(
            events[0].value(field::DETAIL),
            Some("from 60 to 120, Unix seconds")
        );
        assert!(
            events
                .iter()
                .all(|e| e.kind == Kind::RefusalsCounted && e.is_valid())
        );
    }

    #[test]
    fn a_tally_starts_anew_when_taken() {
        let mut tally = Tally::new(0);
        tally.count(BAD, Source::Unknown);
        assert_eq!(tally.take(60).len(), 1);
        assert!(tally.take(120).is_empty());
    }

    #[test]
    fn strangers_cannot_fill_it() {
        let mut tally = Tally::new(0);
        let total = 3 * MAX_ENTRIES;
        for n in 0..total {
            let address = std::net::Ipv4Addr::from(u32::try_from(n).unwrap());
            tally.count(BAD, Source::Address(address.into()));
        }
        // Known ones are still told apart.
        tally.count(BAD, Source::Address(std::net::Ipv4Addr::from(5).into()));
        let events = tally.take(60);
        assert_eq!(events.len(), MAX_ENTRIES + 1);
        let count = |e: &Event| e.value(field::COUNT).unwrap().parse::<usize>().unwrap();
        assert_eq!(events.iter().map(count).sum::<usize>(), total + 1);
        let others = events
            .iter()
            .find(|e| e.value(field::PEER) == Some("others"))
            .unwrap();
        assert_eq!(count(others), total - MAX_ENTRIES);
    }
}
