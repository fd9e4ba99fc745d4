-- The sample database of the demo and the tests. Every person in it is made up: the addresses are
-- of example domains, the card numbers are the card schemes' published test numbers, and the
-- social security numbers were never issued.

CREATE ROLE alice LOGIN PASSWORD 'alice-password';
CREATE ROLE bob LOGIN PASSWORD 'bob-password';
CREATE ROLE interceptor_catalog LOGIN PASSWORD 'catalog-password';
-- For tests that write the protocol by hand: pg_hba.conf lets it in without a password.
CREATE ROLE wire LOGIN;

CREATE DATABASE shop OWNER alice;
GRANT ALL ON DATABASE shop TO bob, wire;
\connect shop
ALTER SCHEMA public OWNER TO alice;
SET ROLE alice;

CREATE TABLE customers (
    id    integer PRIMARY KEY,
    name  text NOT NULL,
    email text NOT NULL,
    ssn   text NOT NULL,
    card  text NOT NULL,
    note  text
);
INSERT INTO customers VALUES
    (1, 'Ada Lovelace',      'ada.lovelace@example.com',    '219-09-9999', '4111 1111 1111 1111', 'prefers mail'),
    (2, 'Grace Hopper',      'grace.hopper@example.com',    '078-05-1120', '5555 5555 5555 4444', 'card 5555 5555 5555 4444 was declined once'),
    (3, 'Alan Turing',       'alan.turing@example.org',     '457-55-5462', '3782 822463 10005',   NULL),
    (4, 'Katherine Johnson', 'katherine@example.net',       '501-23-4567', '6011 1111 1111 1117', 'order number 20240917'),
    (5, 'Edsger Dijkstra',   'e.w.dijkstra@example.org',    '601-45-6789', '4012 8888 8888 1881', ''),
    (6, 'Barbara Liskov',    'barbara.liskov@example.com',  '212-34-5678', '3530 1113 3330 0000', 'calls on Mondays');

CREATE TABLE orders (
    id          integer PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    item        text NOT NULL,
    price       numeric(10, 2) NOT NULL,
    placed_at   timestamptz NOT NULL
);
INSERT INTO orders
SELECT n, 1 + n % 6, 'item ' || n, n * 1.25, timestamptz '2024-09-01 12:00:00+00' + n * interval '1 hour'
FROM generate_series(1, 60) AS n;

CREATE VIEW contacts AS SELECT id, name, email FROM customers;

GRANT ALL ON ALL TABLES IN SCHEMA public TO bob, wire;
GRANT CREATE, USAGE ON SCHEMA public TO bob, wire;
