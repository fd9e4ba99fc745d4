//! Where `cargo xtask setup` puts the clients that are not Debian's.

/// A directory for all of them.
pub const CLIENTS: &str = "/var/cache/interceptor/clients";
/// A Python with asyncpg and psycopg.
pub const PYTHON: &str = "/var/cache/interceptor/clients/python/bin/python";
/// For node's `NODE_PATH`: `pg` and `pg-cursor`.
pub const NODE_MODULES: &str = "/var/cache/interceptor/clients/node/node_modules";
/// pgjdbc, which Debian has.
pub const JDBC: &str = "/usr/share/java/postgresql.jar";
