//! The thread that changes the store.
//!
//! It applies what is waiting in one transaction, commits it, and only then answers: one flush of
//! the disk for many changes. When the disk fails, it closes the database and opens it again, with
//! pauses, until that works.

use super::cache::JobCache;
use super::disk::Disk;
use super::fault::{Attempted, Fault, catch_panics};
use super::open::{Opened, open};
use super::payloads::{FileReference, InProgress};
use super::shared::{Shared, State};
use super::tables::{CLOCK_KEY, Tables};
use crate::error::{Error, Kind, Result};
use crate::jobs::store::Engine;
use crate::lock::LockUnpoisoned;
use redb::Database;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The most changes of one transaction.
const BATCH_MAX: usize = 256;

/// After a transaction with at least so many changes, the next one waits for more: each flush of
/// the disk then covers more of them. Changes that come one by one do not wait.
const GATHER_FROM: usize = 4;
const GATHER_TIME: Duration = Duration::from_micros(500);

/// A store under load waits for longer: a change then waits for several others anyway.
const LOADED_FROM: usize = 32;
const LOADED_GATHER_TIME: Duration = Duration::from_millis(2);

/// So many changes or more are acknowledged in a task of the runtime.
const TASK_FROM: usize = 4;

/// The pause before a store that could not be opened is tried again. It doubles up to the longest.
const REOPEN_FIRST: Duration = Duration::from_millis(100);
const REOPEN_LONGEST: Duration = Duration::from_secs(5);

/// How long to wait for readers before the database is closed.
const READERS_TIMEOUT: Duration = Duration::from_secs(5);

/// What the thread is asked to do.
pub(super) enum Command {
    Change(Box<dyn Change>),
    /// Sets the files aside and begins with an empty store.
    Reset(oneshot::Sender<Result<String>>),
    Close(oneshot::Sender<()>),
}

/// A change that is part of a transaction.
pub(super) trait Change: Send {
    /// Applies it. An error means that the store cannot be used, and ends the transaction.
    fn apply(&mut self, engine: &mut Engine<'_, Tables<'_>>) -> Result<(), Fault>;

    /// Called after the commit.
    fn committed(self: Box<Self>);

    /// Called instead if the transaction has failed.
    fn failed(self: Box<Self>, error: Error);
}

/// What a transaction has committed.
struct Committed {
    changes: Vec<Box<dyn Change>>,
    /// Files that nothing refers to any more.
    unused: Vec<FileReference>,
}

/// What was sent to the thread.
struct Inbox {
    commands: Receiver<Command>,
    /// A command that has to wait until a transaction is committed.
    next: Option<Command>,
    /// How many changes the latest transaction had.
    latest: usize,
}

impl Inbox {
    fn receive(&mut self, until: Option<Instant>) -> Result<Command, RecvTimeoutError> {
        if let Some(command) = self.next.take() {
            return Ok(command);
        }
        match until {
            None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => self.commands.recv_timeout(until.saturating_duration_since(Instant::now())),
        }
    }

    /// Returns a further change for a transaction: one that waits already, or that arrives while it
    /// is worth waiting. `has_gathered` is whether the transaction has waited.
    fn further_change(&mut self, has_gathered: &mut bool) -> Option<Box<dyn Change>> {
        let mut received = self.commands.try_recv().ok();
        if received.is_none() && self.latest >= GATHER_FROM && !*has_gathered {
            *has_gathered = true;
            // Receiving would wake this thread for every change.
            std::thread::sleep(if self.latest >= LOADED_FROM { LOADED_GATHER_TIME } else { GATHER_TIME });
            received = self.commands.try_recv().ok();
        }
        match received? {
            Command::Change(change) => Some(change),
            other => {
                self.next = Some(other);
                None
            }
        }
    }
}

/// Runs until the store is closed or dropped.
pub(super) fn run(
    disk: &Arc<dyn Disk>,
    in_progress: &InProgress,
    shared: &Shared,
    runtime: &Handle,
    commands: Receiver<Command>,
) {
    let mut inbox = Inbox { commands, next: None, latest: 0 };
    let mut pause = REOPEN_FIRST;
    loop {
        let fault = match open(disk, in_progress) {
            Ok(opened) => {
                pause = REOPEN_FIRST;
                match serve(&**disk, shared, runtime, &mut inbox, opened) {
                    Some(fault) => fault,
                    None => return,
                }
            }
            Err(fault) => fault,
        };
        let until = match &fault {
            Fault::Unavailable(_) => Some(Instant::now() + pause),
            Fault::Damaged(_) => None,
        };
        pause = (pause * 2).min(REOPEN_LONGEST);
        shared.set_fault(fault.clone());
        if refuse(&**disk, shared, &mut inbox, &fault, until) {
            return;
        }
    }
}

