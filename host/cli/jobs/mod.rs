//! `hostler jobs`: lists, shows, ends and deletes the jobs of a running host.

mod arguments;
mod change;
mod export;
mod list;
mod new_file;
mod pages;
mod purge;
mod reset;
mod show;
mod target;
mod times;

pub use arguments::JobsCommand;

use super::client;
use crate::error::Result;

/// Runs a command. Returns false if a part of it has failed, which was reported.
pub fn run(command: JobsCommand) -> Result<bool> {
    let runtime = client::runtime()?;
    match command {
        JobsCommand::List(list) => runtime.block_on(list::run(list)),
        JobsCommand::Show(show) => runtime.block_on(show::run(show)),
        JobsCommand::Cancel(jobs) => runtime.block_on(change::cancel(jobs)),
        JobsCommand::Retry(jobs) => runtime.block_on(change::retry(jobs)),
        JobsCommand::Purge(purge) => runtime.block_on(purge::run(purge)),
        JobsCommand::Export(export) => runtime.block_on(export::run(export)),
        JobsCommand::Reset(reset) => runtime.block_on(reset::run(reset)),
    }
}
