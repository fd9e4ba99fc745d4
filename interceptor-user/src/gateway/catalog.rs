//! Catalogues of targets, read on a side connection and shared by the sessions of a database.
//!
//! A session never reads the catalogue itself: its user may see another one than the masks need.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interceptor_core::policy::CatalogAccess;
use interceptor_core::session::postgres::catalog::{
    Catalog, CatalogColumn, CatalogFunction, CatalogRelation, Contents, FunctionKind, Language,
    RelationKind, SearchPath, Volatility,
};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Row};

use super::catalog_watch::{self, Side};
use super::stream::Polled;
use super::upstream::{OpenError, Route};

/// A catalogue older than this is read anew by the next session. Changes through the gateway are
/// seen at once, those past it [in seconds](catalog_watch); this is for what neither sees.
const AGE_MAX: Duration = Duration::from_secs(60);
/// How long reading may take.
pub(super) const READ_WAIT_MAX: Duration = Duration::from_secs(30);
/// Bytes of a password file that are read.
const PASSWORD_BYTES_MAX: usize = 4096;

/// Why a catalogue could not be read. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum CatalogError {
    #[error("the target has no `catalog` in its policy file")]
    NoAccess,
    #[error("the password file {path}: {source}")]
    PasswordFile {
        path: String,
        source: std::io::Error,
    },
    #[error("the target cannot be reached: {0}")]
    Unreachable(OpenError),
    #[error("the target says: {0}")]
    Target(String),
    #[error("reading it took longer than {} s", READ_WAIT_MAX.as_secs())]
    TooSlow,
}

impl From<tokio_postgres::Error> for CatalogError {
    fn from(error: tokio_postgres::Error) -> Self {
        // The server's words alone: the library's own may hold more than we want to show.
        Self::Target(
            error
                .as_db_error()
                .map_or_else(|| error.to_string(), |error| error.message().to_owned()),
        )
    }
}

/// Every catalogue in use, by target address and database.
#[derive(Default)]
pub(super) struct Catalogs {
    entries: Mutex<HashMap<(SocketAddr, String), Arc<Entry>>>,
}

/// The catalogue of one database.
#[derive(Default)]
pub(super) struct Entry {
    /// Counts the changes that went through the gateway.
    generation: AtomicU64,
    /// Somebody asks the database for changes.
    watched: AtomicBool,
    /// One session reads, the others wait for its result.
    cached: tokio::sync::Mutex<Option<Cached>>,
}

#[derive(Clone)]
struct Cached {
    catalog: Arc<Catalog>,
    generation: u64,
    /// When its reading began.
    began: Instant,
}

impl Catalogs {
    /// The place for one database.
    pub(super) fn entry(&self, target: SocketAddr, database: &str) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(entries.entry((target, database.to_owned())).or_default())
    }
}

impl Entry {
    /// The newest generation.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The catalogue changed.
    pub(super) fn change(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Nobody asks for changes any more.
    pub(super) fn unwatched(&self) {
        self.watched.store(false, Ordering::Release);
    }

    /// The catalogue and its generation. `asked`: one whose reading began before this will not do.
    pub(super) async fn read(
        self: &Arc<Self>,
        access: Option<&CatalogAccess>,
        target: &Route,
        database: &str,
        asked: Option<Instant>,
    ) -> Result<(Arc<Catalog>, u64), CatalogError> {
        let access = access.ok_or(CatalogError::NoAccess)?;
        let mut cached = self.cached.lock().await;
        let fits = cached.as_ref().filter(|cached| {
            cached.generation == self.generation()
                && cached.began.elapsed() < AGE_MAX
                && asked.is_none_or(|asked| cached.began >= asked)
        });
        if let Some(fits) = fits {
            return Ok((Arc::clone(&fits.catalog), fits.generation));
        }
        let (generation, began) = (self.generation(), Instant::now());
        let reading = tokio::time::timeout(READ_WAIT_MAX, read(access, target, database));
        let read = reading.await.map_err(|_| CatalogError::TooSlow)??;
        let catalog = Arc::new(read.catalog);
        if !self.watched.swap(true, Ordering::AcqRel) {
            let entry = Arc::downgrade(self);
            tokio::spawn(catalog_watch::watch(entry, read.side, read.state));
        }
        *cached = Some(Cached {
            catalog: Arc::clone(&catalog),
            generation,
            began,
        });
        Ok((catalog, generation))
    }
}

/// What was read.
struct Reading {
    catalog: Catalog,
    side: Side,
    /// The state of the database before.
    state: String,
}

async fn read(
    access: &CatalogAccess,
    target: &Route,
    database: &str,
) -> Result<Reading, CatalogError> {
    let mut config = tokio_postgres::Config::new();
    config
        .user(&access.user)
        .dbname(database)
        .application_name("interceptor catalogue");
    if let Some(path) = &access.password_file {
        config.password(password(path)?);
    }
    let opened = target.open(None).await;
    let (stream, _) = opened.map_err(CatalogError::Unreachable)?;
    // What encrypts, if anything does, is the stream.
    let (client, connection) = config.connect_raw(Polled::new(stream), NoTls).await?;
    let connection = tokio::spawn(connection);
    let side = Side { client, connection };
    side.client.batch_execute(SETTINGS).await?;
    let state = catalog_watch::state(&side.client).await?;
    let catalog = query(&side.client, &access.user).await?;
    Ok(Reading {
        catalog,
        side,
        state,
    })
}

fn password(path: &str) -> Result<Vec<u8>, CatalogError> {
    let failed = |source| CatalogError::PasswordFile {
        path: path.to_owned(),
        source,
    };
    let mut password = std::fs::read(path).map_err(failed)?;
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(failed(std::io::Error::from(
            std::io::ErrorKind::FileTooLarge,
        )));
    }
    while password
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        password.pop();
    }
    Ok(password)
}