/// Refuses what arrives, until it is time to open the store again or an operator has reset it.
/// Returns true if the store is to be closed.
fn refuse(
    disk: &dyn Disk,
    shared: &Shared,
    inbox: &mut Inbox,
    fault: &Fault,
    until: Option<Instant>,
) -> bool {
    loop {
        match inbox.receive(until) {
            Ok(Command::Change(change)) => change.failed(fault.error()),
            Ok(Command::Reset(reply)) => {
                let reset = match fault {
                    Fault::Damaged(_) => set_aside(disk),
                    Fault::Unavailable(_) => Err(not_damaged(fault.error())),
                };
                let is_done = reset.is_ok();
                if is_done {
                    shared.is_tried.send_replace(false);
                }
                let _ = reply.send(reset);
                if is_done {
                    return false;
                }
            }
            Ok(Command::Close(reply)) => {
                let _ = reply.send(());
                return true;
            }
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
}

fn not_damaged(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Conflict, format!("cannot reset the job store, which is not damaged: {why}"))
}

/// Moves the files of the store into a folder beside them, and returns its name.
fn set_aside(disk: &dyn Disk) -> Result<String> {
    let why = |error: std::io::Error| {
        Error::failed(format!("cannot set the files in {} aside: {error}", disk.shown()))
    };
    let now =
        std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let folder = format!("damaged-{}", now.as_millis());
    let names = disk.names().map_err(why)?;
    let names: Vec<String> = names.into_iter().filter(|name| !name.starts_with("damaged-")).collect();
    disk.set_aside(&names, &folder).map_err(why)?;
    Ok(folder)
}

/// Serves an open database. Returns why it must be opened again; `None` if the store was closed.
fn serve(
    disk: &dyn Disk,
    shared: &Shared,
    runtime: &Handle,
    inbox: &mut Inbox,
    opened: Opened,
) -> Option<Fault> {
    let database = Arc::new(opened.database);
    let mut cache = JobCache::default();
    shared.set_open(&database, opened.index, opened.now, opened.damaged);
    let mut outcome = None;
    while let Ok(command) = inbox.receive(None) {
        match command {
            Command::Change(first) => match write(disk, shared, (&database, &mut cache), inbox, first) {
                Ok(Committed { changes, unused }) => {
                    acknowledge(runtime, changes);
                    for file in unused {
                        let _ = disk.remove(&file.name);
                    }
                }
                Err(fault) => {
                    outcome = Some(fault);
                    break;
                }
            },
            Command::Reset(reply) => {
                let why = "it is open; POST /admin/jobs/purge deletes jobs that have ended";
                let _ = reply.send(Err(not_damaged(why)));
            }
            Command::Close(reply) => {
                shared.close();
                close(database);
                let _ = reply.send(());
                return None;
            }
        }
    }
    if let Some(fault) = &outcome {
        shared.set_fault(fault.clone());
    }
    close(database);
    outcome
}

/// Closes the database once nobody reads it.
fn close(database: Arc<Database>) {
    let until = Instant::now() + READERS_TIMEOUT;
    let mut database = Some(database);
    while let Some(shared) = database.take() {
        match Arc::try_unwrap(shared) {
            Ok(database) => drop(database),
            Err(_) if Instant::now() > until => {
                tracing::warn!("job store still being read when it was closed");
            }
            Err(shared) => {
                std::thread::sleep(Duration::from_millis(1));
                database = Some(shared);
            }
        }
    }
}

/// Answers the callers of changes that are committed. Waking many tasks from this thread costs as
/// much as their changes, so a task of the runtime does it.
fn acknowledge(runtime: &Handle, committed: Vec<Box<dyn Change>>) {
    if committed.len() < TASK_FROM {
        committed.into_iter().for_each(Change::committed);
    } else {
        runtime.spawn(async move { committed.into_iter().for_each(Change::committed) });
    }
}

/// Applies a change and those that wait behind it, and commits them.
fn write(
    disk: &dyn Disk,
    shared: &Shared,
    (database, cache): (&Database, &mut JobCache),
    inbox: &mut Inbox,
    first: Box<dyn Change>,
) -> Result<Committed, Fault> {
    let mut applied: Vec<Box<dyn Change>> = Vec::new();
    let mut next = Some(first);
    let mut has_gathered = false;
    let transact = || {
        let transaction = database.begin_write().attempted("cannot begin a change")?;
        let mut tables = Tables::open(&transaction, cache)?;
        while let Some(mut change) = next.take() {
            let outcome = apply(shared, &mut tables, &mut *change);
            applied.push(change);
            outcome?;
            if applied.len() < BATCH_MAX {
                next = inbox.further_change(&mut has_gathered);
            }
        }
        inbox.latest = applied.len();
        tables.set_meta(CLOCK_KEY, shared.now().0)?;
        let (unused, changed) = (std::mem::take(&mut tables.unused), std::mem::take(&mut tables.changed));
        drop(tables);
        transaction.commit().attempted("cannot write")?;
        Ok::<_, Fault>((unused, changed))
    };
    match catch_panics(|| format!("cannot write in {}", disk.shown()), transact) {
        Ok((unused, changed)) => {
            shared.update_usage();
            shared.announce(&changed);
            Ok(Committed { changes: applied, unused })
        }
        Err(fault) => {
            applied.into_iter().chain(next).for_each(|change| change.failed(fault.error()));
            Err(fault)
        }
    }
}

fn apply(shared: &Shared, tables: &mut Tables<'_>, change: &mut dyn Change) -> Result<(), Fault> {
    let now = shared.now();
    tables.now = now;
    let mut state = shared.state.lock_unpoisoned();
    let State { index, .. } = &mut *state;
    change.apply(&mut Engine { index, records: tables, now })
}
