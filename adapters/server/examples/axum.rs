//! A program that has an axum server of its own, with a SyncLayer server below `/live`.
//!
//! ```sh
//! cargo run -p synclayer-server --example axum -- 127.0.0.1:8080
//! ```
//!
//! `http://127.0.0.1:8080/` is the program's page, and clients open `http://127.0.0.1:8080/live`.

use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use synclayer_server::{Embedded, MemoryServerStore, ServerConfig};
use tokio::net::TcpListener;

/// The state of the program's own routes.
#[derive(Clone)]
pub struct Page {
    /// The text of the page.
    pub title: &'static str,
}

/// The routes of the program, and those of a SyncLayer server beside them.
pub fn app(sync: &Embedded, page: Page) -> Router {
    Router::new()
        .route("/", get(|State(page): State<Page>| async move { page.title }))
        .nest("/live", sync.router())
        .with_state(page)
}

/// Serves until the program is interrupted.
#[allow(dead_code)] // a test runs the routes without it
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: axum HOST:PORT")?;
    // a program that keeps its data opens a `FjallServerStore`, and one with users has tokens
    let store = Arc::new(MemoryServerStore::new());
    let sync = Embedded::open(ServerConfig::default(), store).await?;
    let app = app(&sync, Page { title: "the program's own page" });
    axum::serve(TcpListener::bind(address).await?, app).await?;
    sync.shutdown().await;
    Ok(())
}
