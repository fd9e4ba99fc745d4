// What an application does with node's pg, as a transcript that is the same at every run.
'use strict';

const { Client, Pool, Query } = require('pg');
const Cursor = require('pg-cursor');

const url = process.argv[2];
const config = { connectionString: url, password: process.env.PGPASSWORD };
const people = "SELECT id, name, email, born, salary, code, tags, profile, seen, card FROM people ORDER BY id";

// With the spaces of the other clients.
function plain(value) {
  if (value === null || value === undefined) return 'null';
  if (Buffer.isBuffer(value)) return JSON.stringify(value.toString('hex'));
  if (value instanceof Date) return JSON.stringify(value.toISOString().replace('.000Z', '+00:00'));
  if (Array.isArray(value)) return `[${value.map(plain).join(', ')}]`;
  if (typeof value === 'object') {
    const pairs = Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${plain(one)}`);
    return `{${pairs.join(', ')}}`;
  }
  return JSON.stringify(value);
}

function show(what, value) {
  console.log(`${what}: ${plain(value)}`);
}

async function failing(what, work) {
  try {
    show(what, (await work).rows);
  } catch (error) {
    show(what, [error.name, error.code, error.message]);
  }
}

async function reading(client) {
  const all = await client.query(people);
  show('rows', all.rows);
  show('count', [all.command, all.rowCount]);
  show('types', all.fields.map((one) => [one.name, one.dataTypeID]));
  show('arrays', (await client.query({ text: people, rowMode: 'array' })).rows);
  const one = 'SELECT name, email, born FROM people WHERE id = $1 AND born > $2';
  show('parameters', (await client.query(one, [2, '1900-01-01'])).rows);
  const named = { name: 'by-id', text: 'SELECT id, email, salary, seen FROM people WHERE id = $1' };
  for (const id of [1, 2, 3, 1]) show('prepared', (await client.query({ ...named, values: [id] })).rows);
  show('binary', (await client.query({ text: 'SELECT id, email FROM people WHERE id = $1', values: [3], binary: true })).rows);
  show('by email', (await client.query('SELECT id, code FROM people WHERE email = $1', ['ada@mail.example'])).rows);
  show('any', (await client.query('SELECT id, tags FROM people WHERE id = ANY($1) ORDER BY id', [[1, 3]])).rows);
  const several = await client.query('SELECT id FROM people ORDER BY id; SELECT email, profile FROM people ORDER BY id');
  show('several', several.map((result) => result.rows));
  show('limited', (await client.query({ text: people, values: [], rows: 2 })).rows);
  const seen = [];
  const query = client.query(new Query('SELECT email FROM people ORDER BY id'));
  query.on('row', (row) => seen.push(row));
  await new Promise((resolve, reject) => query.on('end', resolve).on('error', reject));
  show('events', seen);
  // All are on their way before the first is answered.
  const together = [1, 2, 3, 4, 5, 6].map((n) => client.query('SELECT $1::int AS n, email FROM people WHERE id = $2', [n, (n % 3) + 1]));
  show('together', (await Promise.all(together)).map((result) => result.rows));
}

async function cursors(client) {
  const cursor = client.query(new Cursor('SELECT id, email, salary FROM people WHERE id >= $1 ORDER BY id', [1]));
  show('cursor', await cursor.read(2));
  show('cursor on', await cursor.read(2));
  show('cursor over', await cursor.read(2));
  await cursor.close();
  const early = client.query(new Cursor('SELECT generate_series(1, 100000) AS n'));
  show('early', (await early.read(500)).length);
  await early.close();
  await client.query('BEGIN');
  await client.query('DECLARE walk SCROLL CURSOR FOR SELECT id, email FROM people ORDER BY id');
  show('fetch', (await client.query('FETCH 2 FROM walk')).rows);
  show('backward', (await client.query('FETCH BACKWARD 1 FROM walk')).rows);
  await client.query('COMMIT');
}

async function writing(client) {
  await client.query('DROP TABLE IF EXISTS made');
  await client.query('CREATE TABLE made (id int PRIMARY KEY, at timestamptz, doc jsonb, raw bytea, list int[])');
  const insert = 'INSERT INTO made VALUES ($1, $2, $3, $4, $5) RETURNING *';
  for (const id of [1, 2]) {
    const values = [id, new Date(Date.UTC(2024, 1, 29, 12)), { n: id }, Buffer.from([id, 0, 255]), [id, null]];
    show('inserted', (await client.query(insert, values)).rows);
  }
  await failing('duplicate', client.query(insert, [1, null, null, null, null]));
  await failing('division', client.query('SELECT 1 / $1::int', [0]));
  await failing('unknown', client.query('SELECT nothing FROM people'));
  await failing('wrong type', client.query("SELECT 'no number'::int"));
  await client.query('BEGIN');
  show('deleted', (await client.query('DELETE FROM made')).rowCount);
  await client.query('SAVEPOINT here');
  await failing('in a transaction', client.query('SELECT 1 / 0'));
  await failing('aborted', client.query('SELECT 1'));
  await client.query('ROLLBACK TO here');
  show('after it', (await client.query('SELECT count(*) FROM made')).rows);
  await client.query('ROLLBACK');
  show('undone', (await client.query('SELECT count(*)::int FROM made')).rows);
  // The text of a named statement stays, and its table changes.
  const all = { name: 'all-made', text: 'SELECT * FROM made ORDER BY id' };
  show('before', (await client.query(all)).rows.length);
  await client.query('ALTER TABLE made DROP COLUMN doc');
  await failing('another result', client.query(all));
}

async function messages(client) {
  const said = [];
  client.on('notice', (notice) => said.push([notice.severity, notice.message]));
  await client.query('DROP TABLE IF EXISTS never_there');
  show('notice', said);
  const heard = new Promise((resolve) => client.once('notification', resolve));
  await client.query('LISTEN news');
  await client.query('NOTIFY news');
  show('notification', (await heard).channel);
  await client.query("SET statement_timeout = '300ms'");
  await failing('timeout', client.query('SELECT pg_sleep(60)'));
  await client.query('RESET statement_timeout');
}

async function pooled() {
  const pool = new Pool({ ...config, max: 3 });
  const ids = Array.from({ length: 12 }, (_, n) => (n % 3) + 1);
  const results = await Promise.all(ids.map((id) => pool.query('SELECT email FROM people WHERE id = $1', [id])));
  show('pool', results.map((result) => result.rows[0].email));
  await pool.end();
}

async function main() {
  // A day is shown as the server says it, not as the midnight of where the test runs.
  require('pg').types.setTypeParser(1082, (text) => text);
  const client = new Client(config);
  await client.connect();
  for (const part of [reading, cursors, writing, messages]) await part(client);
  await client.query('DROP TABLE made');
  await client.end();
  await pooled();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
