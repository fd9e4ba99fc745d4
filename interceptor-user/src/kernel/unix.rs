//! Unix sockets that are refused: by the last component of a path, or by a whole abstract name.
//!
//! The kernel asks before it looks a path up, so the name is all that is known of the socket.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use interceptor_common::{UNIX_NAMES_MAX, UnixName};

use super::KernelError;

/// Connecting takes the right to write (unix(7)).
const WRITE_BY_OTHERS: u32 = 0o002;

/// Works out the map's keys. A path that begins with `@` is an abstract name.
pub(super) fn compile(sockets: &[PathBuf]) -> Result<Vec<UnixName>, KernelError> {
    let names: BTreeSet<(u16, Vec<u8>)> = sockets
        .iter()
        .map(|path| name(path))
        .collect::<Result<_, _>>()?;
    if names.len() > UNIX_NAMES_MAX as usize {
        return Err(KernelError::MapFull {
            map: "unix_names",
            max: UNIX_NAMES_MAX,
            wanted: names.len(),
        });
    }
    Ok(names
        .iter()
        .map(|(is_abstract, bytes)| key(*is_abstract, bytes))
        .collect())
}

/// Says which sockets everybody may connect to: a link with another name is not refused.
pub(super) fn warn_open(sockets: &[PathBuf]) {
    let is_open = |path: &&PathBuf| {
        fs::metadata(path).is_ok_and(|found| {
            found.file_type().is_socket() && found.permissions().mode() & WRITE_BY_OTHERS != 0
        })
    };
    for path in sockets.iter().filter(is_open) {
        tracing::warn!(
            target: "interceptor::kernel",
            "every user may connect to {} by a link with another name, which is not refused; let its group alone connect \
             (PostgreSQL: unix_socket_permissions = 0770)",
            path.display()
        );
    }
}

fn name(path: &Path) -> Result<(u16, Vec<u8>), KernelError> {
    let bytes = path.as_os_str().as_bytes();
    let (is_abstract, name) = match bytes.strip_prefix(b"@") {
        Some(name) => (1, name),
        None => (0, bytes.rsplit(|byte| *byte == b'/').next().unwrap_or(&[])),
    };
    // A path needs its ending zero byte, an abstract name its leading one.
    let fits = (1..size_of_val(&empty().name)).contains(&name.len());
    // The last component of these is a directory, and no socket.
    if !fits || (is_abstract == 0 && [&b"."[..], b".."].contains(&name)) {
        return Err(KernelError::UnixName { path: path.into() });
    }
    Ok((is_abstract, name.to_vec()))
}

fn key(is_abstract: u16, bytes: &[u8]) -> UnixName {
    let mut key = empty();
    for (to, from) in key.name.iter_mut().zip(bytes) {
        *to = *from;
    }
    // At most 107, by the check above.
    key.length = bytes.len() as u16;
    key.is_abstract = is_abstract;
    key
}

fn empty() -> UnixName {
    bytemuck::Zeroable::zeroed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(path: &str) -> Option<(String, u16)> {
        let keys = compile(&[path.into()]).ok()?;
        let key = keys[0];
        let name = String::from_utf8(key.name[..usize::from(key.length)].to_vec()).unwrap();
        Some((name, key.is_abstract))
    }

    #[test]
    fn the_last_component_counts() {
        let socket = Some((".s.PGSQL.5432".to_owned(), 0));
        assert_eq!(compiled("/run/postgresql/.s.PGSQL.5432"), socket);
        assert_eq!(compiled(".s.PGSQL.5432"), socket);
        assert_eq!(compiled("@/x/name"), Some(("/x/name".to_owned(), 1)));
    }

    #[test]
    fn what_names_no_socket_is_an_error() {
        for path in ["", "/", "/run/", "/run/..", "@"] {
            assert_eq!(compiled(path), None, "{path}");
        }
        assert_eq!(compiled(&format!("/{}", "x".repeat(108))), None);
        assert!(compiled(&format!("/{}", "x".repeat(107))).is_some());
    }

    #[test]
    fn one_name_in_two_places_is_one_key() {
        let keys = compile(&["/a/x".into(), "/b/x".into(), "@x".into()]).unwrap();
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn too_many_names_are_told() {
        let paths: Vec<PathBuf> = (0..=UNIX_NAMES_MAX)
            .map(|index| format!("/{index}").into())
            .collect();
        assert!(matches!(
            compile(&paths),
            Err(KernelError::MapFull {
                map: "unix_names",
                ..
            })
        ));
    }
}
