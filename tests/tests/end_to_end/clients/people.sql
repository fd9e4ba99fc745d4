-- What the clients read: a value of every kind that drivers decode, none of which stands twice in a
-- transcript by chance.
CREATE TABLE people (
    id int PRIMARY KEY, name text NOT NULL, email text NOT NULL, born date, salary numeric(12, 2), code uuid,
    tags text[], profile jsonb, seen timestamptz,
    card text
);
INSERT INTO people VALUES
    (1, 'Ada', 'ada@mail.example', '1915-12-10', 81235.75, '0a0a0a0a-1111-4111-8111-0123456789a1', '{loops,notes}', '{"desk": "north-17"}', '2024-03-01 09:15:00+00', '4111 1111 1111 1111'),
    (2, 'Grace', 'grace@mail.example', '1906-12-09', 92346.25, '0a0a0a0a-2222-4222-8222-0123456789a2', '{nanoseconds}', '{"desk": "south-23"}', '2024-04-02 10:25:30+00', 'paid by 5555 5555 5555 4444'),
    (3, 'Zoë', 'zoe@mail.example', '1983-05-17', 73457.25, '0a0a0a0a-3333-4333-8333-0123456789a3', '{chess}', '{"desk": "west-31"}', '2024-05-03 11:35:00+00', '3782 822463 10005');
ALTER TABLE people OWNER TO alice;
