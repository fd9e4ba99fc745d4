//! What the gateway counts, in the text format of OpenMetrics.
//!
//! It owns names, labels and their bounds: a label is a word of this program or a name from the
//! policy files, never a value, a text or a user. It must not know who asks for them; [`serve`] is
//! one who does.

pub mod serve;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interceptor_core::audit::event::Command;
use interceptor_core::policy::Observer;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Distinct rule names in labels, and distinct target names; others are counted as [`OTHER`].
pub const NAMES_MAX: usize = 1_000;

/// Distinct combinations of outcome, rule and target; others are counted without rule and target.
pub const SERIES_MAX: usize = 10_000;

/// In the place of a rule, where none decided. No rule's name has parentheses.
const NONE: &str = "(none)";
/// In the place of names beyond the limits.
const OTHER: &str = "(other)";

/// Labels of a metric: names and values.
type Labels = Vec<(&'static str, String)>;

/// The counters. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    decisions: Family<Labels, Counter>,
    seconds: DecisionTime,
    named: Mutex<Named>,
}

/// What labels hold so far.
#[derive(Default)]
struct Named {
    rules: HashSet<String>,
    targets: HashSet<String>,
    series: HashSet<(String, String, String)>,
}

/// What is asked for anew with each [`Metrics::render`].
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Open sessions.
    pub sessions: usize,
    /// Requests that wait for a person.
    pub requests_waiting: usize,
    /// The record takes nothing more.
    pub is_record_failed: bool,
    /// The hash of the policy in force, in hex.
    pub policy_hash: String,
    /// When it came into force, in nanoseconds since the Unix epoch.
    pub policy_since_unix_ns: u64,
    /// The time of the sample, likewise.
    pub now_unix_ns: u64,
    /// Reloads that brought a policy into force.
    pub reloads_loaded: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
    /// The last one was.
    pub is_policy_refused: bool,
    /// The kernel's counters.
    pub verdicts: Vec<(&'static str, u64)>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("interceptor");
        let decisions = Family::<Labels, Counter>::default();
        registry.register(
            "decisions",
            "Commands by what was decided on them, by which rule, on which target",
            decisions.clone(),
        );
        // From 250 ns to 8 ms.
        let seconds = Histogram::new(exponential_buckets(250e-9, 2.0, 16));
        registry.register(
            "decision_seconds",
            "Time of a decision alone, without reading the command or the record",
            seconds.clone(),
        );
        Self(Arc::new(Inner {
            registry,
            decisions,
            seconds: DecisionTime {
                epoch: Instant::now(),
                seconds,
            },
            named: Mutex::default(),
        }))
    }
}

impl Metrics {
    /// Counts a command whose intent is recorded.
    pub fn decided(&self, command: &Command, target: &str) {
        self.counter(command, target).inc();
    }

    /// What counts commands of this outcome, rule and target.
    fn counter(&self, command: &Command, target: &str) -> Counter {
        let rule = match command.rule.as_str() {
            "" => NONE,
            rule => rule,
        };
        let (rule, target) = self.bounded(&command.decision, rule, target);
        let labels = vec![
            ("outcome", command.decision.clone()),
            ("rule", rule),
            ("target", target),
        ];
        self.0.decisions.get_or_create(&labels).clone()
    }

    /// The names, or what stands for them beyond the limits.
    fn bounded(&self, outcome: &str, rule: &str, target: &str) -> (String, String) {
        // Nothing in here can leave it half changed.
        let mut named = self.0.named.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = within(&mut named.rules, rule);
        let target = within(&mut named.targets, target);
        let series = (outcome.to_owned(), rule, target);
        if named.series.contains(&series) {
            return (series.1, series.2);
        }
        if named.series.len() >= SERIES_MAX {
            return (OTHER.to_owned(), OTHER.to_owned());
        }
        named.series.insert(series.clone());
        (series.1, series.2)
    }

    /// What measures the decisions of a policy.
    #[must_use]
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(self.0.seconds.clone())
    }

    /// All metrics as text.
    #[must_use]
    pub fn render(&self, sample: &Sample) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = encode_registry(&mut text, &self.0.registry)
            .and_then(|()| encode_registry(&mut text, &sample.registry()))
            .and_then(|()| encode_eof(&mut text));
        text
    }
}

/// What one session counts its commands with: what it has found once it does not look for again.
#[derive(Default)]
pub struct Decided {
    known: Vec<(String, String, Counter)>,
}

/// Counters that one session keeps at hand.
const KNOWN_MAX: usize = 8;

impl Decided {
    /// Counts a command whose intent is recorded. The target is the same each time.
    pub fn count(&mut self, metrics: &Metrics, command: &Command, target: &str) {
        let same = |(outcome, rule, _): &&(String, String, Counter)| {
            *outcome == command.decision && *rule == command.rule
        };
        if let Some((.., counter)) = self.known.iter().find(same) {
            counter.inc();
            return;
        }
        let counter = metrics.counter(command, target);
        counter.inc();
        if self.known.len() < KNOWN_MAX {
            let (outcome, rule) = (command.decision.clone(), command.rule.clone());
            self.known.push((outcome, rule, counter));
        }
    }
}

fn within(names: &mut HashSet<String>, name: &str) -> String {
    if names.contains(name) || name == NONE {
        return name.to_owned();
    }
    if names.len() >= NAMES_MAX {
        return OTHER.to_owned();
    }
    names.insert(name.to_owned());
    name.to_owned()
}

