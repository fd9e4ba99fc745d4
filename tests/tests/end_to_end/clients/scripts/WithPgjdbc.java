import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.CallableStatement;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Properties;
import java.util.stream.Collectors;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

/** What an application does with pgjdbc, as a transcript that is the same at every run. */
public class WithPgjdbc {
    static final String PEOPLE =
            "SELECT id, name, email, born, salary, code, tags, profile, seen, card FROM people ORDER BY id";
    static final DateTimeFormatter SECONDS = DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ssxxx");

    interface Work {
        void run() throws Exception;
    }

    /** A value as the other clients of these tests print it. */
    static String plain(Object value) throws SQLException {
        if (value == null || value instanceof Number && !(value instanceof BigDecimal) || value instanceof Boolean) {
            return String.valueOf(value);
        }
        if (value instanceof Array array) {
            return plain(array.getArray());
        }
        if (value instanceof Object[] many) {
            StringBuilder text = new StringBuilder("[");
            for (Object one : many) {
                text.append(text.length() > 1 ? ", " : "").append(plain(one));
            }
            return text.append("]").toString();
        }
        if (value instanceof byte[] bytes) {
            return HexFormat.of().formatHex(bytes);
        }
        if (value instanceof OffsetDateTime when) {
            return '"' + when.withOffsetSameInstant(ZoneOffset.UTC).format(SECONDS) + '"';
        }
        if (value instanceof Timestamp when) {
            return plain(when.toInstant().atOffset(ZoneOffset.UTC));
        }
        if (value instanceof BigDecimal number) {
            // Its zeros depend on whether it came as text or in binary.
            return '"' + number.stripTrailingZeros().toPlainString() + '"';
        }
        return '"' + value.toString() + '"';
    }

    static void show(String what, Object... values) throws SQLException {
        System.out.println(what + ": " + plain(values.length == 1 ? values[0] : values));
    }

    static void show(String what, ResultSet rows) throws SQLException {
        StringBuilder text = new StringBuilder();
        int columns = rows.getMetaData().getColumnCount();
        while (rows.next()) {
            Object[] row = new Object[columns];
            for (int n = 1; n <= columns; n++) {
                row[n - 1] = rows.getObject(n);
            }
            text.append(plain(row));
        }
        System.out.println(what + ": " + text);
    }

    static void failing(String what, Work work) throws Exception {
        try {
            work.run();
            show(what, "no error");
        } catch (SQLException error) {
            show(what, error.getSQLState(), String.valueOf(error.getMessage()).lines().findFirst().orElse(""));
        }
    }

