//! The matrix of clients and servers: real clients against `henge serve-bare` and a ring of three
//! nodes.
//!
//! The result is docs/compatibility.md. `HENGE_BLESS=1` writes the page; without it the page must
//! equal the result.

mod cell;
mod client;
mod narrow;
mod page;
mod server;

use std::collections::BTreeMap;

use cell::{CELLS, Outcome, Place};
use client::Client;
use server::Server;

/// By server and client: the outcomes of all cells, in the order of [`CELLS`].
type Columns = BTreeMap<(&'static str, String), Vec<Outcome>>;

#[test]
fn every_client_does_what_the_page_says() {
    let found = client::all();
    let servers = [Server::bare(), Server::ring()];
    let failures = std::sync::Mutex::new(Vec::new());
    let columns = std::sync::Mutex::new(Columns::new());
    std::thread::scope(|scope| {
        for server in &servers {
            let (clients, failures, columns) = (&found.clients, &failures, &columns);
            scope.spawn(move || {
                for client in clients {
                    let column = column(server, client, failures);
                    let key = (server.name(), client.label());
                    columns.lock().expect("nobody panics").insert(key, column);
                }
            });
        }
    });
    let failures = failures.into_inner().expect("nobody panics");
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
    let columns = columns.into_inner().expect("nobody panics");
    page::check(&found, &servers, &columns);
}

fn column(
    server: &Server,
    client: &Client,
    failures: &std::sync::Mutex<Vec<String>>,
) -> Vec<Outcome> {
    let mut column = Vec::new();
    for (number, cell) in CELLS.iter().enumerate() {
        if let Some(reason) = client.lacks(cell.kind) {
            column.push(Outcome::NotApplicable(reason));
            continue;
        }
        let started = std::time::Instant::now();
        let place = Place::new(server, client, number);
        match (cell.run)(&place) {
            Ok(outcome) => column.push(outcome),
            Err(error) => {
                let (server, client) = (server.name(), client.label());
                let failure = format!("{server}, {client}, {}: {error}", cell.title);
                eprintln!("FAILED {failure}");
                failures.lock().expect("nobody panics").push(failure);
                column.push(Outcome::Works);
            }
        }
        eprintln!(
            "{}, {}, {}: {:?}",
            server.name(),
            client.label(),
            cell.title,
            started.elapsed()
        );
    }
    column
}
