//! Makes statements at random, and knows what they do.

use std::collections::BTreeSet;

/// A statement and what it does.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) text: String,
    /// Relations that it writes, as facts name them.
    pub(crate) writes: BTreeSet<String>,
    pub(crate) reads: BTreeSet<String>,
    pub(crate) kinds: BTreeSet<&'static str>,
    /// It does something that no text shows.
    pub(crate) hides: bool,
    pub(crate) locks: bool,
    /// What is in it runs when it runs.
    pub(crate) runs: bool,
}

/// Tables as a text names them, and as facts do.
const TABLES: &[(&str, &str)] = &[
    ("t0", "t0"),
    ("s.t1", "s.t1"),
    ("T2", "t2"),
    ("\"T3\"", "T3"),
    ("public . t4", "public.t4"),
    ("\"a b\"", "a b"),
    ("U&\"t\\0035\"", "t5"),
    ("\"select\"", "select"),
    ("s.\"x.y\"", "s.x.y"),
    ("shop.s.t6", "s.t6"),
];

/// What stands between words, and hides nothing.
const NOISE: &[&str] = &[
    " ",
    " ",
    "\n",
    " /* delete from z */ ",
    " -- update z set a = 1\n",
    " /* /* nested */ insert into z */ ",
    "\t",
];

/// Constants that look like something else.
const CONSTANTS: &[&str] = &[
    "1",
    "'x'",
    "E'\\'; delete from z; --'",
    "$$ delete from z $$",
    "$a$ '; drop table z; $a$",
    "null",
    "1.5e3",
    "true",
    "'it''s'",
    "B'101'",
    "date '2026-11-20'",
    "interval '1 day'",
    "U&'\\0061'",
    "$1",
    "current_user",
];

const DEPTH_MAX: u32 = 4;

pub(crate) struct Grammar {
    state: u64,
    made: Made,
    common: usize,
}

