//! What can be wrong in a policy file, in words.
//!
//! It owns the words. How they are shown is [`super::error`]'s.

use alloc::format;
use alloc::string::String;

use super::lint::Warning;
use super::mask_problem::MaskProblem;
use super::{
    DEPTH_MAX, DOCUMENTS_MAX, ERRORS_MAX, ESCALATIONS_MAX, EXPRESSION_BYTES_MAX, FILE_BYTES_MAX,
    GRANT_DAYS_MAX, HOLD_TIMEOUT_MAX, LIMIT_DURATION_MAX, LIST_ENTRIES_MAX, MASK_LISTS_MAX,
    NAME_CHARS_MAX, NAMES_MAX, PRIORITY_MAX, RATE_MAX, REGEX_BYTES_MAX, REGEXES_MAX,
    TEXT_CHARS_MAX,
};

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file is too large.
    #[error("the file is larger than {FILE_BYTES_MAX} bytes; split it")]
    FileTooLarge,
    /// There are too many documents.
    #[error("the files hold more than {DOCUMENTS_MAX} documents")]
    TooManyDocuments,
    /// The text is no YAML.
    #[error("this is not valid YAML: {message}")]
    Syntax {
        /// The parser's words.
        message: String,
    },
    /// Anchors and aliases make a reader of policy look elsewhere, and can expand without bound.
    #[error(
        "anchors (`&name`) and aliases (`*name`) are not part of the language; a pattern that begins with `*` needs quotes"
    )]
    Anchor,
    /// Tags change how a value is read.
    #[error("tags (`!name`) are not part of the language")]
    Tag,
    /// Too deep.
    #[error("this is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// The file has no document, or an empty one.
    #[error("this document is empty; remove its `---`, or give it `kind`, `name` and `spec`")]
    EmptyDocument,
    /// The rest is not listed.
    #[error("there are more than {ERRORS_MAX} errors; the rest is not shown")]
    MoreErrors,
    /// It loads, and is hardly meant.
    #[error(transparent)]
    Warning(Warning),
    /// No policy at all.
    #[error("there is no document of kind Target, so nothing would be protected")]
    NoTarget,
    /// Something else stands where a value of this type must be.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What must be here.
        expected: &'static str,
        /// What is.
        found: &'static str,
    },
    /// A key that the language does not have here.
    #[error("unknown key `{key}` in {within}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The mapping that it stands in.
        within: &'static str,
    },
    /// A key that must be given.
    #[error("{within} needs the key `{key}`")]
    MissingKey {
        /// The key.
        key: &'static str,
        /// The mapping that lacks it.
        within: &'static str,
    },
    /// About a mask.
    #[error(transparent)]
    Mask(MaskProblem),
    /// A key given twice.
    #[error("the key `{key}` is given twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A word that is not among those that can stand here.
    #[error("unknown {what} `{value}`")]
    UnknownValue {
        /// What should be named here.
        what: &'static str,
        /// What is.
        value: String,
    },
    /// A list without entries, which would never match.
    #[error("an empty list matches nothing; leave the key out to match everything")]
    EmptyList,
    /// A list with too many entries.
    #[error("a list holds at most {LIST_ENTRIES_MAX} entries")]
    ListTooLong,
    /// A text without characters.
    #[error("this must not be empty")]
    EmptyText,
    /// A text that is too long.
    #[error("this is longer than {TEXT_CHARS_MAX} characters")]
    TextTooLong,
    /// Line breaks and other control characters would break messages and logs apart.
    #[error("this holds a line break or another control character; write it in one line")]
    ControlCharacter,
    /// A document's name that would not do in logs and commands.
    #[error("a name has 1 to {NAME_CHARS_MAX} letters, digits, `.`, `_` or `-`")]
    BadName,
    /// Not a table.
    #[error(
        "`{value}` is not a table; write `table` or `schema.table`, where `*` stands for any run of characters"
    )]
    BadTable {
        /// What was written.
        value: String,
    },
    /// Not a function.
    #[error(
        "`{value}` is not a function; write `function` or `schema.function`, without parentheses"
    )]
    BadFunction {
        /// What was written.
        value: String,
    },
    /// Not a column.
    #[error(
        "`{value}` is not a column; write `table.column` or `schema.table.column`, where `*` stands for any run of characters"
    )]
    BadColumn {
        /// What was written.
        value: String,
    },
    /// Not an endpoint.
    #[error(
        "`{value}` is not an endpoint; write `address:port`, `network/bits:port`, `[ipv6]:port`, `name:port` or `unix:/path`"
    )]
    BadEndpoint {
        /// What was written.
        value: String,
    },
    /// An endpoint without a port.
    #[error("the endpoint `{value}` has no port; write `{value}:5432`, or whatever its port is")]
    NoPort {
        /// What was written.
        value: String,
    },
    /// An IPv6 address whose end could be a port or a part of it.
    #[error(
        "`{value}` is not an endpoint; an IPv6 address stands in brackets, as in `[fd00::5]:5432`"
    )]
    NoBrackets {
        /// What was written.
        value: String,
    },
    /// Not a port or a range of them.
    #[error(
        "`{value}` is not a port; write one from 1 to 65535, or a range such as `5432-5433` with the lower one first"
    )]
    BadPorts {
        /// What was written.
        value: String,
    },
    /// Not a host name.
    #[error("`{value}` is not a host name: {why}")]
    BadHostName {
        /// What was written.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not a unix socket.
    #[error("`{value}` is not a unix socket: {why}")]
    BadUnixSocket {
        /// What was written.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More names than the resolver keeps.
    #[error("the targets have more than {NAMES_MAX} different host names")]
    TooManyNames,
    /// Not a network.
    #[error("`{value}` is not a network; write an address or `network/bits`")]
    BadNetwork {
        /// What was written.
        value: String,
    },
    /// An address with bits beyond its prefix.
    #[error("`{value}` has bits set beyond its prefix")]
    HostBits {
        /// What was written.
        value: String,
    },
    /// Not a number that fits.
    #[error("`{value}` is not a user id")]
    BadUid {
        /// What was written.
        value: String,
    },
    /// Not a duration.
    #[error("`{value}` is not a duration; write a number and `s`, `m` or `h`, such as `10m`")]
    BadDuration {
        /// What was written.
        value: String,
    },
    /// A hold that ends at once or never.
    #[error("a hold waits between 1s and {}h", HOLD_TIMEOUT_MAX.as_secs() / 3600)]
    TimeoutOutOfRange,
    /// A path that would depend on where the gateway was started.
    #[error("`{value}` is not an absolute path")]
    RelativePath {
        /// What was written.
        value: String,
    },
    /// `incomplete` would let pass what `default` stops.
    #[error(
        "`incomplete` is laxer than `default`: what the gateway understands least would pass most easily"
    )]
    IncompleteLaxer,
    /// A target that is carried without being understood would let everything pass.
    #[error(
        "a target with `protocol: tcp` cannot have `{key}: allow`, for nothing of what it carries is understood; write a Rule with `match: {{targets: [{target}], statements: [CONNECT]}}` and `then: allow`"
    )]
    PassThroughAllows {
        /// `default` or `incomplete`.
        key: &'static str,
        /// The target.
        target: String,
    },
    /// A catalogue that nobody would read.
    #[error(
        "a target with `protocol: tcp` has no use for `catalog`, for nothing is masked there; remove it"
    )]
    PassThroughCatalog,
    /// A login where none is seen.
    #[error(
        "a target with `protocol: tcp` has no use for `login`, for nothing of what it carries is understood; remove it"
    )]
    PassThroughLogin,
    /// None of several keys, or more than one.
    #[error("{within} needs exactly one of {keys}")]
    OneOf {
        /// The mapping.
        within: &'static str,
        /// The keys.
        keys: &'static str,
    },
    /// Who connects could choose a user.
    #[error(
        "with `trust: process` a credential needs `persons` or `groups`: the process proves who somebody is, and not which user of the server they may be"
    )]
    TrustWithoutPerson,
    /// A name that leads elsewhere.
    #[error("`{value}` cannot be the name of {what}")]
    BadCredentialName {
        /// What was written.
        value: String,
        /// What it should name.
        what: &'static str,
    },
    /// Encryption where nothing is understood.
    #[error(
        "a target with `protocol: tcp` has no use for `tls`, for its bytes pass as they are; remove it"
    )]
    PassThroughTls,
    /// A certificate without its key, or the other way round.
    #[error("`{given}` needs `{missing}` beside it")]
    TlsHalfPair {
        /// The key that is there.
        given: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// Nobody is named whose certificates are believed.
    #[error(
        "a server's certificate can only be verified with `ca`: add the file of its authority's certificate, or `ca: system`"
    )]
    TlsWithoutAuthority,
    /// An authority that nobody asks.
    #[error(
        "`ca` is only asked with `upstream: verify-ca` or `upstream: verify-full`; choose one of them, or remove it"
    )]
    TlsAuthorityUnused,
    /// A mask where nothing can be masked.
    #[error(
        "the mask `{mask}` is on the target `{target}`, whose protocol is `tcp`: nothing can be masked there; name the mask's `targets`"
    )]
    MaskOnPassThrough {
        /// The mask.
        mask: String,
        /// The target.
        target: String,
    },
    /// A mask that says nothing.
    #[error("a mask needs `columns` or `patterns`")]
    EmptyMask,
    /// Two documents of a kind with one name.
    #[error("the {kind} `{name}` is defined twice; first at {first}")]
    DuplicateName {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
        /// `file:line` of the first.
        first: String,
    },
    /// Two entries for one address and port, name and port, or unix socket.
    #[error(
        "the endpoint `{endpoint}` overlaps `{other_endpoint}` of the target `{other}` at {place}"
    )]
    DuplicateEndpoint {
        /// In one form.
        endpoint: String,
        /// The one that it overlaps, likewise.
        other_endpoint: String,
        /// That one's target.
        other: String,
        /// That one's `file:line`.
        place: String,
    },
    /// A reference to a document that is not there.
    #[error("there is no {what} `{name}`")]
    UnknownReference {
        /// What should be there.
        what: &'static str,
        /// What was written.
        name: String,
    },
    /// A priority out of range.
    #[error(
        "`{value}` is not a priority; write a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}, of which the greatest decides"
    )]
    BadPriority {
        /// What was written.
        value: String,
    },
    /// Not a number in the range.
    #[error("`{value}` is not a number {}", bounds(*min, *max))]
    NumberOutOfRange {
        /// What was written.
        value: String,
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// A rule that says nothing.
    #[error(
        "`then` says nothing; write `allow`, `hold`, `deny` or `terminate`, or one of the keys `mask`, `limit`, `readOnly` and `notify`"
    )]
    EmptyThen,
    /// A limit on nothing.
    #[error("a limit needs `rows`, `bytes`, `duration` or `rate`")]
    EmptyLimit,
    /// Not a size.
    #[error(
        "`{value}` is not a size; write a number and `B`, `KiB`, `MiB` or `GiB`, such as `10MiB`"
    )]
    BadBytes {
        /// What was written.
        value: String,
    },
    /// Not a rate.
    #[error(
        "`{value}` is not a rate; write a number from 1 to {RATE_MAX} and `/s`, `/m` or `/h`, such as `100/m`"
    )]
    BadRate {
        /// What was written.
        value: String,
    },
    /// A limit that nothing keeps, or that nothing reaches.
    #[error("a command may run between 1s and {}h", LIMIT_DURATION_MAX.as_secs() / 3600)]
    DurationOutOfRange,
    /// Not a zone.
    #[error(
        "there is no time zone `{value}`; write a name of the IANA database, such as `Europe/Berlin` or `UTC`"
    )]
    UnknownZone {
        /// What was written.
        value: String,
    },
    /// Not days.
    #[error("`{value}` is not a day of the week; write `mon`, or `mon-fri`")]
    BadDays {
        /// What was written.
        value: String,
    },
    /// Not a time of day.
    #[error("`{value}` is not a time of day; write `09:00`, up to `24:00`")]
    BadTimeOfDay {
        /// What was written.
        value: String,
    },
    /// Not a moment.
    #[error(
        "`{value}` is not a moment; write it by RFC 3339 with its offset, such as `2026-01-31T18:00:00Z`"
    )]
    BadMoment {
        /// What was written.
        value: String,
    },
    /// Not a regular expression.
    #[error("this is not a regular expression: {message}")]
    BadRegex {
        /// The engine's words.
        message: String,
    },
    /// A regular expression that takes too much memory.
    #[error(
        "this regular expression takes more than {REGEX_BYTES_MAX} bytes when compiled; repeat less in it"
    )]
    RegexTooLarge,
    /// Too many of them.
    #[error("the files hold more than {REGEXES_MAX} regular expressions")]
    TooManyRegexes,
    /// A detector that finds nothing everywhere.
    #[error(
        "this matches the empty text, so it would be found everywhere; ask for at least one character"
    )]
    MatchesNothing,
    /// A group that the expression does not have.
    #[error("the pattern has no such group; it has {groups}, and 0 is all of it")]
    NoSuchGroup {
        /// How many it has.
        groups: usize,
    },
    /// Not a word that could stand near a value.
    #[error("`{value}` is not one word; write letters alone, and each word as an entry of its own")]
    BadContextWord {
        /// What was written.
        value: String,
    },
    /// A detector by the name of a pattern that every gateway knows.
    #[error("`{name}` is a pattern that the gateway has already; choose another name")]
    BuiltInDetector {
        /// The name.
        name: String,
    },
    /// Not an expression.
    #[error("this expression cannot be used: {message}")]
    BadExpression {
        /// Why.
        message: String,
    },
    /// An expression that is too long.
    #[error("an expression has at most {EXPRESSION_BYTES_MAX} bytes")]
    ExpressionTooLong,
    /// A rule with a name that means something else.
    #[error("`default` is what grants call a target's own action; give the rule another name")]
    ReservedName,
    /// Both spellings of the groups that are asked.
    #[error("write `group` for one group or `groups` for several, not both")]
    GroupAndGroups,
    /// An entry given twice.
    #[error("`{value}` is in this list twice")]
    RepeatedEntry {
        /// The entry.
        value: String,
    },
    /// A number of people out of nobody in particular.
    #[error("`quorum` counts members of a group; name it with `group`, or leave `quorum` out")]
    QuorumWithoutGroup,
    /// A quorum that can never be reached.
    #[error("{quorum} of `{group}` can never approve: it has {people} at most")]
    QuorumTooLarge {
        /// The group.
        group: String,
        /// What is asked for.
        quorum: u32,
        /// How many people it has at most.
        people: u64,
    },
    /// Escalations without end.
    #[error("a hold may go on to others {ESCALATIONS_MAX} times at most")]
    TooManyEscalations,
    /// An escalation that asks anybody.
    #[error("`escalate` needs a `group`, for otherwise it would go on to anybody")]
    EscalationToNobody,
    /// A group of nobody.
    #[error("nobody is in this group; give it `persons`, `localUsers`, `uids` or `groups`")]
    EmptyGroup,
    /// Groups that lead back to themselves.
    #[error("these groups are within each other: `{cycle}`")]
    GroupCycle {
        /// Their names on the way around.
        cycle: String,
    },
    /// A member who can never approve.
    #[error(
        "nobody can approve as `{person}`: that Identity says neither `localUsers` nor `uids`, the users of the gateway host who it is"
    )]
    PersonCannotApprove {
        /// The identity.
        person: String,
    },
    /// An identity that nothing leads to.
    #[error("an Identity needs `is`, `localUsers` or `uids`")]
    EmptyIdentity,
    /// An identity that everybody has.
    #[error("this would fit every client; say which one it is")]
    IsEverybody,
    /// A user of the gateway host who would be two people.
    #[error("the {what} `{value}` is `{other}` already, at {place}")]
    SharedHostUser {
        /// `user id` or `user of the gateway host`.
        what: &'static str,
        /// Which one.
        value: String,
        /// The other identity.
        other: String,
        /// Its `file:line`.
        place: String,
    },
    /// A grant for whoever comes.
    #[error(
        "a Grant is for somebody: its `match` needs `persons`, `groups`, `users`, `process` or `clientNetworks`"
    )]
    GrantToEverybody,
    /// A bypass for whoever comes.
    #[error(
        "a Bypass is for somebody: its `match` needs `persons`, `groups`, `process` or `clientNetworks` (whoever has a password can be any of `users`)"
    )]
    BypassForEverybody,
    /// A grant that is never in force.
    #[error("`until` is not after `from`")]
    GrantEndsBefore,
    /// A grant that is no exception any more.
    #[error("a Grant lasts {GRANT_DAYS_MAX} days at most")]
    GrantTooLong,
    /// More ways to combine masks than are kept ready.
    #[error(
        "the rules name more than {MASK_LISTS_MAX} different lists of masks on the target `{target}`; let several rules name the same list, or use `when: always`"
    )]
    TooManyMaskLists {
        /// The target.
        target: String,
    },
    /// A test where the gateway reads policy.
    #[error("a Test has no place among policy; move it to a file in the folder `tests` beside it")]
    TestAmongPolicy,
    /// A test that sends nothing, or several things.
    #[error("a Test needs exactly one of `statement`, `facts` and `connect`")]
    TestCommands,
    /// A test that sends what its target cannot take.
    #[error("`{written}` has no meaning for a target with `protocol: {protocol}`; use `{right}`")]
    TestMisfit {
        /// The key.
        written: &'static str,
        /// The target's protocol.
        protocol: &'static str,
        /// The right key.
        right: &'static str,
    },
    /// Not an address.
    #[error("`{value}` is not an IP address")]
    BadAddress {
        /// What was written.
        value: String,
    },
    /// Not a point in time.
    #[error("`{value}` is not a time; write it as in `2026-11-20T10:00:00Z`")]
    BadTime {
        /// What was written.
        value: String,
    },
    /// Not a whole number.
    #[error("`{value}` is not a whole number from 0 on")]
    BadNumber {
        /// What was written.
        value: String,
    },
    /// Column masks need the catalogue to know which column a cell is from.
    #[error(
        "the mask `{mask}` names columns, but the target `{target}` has no `catalog` to find them in; give it one, or limit the mask with `targets`"
    )]
    MaskWithoutCatalog {
        /// The mask.
        mask: String,
        /// The target.
        target: String,
    },
}

/// The range of a number, in words.
fn bounds(min: u64, max: u64) -> String {
    match max {
        u64::MAX => format!("from {min} on"),
        _ => format!("from {min} to {max}"),
    }
}