/// A view's definition locks the tables behind it. Somebody who changes one of them keeps it locked
/// for as long as they like, and may be the very session that this catalogue is for.
const SETTINGS: &str = "SET search_path = pg_catalog; SET statement_timeout = '25s'; \
     SET lock_timeout = '1s'; SET default_transaction_read_only = on";
const SHORT_LOCK: &str = "SET lock_timeout = '20ms'";

/// User relations, and the system's that hold values of user columns.
const RELATIONS: &str = "
    SELECT c.oid, n.nspname, c.relname, a.attnum, a.attname, a.atttypid, a.attgenerated <> '',
           -- What a partitioned table holds is in its partitions; a view holds nothing itself.
           CASE WHEN c.relkind = 'p' THEN 0
                WHEN c.relkind <> 'v' AND c.reltuples >= 0 THEN c.reltuples::pg_catalog.int8 END,
           c.relkind
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND (n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
            OR c.relname IN ('pg_statistic', 'pg_stats', 'pg_stats_ext', 'pg_stats_ext_exprs', 'pg_statistic_ext_data',
                          'pg_stat_activity'))
     ORDER BY c.oid, a.attnum";

const VIEWS: &str = "
    SELECT c.oid, pg_catalog.pg_get_viewdef(c.oid)
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')";

const VIEW_OIDS: &str = "
    SELECT c.oid
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')";

const VIEW: &str = "SELECT pg_catalog.pg_get_viewdef($1::pg_catalog.oid)";

/// Stands for a definition that is not known. It is no SQL, so that the view is masked whole.
const UNKNOWN_VIEW: &str = "unknown";

const PARENTS: &str = "SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits";

/// Functions, once for all overloads that are alike. Every aggregate is immutable and internal by its own
/// entry: it is what the functions are that it calls.
const FUNCTIONS: &str = "
    SELECT DISTINCT n.nspname, p.proname, p.prokind, f.provolatile, l.lanname, f.prosecdef
      FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
      LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid
     CROSS JOIN LATERAL (VALUES
            (CASE WHEN a.aggfnoid IS NULL THEN p.oid END), (a.aggtransfn), (a.aggfinalfn), (a.aggcombinefn),
            (a.aggserialfn), (a.aggdeserialfn), (a.aggmtransfn), (a.aggminvtransfn), (a.aggmfinalfn)) AS c (oid)
      JOIN pg_catalog.pg_proc f ON f.oid = c.oid
      JOIN pg_catalog.pg_language l ON l.oid = f.prolang";

/// What `search_path` a role's sessions begin with: by role and database, or by role.
const ROLE_PATHS: &str = "
    SELECT r.rolname, substr(c.config, strpos(c.config, '=') + 1)
      FROM pg_catalog.pg_db_role_setting s
      JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
      LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
     CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (config)
     WHERE (s.setdatabase = 0 OR d.datname = pg_catalog.current_database())
       AND lower(split_part(c.config, '=', 1)) = 'search_path'
     ORDER BY s.setdatabase = 0";

/// What all others begin with: by database, or by the server's configuration. It is what this session
/// began with, too, unless its role has a setting of its own.
const USUAL_PATH: &str = "
    SELECT s.reset_val FROM pg_catalog.pg_settings s WHERE s.name = 'search_path'";

