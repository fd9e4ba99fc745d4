//! What can be wrong with what a mask shows, in words.

use alloc::string::String;

use super::mask_document::PLACEHOLDER_BYTES_MAX;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MaskProblem {
    /// A key that means nothing beside the others.
    #[error("`{key}` goes with {with} only")]
    KeyWithout {
        /// The key.
        key: &'static str,
        /// What it goes with.
        with: &'static str,
    },
    /// A key of masks cannot be used.
    #[error("the key file {path} cannot be used: {message}")]
    KeyFile {
        /// The file.
        path: String,
        /// Why, without any of its bytes.
        message: String,
    },
    /// A placeholder that does not fit everywhere.
    #[error(
        "a placeholder has at most {PLACEHOLDER_BYTES_MAX} bytes, and no quotes, backslashes, commas, braces or parentheses"
    )]
    BadPlaceholder,
}