    static Connection connect(String url, String... options) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        for (int n = 0; n < options.length; n += 2) {
            properties.setProperty(options[n], options[n + 1]);
        }
        return DriverManager.getConnection(url, properties);
    }

    static void reading(Connection connection) throws Exception {
        show("version", connection.getMetaData().getDatabaseProductVersion());
        try (Statement statement = connection.createStatement()) {
            ResultSet rows = statement.executeQuery(PEOPLE);
            ResultSetMetaData about = rows.getMetaData();
            show("columns", about.getColumnCount(), about.getColumnTypeName(5), about.getColumnName(9), about.getPrecision(5));
            // The driver asks the server's catalogue for these.
            show("nullable", about.isNullable(2), about.isAutoIncrement(1));
            show("rows", rows);
            show("two results", statement.execute("SELECT 1; SELECT id, email FROM people ORDER BY id"));
            show("one", statement.getResultSet());
            show("two", statement.getMoreResults());
            show("of two", statement.getResultSet());
            statement.setMaxRows(2);
            show("at most", statement.executeQuery(PEOPLE));
        }
        String query = "SELECT id, email, salary, seen, code, tags, born FROM people WHERE id = ?";
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            // From the fifth time on the driver keeps it at the server and asks for binary values.
            for (int n = 0; n < 9; n++) {
                statement.setInt(1, n % 3 + 1);
                show("prepared", statement.executeQuery());
            }
        }
        query = "SELECT seen, born, salary FROM people WHERE email = ? AND born > ?";
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            statement.setString(1, "ada@mail.example");
            statement.setDate(2, Date.valueOf("1900-01-01"));
            ResultSet rows = statement.executeQuery();
            rows.next();
            OffsetDateTime seen = rows.getObject(1, OffsetDateTime.class);
            show("getters", seen, rows.getDate(2), rows.getBigDecimal(3), rows.wasNull());
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT id, tags FROM people WHERE id = ANY (?) ORDER BY id")) {
            statement.setArray(1, connection.createArrayOf("int4", new Object[] {1, 3}));
            show("any", statement.executeQuery());
        }
        try (ResultSet rows = connection.getMetaData().getColumns(null, "public", "people", "%")) {
            StringBuilder names = new StringBuilder();
            while (rows.next()) {
                names.append(rows.getString("COLUMN_NAME")).append(' ').append(rows.getString("TYPE_NAME")).append(' ');
            }
            show("metadata", names);
        }
        try (ResultSet rows = connection.getMetaData().getPrimaryKeys(null, "public", "people")) {
            rows.next();
            show("primary key", rows.getString("COLUMN_NAME"));
        }
    }

    static void portals(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement("SELECT id, email, salary FROM people ORDER BY id")) {
            statement.setFetchSize(2);
            show("fetch size", statement.executeQuery());
            show("again", statement.executeQuery());
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT n FROM generate_series(1, 5000) AS n")) {
            statement.setFetchSize(100);
            ResultSet rows = statement.executeQuery();
            long total = 0;
            while (rows.next()) {
                total += rows.getLong(1);
                if (rows.getRow() % 1000 == 0) {
                    // Another statement while the portal is open.
                    try (Statement other = connection.createStatement()) {
                        other.executeQuery("SELECT 1").next();
                    }
                }
            }
            show("many", total);
        }
        try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY)) {
            ResultSet rows = statement.executeQuery("SELECT id, email FROM people ORDER BY id");
            rows.last();
            show("last", rows.getRow(), rows.getString(2));
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void writing(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.execute("DROP TABLE IF EXISTS made");
            statement.execute("DROP TABLE IF EXISTS never_there");
            show("warning", String.valueOf(statement.getWarnings()));
            statement.execute("CREATE TABLE made (id serial PRIMARY KEY, at timestamptz, amount numeric, raw bytea, flag boolean)");
            statement.addBatch("INSERT INTO made (id) VALUES (1000)");
            statement.addBatch("UPDATE made SET flag = true WHERE id = 1000");
            show("batch", Arrays.toString(statement.executeBatch()));
        }
        String insert = "INSERT INTO made (at, amount, raw, flag) VALUES (?, ?, ?, ?)";
        try (PreparedStatement statement = connection.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
            statement.setTimestamp(1, Timestamp.from(Instant.parse("2024-02-29T12:00:00Z")));
            statement.setBigDecimal(2, new BigDecimal("12.5"));
            statement.setBytes(3, new byte[] {1, 0, -1});
            statement.setNull(4, Types.BOOLEAN);
            show("inserted", statement.executeUpdate());
            show("keys", statement.getGeneratedKeys());
        }
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO made (amount) VALUES (?)")) {
            for (int n = 0; n < 300; n++) {
                statement.setInt(1, n);
                statement.addBatch();
            }
            show("long batch", Arrays.stream(statement.executeBatch()).sum());
        }
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO made (id) VALUES (?)")) {
            for (int id : new int[] {2001, 1000, 2002}) {
                statement.setInt(1, id);
                statement.addBatch();
            }
            try {
                statement.executeBatch();
            } catch (BatchUpdateException error) {
                show("broken batch", error.getSQLState(), Arrays.toString(error.getUpdateCounts()));
            }
        }
        try (Statement statement = connection.createStatement()) {
            show("made", statement.executeQuery("SELECT * FROM made WHERE id IN (1, 2, 1000, 2001) ORDER BY id"));
            failing("division", () -> statement.executeQuery("SELECT 1 / 0"));
            failing("unknown", () -> statement.executeQuery("SELECT nothing FROM people"));
            connection.setAutoCommit(false);
            show("deleted", statement.executeUpdate("DELETE FROM made WHERE id < 100"));
            Savepoint here = connection.setSavepoint("here");
            failing("in a transaction", () -> statement.executeQuery("SELECT 1 / 0"));
            failing("aborted", () -> statement.executeQuery("SELECT 1"));
            connection.rollback(here);
            show("after it", statement.executeQuery("SELECT count(*) FROM made"));
            connection.rollback();
            connection.setAutoCommit(true);
            show("undone", statement.executeQuery("SELECT count(*) FROM made"));
            statement.setQueryTimeout(1);
            failing("timeout", () -> statement.executeQuery("SELECT pg_sleep(60)"));
        }
        try (CallableStatement call = connection.prepareCall("{? = call upper(?)}")) {
            call.registerOutParameter(1, Types.VARCHAR);
            call.setString(2, "called");
            call.execute();
            show("call", call.getString(1));
        }
        connection.setReadOnly(true);
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            failing("read only", () -> statement.executeUpdate("DELETE FROM made"));
        }
        connection.rollback();
        connection.setAutoCommit(true);
        connection.setReadOnly(false);
    }

    static void copying(Connection connection) throws Exception {
        CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
        String lines = Arrays.stream(new int[500]).mapToObj(zero -> "1.25\n").collect(Collectors.joining());
        show("copied in", copy.copyIn("COPY made (amount) FROM STDIN", new StringReader(lines)));
        StringWriter out = new StringWriter();
        show("copied out", copy.copyOut("COPY people (id, email, born, card) TO STDOUT", out), out);
        out = new StringWriter();
        String csv = "COPY (SELECT id, email, card FROM people ORDER BY id) TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)";
        show("csv", copy.copyOut(csv, out), out);
        failing("broken", () -> copy.copyIn("COPY made (amount) FROM STDIN", new StringReader("no number\n")));
    }

    static void notifications(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.execute("LISTEN news");
            statement.execute("NOTIFY news");
        }
        show("notified", connection.unwrap(PGConnection.class).getNotifications(20_000)[0].getName());
    }

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        try (Connection connection = connect(url)) {
            reading(connection);
            portals(connection);
            writing(connection);
            copying(connection);
            notifications(connection);
            try (Statement statement = connection.createStatement()) {
                statement.execute("DROP TABLE made");
            }
        }
        for (String mode : new String[] {"simple", "extendedForPrepared", "extendedCacheEverything"}) {
            try (Connection connection = connect(url, "preferQueryMode", mode, "prepareThreshold", "-1", "sslmode", "disable");
                    PreparedStatement statement = connection.prepareStatement("SELECT email, salary, seen FROM people WHERE id = ?")) {
                for (int id = 1; id <= 3; id++) {
                    statement.setInt(1, id);
                    show(mode, statement.executeQuery());
                }
            }
        }
    }
}
