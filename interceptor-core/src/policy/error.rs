//! What can be wrong in a policy file, and how it is shown.
//!
//! It owns the words. Each error points at its place, as a compiler's does; colours are the
//! command line's business.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{
    DEPTH_MAX, DOCUMENTS_MAX, ERRORS_MAX, FILE_BYTES_MAX, HOLD_TIMEOUT_MAX, LIST_ENTRIES_MAX,
    NAME_CHARS_MAX, NAMES_MAX, TEXT_CHARS_MAX,
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
    /// A reference to a target that is not there.
    #[error("there is no target `{name}`")]
    UnknownTarget {
        /// What was written.
        name: String,
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

/// One error: what is wrong, where, and perhaps what was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The file; empty for what is wrong with all of them together.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: Problem,
    /// What would be right here, where that can be told.
    pub help: Option<String>,
    /// The text of the line, or the part of a long line that the place is in.
    pub(super) text: String,
    /// How many characters of `text` are before the place.
    pub(super) lead: usize,
    /// How many characters to underline.
    pub(super) width: usize,
}

impl PolicyError {
    /// What is wrong with all files together.
    pub(super) fn of_all(problem: Problem) -> Self {
        Self {
            file: String::new(),
            line: 0,
            column: 0,
            problem,
            help: None,
            text: String::new(),
            lead: 0,
            width: 0,
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.problem)?;
        if !self.file.is_empty() {
            let Self {
                file,
                line,
                column,
                text,
                width,
                ..
            } = self;
            // Tabs stay tabs, so that the marks stand below what they mark.
            let lead = text.chars().take(self.lead);
            let lead: String = lead.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(f, "  --> {file}:{line}:{column}")?;
            writeln!(f, "     |")?;
            writeln!(f, "{line:>4} | {text}")?;
            writeln!(f, "     | {lead}{:^<width$}", "")?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "     = {help}")?;
        }
        Ok(())
    }
}

impl core::error::Error for PolicyError {}

/// The errors of a load, by file and line; never empty, and never more than [`ERRORS_MAX`]
/// and a last one that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyErrors(pub Vec<PolicyError>);

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            write!(f, "{gap}{error}")?;
        }
        Ok(())
    }
}

impl core::error::Error for PolicyErrors {}
