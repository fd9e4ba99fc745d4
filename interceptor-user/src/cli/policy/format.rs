//! `interceptor policy fmt`: one form for policy files, so that a difference is one of meaning.
//!
//! It owns which files are brought into form and how they are replaced. What a file says is compared
//! by [`Form`] before anything is written: a file that would say something else stays as it is.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use interceptor_core::policy::{FILE_BYTES_MAX, Form, PolicyErrors, Source};
use pretty_yaml::config::{
    DashSpacing, FormatOptions, LanguageOptions, LayoutOptions, LineBreak, ProseWrap, Quotes,
};

use super::super::CliError;
use super::arguments::FormatArgs;

/// The most files that one call looks at.
const FILES_MAX: usize = 10_000;
/// How deep folders are looked into.
const FOLDERS_MAX: usize = 16;

/// Why a file keeps its form.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormatError {
    #[error("{0}")]
    Policy(PolicyErrors),
    #[error(
        "{file}: the formatter does not know what to do with this file; it is left as it is. Please report it, with the file"
    )]
    Unchangeable { file: String },
    #[error("{}: {cause}; it is left as it is", file.display())]
    File { file: PathBuf, cause: io::Error },
    #[error("{} holds more than {FILES_MAX} files, or folders deeper than {FOLDERS_MAX}; name the files", .0.display())]
    TooMany(PathBuf),
}

pub(super) fn run(arguments: &FormatArgs, out: &mut impl Write) -> Result<(), CliError> {
    if arguments.stdin {
        return standard_input(arguments.check, out);
    }
    let here = [PathBuf::from(".")];
    let places = match arguments.paths.as_slice() {
        [] => &here,
        given => given,
    };
    let mut refused = Vec::new();
    let mut files = Vec::new();
    for place in places {
        if let Err(error) = collect(place, 0, &mut files) {
            refused.push(error.to_string());
        }
    }
    files.sort();
    files.dedup();
    let mut changed = 0;
    for file in &files {
        match format_file(file, arguments.check) {
            Ok(false) => {}
            Ok(true) => {
                changed += 1;
                writeln!(out, "{}", file.display())?;
            }
            Err(error) => refused.push(error.to_string()),
        }
    }
    if !refused.is_empty() {
        return Err(CliError::Refused(refused.join("\n")));
    }
    if arguments.check && changed > 0 {
        return Err(CliError::Unformatted(changed));
    }
    Ok(())
}

fn standard_input(check: bool, out: &mut impl Write) -> Result<(), CliError> {
    let file = "standard input";
    let text = read(io::stdin().lock(), Path::new(file))
        .map_err(|error| CliError::Refused(error.to_string()))?;
    let formatted = formatted(file, &text).map_err(|error| CliError::Refused(error.to_string()))?;
    if check {
        return match formatted == text {
            true => Ok(()),
            false => Err(CliError::Unformatted(1)),
        };
    }
    Ok(out.write_all(formatted.as_bytes())?)
}

/// The policy files at a place: the file itself, whatever its name, or those of a folder and the
/// folders in it. Folders behind links are left out: a ConfigMap's are not there to be edited.
fn collect(place: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), FormatError> {
    let broken = |cause| FormatError::File {
        file: place.into(),
        cause,
    };
    if !fs::metadata(place).map_err(broken)?.is_dir() {
        files.push(place.into());
        return Ok(());
    }
    if depth == FOLDERS_MAX {
        return Err(FormatError::TooMany(place.into()));
    }
    for entry in fs::read_dir(place).map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let is_yaml = matches!(
            path.extension().and_then(OsStr::to_str),
            Some("yaml" | "yml")
        );
        if entry.file_type().map_err(broken)?.is_dir() {
            collect(&path, depth + 1, files)?;
        } else if is_yaml && !path.is_dir() {
            if files.len() == FILES_MAX {
                return Err(FormatError::TooMany(place.into()));
            }
            files.push(path);
        }
    }
    Ok(())
}