fn is_locked(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// A view that went away meanwhile has no definition.
fn shown(definition: Option<String>) -> String {
    definition
        .filter(|definition| !definition.is_empty())
        .unwrap_or_else(|| UNKNOWN_VIEW.into())
}

/// Leaves out the views whose tables are locked.
async fn views_one_by_one(client: &Client) -> Result<HashMap<u32, String>, CatalogError> {
    client.batch_execute(SHORT_LOCK).await?;
    let mut views = HashMap::new();
    let statement = client.prepare(VIEW).await?;
    for row in client.query(VIEW_OIDS, &[]).await? {
        let oid: u32 = row.try_get(0)?;
        let definition = match client.query_one(&statement, &[&oid]).await {
            Err(error) if is_locked(&error) => None,
            row => row?.try_get(0)?,
        };
        views.insert(oid, shown(definition));
    }
    Ok(views)
}

async fn query(client: &Client, user: &str) -> Result<Catalog, CatalogError> {
    let mut relations: Vec<CatalogRelation> = Vec::new();
    for row in client.query(RELATIONS, &[]).await? {
        let oid: u32 = row.try_get(0)?;
        if relations.last().is_none_or(|relation| relation.oid != oid) {
            let (schema, name): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
            relations.push(CatalogRelation {
                oid,
                schema: schema.into(),
                name: name.into(),
                columns: Vec::new(),
                view: None,
                parents: Vec::new(),
                rows: row
                    .try_get::<_, Option<i64>>(7)?
                    .and_then(|rows| rows.try_into().ok()),
                kind: match row.try_get::<_, i8>(8)? as u8 {
                    b'p' => RelationKind::Partitioned,
                    b'v' => RelationKind::View,
                    b'm' => RelationKind::MaterializedView,
                    b'f' => RelationKind::Foreign,
                    _ => RelationKind::Table,
                },
            });
        }
        if let (Some(relation), Some(attribute)) =
            (relations.last_mut(), row.try_get::<_, Option<i16>>(3)?)
        {
            let name: &str = row.try_get(4)?;
            relation.columns.push(CatalogColumn {
                attribute,
                name: name.into(),
                type_oid: row.try_get(5)?,
                generated: row.try_get(6)?,
            });
        }
    }
    let mut views = match client.query(VIEWS, &[]).await {
        Err(error) if is_locked(&error) => views_one_by_one(client).await?,
        rows => {
            let definition = |row: &Row| Ok((row.try_get(0)?, shown(row.try_get(1)?)));
            rows?
                .iter()
                .map(definition)
                .collect::<Result<_, CatalogError>>()?
        }
    };
    let mut parents: HashMap<u32, Vec<u32>> = HashMap::new();
    for row in client.query(PARENTS, &[]).await? {
        parents
            .entry(row.try_get(0)?)
            .or_default()
            .push(row.try_get(1)?);
    }
    for relation in &mut relations {
        relation.view = views.remove(&relation.oid);
        relation.parents = parents.remove(&relation.oid).unwrap_or_default();
    }
    Ok(Catalog::new(Contents {
        relations,
        functions: functions(client).await?,
        search_paths: search_paths(client, user).await?,
    }))
}

async fn functions(client: &Client) -> Result<Vec<CatalogFunction>, CatalogError> {
    let mut functions = Vec::new();
    for row in client.query(FUNCTIONS, &[]).await? {
        let (schema, name): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        functions.push(CatalogFunction {
            schema: schema.into(),
            name: name.into(),
            kind: match row.try_get::<_, i8>(2)? as u8 {
                b'f' => FunctionKind::Function,
                b'a' => FunctionKind::Aggregate,
                b'w' => FunctionKind::Window,
                _ => FunctionKind::Procedure,
            },
            volatility: match row.try_get::<_, i8>(3)? as u8 {
                b'i' => Volatility::Immutable,
                b's' => Volatility::Stable,
                _ => Volatility::Volatile,
            },
            language: match row.try_get::<_, &str>(4)? {
                "internal" => Language::Internal,
                "c" => Language::C,
                "sql" => Language::Sql,
                other => Language::Other(other.into()),
            },
            definer: row.try_get(5)?,
        });
    }
    Ok(functions)
}

async fn search_paths(client: &Client, user: &str) -> Result<Vec<SearchPath>, CatalogError> {
    let mut paths = Vec::new();
    for row in client.query(ROLE_PATHS, &[]).await? {
        let (role, path): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        paths.push(SearchPath {
            role: Some(role.into()),
            path: path.into(),
        });
    }
    if !paths.iter().any(|path| path.role.as_deref() == Some(user)) {
        let row = client.query_one(USUAL_PATH, &[]).await?;
        let path: &str = row.try_get(0)?;
        paths.push(SearchPath {
            role: None,
            path: path.into(),
        });
    }
    Ok(paths)
}