impl Sample {
    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("interceptor");
        let count = |number: usize| ConstGauge::new(u64::try_from(number).unwrap_or(u64::MAX));
        let flag = |is: bool| ConstGauge::new(u64::from(is));
        let seconds = |ns: u64| ConstGauge::new(Duration::from_nanos(ns).as_secs_f64());
        registry.register("sessions", "Open sessions", count(self.sessions));
        registry.register(
            "requests_waiting",
            "Commands that wait for a person",
            count(self.requests_waiting),
        );
        registry.register(
            "record_failed",
            "1 if the record takes nothing more, so that every command is refused",
            flag(self.is_record_failed),
        );
        registry.register(
            "policy_loaded_timestamp_seconds",
            "When the policy in force came into force",
            seconds(self.policy_since_unix_ns),
        );
        registry.register(
            "policy_age_seconds",
            "How long the policy in force has been so",
            seconds(self.now_unix_ns.saturating_sub(self.policy_since_unix_ns)),
        );
        registry.register(
            "policy_last_reload_successful",
            "0 if the policy files at hand were refused, so that older ones are in force",
            flag(!self.is_policy_refused),
        );
        registry.register(
            "policy",
            "The policy in force",
            Info::new(vec![("hash", self.policy_hash.clone())]),
        );
        let reloads = [
            ("loaded", self.reloads_loaded),
            ("refused", self.reloads_refused),
        ];
        let help = "Reloads of the policy by what came of them";
        register_counts(&mut registry, "policy_reloads", help, "result", &reloads);
        let help = "What the kernel programs did, since they were first attached";
        register_counts(
            &mut registry,
            "kernel_verdicts",
            help,
            "verdict",
            &self.verdicts,
        );
        registry
    }
}

/// A counter for each word. They are counted elsewhere.
fn register_counts(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    counts: &[(&'static str, u64)],
) {
    let family = Family::<Labels, Counter>::default();
    for (word, count) in counts {
        let labels = vec![(label, (*word).to_owned())];
        family.get_or_create(&labels).inc_by(*count);
    }
    registry.register(name, help, family);
}

/// Measures decisions.
#[derive(Clone)]
struct DecisionTime {
    epoch: Instant,
    seconds: Histogram,
}

impl fmt::Debug for DecisionTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecisionTime")
    }
}

impl Observer for DecisionTime {
    fn begin(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn end(&self, begun: u64) {
        let took = Duration::from_nanos(self.begin().saturating_sub(begun));
        self.seconds.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(decision: &str, rule: &str) -> Command {
        Command {
            decision: decision.to_owned(),
            rule: rule.to_owned(),
            text: "SELECT 'secret'".to_owned(),
            person: "somebody".to_owned(),
            ..Command::default()
        }
    }

    #[test]
    fn decisions_are_counted_by_outcome_rule_and_target() {
        let metrics = Metrics::default();
        let mut decided = Decided::default();
        decided.count(&metrics, &command("deny", "no-drop"), "orders");
        decided.count(&metrics, &command("deny", "no-drop"), "orders");
        metrics.decided(&command("allow", ""), "orders");
        let observer = metrics.observer();
        let begun = observer.begin();
        observer.end(begun);
        let text = metrics.render(&Sample {
            sessions: 3,
            policy_hash: "ab".to_owned(),
            policy_since_unix_ns: 1_000_000_000,
            now_unix_ns: 3_500_000_000,
            is_policy_refused: true,
            reloads_refused: 2,
            verdicts: vec![("bind_refused", 7)],
            ..Sample::default()
        });
        for line in [
            "# TYPE interceptor_decisions counter",
            "interceptor_decisions_total{outcome=\"deny\",rule=\"no-drop\",target=\"orders\"} 2",
            "interceptor_decisions_total{outcome=\"allow\",rule=\"(none)\",target=\"orders\"} 1",
            "interceptor_decision_seconds_count 1",
            "interceptor_decision_seconds_bucket{le=\"+Inf\"} 1",
            "interceptor_sessions 3",
            "interceptor_policy_age_seconds 2.5",
            "interceptor_policy_loaded_timestamp_seconds 1.0",
            "interceptor_policy_last_reload_successful 0",
            "interceptor_policy_reloads_total{result=\"refused\"} 2",
            "interceptor_policy_info{hash=\"ab\"} 1",
            "interceptor_kernel_verdicts_total{verdict=\"bind_refused\"} 7",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("secret") && !text.contains("somebody"));
    }

    #[test]
    fn labels_have_a_limit() {
        let metrics = Metrics::default();
        for number in 0..NAMES_MAX + 5 {
            metrics.decided(&command("deny", &format!("r{number}")), "orders");
        }
        // One that has its place keeps it.
        metrics.decided(&command("deny", "r0"), "orders");
        let text = metrics.render(&Sample::default());
        let series = |text: &str| text.matches("interceptor_decisions_total{").count();
        assert_eq!(series(&text), NAMES_MAX + 1);
        assert!(text.contains("{outcome=\"deny\",rule=\"(other)\",target=\"orders\"} 5\n"));
        assert!(text.contains("{outcome=\"deny\",rule=\"r0\",target=\"orders\"} 2\n"));
        for number in 0..SERIES_MAX + 5 {
            let rule = format!("r{}", number % NAMES_MAX);
            metrics.decided(&command("deny", &rule), &format!("t{}", number / NAMES_MAX));
        }
        let text = metrics.render(&Sample::default());
        assert_eq!(series(&text), SERIES_MAX + 1);
        assert!(text.contains("{outcome=\"deny\",rule=\"(other)\",target=\"(other)\"} "));
    }
}