/// Whether the file is, or was, in another form.
fn format_file(path: &Path, check: bool) -> Result<bool, FormatError> {
    let broken = |cause| FormatError::File {
        file: path.into(),
        cause,
    };
    // A pipe would wait for its writer.
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = file.open(path).map_err(broken)?;
    if !file.metadata().map_err(broken)?.is_file() {
        return Err(broken(io::Error::other("it is not a regular file")));
    }
    let text = read(&file, path)?;
    let formatted = formatted(&path.to_string_lossy(), &text)?;
    if formatted == text {
        return Ok(false);
    }
    if !check {
        replace(path, &file, &formatted).map_err(broken)?;
    }
    Ok(true)
}

fn read(input: impl Read, path: &Path) -> Result<String, FormatError> {
    let broken = |cause| FormatError::File {
        file: path.into(),
        cause,
    };
    let mut bytes = Vec::new();
    input
        .take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(broken)?;
    if bytes.len() > FILE_BYTES_MAX {
        let why = format!("it is larger than {FILE_BYTES_MAX} bytes");
        return Err(broken(io::Error::other(why)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error
            .as_bytes()
            .iter()
            .take(error.utf8_error().valid_up_to());
        let line = valid.filter(|&&byte| byte == b'\n').count() + 1;
        broken(io::Error::other(format!("line {line} is not UTF-8")))
    })
}

/// The text in the one form, which says the same.
pub(super) fn formatted(file: &str, text: &str) -> Result<String, FormatError> {
    let before = Form::read(Source { file, text }).map_err(FormatError::Policy)?;
    let unchangeable = || FormatError::Unchangeable { file: file.into() };
    let once = pretty_yaml::format_text(text, &options()).map_err(|_| unchangeable())?;
    // A second time, where the first broke a line that the formatter then sees with other eyes.
    let twice = pretty_yaml::format_text(&once, &options()).map_err(|_| unchangeable())?;
    let after = Form::read(Source { file, text: &twice }).map_err(|_| unchangeable())?;
    if !before.says_the_same(&after) {
        return Err(unchangeable());
    }
    Ok(twice)
}

/// The one form: nobody can choose another.
fn options() -> FormatOptions {
    FormatOptions {
        layout: LayoutOptions {
            print_width: 100,
            indent_width: 2,
            line_break: LineBreak::Lf,
        },
        language: LanguageOptions {
            quotes: Quotes::PreferDouble,
            trailing_comma: false,
            format_comments: false,
            indent_block_sequence_in_map: true,
            brace_spacing: false,
            bracket_spacing: false,
            dash_spacing: DashSpacing::OneSpace,
            prefer_single_line: false,
            flow_sequence_prefer_single_line: None,
            flow_map_prefer_single_line: None,
            trim_trailing_whitespaces: true,
            trim_trailing_zero: false,
            prose_wrap: ProseWrap::Preserve,
            ignore_comment_directive: "interceptor-fmt-ignore".into(),
        },
    }
}

/// Puts the new text in the place of the old one at once: whoever reads the file sees either.
/// Mode and owner stay; a link stays a link.
fn replace(path: &Path, old: &File, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("it has no place in a folder"));
    };
    let mut new_name = OsStr::new(".").to_owned();
    new_name.push(name);
    // Not a name that a gateway would read as policy, should this process die.
    new_name.push(format!(".fmt-{}", std::process::id()));
    let new_path = folder.join(new_name);
    let write = || {
        let metadata = old.metadata()?;
        let mut new = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new_path)?;
        new.write_all(text.as_bytes())?;
        let owner = new.metadata()?;
        if (owner.uid(), owner.gid()) != (metadata.uid(), metadata.gid()) {
            fchown(&new, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        new.set_permissions(Permissions::clone(&metadata.permissions()))?;
        new.sync_all()?;
        fs::rename(&new_path, &path)?;
        File::open(folder)?.sync_all()
    };
    let written = write();
    if written.is_err() {
        // What is left of it helps nobody; the error is the one to show.
        let _ = fs::remove_file(&new_path);
    }
    written
}

#[cfg(test)]
mod tests;
