//! A store in a folder of this machine: jobs survive the process, a crash and a power cut.
//!
//! - `store` is what jobs use. `writer` is the thread that changes the database, many changes at
//!   once; `readers` are the threads that read from it.
//! - `open` creates and checks the database, and `tables` are its tables. `row` is how a job is
//!   written with a small payload, `record` without, `claim_record` how a claim is, and
//!   `delivery_record` how a delivery is. `reader` reads them. `payloads` keeps large inputs and
//!   results in files, and `cache` keeps jobs that will soon change.
//! - `disk` is the file system as the store needs it; `fault` says why a store cannot be used.
//!   `free_space` is how much room the disk has left.

mod cache;
mod claim_record;
#[cfg(test)]
mod damage_tests;
mod delivery_record;
mod disk;
mod fault;
mod free_space;
#[cfg(test)]
mod lossy_disk;
mod open;
mod payloads;
#[cfg(test)]
mod power_tests;
mod reader;
mod readers;
mod record;
mod row;
mod shared;
mod store;
mod tables;
mod writer;

pub use disk::{Disk, FolderDisk};
pub use fault::Fault;
pub use store::DurableStore;
