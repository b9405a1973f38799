//! The proofs of SyncLayer: harnesses that need the core alone, and the tests that cross crates.
//!
//! The simulator is [`run`]: a byte string becomes a [`plan`] and a walk through a [`world`], in
//! which every fault happens, and whose [`guarantees`] are checked as it goes and at its end; which
//! of the [`invariants`] a run breaks, [`run::examine`] says. A seed is a byte string
//! ([`draw::bytes_of`]), so proptest, a [`sweep`] over seeds and a fuzzer share one generator. Test
//! your own resolver or policy with it by building a world of your own:
//!
//! ```
//! use synclayer_core::{Collection, ConflictStrategy, FieldWise};
//! use synclayer_sim::guarantees::convergence;
//! use synclayer_sim::world::{World, WorldConfig, record};
//!
//! let todos = Collection::new("todos").unwrap();
//! let mut config = WorldConfig::of(2, &[todos.clone()]);
//! for client in &mut config.clients {
//!     client.conflict_strategy = ConflictStrategy::custom(FieldWise::sum_numbers());
//! }
//! let mut world = World::new(config);
//! let mut look = |_: &mut World| Ok(());
//! world.save(0, &todos, &record("a"), r#"{"n":1}"#).unwrap();
//! world.converge(&mut look).unwrap();
//!
//! // both count without hearing of each other, then the network heals
//! for device in 0..2 {
//!     for conn in world.connections_of(device) {
//!         world.cut(conn);
//!     }
//! }
//! world.update(0, &todos, &record("a"), r#"{"n":3}"#, &[]).unwrap();
//! world.update(1, &todos, &record("a"), r#"{"n":6}"#, &[]).unwrap();
//! world.heal();
//! world.converge(&mut look).unwrap();
//! convergence(&world).unwrap();
//! assert_eq!(world.view(0, &todos, &record("a")).unwrap().text("n"), Some("8"));
//! ```

pub mod adoption;
pub mod checks;
pub mod contract;
pub mod counted;
pub mod data;
pub mod directed;
pub mod draw;
pub mod fuzz;
pub mod guarantees;
pub mod host;
pub mod invariants;
mod leaving;
pub mod lone_replica;
mod losses;
pub mod plain_server;
pub mod plain_world;
pub mod plan;
pub mod points;
pub mod refusal;
pub mod ruling;
pub mod run;
pub mod scenario;
mod schedules;
pub mod scoping;
pub mod shrink;
pub mod states;
pub mod sweep;
pub mod transcript;
pub mod world;
mod writes;