impl Grammar {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1,
            made: Made::default(),
            common: 0,
        }
    }

    fn below(&mut self, count: u64) -> u64 {
        // xorshift64*: the same statements everywhere, each time.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % count
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        let index = self.below(list.len() as u64);
        list[index as usize]
    }

    fn noise(&mut self) -> &'static str {
        self.one_of(NOISE)
    }

    fn read_table(&mut self) -> &'static str {
        let (text, name) = self.one_of(TABLES);
        self.made.reads.insert(name.to_owned());
        text
    }

    fn written_table(&mut self, kind: &'static str) -> &'static str {
        let (text, name) = self.one_of(TABLES);
        self.made.writes.insert(name.to_owned());
        self.made.kinds.insert(kind);
        text
    }

    /// A statement, and what it does.
    pub(crate) fn statement(mut self) -> Made {
        self.made.runs = true;
        let text = match self.below(20) {
            0..8 => self.changing(0),
            8..13 => self.select(0),
            13 => self.explained(),
            14 => {
                let query = self.query(1);
                format!("COPY ({query}) TO STDOUT")
            }
            15 => self.definition(),
            16 => self.copy(),
            17 => self.hidden(),
            18 => {
                self.made.kinds.insert("DECLARE CURSOR");
                format!("DECLARE c CURSOR FOR {}", self.select(1))
            }
            _ => {
                let (one, two) = (self.changing(1), self.changing(1));
                format!("{one};{}{two};", self.noise())
            }
        };
        self.made.text = text;
        self.made
    }

    fn explained(&mut self) -> String {
        let runs = self.below(2) == 0;
        let inner = self.changing(1);
        if runs {
            return match self.below(2) {
                0 => format!("EXPLAIN ANALYZE {inner}"),
                _ => format!("EXPLAIN (COSTS off, ANALYZE true) {inner}"),
            };
        }
        self.made.runs = false;
        let writes = std::mem::take(&mut self.made.writes);
        self.made.reads.extend(writes);
        self.made.kinds.clear();
        self.made.locks = false;
        format!("EXPLAIN (ANALYZE off) {inner}")
    }

    fn definition(&mut self) -> String {
        match self.below(6) {
            0 => format!(
                "CREATE TABLE {} AS {}",
                self.written_table("CREATE TABLE AS"),
                self.select(1)
            ),
            1 => format!("DROP TABLE IF EXISTS {}", self.written_table("DROP TABLE")),
            2 => format!(
                "ALTER TABLE {} ADD COLUMN d int DEFAULT 1",
                self.written_table("ALTER TABLE")
            ),
            3 => format!(
                "TRUNCATE {}, {}",
                self.written_table("TRUNCATE"),
                self.written_table("TRUNCATE")
            ),
            4 => {
                let (kind, table) = ("SELECT", self.written_table("CREATE TABLE AS"));
                self.made.kinds.insert(kind);
                format!("SELECT a INTO {table} FROM {}", self.read_table())
            }
            _ => format!(
                "CREATE VIEW {} AS {}",
                self.written_table("CREATE VIEW"),
                self.plain_select(1)
            ),
        }
    }

    fn copy(&mut self) -> String {
        match self.below(2) {
            0 => format!("COPY {} (a, b) FROM STDIN", self.written_table("COPY FROM")),
            _ => format!("COPY {} TO STDOUT (FORMAT csv)", self.read_table()),
        }
    }

    /// What no text shows.
    fn hidden(&mut self) -> String {
        self.made.hides = true;
        match self.below(6) {
            0 => "DO $$ begin delete from z; end $$".to_owned(),
            1 => "CALL p(1)".to_owned(),
            2 => format!(
                "SELECT query_to_xml('delete from z', true, true, '') FROM {}",
                self.read_table()
            ),
            3 => "SELECT * FROM dblink('x', 'delete from z') AS t (a int)".to_owned(),
            4 => format!(
                "COPY {} FROM PROGRAM 'x'",
                self.written_table("COPY PROGRAM")
            ),
            _ => "SELECT * FROM s.crosstab('select 1') AS t (a int)".to_owned(),
        }
    }

    /// Anything that gives rows.
    fn query(&mut self, depth: u32) -> String {
        match self.below(3) {
            0 => format!("{} RETURNING *", self.plain_change(depth)),
            _ => self.select(depth),
        }
    }

    fn changing(&mut self, depth: u32) -> String {
        match self.below(4) {
            0 => {
                let with = self.with(depth);
                format!("{with}{}", self.plain_change(depth))
            }
            _ => self.plain_change(depth),
        }
    }

    fn plain_change(&mut self, depth: u32) -> String {
        match self.below(5) {
            0 => {
                let (table, noise) = (self.written_table("INSERT"), self.noise());
                format!(
                    "INSERT{noise}INTO {table} (a, b) {}",
                    self.select(depth + 1)
                )
            }
            1 => {
                let table = self.written_table("INSERT");
                self.made.kinds.insert("UPDATE");
                format!(
                    "INSERT INTO {table} AS x VALUES ({}) ON CONFLICT (a) DO UPDATE SET a = {}",
                    self.expression(depth + 1),
                    self.expression(depth + 1)
                )
            }
            2 => {
                let table = self.written_table("UPDATE");
                let from = match self.below(2) {
                    0 => format!("FROM {}", self.from(depth + 1)),
                    _ => String::new(),
                };
                format!(
                    "UPDATE ONLY {table} AS x SET a = {}, (b, c) = ({}) {from} WHERE {}",
                    self.expression(depth + 1),
                    self.select(depth + 1),
                    self.expression(depth + 1)
                )
            }
            3 => {
                let (table, noise) = (self.written_table("DELETE"), self.noise());
                format!(
                    "DELETE{noise}FROM {table} x USING {} WHERE {}",
                    self.from(depth + 1),
                    self.expression(depth + 1)
                )
            }
            _ => {
                let table = self.written_table("MERGE");
                self.made.kinds.extend(["UPDATE", "INSERT", "DELETE"]);
                format!(
                    "MERGE INTO {table} x USING {} ON {} WHEN MATCHED AND x.a = 1 THEN DELETE \
                     WHEN MATCHED THEN UPDATE SET a = {} WHEN NOT MATCHED THEN INSERT VALUES (1)",
                    self.source(depth + 1),
                    self.expression(depth + 1),
                    self.expression(depth + 1)
                )
            }
        }
    }

    /// A WITH clause, whose statements may change something.
    fn with(&mut self, depth: u32) -> String {
        self.common += 1;
        let name = format!("c{}", self.common);
        let query = match self.below(2) {
            0 => format!("{} RETURNING 1", self.plain_change(depth + 1)),
            _ => self.plain_select(depth + 1),
        };
        format!("WITH {name} AS ({query}) ")
    }

    fn select(&mut self, depth: u32) -> String {
        // The server takes statements that change something at the top alone, the grammar anywhere.
        match self.below(8) {
            0 if depth < DEPTH_MAX => format!("{}{}", self.with(depth), self.plain_select(depth)),
            1 if depth < DEPTH_MAX => {
                let operator = self.one_of(&["UNION ALL", "EXCEPT", "INTERSECT"]);
                format!(
                    "({}) {operator} ({})",
                    self.select(depth + 1),
                    self.select(depth + 1)
                )
            }
            2 => format!("VALUES ({})", self.expression(depth + 1)),
            3 => format!("TABLE {}", self.read_table()),
            _ => self.plain_select(depth),
        }
    }

    fn plain_select(&mut self, depth: u32) -> String {
        let noise = self.noise();
        let mut text = format!(
            "SELECT{noise}{} AS x FROM {} WHERE {}",
            self.expression(depth + 1),
            self.from(depth + 1),
            self.expression(depth + 1)
        );
        if self.below(8) == 0 {
            self.made.locks = true;
            text.push_str(" FOR UPDATE");
        } else if self.below(4) == 0 {
            text.push_str(&format!(" ORDER BY {}", self.expression(depth + 1)));
        }
        text
    }

    fn from(&mut self, depth: u32) -> String {
        match self.below(5) {
            0 if depth < DEPTH_MAX => format!(
                "{} JOIN {} ON {}",
                self.source(depth + 1),
                self.source(depth + 1),
                self.expression(depth + 1)
            ),
            1 => format!("{}, {}", self.source(depth), self.source(depth)),
            _ => self.source(depth),
        }
    }

    fn source(&mut self, depth: u32) -> String {
        match self.below(6) {
            0 if depth < DEPTH_MAX => format!("LATERAL ({}) AS y", self.plain_select(depth + 1)),
            1 => format!("generate_series(1, {}) AS g", self.expression(depth + 1)),
            2 => format!("{} TABLESAMPLE system (10)", self.read_table()),
            _ => self.read_table().to_owned(),
        }
    }

    fn expression(&mut self, depth: u32) -> String {
        if depth >= DEPTH_MAX {
            return self.one_of(CONSTANTS).to_owned();
        }
        match self.below(12) {
            0 => format!("(SELECT a FROM {})", self.read_table()),
            1 => format!("EXISTS ({})", self.plain_select(depth + 1)),
            2 => format!(
                "CASE WHEN {} THEN {} END",
                self.expression(depth + 1),
                self.expression(depth + 1)
            ),
            3 => format!("lower({})", self.expression(depth + 1)),
            4 => format!(
                "count(*) FILTER (WHERE {}) OVER (ORDER BY {})",
                self.expression(depth + 1),
                self.expression(depth + 1)
            ),
            5 => format!("ARRAY[{}]", self.expression(depth + 1)),
            6 => format!("ROW({}, 1)", self.expression(depth + 1)),
            7 => format!(
                "({} {} {})",
                self.expression(depth + 1),
                self.one_of(&["=", "||", "AND", "+", "~", "@>", "IS DISTINCT FROM"]),
                self.expression(depth + 1)
            ),
            8 => format!("({})::text", self.expression(depth + 1)),
            9 => format!("(a = ANY (SELECT b FROM {}))", self.read_table()),
            10 => "x.a".to_owned(),
            _ => self.one_of(CONSTANTS).to_owned(),
        }
    }
}
