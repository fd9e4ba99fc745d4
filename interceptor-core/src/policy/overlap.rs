//! Endpoints that two entries claim.
//!
//! It owns the rule that what an address, a name or a socket belongs to is never a matter of order:
//! the same prefix, or the same name, cannot have a port twice. A prefix within another is no such
//! case, as the longer one wins. It must not know what a target does.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use ipnet::IpNet;
use saphyr_parser::Span;

use super::error::PolicyError;
use super::problem::Problem;
use super::read::report;
use super::target_document::TargetDocument;
use super::{Source, endpoint};

/// What is claimed, without ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Network(IpNet),
    Name(&'a str),
    Unix(&'a str),
}

/// One entry of an `endpoints`.
struct Claim<'a> {
    place: Place<'a>,
    ports: RangeInclusive<u16>,
    target: &'a str,
    source: Source<'a>,
    span: Span,
}

impl Claim<'_> {
    fn describe(&self) -> String {
        match &self.place {
            Place::Network(network) => endpoint::describe(*network, &self.ports),
            Place::Name(name) => format!("{name}:{}", endpoint::describe_ports(&self.ports)),
            Place::Unix(path) => format!("unix:{path}"),
        }
    }
}

/// Reports every entry that another one overlaps, at its own place, once.
pub(super) fn check<'a>(
    targets: impl Iterator<Item = (&'a str, Source<'a>, &'a TargetDocument)>,
    errors: &mut Vec<PolicyError>,
) {
    let mut claims: Vec<Claim<'a>> = Vec::new();
    for (target, source, document) in targets {
        let claim = |place, ports: &RangeInclusive<u16>, span| Claim {
            place,
            ports: ports.clone(),
            target,
            source,
            span,
        };
        let addresses = document.endpoints.iter();
        claims.extend(
            addresses.map(|(at, span)| claim(Place::Network(at.network), &at.ports, *span)),
        );
        let names = document.names.iter();
        claims.extend(names.map(|(at, span)| claim(Place::Name(&at.name), &at.ports, *span)));
        let sockets = document.unix_sockets.iter();
        claims.extend(sockets.map(|(path, span)| claim(Place::Unix(path), &(0..=0), *span)));
    }
    let order = |claim: &Claim<'_>| {
        (
            *claim.ports.start(),
            claim.source.file.to_owned(),
            claim.span.start.line(),
            claim.span.start.col(),
        )
    };
    claims.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| order(a).cmp(&order(b))));
    // By first port, so whatever overlaps an entry overlaps the one that reached furthest before.
    let mut furthest: Option<(&Claim<'a>, bool)> = None;
    for claim in &claims {
        let (before, is_reported) = match furthest {
            Some((before, is_reported))
                if before.place == claim.place && before.ports.end() >= claim.ports.start() =>
            {
                (before, is_reported)
            }
            _ => {
                furthest = Some((claim, false));
                continue;
            }
        };
        if !is_reported {
            report_overlap(errors, before, claim);
        }
        report_overlap(errors, claim, before);
        furthest = Some(if claim.ports.end() > before.ports.end() {
            (claim, true)
        } else {
            (before, true)
        });
    }
}

fn report_overlap(errors: &mut Vec<PolicyError>, claim: &Claim<'_>, other: &Claim<'_>) {
    let problem = Problem::DuplicateEndpoint {
        endpoint: claim.describe(),
        other_endpoint: other.describe(),
        other: other.target.to_owned(),
        place: format!("{}:{}", other.source.file, other.span.start.line()),
    };
    report(errors, claim.source, claim.span, problem, None);
}
