//! What several test files share: a driver's connection, and the secrets of the sample database.

use std::future::Future;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use interceptor_tests::World;
use interceptor_tests::postgres::{DATABASE, password};
use tokio::net::TcpStream;
use tokio_postgres::{Client, Config, NoTls};

/// Runs an async test.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}

/// A connection of tokio-postgres from the client's namespace: it prepares every statement and
/// asks for binary results, as most drivers do.
pub(crate) async fn driver(world: &World, host: impl Into<IpAddr>, user: &str) -> Result<Client> {
    let stream = socket(world, host)?;
    let mut config = Config::new();
    config
        .user(user)
        .password(password(user))
        .dbname(DATABASE)
        .application_name("driver");
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    // It ends with the client; an error also reaches the query that waits for the answer.
    tokio::spawn(connection);
    Ok(client)
}

/// A TCP connection from the client's namespace, for tokio.
pub(crate) fn socket(world: &World, host: impl Into<IpAddr>) -> Result<TcpStream> {
    let stream = world.connect(host)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream)?)
}

/// Fails if `text` holds an address, a social security number or a card number of anybody.
pub(crate) fn hides_everything(world: &World, text: &str) -> Result<()> {
    for column in ["email", "ssn", "card"] {
        let values = world
            .postgres
            .directly(&format!("SELECT {column} FROM customers"))?;
        for value in values.lines() {
            ensure!(!text.contains(value), "{column} {value} is in\n{text}");
            // A part of it under another letter case is a leak as well.
            let start: String = value.chars().take(10).collect();
            ensure!(
                !text.to_lowercase().contains(&start.to_lowercase()),
                "{start}, the start of {column} {value}, is in\n{text}"
            );
        }
    }
    Ok(())
}
